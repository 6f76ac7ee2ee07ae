#include "skeleton/difference.h"

#include <algorithm>
#include <vector>

#include "objects/values.h"
#include "skeleton/closures.h"
#include "skeleton/compare.h"
#include "skeleton/describe.h"

namespace autojit {

namespace {

bool has_pairs(const Node& node) {
  Size size = row_of(node.kind).size;
  return size == Size::Pairs || size == Size::Attributes;
}

// The nodes of the keys of a dict, or of the names of an instance's attributes.
std::vector<std::size_t> keys_of(const Program& program, std::size_t index) {
  const Node& node = program.nodes[index];
  std::size_t at = index + (has_extent(node) ? 2U : 1U);
  for (std::size_t named = named_parts(row_of(node.kind)); named != 0; --named) {
    at = end_of(program, at);
  }
  std::vector<std::size_t> keys;
  for (std::uint32_t i = 0; i < node.size; ++i) {
    keys.push_back(at);
    at = end_of(program, end_of(program, at));
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
    if (has_pairs(program.nodes[i]) && end_of(program, i) > index) {
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

// How two objects with keys tell themselves apart by these; nothing without an
// exception if they don't.
Owned difference_of_keys(const Program& a, const Program& b, const char* root,
                         std::size_t index) {
  std::size_t gone = key_of_one(a, index, b, index);
  std::size_t come = key_of_one(b, index, a, index);
  if (come != b.nodes.size()) {
    return join(path(b, root, index), "has now ", describe_part(b, come));
  }
  if (gone != a.nodes.size()) {
    return join(path(a, root, index), "has no longer ", describe_part(a, gone));
  }
  return {};
}

Owned text_at(const Program& program, std::size_t index) {
  return program.nodes[index].kind == Kind::Leaf
             ? Owned::steal(PyUnicode_FromString("an array"))
             : describe_part(program, index);
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
  if (holder != index || (x.kind == y.kind && has_pairs(x) && x.size != y.size)) {
    Owned text = difference_of_keys(a, b, root, holder);
    if (text || PyErr_Occurred() != nullptr) {
      return text;
    }
  }
  if (holder != index) {
    Owned was = describe_part(a, index);
    Owned is = was ? describe_part(b, index) : Owned();
    Owned where = is ? path(a, root, holder) : Owned();
    return Owned::steal(
        where
            ? PyUnicode_FromFormat("%U: has its keys in another order, %U where %U was",
                                   where.get(), is.get(), was.get())
            : nullptr);
  }
  Owned where = path(b, root, index);
  bool is_same_kind = x.kind == y.kind && parts_of(a, x) == parts_of(b, y);
  if (where && ((is_same_kind && has_slot(x) && has_slot(y) && x.extra != y.extra) ||
                x.kind == Kind::Ref || y.kind == Kind::Ref)) {
    return Owned::steal(PyUnicode_FromFormat(
        "%U: is the same object as in another place, or no longer is", where.get()));
  }
  if (where && x.kind == y.kind && row_of(x.kind).size == Size::Items &&
      x.size != y.size && x.object == y.object) {
    return Owned::steal(PyUnicode_FromFormat("%U: had %u items, has now %u",
                                             where.get(), x.size, y.size));
  }
  Owned was = where ? text_at(a, index) : Owned();
  Owned is = was ? text_at(b, index) : Owned();
  if (!is) {
    return {};
  }
  if (PyUnicode_Compare(was.get(), is.get()) == 0) {
    return Owned::steal(PyUnicode_FromFormat("%U: another %U", where.get(), is.get()));
  }
  return Owned::steal(
      PyUnicode_FromFormat("%U: was %U, now %U", where.get(), was.get(), is.get()));
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
      inner = describe_read(a, part - call.functions.size());
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
  return Owned::steal(
      where ? PyUnicode_FromFormat(inner ? "%U: a function that differs in %V"
                                         : "%U: another function%V",
                                   where.get(), inner.get(), "")
            : nullptr);
}

}  // namespace

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
