#include "skeleton/difference.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "objects/values.h"
#include "python/interpreter.h"
#include "skeleton/closures.h"
#include "skeleton/compare.h"
#include "skeleton/describe.h"
#include "skeleton/flatten.h"
#include "skeleton/match.h"
#include "skeleton/parts.h"
#include "skeleton/places.h"
#include "skeleton/route.h"

namespace autojit {

namespace {

// Whether a node is one of some keys of a program. What is no value counts as one.
bool is_among(const Program& program, const std::vector<std::size_t>& keys,
              const Node& node) {
  return !is_value(node.kind) ||
         std::any_of(keys.begin(), keys.end(), [&](std::size_t key) {
           return program.nodes[key].kind == node.kind &&
                  same_value(node.kind, node.object, program.nodes[key].object);
         });
}

// The first key of one that is no key of the other; the number of nodes if there is
// none.
std::size_t key_of_one(const Program& a, std::size_t x, const Program& b,
                       std::size_t y) {
  std::vector<std::size_t> others = keys_of(b, y);
  for (std::size_t key : keys_of(a, x)) {
    if (!is_among(b, others, a.nodes[key])) {
      return key;
    }
  }
  return a.nodes.size();
}

// The last node before `index` that has it as a key, or `index`.
std::size_t holder_of_key(const Program& program, std::size_t index) {
  for (std::size_t i = index; i-- != 0;) {
    const Node& node = program.nodes[i];
    if ((has_pairs(node) || is_set(node)) && end_of(program, i) > index) {
      std::vector<std::size_t> keys = keys_of(program, i);
      return std::find(keys.begin(), keys.end(), index) != keys.end() ? i : index;
    }
  }
  return index;
}

// What a reader is told: where, what has changed, and what the first of two has there.
// Nothing if there is none, or with an exception set.
struct Difference {
  Owned where;
  Owned change;
  Owned first;

