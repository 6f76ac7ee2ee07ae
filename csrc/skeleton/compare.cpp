#include "skeleton/compare.h"

#include <algorithm>

#include "objects/opaque.h"
#include "objects/values.h"
#include "python/hashing.h"
#include "python/numpy.h"
#include "python/recursion.h"
#include "skeleton/closures.h"

namespace autojit {

namespace {

// The `size` of a node as far as it tells nodes apart: the number of an Owner's content
// does not.
std::uint32_t counting_size(const Node& node) {
  return node.kind == Kind::Owner || node.kind == Kind::Constant ? 0 : node.size;
}

// Mixes in the hash of another object. False with an exception set on failure.
bool mix_hash_of(PyObject* object, std::uint64_t& mixed) {
  Py_hash_t hashed = PyObject_Hash(object);
  mixed = mix(mixed, static_cast<std::uint64_t>(hashed));
  return hashed != -1;
}

// The hash of what a node is, without its parts. False with an exception set on
// failure.
bool mix_payload(const Program& program, const Node& node, std::uint64_t& mixed) {
  switch (row_of(node.kind).payload) {
    case Payload::Value:
      if (node.kind != Kind::Function) {
        mixed = mix(mixed, hash_value(node.kind, node.object));
        return true;
      }
      // Not what it holds: calling it may change that.
      mixed = mix(mixed, hash_address(program.codes[node.size]));
      mixed = mix(mixed, hash_address(PyFunction_GET_GLOBALS(node.object)));
      return true;
    case Payload::Whole:
      break;
    case Payload::Class:
      mixed = mix(mixed, hash_address(node.object));
      return true;
    case Payload::Plan:
      mixed = mix(mixed, hash_address(node.plan->type));
      return true;
    case Payload::Copy:
      if (node.kind == Kind::NumpyArray) {
        mixed = mix(mixed, numpy::hash(node.object));
        return true;
      }
      return mix_hash_of(node.object, mixed);
    case Payload::Keywords:
      return node.object == nullptr || mix_hash_of(node.object, mixed);
    case Payload::Number:
      return node.extra == 0 || mix_hash_of(program.contents[node.extra - 1], mixed);
    case Payload::None:
    case Payload::Memo:
    case Payload::Folded:
      return true;
  }
  switch (node.kind) {
    case Kind::Opaque: {
      Py_hash_t hashed = 0;
      bool done = hash_opaque(node.object, hashed);
      mixed = mix(mixed, static_cast<std::uint64_t>(hashed));
      return done;
    }
    case Kind::Owner:
      mixed = mix(mixed, hash_address(node.object));
      return mix_hash_of(program.contents[node.size], mixed);
    case Kind::Constant:
      mixed = mix(mixed, hash_address(Py_TYPE(node.object)));
      return mix_hash_of(program.contents[node.size], mixed);
    case Kind::Stateless:
      mixed = mix(mixed, node.size != 0 ? hash_address(Py_TYPE(node.object))
                                        : hash_address(node.object));
      return true;
    default:  // a closure: its parts say what it is
      return true;
  }
}

}  // namespace

Py_hash_t hash(const Program& program) {
  std::uint64_t mixed = program.nodes.size();
  python::Signals signals;
  for (const Node& node : program.nodes) {
    mixed = mix(mixed, static_cast<std::uint64_t>(node.kind));
    mixed = mix(mixed, counting_size(node));
    if (!signals.look() || !mix_payload(program, node, mixed)) {
      return -1;
    }
  }
  auto result = static_cast<Py_hash_t>(mixed);
  return result == -1 ? -2 : result;
}

namespace {

int equal_contents(const Program& a, std::size_t x, const Program& b, std::size_t y) {
  return equal(as_skeleton(a.contents[x]), as_skeleton(b.contents[y]));
}

// Whether two nodes of one kind stand for the same, as far as their parts and slots
// don't tell. 1, 0, or -1 with an exception set. May run Python.
int same_payload(const Program& a, const Node& x, const Program& b, const Node& y) {
  switch (row_of(x.kind).payload) {
    case Payload::Value:
      return same_value(x.kind, x.object, y.object) ? 1 : 0;
    case Payload::Class:
      return x.object == y.object ? 1 : 0;
    case Payload::Plan:
      return x.plan->type == y.plan->type ? 1 : 0;
    case Payload::Copy: {
      if (x.kind == Kind::Bytearray) {
        return same_value(Kind::Bytes, x.object, y.object) ? 1 : 0;
      }
      int same = numpy::same(x.object, y.object);
      return same < 0 ? numpy::same_slowly(x.object, y.object) : same;
    }
    case Payload::Keywords:
      if (x.object == nullptr || y.object == nullptr) {
        return x.object == y.object ? 1 : 0;
      }
      return PyObject_RichCompareBool(x.object, y.object, Py_EQ);
    case Payload::Number:
      if (x.extra == 0 || y.extra == 0) {
        return x.extra == y.extra ? 1 : 0;
      }
      return equal_contents(a, x.extra - 1, b, y.extra - 1);
    case Payload::None:
    case Payload::Memo:
    case Payload::Folded:
      return 1;
    case Payload::Whole:
      break;
  }
  switch (x.kind) {
    case Kind::Opaque:
      return same_opaque(x.object, y.object);
    case Kind::Owner:
      return x.object == y.object ? equal_contents(a, x.size, b, y.size) : 0;
    case Kind::Constant:
      if (x.object == y.object) {
        return 1;
      }
      return Py_TYPE(x.object) == Py_TYPE(y.object)
                 ? equal_contents(a, x.size, b, y.size)
                 : 0;
    case Kind::Stateless:
      return x.object == y.object ||
                     (x.size != 0 && Py_TYPE(x.object) == Py_TYPE(y.object))
                 ? 1
                 : 0;
    default:  // a closure: its parts say what it is
      return 1;
  }
}

}  // namespace

int same_but_for_slots(const Program& a, const Node& x, const Program& b,
                       const Node& y) {
  if (x.kind != y.kind || counting_size(x) != counting_size(y)) {
    return 0;
  }
  Extra extra = row_of(x.kind).extra;
  bool counts = extra == Extra::Source || extra == Extra::Callable;
  return counts && x.extra != y.extra ? 0 : same_payload(a, x, b, y);
}

namespace {

// The same with the slots that the nodes have.
int same_node(const Program& a, const Node& x, const Program& b, const Node& y) {
  bool differ = x.kind == y.kind && has_slot(x) && has_slot(y) && x.extra != y.extra;
  return differ ? 0 : same_but_for_slots(a, x, b, y);
}

// The same for two functions of calls. `differ` is set if what they hold has to be
// compared.
int same_code(const Program& a, const Node& x, const Program& b, const Node& y,
              bool& differ) {
  if (x.size != y.size || a.codes[x.size] != b.codes[y.size] ||
      (x.object != y.object &&
       PyFunction_GET_GLOBALS(x.object) != PyFunction_GET_GLOBALS(y.object))) {
    return 0;
  }
  differ = differ || x.object != y.object;
  return 1;
}

template <typename Objects>
bool same_objects(const Objects& a, const Objects& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// The same for nodes with one number. `differ` is set for functions.
int same_at(const Program& a, const Program& b, std::size_t i, bool& differ) {
  const Node& x = a.nodes[i];
  const Node& y = b.nodes[i];
  bool are_functions = x.kind == Kind::Function && y.kind == Kind::Function;
  int same = are_functions ? same_code(a, x, b, y, differ) : same_node(a, x, b, y);
  // The trace can tell whether a function holds what it was given besides.
  if (same == 1 && is_handed_through(x)) {
    for (std::size_t k = 0; k < a.handed_through.size(); ++k) {
      if ((x.object == a.handed_through[k]) != (y.object == b.handed_through[k])) {
        return 0;
      }
    }
  }
  return same;
}

// Equal but for their functions, which `differ` then tells.
int equal_nodes(const Program& a, const Program& b, bool& differ) {
  if (a.nodes.size() != b.nodes.size() || a.leaves != b.leaves || a.slots != b.slots ||
      !same_objects(a.holders, b.holders) ||
      !same_objects(a.names_read, b.names_read)) {
    return 0;
  }
  python::Signals signals;
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    int same = signals.look() ? same_at(a, b, i, differ) : -1;
    if (same != 1) {
      return same;
    }
  }
  return 1;
}

}  // namespace

bool first_difference(const Program& a, const Program& b, std::size_t& index) {
  bool differ = false;
  std::size_t end = std::min(a.nodes.size(), b.nodes.size());
  std::size_t extent = end;  // the first that differs, if it has to be that
  for (index = 0; index < end; ++index) {
    int same = same_at(a, b, index, differ);
    if (same < 0) {
      return false;
    }
    if (same == 0 && a.nodes[index].kind == Kind::Extent &&
        b.nodes[index].kind == Kind::Extent) {
      extent = std::min(extent, index);  // as what it says of its parts would
    } else if (same == 0) {
      return true;
    }
  }
  index = extent < end ? extent - 1 : end;
  return true;
}

int equal(Skeleton* first, Skeleton* second) {
  bool differ = false;
  int same = equal_nodes(first->program, second->program, differ);
  return same == 1 && differ ? same_closures(first, second) : same;
}

int serves(Skeleton* first, Skeleton* call) {
  bool differ = false;
  int same = equal_nodes(first->program, call->program, differ);
  return same == 1 && differ ? same_functions(first, call) : same;
}

bool same_identities(const Skeleton* first, const Skeleton* second) {
  const std::vector<Node>& a = first->program.nodes;
  const std::vector<Node>& b = second->program.nodes;
  return first == second ||
         (same_objects(first->program.functions, second->program.functions) &&
          std::equal(a.begin(), a.end(), b.begin(), b.end(),
                     [](const Node& x, const Node& y) {
                       return !is_handed_through(x) || x.object == y.object;
                     }));
}

bool same_omitted(const Program& first, const Program& second) {
  return first.omitted.size() == second.omitted.size() &&
         std::all_of(first.omitted.begin(), first.omitted.end(), [&](const auto& one) {
           auto found = second.omitted.find(one.first);
           return found != second.omitted.end() &&
                  same_objects(one.second, found->second);
         });
}

}  // namespace autojit
