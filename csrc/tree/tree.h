// The Python object `autojit.Tree`: any object as a pytree of JAX.
//
// To JAX it has one child, its Leaves, whose children are the arrays. So two trees that
// differ always do so in their Structure, which says where, and never first in how many
// leaves they have.
#pragma once

#include "python/owned.h"

namespace autojit {

extern PyTypeObject TreeType;
extern PyTypeObject LeavesType;

// A tree of an object, or nullptr with an exception set. `inexact` says that only
// inexact arrays are leaves.
PyObject* new_tree(PyObject* object, bool inexact);

// What JAX calls. The first two give a new tuple of the children and of what is static;
// all give nullptr with an exception set on failure.
//
// May run Python (reductions).
PyObject* flatten_tree(PyObject* module, PyObject* tree);
PyObject* flatten_leaves(PyObject* module, PyObject* leaves);
// (static part, children) -> object. The children may be anything: JAX also puts
// together trees of what is no array.
PyObject* unflatten_tree(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* unflatten_leaves(PyObject* module, PyObject* const* args, Py_ssize_t nargs);

}  // namespace autojit