  explicit operator bool() const { return where && change && first; }
};

template <typename... Args>
Owned words(const char* format, Args... args) {
  return Owned::steal(PyUnicode_FromFormat(format, args...));
}

// What was and what is, with the first characters in which they differ.
Difference was_and_is(Owned where, const Owned& was, const Owned& is) {
  Py_ssize_t end =
      std::min(PyUnicode_GET_LENGTH(was.get()), PyUnicode_GET_LENGTH(is.get()));
  Py_ssize_t same = 0;
  while (same < end &&
         PyUnicode_READ_CHAR(was.get(), same) == PyUnicode_READ_CHAR(is.get(), same)) {
    ++same;
  }
  Owned before = abridged(was, same);
  Owned now = before ? abridged(is, same) : Owned();
  if (!now) {
    return {};
  }
  return {std::move(where), words("was %U, now %U", before.get(), now.get()),
          words("is %U", before.get())};
}

Owned text_at(const Program& program, std::size_t index) {
  const Node& node = program.nodes[index];
  if (node.kind == Kind::Leaf) {
    return Owned::steal(PyUnicode_FromString("a jax.Array"));
  }
  if (node.kind == Kind::Traced) {
    return Owned::steal(PyUnicode_FromString("a traced number or array"));
  }
  if (is_value(node.kind) && PyFunction_Check(node.object)) {
    auto* function = reinterpret_cast<PyFunctionObject*>(node.object);
    auto* code = reinterpret_cast<PyCodeObject*>(function->func_code);
    return Owned::steal(PyUnicode_FromFormat("the function %U (%U:%d)",
                                             function->func_qualname, code->co_filename,
                                             code->co_firstlineno));
  }
  Owned text = describe_part(program, index);
  return text && node.kind == Kind::NumpyArray
             ? Owned::steal(PyUnicode_FromFormat("a numpy %U", text.get()))
             : std::move(text);
}

Owned short_text_at(const Program& program, std::size_t index) {
  Owned text = text_at(program, index);
  return text ? abridged(text, 0) : Owned();
}

// How two objects with keys tell themselves apart by these; nothing without an
// exception if they don't.
Difference difference_of_keys(const Program& a, const Program& b, const char* root,
                              std::size_t index) {
  std::size_t gone = key_of_one(a, index, b, index);
  std::size_t come = key_of_one(b, index, a, index);
  bool has_come = come != b.nodes.size();
  if (has_come || gone != a.nodes.size()) {
    Owned key = has_come ? short_text_at(b, come) : short_text_at(a, gone);
    if (!key) {
      return {};
    }
    return {path(b, root, index),
            words(has_come ? "has now %U" : "has no longer %U", key.get()),
            words(has_come ? "has no %U" : "has %U", key.get())};
  }
  if (has_pairs(a.nodes[index]) && a.nodes[index].size != b.nodes[index].size) {
    return {path(b, root, index),
            words("had %u keys, has now %u", a.nodes[index].size, b.nodes[index].size),
            words("has %u keys", a.nodes[index].size)};
  }
  return {};
}

// The number by which an object is known that occurs more than once, or 0.
std::uint32_t slot_of(const Node& node) {
  if (node.kind == Kind::Ref) {
    return node.size;
  }
  return has_slot(node) ? node.extra : 0;
}

// Where else an object stands that occurs more than once.
Owned other_place(const Program& program, const char* root, std::size_t index) {
  std::uint32_t slot = slot_of(program.nodes[index]);  // not 0
  for (std::size_t other = 0; other < program.nodes.size(); ++other) {
    if (other != index && slot_of(program.nodes[other]) == slot) {
      return path(program, root, other);
    }
  }
  return Owned::steal(PyUnicode_FromString("another part"));
}

bool is_only_shared_otherwise(const Program& a, const Program& b, std::size_t index) {
  const Node& x = a.nodes[index];
  const Node& y = b.nodes[index];
  return x.kind == Kind::Ref || y.kind == Kind::Ref ||
         (x.kind == y.kind && parts_of(a, x) == parts_of(b, y) && has_slot(x) &&
          has_slot(y) && x.extra != y.extra);
}

Difference difference_of_sharing(const Program& a, const Program& b, const char* root,
                                 std::size_t index) {
  bool is_now = slot_of(b.nodes[index]) != 0;
  Owned other = other_place(is_now ? b : a, root, index);
  if (!other) {
    return {};
  }
  return {path(b, root, index),
          words(is_now ? "is now the same object as %U"
                       : "is no longer the same object as %U",
                other.get()),
          words(is_now ? "is not the same object as %U" : "is the same object as %U",
                other.get())};
}

// What stands for the content of an object that is not seen in its parts, or nullptr.
Skeleton* content_of(const Program& program, std::size_t index) {
  const Node& node = program.nodes[index];
  if (node.kind == Kind::Owner) {
    return as_skeleton(program.contents[node.size]);
  }
  bool has_one = node.kind == Kind::Reduce && program.nodes[index + 1].extra != 0;
  return has_one ? as_skeleton(program.contents[program.nodes[index + 1].extra - 1])
                 : nullptr;
}

Difference difference_at(const Program& a, const Program& b, const char* root,
                         std::size_t index) {
  const Node& x = a.nodes[index];
  const Node& y = b.nodes[index];
  if (x.kind == Kind::Call) {
    Owned none = Owned::steal(PyTuple_New(0));
    if (!none) {
      return {};
    }
    PyObject* had = x.object != nullptr ? x.object : none.get();
    PyObject* has = y.object != nullptr ? y.object : none.get();
    return {words("the call"),
            words("had %u positional arguments and the keywords %R, has now %u and %R",
                  x.size, had, y.size, has),
            words("has %u positional arguments and the keywords %R", x.size, had)};
  }
  std::size_t holder = holder_of_key(a, index);
  bool is_one_class = x.kind == y.kind && owned_object(x) == owned_object(y);
  bool is_larger = is_one_class && x.size != y.size;
  if (holder != index || (is_larger && (has_pairs(x) || is_set(x)))) {
    Difference found = difference_of_keys(a, b, root, holder);
    if (found || PyErr_Occurred() != nullptr) {
      return found;
    }
  }
  if (holder != index && has_pairs(a.nodes[holder]) && is_value(x.kind) &&
      is_value(y.kind)) {
    Owned was = short_text_at(a, index);
    Owned is = was ? short_text_at(b, index) : Owned();
    if (!is) {
      return {};
    }
    return {
        path(a, root, holder),
        words("has its keys in another order, %U where %U was", is.get(), was.get()),
        words("has its keys in another order, with %U here", was.get())};
  }
  if (is_only_shared_otherwise(a, b, index)) {
    return difference_of_sharing(a, b, root, index);
  }
  Owned where = path(b, root, index);
  if (where && is_one_class && row_of(x.kind).size == Size::Items && x.size != y.size) {
    return {std::move(where), words("had %u items, has now %u", x.size, y.size),
            words("has %u items", x.size)};
  }
  Skeleton* before = is_one_class ? content_of(a, index) : nullptr;
  Skeleton* now = is_one_class ? content_of(b, index) : nullptr;
  std::size_t inner = 0;
  if (where && before != nullptr && now != nullptr) {
    const char* inner_root = PyUnicode_AsUTF8(where.get());
    if (inner_root == nullptr ||
        !first_difference(before->program, now->program, inner)) {
      return {};
    }
    if (inner < std::min(before->program.nodes.size(), now->program.nodes.size())) {
      return difference_at(before->program, now->program, inner_root, inner);
    }
  }
  Owned was = where ? text_at(a, index) : Owned();
  Owned is = was ? text_at(b, index) : Owned();
  if (!is) {
    return {};
  }
  if (PyUnicode_Compare(was.get(), is.get()) == 0) {
    Owned both = abridged(is, 0);
    if (!both) {
      return {};
    }
    return {std::move(where), words("was %U, now another", both.get()),
            words("is another than %U", both.get())};
  }
  return was_and_is(std::move(where), was, is);
}

// The same for what functions hold and read. The parts of a program of closures are the
// functions, one after the other, and then what they read.
Difference difference_of_functions(Skeleton* before, Skeleton* now) {
  PyObject* first = closures_of(before);
  PyObject* second = first != nullptr ? closures_of(now) : nullptr;
  if (second == nullptr) {
    return {};
  }
  const Program& call = now->program;
  std::size_t function = 0;
  Owned read;
  Difference inner;
  if (first != Py_None && second != Py_None) {
    Owned held_first = Owned::borrow(first);
    Owned held_second = Owned::borrow(second);
    const Program& a = as_skeleton(first)->program;
    const Program& b = as_skeleton(second)->program;
    std::size_t index = 0;
    if (!first_difference(a, b, index)) {
      return {};
    }
    std::size_t part = 0;
    std::size_t at = 0;
    while (index < a.nodes.size() && end_of(a, at) <= index) {
      at = end_of(a, at);
      ++part;
    }
    bool is_in_both = index < std::min(a.nodes.size(), b.nodes.size());
    function = std::min(part, call.functions.size() - 1);
    if (part >= call.functions.size() &&
        part - call.functions.size() < a.holders.size()) {
      read = describe_read(a, part - call.functions.size());
    } else if (is_in_both) {
      inner = difference_at(a, b, "", index);
    }
    if (PyErr_Occurred() != nullptr) {
      return {};
    }
  }
  std::size_t node = 0;
  while (call.nodes[node].kind != Kind::Function || call.nodes[node].size != function) {
    ++node;
  }
  Owned where = path(call, now->root, node);
  if (where && inner) {
    inner.where = words("%U%U", where.get(), inner.where.get());
    return inner;
  }
  if (read) {
    return {std::move(where),
            words("a function that reads %U, which differs", read.get()),
            words("is a function that reads %U, which differs", read.get())};
  }
  return {std::move(where), words("another function"), words("is another function")};
}

// The first difference; nothing, without an exception, if there is none.
Difference first_of_all(Skeleton* before, Skeleton* now) {
  const Program& a = before->program;
  const Program& b = now->program;
  std::size_t index = 0;
  if (!first_difference(a, b, index)) {
    return {};
  }
  if (index < std::min(a.nodes.size(), b.nodes.size())) {
    return difference_at(a, b, now->root, index);
  }
  return equal(before, now) == 0 ? difference_of_functions(before, now) : Difference();
}

// Appends a new reference. False with an exception set on failure.
bool append(const Owned& list, const Owned& item) {
  return list && item && PyList_Append(list.get(), item.get()) == 0;
}

// The path of what a reader would say has changed: of a key, what has it; of what an
// object is made from, the object.
Owned place_of(const Program& program, const char* root, std::size_t index) {
  std::size_t place = holder_of_key(program, index);
  Route route(program);
  route.advance_to(place);
  const std::vector<Way>& ways = route.ways();
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const Node& node = program.nodes[ways[i].node];
    if (node.kind != Kind::Reduce) {
      continue;
    }
    std::size_t next = i + 1 < ways.size() ? ways[i + 1].node : place;
    std::uint32_t part = reduce_part(node, ways[i].part);
    bool is_attribute = part == kState && program.nodes[next].kind == Kind::Dict;
    if (!is_attribute && part != kListItems && part != kDictItems) {
      return path(program, root, ways[i].node);
    }
  }
  return path(program, root, place);
}

// Whether a class computes an attribute once and keeps it: nothing is lost with it.
bool is_cached_property(PyTypeObject* type, PyObject* name) {
  PyObject* found = python::type_lookup(type, name);
  return found != nullptr &&
         std::string_view(Py_TYPE(found)->tp_name).ends_with("cached_property");
}

// Appends a path that is not there yet. False with an exception set on failure.
bool append_path(const Owned& list, const Owned& text) {
  int known = list && text ? PySequence_Contains(list.get(), text.get()) : -1;
  return known == 1 || (known == 0 && append(list, text));
}

// The paths of the attributes that an instance has got, and of itself if it has lost
// some. False with an exception set on failure.
bool append_attributes(const Program& before, const Program& after,
                       const Differing& parts, const Owned& list) {
  Owned where = path(before, "", parts.before);
  std::vector<std::size_t> known = keys_of(before, parts.before);
  std::size_t kept = 0;
  for (std::size_t key : keys_of(after, parts.now)) {
    const Node& name = after.nodes[key];
    bool is_known = is_among(before, known, name);
    kept += is_known ? 1U : 0U;
    if (is_known ||
        is_cached_property(after.nodes[parts.now].plan->type, name.object)) {
      continue;
    }
    Owned text = Owned::steal(
        where ? PyUnicode_FromFormat("%U.%S", where.get(), name.object) : nullptr);
    if (!append_path(list, text)) {
      return false;
    }
  }
  return where && (kept == known.size() || append_path(list, where));
}

// How many paths of lost changes a reader wants to see, and one that says there are
// more.
constexpr Py_ssize_t kMostLost = 6;

}  // namespace

