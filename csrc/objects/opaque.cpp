#include "objects/opaque.h"

#include "objects/config.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/hashing.h"
#include "python/interpreter.h"

namespace autojit {

bool may_change_its_mind(PyTypeObject* type) {
  return made_by_class_statement(type) || !is_objects_own(type, names.reduce);
}

bool has_own_equality(PyTypeObject* type) {
  return type->tp_richcompare != PyBaseObject_Type.tp_richcompare &&
         type->tp_hash != nullptr && type->tp_hash != PyObject_HashNotImplemented &&
         type->tp_hash != PyBaseObject_Type.tp_hash;
}

int same_opaque(PyObject* ours, PyObject* other) {
  if (ours == other) {
    return 1;
  }
  if (Py_TYPE(ours) != Py_TYPE(other) || !has_own_equality(Py_TYPE(ours))) {
    return 0;
  }
  Py_hash_t a = PyObject_Hash(ours);
  Py_hash_t b = a == -1 ? -1 : PyObject_Hash(other);
  if (a == -1 || b == -1) {
    return clear_refusal() ? 0 : -1;
  }
  if (a != b) {
    return 0;
  }
  Owned same = Owned::steal(PyObject_RichCompare(ours, other, Py_EQ));
  if (!same) {
    return clear_refusal() ? 0 : -1;
  }
  return same.get() == Py_True ? 1 : 0;
}

bool hash_opaque(PyObject* object, Py_hash_t& result) {
  if (has_own_equality(Py_TYPE(object))) {
    result = PyObject_Hash(object);
    if (result != -1) {
      return true;
    }
    if (!clear_refusal()) {
      return false;
    }
  }
  result = static_cast<Py_hash_t>(hash_address(object));
  return true;
}

}  // namespace autojit
