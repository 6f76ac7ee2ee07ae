#include "dispatch/specialization.h"

#include <structmember.h>

#include <cstddef>
#include <utility>

#include "dispatch/limits.h"
#include "dispatch/table.h"
#include "python/errors.h"
#include "skeleton/closures.h"

namespace autojit {

namespace {

int specialization_traverse(PyObject* self, visitproc visit, void* arg) {
  Specialization* one = as_specialization(self);
  Py_VISIT(one->skeleton);
  Py_VISIT(one->compiled);
  Py_VISIT(one->warnings);
  return 0;
}

// No tp_clear: a cycle through one goes through its table or its function too.
void specialization_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Specialization* one = as_specialization(self);
  Py_XDECREF(one->skeleton);
  Py_XDECREF(one->compiled);
  Py_XDECREF(one->warnings);
  PyObject_GC_Del(self);
}

PyObject* specialization_begin(PyObject* self, PyObject* /*args*/) {
  Specialization* one = as_specialization(self);
  if (one->table != nullptr) {
    ++one->table->traces;
    ++process_limits.programs;
  }
  Owned skeleton = Owned::borrow(one->skeleton->object());
  return one->programs++ == 0 || note_changed_functions(one->skeleton)
             ? skeleton.release()
             : nullptr;
}

PyObject* specialization_go_by_identity(PyObject* self, PyObject* skeleton) {
  if (!Py_IS_TYPE(skeleton, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of the call is needed");
    return nullptr;
  }
  Specialization* one = as_specialization(self);
  one->by_identity = true;
  // Not that of a call which came meanwhile.
  Owned old = Owned::steal(
      std::exchange(one->skeleton, as_skeleton(Py_NewRef(skeleton)))->object());
  Py_RETURN_NONE;
}

PyMethodDef specialization_methods[] = {
    {"go_by_identity", specialization_go_by_identity, METH_O,
     "go_by_identity($self, skeleton, /)\n--\n\n"
     "Serve only calls with the very functions and opaque objects of this one."},
    {"begin", guarded<specialization_begin>, METH_NOARGS,
     "begin($self, /)\n--\n\n"
     "Count a trace, and return the skeleton of the call that it is for."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef specialization_members[] = {
    {"skeleton", T_OBJECT, offsetof(Specialization, skeleton), READONLY, nullptr},
    {"warnings", T_OBJECT, offsetof(Specialization, warnings), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

PyTypeObject SpecializationType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name =
        "autojit._core.Specialization",
    .tp_basicsize = sizeof(Specialization),
    .tp_dealloc = specialization_dealloc,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What serves the calls of one skeleton.",
    .tp_traverse = specialization_traverse,
    .tp_methods = specialization_methods,
    .tp_members = specialization_members,
};

Owned new_specialization(Skeleton* skeleton) {
  Owned warnings = Owned::steal(PyDict_New());
  auto* one = warnings ? PyObject_GC_New(Specialization, &SpecializationType) : nullptr;
  if (one == nullptr) {
    return {};
  }
  one->skeleton = as_skeleton(Py_NewRef(skeleton->object()));
  one->compiled = nullptr;
  one->warnings = warnings.release();
  one->table = nullptr;
  one->hash = skeleton->hash;
  one->bytes = static_bytes(skeleton);
  one->programs = 0;
  one->used = 0;
  one->in_flight = 0;
  one->proven = one->by_identity = false;
  Owned owned = Owned::steal(one->object());
  PyObject_GC_Track(owned.get());
  return owned;
}

}  // namespace autojit
