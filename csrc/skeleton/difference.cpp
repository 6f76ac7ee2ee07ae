#include "skeleton/difference.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "objects/type_plan.h"
#include "objects/values.h"
#include "python/interpreter.h"
#include "skeleton/closures.h"
#include "skeleton/compare.h"
#include "skeleton/describe.h"
#include "skeleton/flatten.h"
#include "skeleton/parts.h"

namespace autojit {

namespace {

bool has_pairs(const Node& node) {
  Size size = row_of(node.kind).size;
  return size == Size::Pairs || size == Size::Attributes;
}

bool is_set(const Node& node) {
  return node.kind == Kind::Set || node.kind == Kind::FrozenSet;
}

// The nodes of the keys of a dict, of the names of an instance's attributes, or of the
// elements of a set.
std::vector<std::size_t> keys_of(const Program& program, std::size_t index) {
  const Node& node = program.nodes[index];
  std::size_t at = index + (has_extent(node) ? 2U : 1U);
  for (std::size_t named = named_parts(row_of(node.kind)); named != 0; --named) {
    at = end_of(program, at);
  }
  std::vector<std::size_t> keys;
  for (std::uint32_t i = 0; i < node.size; ++i) {
    keys.push_back(at);
    at = end_of(program, at);
    at = is_set(node) ? at : end_of(program, at);
  }
  return keys;
}

// The first key of one that is no key of the other; the number of nodes if there is
// none. What is no value counts as in both.
std::size_t key_of_one(const Program& a, std::size_t x, const Program& b,
                       std::size_t y) {
  std::vector<std::size_t> others = keys_of(b, y);
  for (std::size_t key : keys_of(a, x)) {
    const Node& node = a.nodes[key];
    bool is_in_both =
        !is_value(node.kind) ||
        std::any_of(others.begin(), others.end(), [&](std::size_t other) {
          return b.nodes[other].kind == node.kind &&
                 same_value(node.kind, node.object, b.nodes[other].object);
        });
    if (!is_in_both) {
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

Owned join(Owned path, const char* text, Owned object) {
  return Owned::steal(
      path && object ? PyUnicode_FromFormat("%U: %s%U", path.get(), text, object.get())
                     : nullptr);
}

// A text that is not too long, by what stands around a place in it.
Owned abridged(const Owned& text, Py_ssize_t around) {
  constexpr Py_ssize_t kMost = 80;
  constexpr Py_ssize_t kBefore = 30;
  Py_ssize_t size = PyUnicode_GET_LENGTH(text.get());
  if (size <= kMost) {
    return Owned::borrow(text.get());
  }
  Py_ssize_t begin = std::clamp<Py_ssize_t>(around - kBefore, 0, size - kMost);
  Owned part = Owned::steal(PyUnicode_Substring(text.get(), begin, begin + kMost));
  return Owned::steal(part ? PyUnicode_FromFormat("%s%U%s", begin > 0 ? "... " : "",
                                                  part.get(),
                                                  begin + kMost < size ? " ..." : "")
                           : nullptr);
}

// What was and what is, with the first characters in which they differ.
Owned was_and_is(const Owned& where, const Owned& was, const Owned& is) {
  Py_ssize_t end =
      std::min(PyUnicode_GET_LENGTH(was.get()), PyUnicode_GET_LENGTH(is.get()));
  Py_ssize_t same = 0;
  while (same < end &&
         PyUnicode_READ_CHAR(was.get(), same) == PyUnicode_READ_CHAR(is.get(), same)) {
    ++same;
  }
  Owned before = abridged(was, same);
  Owned now = before ? abridged(is, same) : Owned();
  return Owned::steal(now ? PyUnicode_FromFormat("%U: was %U, now %U", where.get(),
                                                 before.get(), now.get())
                          : nullptr);
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
Owned difference_of_keys(const Program& a, const Program& b, const char* root,
                         std::size_t index) {
  std::size_t gone = key_of_one(a, index, b, index);
  std::size_t come = key_of_one(b, index, a, index);
  if (come != b.nodes.size()) {
    return join(path(b, root, index), "has now ", short_text_at(b, come));
  }
  if (gone != a.nodes.size()) {
    return join(path(a, root, index), "has no longer ", short_text_at(a, gone));
  }
  if (has_pairs(a.nodes[index]) && a.nodes[index].size != b.nodes[index].size) {
    Owned where = path(b, root, index);
    return Owned::steal(where ? PyUnicode_FromFormat("%U: had %u keys, has now %u",
                                                     where.get(), a.nodes[index].size,
                                                     b.nodes[index].size)
                              : nullptr);
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

Owned difference_of_sharing(const Program& a, const Program& b, const char* root,
                            std::size_t index) {
  Owned where = path(b, root, index);
  if (where && slot_of(b.nodes[index]) != 0) {
    Owned other = other_place(b, root, index);
    return Owned::steal(other ? PyUnicode_FromFormat("%U: is now the same object as %U",
                                                     where.get(), other.get())
                              : nullptr);
  }
  Owned other = where ? other_place(a, root, index) : Owned();
  return Owned::steal(
      other ? PyUnicode_FromFormat("%U: is no longer the same object as %U",
                                   where.get(), other.get())
            : nullptr);
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

Owned difference_at(const Program& a, const Program& b, const char* root,
                    std::size_t index) {
  const Node& x = a.nodes[index];
  const Node& y = b.nodes[index];
  if (x.kind == Kind::Call) {
    Owned none = Owned::steal(PyTuple_New(0));
    return Owned::steal(
        none ? PyUnicode_FromFormat("the call: had %u positional arguments and the "
                                    "keywords %R, has now %u and %R",
                                    x.size, x.object != nullptr ? x.object : none.get(),
                                    y.size, y.object != nullptr ? y.object : none.get())
             : nullptr);
  }
  std::size_t holder = holder_of_key(a, index);
  bool is_one_class = x.kind == y.kind && owned_object(x) == owned_object(y);
  bool is_larger = is_one_class && x.size != y.size;
  if (holder != index || (is_larger && (has_pairs(x) || is_set(x)))) {
    Owned text = difference_of_keys(a, b, root, holder);
    if (text || PyErr_Occurred() != nullptr) {
      return text;
    }
  }
  if (holder != index && has_pairs(a.nodes[holder]) && is_value(x.kind) &&
      is_value(y.kind)) {
    Owned was = short_text_at(a, index);
    Owned is = was ? short_text_at(b, index) : Owned();
    Owned where = is ? path(a, root, holder) : Owned();
    return Owned::steal(
        where
            ? PyUnicode_FromFormat("%U: has its keys in another order, %U where %U was",
                                   where.get(), is.get(), was.get())
            : nullptr);
  }
  if (is_only_shared_otherwise(a, b, index)) {
    return difference_of_sharing(a, b, root, index);
  }
  Owned where = path(b, root, index);
  if (where && is_one_class && row_of(x.kind).size == Size::Items && x.size != y.size) {
    return Owned::steal(PyUnicode_FromFormat("%U: had %u items, has now %u",
                                             where.get(), x.size, y.size));
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
    Owned text = abridged(is, 0);
    return Owned::steal(
        text ? PyUnicode_FromFormat("%U: another %U", where.get(), text.get())
             : nullptr);
  }
  return was_and_is(where, was, is);
}

// The same for what functions hold and read. The parts of a program of closures are the
// functions, one after the other, and then what they read.
Owned difference_of_functions(Skeleton* before, Skeleton* now) {
  PyObject* first = closures_of(before);
  PyObject* second = first != nullptr ? closures_of(now) : nullptr;
  if (second == nullptr) {
    return {};
  }
  const Program& call = now->program;
  std::size_t function = 0;
  Owned read;
  Owned inner;
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
    return Owned::steal(PyUnicode_FromFormat("%U%U", where.get(), inner.get()));
  }
  return Owned::steal(
      where ? PyUnicode_FromFormat(read ? "%U: a function that reads %V, which differs"
                                        : "%U: another function%V",
                                   where.get(), read.get(), "")
            : nullptr);
}

}  // namespace

namespace {

// Appends a new reference. False with an exception set on failure.
bool append(const Owned& list, const Owned& item) {
  return list && item && PyList_Append(list.get(), item.get()) == 0;
}

// The path of what a reader would say has changed: of a key, what has it.
Owned place_of(const Program& program, const char* root, std::size_t index) {
  return path(program, root, holder_of_key(program, index));
}

// Whether a class computes an attribute once and keeps it: nothing is lost with it.
bool is_cached_property(PyTypeObject* type, PyObject* name) {
  PyObject* found = python::type_lookup(type, name);
  return found != nullptr &&
         std::string_view(Py_TYPE(found)->tp_name).ends_with("cached_property");
}

// The paths of the attributes that an instance has got. False with an exception set on
// failure.
bool append_new_attributes(const Program& before, const Program& after,
                           const Differing& parts, const Owned& list) {
  Owned where = path(before, "", parts.before);
  for (std::size_t key : keys_of(after, parts.now)) {
    const Node& name = after.nodes[key];
    std::vector<std::size_t> known = keys_of(before, parts.before);
    bool is_new = std::none_of(known.begin(), known.end(), [&](std::size_t other) {
      return before.nodes[other].kind == name.kind &&
             same_value(name.kind, before.nodes[other].object, name.object);
    });
    if (!is_new || is_cached_property(after.nodes[parts.now].plan->type, name.object)) {
      continue;
    }
    Owned text = Owned::steal(
        where ? PyUnicode_FromFormat("%U.%S", where.get(), name.object) : nullptr);
    if (!append(list, text)) {
      return false;
    }
  }
  return static_cast<bool>(where);
}

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
    Owned item =
        Owned::steal(is ? PyTuple_Pack(3, where.get(), was.get(), is.get()) : nullptr);
    if (!append(list, item)) {
      return {};
    }
  }
  return list;
}

Owned lost_changes(const Skeleton* before, PyObject* const* leaves, PyObject* result,
                   CallView& after) {
  Program now;
  OwnedVector leaves_now;
  if (!flatten_after(result, after, now, leaves_now)) {
    return {};
  }
  const Program& call = before->program;
  const Returned returned{end_of(now, 1), leaves, leaves_now};
  std::vector<Differing> found;
  if (!differing_parts(call, now, &returned, SIZE_MAX, found)) {
    return {};
  }
  Owned list = Owned::steal(PyList_New(0));
  for (const Differing& parts : found) {
    const Node& x = call.nodes[parts.before];
    const Node& y = now.nodes[parts.now];
    if (x.kind == Kind::Instance && y.kind == Kind::Instance && x.plan == y.plan &&
        x.size < y.size) {
      if (!append_new_attributes(call, now, parts, list)) {
        return {};
      }
    } else if (!append(list, place_of(call, before->root, parts.before))) {
      return {};
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
      return 2 * most - i;
    }
    if (is_value(a[i].kind) && !same_value(a[i].kind, a[i].object, b[i].object)) {
      ++differ;
    }
  }
  return differ + most - std::min(a.size(), b.size());
}

Owned difference(Skeleton* before, Skeleton* now) {
  const Program& a = before->program;
  const Program& b = now->program;
  std::size_t index = 0;
  if (!first_difference(a, b, index)) {
    return {};
  }
  if (index < std::min(a.nodes.size(), b.nodes.size())) {
    return difference_at(a, b, now->root, index);
  }
  int same = equal(before, now);
  if (same != 0) {
    return same < 0 ? Owned() : Owned::borrow(Py_None);
  }
  return difference_of_functions(before, now);
}

}  // namespace autojit
