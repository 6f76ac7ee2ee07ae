// skeleton -> hash, and when two skeletons are equal
#include "skeleton.h"
#include "type_plan.h"

namespace autojit {

namespace {

std::uint64_t mix(std::uint64_t mixed, std::uint64_t value) {
  mixed = (mixed ^ value) * 0x9E3779B97F4A7C15U;
  return mixed ^ (mixed >> 29U);
}

std::uint64_t address(const void* pointer) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer) >> 4U);
}

std::uint64_t hash_constant(const Node& node) {
  switch (node.op) {
    case Op::Float: {
      double value = PyFloat_AS_DOUBLE(node.object);
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Op::Complex: {
      const Py_complex& value = reinterpret_cast<PyComplexObject*>(node.object)->cval;
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Op::NumpyScalar: {
      Bytes bytes = numpy_scalar_bytes(node.object);
      return mix(address(Py_TYPE(node.object)), hash_bytes(bytes.data, bytes.size));
    }
    case Op::Identity:
      return address(node.object);
    default:  // exact int, str, bytes: can't fail, runs no Python
      return static_cast<std::uint64_t>(PyObject_Hash(node.object));
  }
}

}  // namespace

Py_hash_t hash(const Program& program) {
  std::uint64_t mixed = program.nodes.size();
  for (const Node& node : program.nodes) {
    mixed = mix(mixed, static_cast<std::uint64_t>(node.op));
    if (is_constant(node.op)) {
      mixed = mix(mixed, hash_constant(node));
      continue;
    }
    switch (node.op) {
      case Op::Opaque: {
        Py_hash_t hashed = 0;
        if (!hash_opaque(node.object, hashed)) {
          return -1;
        }
        mixed = mix(mixed, static_cast<std::uint64_t>(hashed));
        break;
      }
      case Op::Bytearray:
        mixed = mix(mixed, static_cast<std::uint64_t>(PyObject_Hash(node.object)));
        break;
      case Op::NumpyArray:
        mixed = mix(mixed, numpy_hash(node.object));
        break;
      case Op::Instance:
        mixed = mix(mix(mixed, node.size), address(node.plan->type));
        break;
      case Op::NamedTuple:
      case Op::Reduce:
        mixed = mix(mix(mixed, node.size), address(node.object));
        break;
      case Op::Call:
        mixed = mix(mixed, node.size);
        if (node.object != nullptr) {  // a tuple of str
          mixed = mix(mixed, static_cast<std::uint64_t>(PyObject_Hash(node.object)));
        }
        break;
      case Op::Leaf:
      case Op::Unset:
      case Op::Extent:
        break;
      default:
        mixed = mix(mixed, node.size);
        break;
    }
  }
  auto result = static_cast<Py_hash_t>(mixed);
  return result == -1 ? -2 : result;
}

int equal(const Program& a, const Program& b) {
  if (a.nodes.size() != b.nodes.size() || a.leaves != b.leaves || a.slots != b.slots) {
    return 0;
  }
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    const Node& x = a.nodes[i];
    const Node& y = b.nodes[i];
    if (x.op != y.op) {
      return 0;
    }
    if (is_constant(x.op)) {
      if (!same_constant(x.op, x.object, y.object)) {
        return 0;
      }
      continue;
    }
    if (x.size != y.size) {
      return 0;
    }
    int same = 1;
    switch (x.op) {
      case Op::Tuple:
      case Op::FrozenSet:
      case Op::Extent:
        continue;  // what else they hold follows from the parts
      case Op::Instance:
        same = x.plan->type == y.plan->type ? 1 : 0;
        break;
      case Op::NamedTuple:
      case Op::Reduce:
        same = x.object == y.object ? 1 : 0;
        break;
      case Op::Bytearray:
        same = same_constant(Op::Bytes, x.object, y.object) ? 1 : 0;
        break;
      case Op::NumpyArray:
        same = numpy_same(x.object, y.object);
        if (same < 0) {
          same = numpy_same_slowly(x.object, y.object);
        }
        break;
      case Op::Opaque:
        same = same_opaque(x.object, y.object);
        break;
      case Op::Call:
        same = x.object == y.object ||
                       (x.object != nullptr && y.object != nullptr &&
                        PyObject_RichCompareBool(x.object, y.object, Py_EQ) == 1)
                   ? 1
                   : 0;
        break;
      default:
        break;
    }
    if (same != 1) {
      return same;
    }
    if (x.extra != y.extra) {
      return 0;
    }
  }
  return 1;
}

}  // namespace autojit
