// Opaque objects: nothing looks inside, `==` and `hash` decide if they say anything.
#pragma once

#include "python/owned.h"

namespace autojit {

// Whether comparing objects of this class can tell more than identity.
bool has_own_equality(PyTypeObject* type);
// Whether an object of this class that can't be reduced may be another time one that
// can: the methods of a class that a class statement made can decide what they like.
bool may_change_its_mind(PyTypeObject* type);
// 1, 0, or -1 with an exception set. Runs Python. An `__eq__` or `__hash__` that raises
// leaves it to identity.
int same_opaque(PyObject* ours, PyObject* other);
// Sets `result`. False with an exception set on failure. Runs Python.
bool hash_opaque(PyObject* object, Py_hash_t& result);

}  // namespace autojit