Owned differences(const Skeleton* before, const Skeleton* now, std::size_t most) {
  const Program& a = before->program;
  const Program& b = now->program;
  std::vector<Differing> found;
  if (!differing_parts(a, b, nullptr, most, found)) {
    return {};
  }
  Owned list = Owned::steal(PyList_New(0));
  for (const Differing& parts : found) {
    Owned where = place_of(b, now->root, parts.now);
    Owned was = where ? short_text_at(a, parts.before) : Owned();
    Owned is = was ? short_text_at(b, parts.now) : Owned();
    PyObject* could_be = could_be_traced(b, parts.now) ? Py_True : Py_False;
    Owned item = Owned::steal(
        is ? PyTuple_Pack(4, where.get(), was.get(), is.get(), could_be) : nullptr);
    if (!append(list, item)) {
      return {};
    }
  }
  return list;
}

Owned lost_changes(const Skeleton* before, PyObject* const* leaves, PyObject* result,
                   CallView& after) {
  const Program& call = before->program;
  // Most functions change nothing: to see that, nothing need be taken apart.
  MatchedLeaves matched(call.leaves);
  NodeObjects opaque;
  after.hold();
  Match match = match_held_call(call, after, matched.data(), opaque);
  if (match == Match::Error) {
    return {};
  }
  if (match == Match::Yes && std::equal(leaves, leaves + call.leaves, matched.data())) {
    return Owned::steal(PyList_New(0));
  }
  Program now;
  OwnedVector leaves_now;
  if (!flatten_after(result, after, now, leaves_now)) {
    return {};
  }
  const Returned returned{end_of(now, 1), leaves, leaves_now};
  std::vector<Differing> found;
  if (!differing_parts(call, now, &returned, SIZE_MAX, found)) {
    return {};
  }
  Owned list = Owned::steal(PyList_New(0));
  for (const Differing& parts : found) {
    const Node& x = call.nodes[parts.before];
    const Node& y = now.nodes[parts.now];
    bool is_one_class =
        x.kind == Kind::Instance && y.kind == Kind::Instance && x.plan == y.plan;
    if (!(is_one_class
              ? append_attributes(call, now, parts, list)
              : append_path(list, place_of(call, before->root, parts.before)))) {
      return {};
    }
    if (PyList_GET_SIZE(list.get()) >= kMostLost) {
      break;
    }
  }
  return list;
}

std::size_t distance(const Skeleton* first, const Skeleton* second) {
  const std::vector<Node>& a = first->program.nodes;
  const std::vector<Node>& b = second->program.nodes;
  std::size_t most = std::max(a.size(), b.size());
  std::size_t differ = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i].kind != b[i].kind || (a[i].size != b[i].size && !is_value(a[i].kind))) {
      return differ + 2 * most - i;
    }
    if (is_value(a[i].kind) && !same_value(a[i].kind, a[i].object, b[i].object)) {
      ++differ;
    }
  }
  return differ + most - std::min(a.size(), b.size());
}

Owned difference(Skeleton* before, Skeleton* now) {
  Difference found = first_of_all(before, now);
  if (found) {
    return words("%U: %U", found.where.get(), found.change.get());
  }
  return Owned::borrow(PyErr_Occurred() == nullptr ? Py_None : nullptr);
}

Owned difference_as_first(Skeleton* first, Skeleton* other) {
  Difference found = first_of_all(first, other);
  if (found) {
    return words("%U %U", found.where.get(), found.first.get());
  }
  return Owned::borrow(PyErr_Occurred() == nullptr ? Py_None : nullptr);
}

}  // namespace autojit
