#include "dispatch/specialization.h"

#include <structmember.h>

#include <cstddef>
#include <utility>

#include "dispatch/limits.h"
#include "dispatch/statistics.h"
#include "dispatch/table.h"
#include "python/errors.h"
#include "skeleton/closures.h"
#include "skeleton/dependencies.h"

namespace autojit {

namespace {

int specialization_traverse(PyObject* self, visitproc visit, void* arg) {
  Specialization* one = as_specialization(self);
  Py_VISIT(one->skeleton);
  Py_VISIT(one->compiled);
  Py_VISIT(one->dependencies);
  Py_VISIT(one->warnings);
  return 0;
}

// No tp_clear: a cycle through one goes through its table or its function too.
void specialization_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Specialization* one = as_specialization(self);
  Py_XDECREF(one->skeleton);
  Py_XDECREF(one->compiled);
  Py_XDECREF(one->dependencies);
  Py_XDECREF(one->why);
  Py_XDECREF(one->warnings);
  PyObject_GC_Del(self);
}

// What a trace depends on is noted the first time. If something has changed when it is
// traced once more, only the dispatcher that does so may use it from then on. False
// with an exception set on failure. Runs Python.
bool note_dependencies(Specialization* one, PyObject* fun) {
  Owned skeleton = Owned::borrow(one->skeleton->object());
  if (one->dependencies == nullptr) {
    Owned made = one->table != nullptr
                     ? dependencies_in(one->table, fun, as_skeleton(skeleton.get()))
                     : Owned::borrow(Py_None);
    if (!made) {
      return false;
    }
    Owned old = Owned::steal(std::exchange(one->dependencies, made.release()));
    return true;
  }
  Owned before = Owned::borrow(one->dependencies);
  if (before.get() == Py_None) {
    return true;
  }
  Skeleton* call = as_skeleton(skeleton.get());
  int same = same_dependencies(as_skeleton(before.get()), fun, call);
  if (same == 0) {  // or so it seems
    Owned now = dependencies_now(fun, call);
    same = !now ? -1 : 0;
    if (now && now.get() != Py_None) {
      same = equal(as_skeleton(before.get()), as_skeleton(now.get()));
    }
  }
  if (same == 0) {
    one->is_of_one = true;
    Owned old = Owned::steal(std::exchange(one->dependencies, Py_NewRef(Py_None)));
  }
  return same >= 0;
}

PyObject* specialization_begin(PyObject* self, PyObject* fun) {
  Specialization* one = as_specialization(self);
  one->began = clock_now();
  if (one->table != nullptr) {
    ++one->table->traces;
    ++process_limits.programs;
  }
  Owned skeleton = Owned::borrow(one->skeleton->object());
  bool is_first = one->programs++ == 0;
  if (!is_first) {
    Owned why = Owned::steal(PyUnicode_FromString("another shape, dtype or setting"));
    if (!why) {
      return nullptr;
    }
    Py_XSETREF(one->why, why.release());
  }
  return note_dependencies(one, fun != Py_None ? fun : nullptr) &&
                 (is_first || note_changed_functions(one->skeleton))
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

PyObject* specialization_others(PyObject* self, PyObject* /*args*/) {
  Specialization* one = as_specialization(self);
  return (one->table != nullptr ? traced_in(*one->table, one)
                                : Owned::steal(PyTuple_New(0)))
      .release();
}

PyObject* specialization_end(PyObject* self, PyObject* /*args*/) {
  Specialization* one = as_specialization(self);
  one->tracing += clock_now() - one->began;
  Py_RETURN_NONE;
}

PyObject* specialization_is_called(PyObject* self, void* /*closure*/) {
  return PyBool_FromLong(as_specialization(self)->in_flight != 0 ? 1 : 0);
}

PyObject* specialization_by_value(PyObject* self, void* /*closure*/) {
  const Table* table = as_specialization(self)->table;
  return by_value_in(table).release();
}

PyObject* specialization_serves(PyObject* self, PyObject* call) {
  if (!Py_IS_TYPE(call, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of a call is needed");
    return nullptr;
  }
  return PyBool_FromLong(
      static_cast<long>(serves_identities(as_specialization(self), as_skeleton(call))));
}

PyObject* specialization_keep_to_one(PyObject* self, PyObject* /*args*/) {
  Py_XSETREF(as_specialization(self)->dependencies, Py_NewRef(Py_None));
  Py_RETURN_NONE;
}

PyMethodDef specialization_methods[] = {
    {"keep_to_one", specialization_keep_to_one, METH_NOARGS,
     "keep_to_one($self, /)\n--\n\n"
     "Serve no dispatcher but those that may use it by now."},
    {"others", guarded<specialization_others>, METH_NOARGS,
     "others($self, /)\n--\n\n"
     "Give the skeletons that the function was traced for beside this one, the one "
     "used last\nfirst."},
    {"serves_identities", specialization_serves, METH_O,
     "serves_identities($self, call, /)\n--\n\n"
     "Whether a call that is equal to its own has the very functions and opaque "
     "objects,\nif that matters."},
    {"go_by_identity", specialization_go_by_identity, METH_O,
     "go_by_identity($self, skeleton, /)\n--\n\n"
     "Serve only calls with the very functions and opaque objects of this one."},
    {"end", specialization_end, METH_NOARGS,
     "end($self, /)\n--\n\nNote that the trace is over that began last."},
    {"begin", guarded<specialization_begin>, METH_O,
     "begin($self, fun, /)\n--\n\n"
     "Count a trace of a function, None if it is part of the call, and return the\n"
     "skeleton of the call."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef specialization_members[] = {
    {"skeleton", T_OBJECT, offsetof(Specialization, skeleton), READONLY, nullptr},
    {"why", T_OBJECT, offsetof(Specialization, why), READONLY, nullptr},
    {"warnings", T_OBJECT, offsetof(Specialization, warnings), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef specialization_getset[] = {
    {"by_value", specialization_by_value, nullptr,
     "The paths of numbers that are not traced, since the function needs their value.",
     nullptr},
    {"is_called", specialization_is_called, nullptr,
     "Whether a dispatcher is calling the compiled function, or makes a stage of it.",
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
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
    .tp_getset = specialization_getset,
};

std::uint64_t new_id() {
  static std::uint64_t last = 0;
  return ++last;
}

Owned new_specialization(Skeleton* skeleton) {
  Owned warnings = Owned::steal(PyDict_New());
  auto* one = warnings ? PyObject_GC_New(Specialization, &SpecializationType) : nullptr;
  if (one == nullptr) {
    return {};
  }
  one->skeleton = as_skeleton(Py_NewRef(skeleton->object()));
  one->compiled = nullptr;
  one->dependencies = nullptr;
  one->why = nullptr;
  one->warnings = warnings.release();
  one->table = nullptr;
  one->hash = skeleton->hash;
  one->bytes = static_bytes(skeleton);
  one->programs = 0;
  one->hits = 0;
  one->began = one->tracing = one->calling = 0;
  one->id = new_id();
  one->used = 0;
  one->fingerprint = 0;
  one->follower = nullptr;
  one->removals = 0;
  one->in_flight = 0;
  one->is_sure = one->is_followed = false;
  one->is_fingerprinted = one->proven = one->by_identity = one->is_of_one = false;
  Owned owned = Owned::steal(one->object());
  PyObject_GC_Track(owned.get());
  return owned;
}

}  // namespace autojit
