#include "dispatch/result.h"

#include <structmember.h>

#include <cstddef>
#include <utility>

namespace autojit {

namespace {

Result* as_result(PyObject* object) { return reinterpret_cast<Result*>(object); }

void result_dealloc(PyObject* object) {
  Py_DECREF(as_result(object)->skeleton);
  Py_DECREF(as_result(object)->leaves);
  PyObject_Free(object);
}

PyMemberDef result_members[] = {
    {"skeleton", T_OBJECT, offsetof(Result, skeleton), READONLY, nullptr},
    {"leaves", T_OBJECT, offsetof(Result, leaves), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

// Not collected as garbage: it lives from JAX's return to ours, or while JAX traces.
PyTypeObject ResultType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Result",
    .tp_basicsize = sizeof(Result),
    .tp_dealloc = result_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "The result of a traced function, as JAX carries it out.",
    .tp_members = result_members,
};

PyObject* new_result(Skeleton* skeleton, PyObject* leaves) {
  auto* result = PyObject_New(Result, &ResultType);
  if (result != nullptr) {
    result->skeleton = as_skeleton(Py_NewRef(skeleton->object()));
    result->leaves = Py_NewRef(leaves);
  }
  return reinterpret_cast<PyObject*>(result);
}

Owned unwrap(Owned returned, const Inputs& inputs) {
  if (!Py_IS_TYPE(returned.get(), &ResultType)) {
    return returned;  // a single array
  }
  Result* result = as_result(returned.get());
  const Program& program = result->skeleton->program;
  if (PyTuple_GET_SIZE(result->leaves) != static_cast<Py_ssize_t>(program.leaves)) {
    PyErr_Format(PyExc_ValueError, "this result has %u leaves, got %zd", program.leaves,
                 PyTuple_GET_SIZE(result->leaves));
    return {};
  }
  if (program.inputs != 0 && program.inputs != inputs.call.nodes.size()) {
    PyErr_SetString(PyExc_SystemError, "autojit: the result of another call");
    return {};
  }
  return rebuild_result(program, PySequence_Fast_ITEMS(result->leaves), inputs);
}

}  // namespace autojit
