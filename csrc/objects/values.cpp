#include "objects/values.h"

#include <bit>
#include <cstring>

#include "objects/type_plan.h"
#include "python/hashing.h"
#include "python/interpreter.h"
#include "python/numpy.h"

namespace autojit {

namespace {

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

template <typename Word>
bool same_ends(const char* a, const char* b, std::size_t size) {
  Word words[4];
  std::memcpy(&words[0], a, sizeof(Word));
  std::memcpy(&words[1], b, sizeof(Word));
  std::memcpy(&words[2], a + size - sizeof(Word), sizeof(Word));
  std::memcpy(&words[3], b + size - sizeof(Word), sizeof(Word));
  return words[0] == words[1] && words[2] == words[3];
}

// Most strings are so short that a call of `memcmp` takes longer than to compare them.
bool same_bytes(const void* ours, const void* other, std::size_t size) {
  const auto* a = static_cast<const char*>(ours);
  const auto* b = static_cast<const char*>(other);
  if (size > 16) {
    return std::memcmp(a, b, size) == 0;
  }
  if (size >= 8) {
    return same_ends<std::uint64_t>(a, b, size);
  }
  if (size >= 4) {
    return same_ends<std::uint32_t>(a, b, size);
  }
  return size == 0 ||
         (a[0] == b[0] && a[size / 2] == b[size / 2] && a[size - 1] == b[size - 1]);
}

bool same_int(PyObject* ours, PyObject* other) {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  bool are_short = python::is_short_int(ours, a) && python::is_short_int(other, b);
  return are_short ? a == b : PyObject_RichCompareBool(ours, other, Py_EQ) == 1;
}

bool same_builtin(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyCFunctionObject*>(ours);
  auto* b = reinterpret_cast<PyCFunctionObject*>(other);
  return a->m_ml == b->m_ml && a->m_self == b->m_self;
}

}  // namespace

bool same_value(Kind kind, PyObject* ours, PyObject* other) {
  if (ours == other) {
    return true;
  }
  if (Py_TYPE(ours) != Py_TYPE(other)) {
    return false;
  }
  switch (kind) {
    case Kind::Int:
      return same_int(ours, other);
    case Kind::Float:
      return same_bits(PyFloat_AS_DOUBLE(ours), PyFloat_AS_DOUBLE(other));
    case Kind::Complex: {
      const Py_complex& a = reinterpret_cast<PyComplexObject*>(ours)->cval;
      const Py_complex& b = reinterpret_cast<PyComplexObject*>(other)->cval;
      return same_bits(a.real, b.real) && same_bits(a.imag, b.imag);
    }
    case Kind::Str:
      return PyUnicode_GET_LENGTH(ours) == PyUnicode_GET_LENGTH(other) &&
             PyUnicode_KIND(ours) == PyUnicode_KIND(other) &&
             same_bytes(PyUnicode_DATA(ours), PyUnicode_DATA(other),
                        static_cast<std::size_t>(PyUnicode_GET_LENGTH(ours)) *
                            PyUnicode_KIND(ours));
    case Kind::Bytes:
      return PyBytes_GET_SIZE(ours) == PyBytes_GET_SIZE(other) &&
             same_bytes(PyBytes_AS_STRING(ours), PyBytes_AS_STRING(other),
                        static_cast<std::size_t>(PyBytes_GET_SIZE(ours)));
    case Kind::NumpyScalar: {
      numpy::Bytes a = numpy::scalar_bytes(ours);
      numpy::Bytes b = numpy::scalar_bytes(other);
      return same_bytes(a.data, b.data, a.size);
    }
    case Kind::Identity:
      // A builtin method is made anew each time it is looked up.
      return PyCFunction_Check(ours) && PyCFunction_Check(other) &&
             same_builtin(ours, other);
    default:
      return false;
  }
}

[[gnu::noinline]] bool can_be_traced(PyObject* object, std::uint32_t bits) {
  if (PyFloat_CheckExact(object) || PyComplex_CheckExact(object) ||
      is_leaf_type(Py_TYPE(object))) {
    return true;
  }
  if (PyLong_CheckExact(object)) {
    int overflows = 0;
    long long value = bits == 0 ? 0 : PyLong_AsLongLongAndOverflow(object, &overflows);
    return bits == 0 ||
           (overflows == 0 && (value >> (bits - 1)) == (value < 0 ? -1 : 0));
  }
  return numpy::is_array(object) ? numpy::can_be_traced(object)
                                 : numpy::is_number(object, bits != 0);
}

std::uint64_t hash_value(Kind kind, PyObject* object) {
  switch (kind) {
    case Kind::Float: {
      double value = PyFloat_AS_DOUBLE(object);
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Kind::Complex: {
      const Py_complex& value = reinterpret_cast<PyComplexObject*>(object)->cval;
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Kind::NumpyScalar: {
      numpy::Bytes bytes = numpy::scalar_bytes(object);
      return mix(hash_address(Py_TYPE(object)), hash_bytes(bytes.data, bytes.size));
    }
    case Kind::Identity: {
      if (!PyCFunction_Check(object)) {
        return hash_address(object);
      }
      auto* builtin = reinterpret_cast<PyCFunctionObject*>(object);
      return mix(hash_address(builtin->m_ml), hash_address(builtin->m_self));
    }
    default:  // exact int, str, bytes: can't fail, runs no Python
      return static_cast<std::uint64_t>(PyObject_Hash(object));
  }
}

}  // namespace autojit
