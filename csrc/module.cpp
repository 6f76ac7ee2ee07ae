// What Python sees of the core.
#include <nanobind/nanobind.h>

#include <new>
#include <utility>

#include "dispatcher.h"
#include "skeleton.h"
#include "specializations.h"
#include "type_plan.h"

namespace autojit {

namespace {

// A tuple of the leaves, and the skeleton. For a result there are the skeleton of its
// call and a tuple, `inputs`. False with an exception set on failure.
bool take_apart(PyObject* object, PyObject* leaf_type, Skeleton* call, PyObject* inputs,
                Owned& tuple, Owned& skeleton) {
  LeafVector flat;
  Program program;
  try {
    for (int faithful = 0; faithful == 0;) {
      flat.clear();
      program = Program();
      NodeObjects reduced;
      bool done =
          call != nullptr
              ? flatten_result(object, call, inputs, program, flat.leaves, reduced)
              : flatten(object, leaf_type, "obj", program, flat.leaves);
      faithful = done ? 1 : -1;
      if (done && !reduced.empty()) {
        const NodeObjects none;
        faithful =
            check_result(program, flat.leaves.data(),
                         {call->program, PySequence_Fast_ITEMS(inputs), none}, reduced);
      }
      if (faithful < 0) {
        return false;
      }
    }
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
    return false;
  }
  tuple = tuple_of(flat.leaves.data(), flat.leaves.size());
  if (!tuple) {
    return false;
  }
  skeleton = Owned::steal(reinterpret_cast<PyObject*>(
      new_skeleton(std::move(program), call != nullptr ? "result" : "obj")));
  return static_cast<bool>(skeleton);
}

PyObject* py_flatten(PyObject* /*module*/, PyObject* args) {
  PyObject* object = nullptr;
  PyObject* leaf_type = nullptr;
  if (PyArg_ParseTuple(args, "OO:flatten", &object, &leaf_type) == 0) {
    return nullptr;
  }
  if (leaf_type == Py_None) {
    leaf_type = nullptr;
  }
  Owned leaves;
  Owned skeleton;
  if (!take_apart(object, leaf_type, nullptr, nullptr, leaves, skeleton)) {
    return nullptr;
  }
  // Now: what the functions hold may change.
  auto* flat = reinterpret_cast<Skeleton*>(skeleton.get());
  if (flat->program.has_closures && closures_of(flat) == nullptr) {
    return nullptr;
  }
  Owned list = Owned::steal(PySequence_List(leaves.get()));
  return list ? PyTuple_Pack(2, list.get(), skeleton.get()) : nullptr;
}

PyObject* py_flatten_result(PyObject* /*module*/, PyObject* args) {
  PyObject* object = nullptr;
  PyObject* call = nullptr;
  PyObject* inputs = nullptr;
  if (PyArg_ParseTuple(args, "OO!O!:flatten_result", &object, &SkeletonType, &call,
                       &PyTuple_Type, &inputs) == 0) {
    return nullptr;
  }
  Owned leaves;
  Owned skeleton;
  if (!take_apart(object, nullptr, reinterpret_cast<Skeleton*>(call), inputs, leaves,
                  skeleton)) {
    return nullptr;
  }
  if (PyTuple_GET_SIZE(leaves.get()) == 1 &&
      PyTuple_GET_ITEM(leaves.get(), 0) == object) {
    return Py_NewRef(object);
  }
  return new_result(reinterpret_cast<Skeleton*>(skeleton.get()), leaves.get());
}

PyObject* py_new_result(PyObject* /*module*/, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2 || !Py_IS_TYPE(args[0], &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "new_result(skeleton, leaves)");
    return nullptr;
  }
  Owned leaves = Owned::steal(PySequence_Tuple(args[1]));
  return leaves ? new_result(reinterpret_cast<Skeleton*>(args[0]), leaves.get())
                : nullptr;
}

// The group was made with another exception in it, since it can't be without.
PyObject* py_fill_group(PyObject* /*module*/, PyObject* args) {
  PyObject* group = nullptr;
  PyObject* exceptions = nullptr;
  if (PyArg_ParseTuple(args, "O!O!:fill_group",
                       reinterpret_cast<PyTypeObject*>(PyExc_BaseExceptionGroup),
                       &group, &PyTuple_Type, &exceptions) == 0) {
    return nullptr;
  }
  const Owned old = Owned::steal(
      std::exchange(reinterpret_cast<PyBaseExceptionGroupObject*>(group)->excs,
                    Py_NewRef(exceptions)));
  Py_RETURN_NONE;
}

PyObject* py_configure(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"leaf_types",     "is_leaf",    "identity_types",
                                "ordinary_state", "reduce",     "set_state",
                                "arrays_differ",  "specialize", "say_where",
                                "replay",         "mark_seen",  "lazy_types",
                                "cache_info",     "eager",      "copyreg_table",
                                "traceback_type", nullptr};
  Config given;
  if (PyArg_ParseTupleAndKeywords(
          args, kwargs, "$OOOOOOOOOOOOOOOO:configure", const_cast<char**>(names),
          &given.leaf_types, &given.is_leaf, &given.identity_types,
          &given.ordinary_state, &given.reduce, &given.set_state, &given.arrays_differ,
          &given.specialize, &given.say_where, &given.replay, &given.mark_seen,
          &given.lazy_types, &given.cache_info, &given.eager, &given.copyreg_table,
          &given.traceback_type) == 0) {
    return nullptr;
  }
  if (config.leaf_types != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "autojit is already configured");
    return nullptr;
  }
  if (!python::watch(given.copyreg_table)) {
    return nullptr;
  }
  for (PyObject* object :
       {given.leaf_types, given.is_leaf, given.identity_types, given.ordinary_state,
        given.reduce, given.set_state, given.arrays_differ, given.specialize,
        given.say_where, given.replay, given.mark_seen, given.lazy_types,
        given.cache_info, given.eager, given.copyreg_table, given.traceback_type}) {
    Py_INCREF(object);  // for as long as the process lives
  }
  config = given;
  Py_RETURN_NONE;
}

PyObject* py_process_info(PyObject* /*module*/, PyObject* /*args*/) {
  return Py_BuildValue("(nnnn)", static_cast<Py_ssize_t>(process_limits.programs),
                       static_cast<Py_ssize_t>(process_limits.max_programs),
                       static_cast<Py_ssize_t>(count_maps()),
                       static_cast<Py_ssize_t>(process_limits.max_maps));
}

PyObject* py_set_limits(PyObject* /*module*/, PyObject* args) {
  Py_ssize_t programs = 0;
  Py_ssize_t maps = 0;
  if (PyArg_ParseTuple(args, "nn:set_limits", &programs, &maps) == 0) {
    return nullptr;
  }
  process_limits.max_programs = static_cast<std::size_t>(programs);
  process_limits.max_maps = static_cast<std::size_t>(maps);
  process_limits.programs_until_count = 0;
  try {
    keep_within_limits();
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  Py_RETURN_NONE;
}

// The way CPython wants methods of other signatures to be named.
template <typename Function>
PyCFunction as_method(Function* function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef module_methods[] = {
    {"flatten", py_flatten, METH_VARARGS,
     "flatten(obj, leaf_type, /)\n--\n\nSee `autojit.flatten`; None stands for what "
     "is traced."},
    {"flatten_result", py_flatten_result, METH_VARARGS,
     "flatten_result(obj, call, inputs, /)\n--\n\n"
     "Take a result apart at JAX's arrays: a `Result`, or `obj` if it is an array.\n\n"
     "`call` is the skeleton of the call, `inputs` a tuple of its leaves. One that "
     "comes back as itself is\n"
     "not among the leaves of the result: the dispatcher forwards it. None stands for\n"
     "one that is not to be forwarded."},
    {"new_result", as_method(py_new_result), METH_FASTCALL,
     "new_result(skeleton, leaves, /)\n--\n\n"
     "Make a `Result`. JAX calls this for each call, so that no Python runs."},
    {"process_info", py_process_info, METH_NOARGS,
     "process_info()\n--\n\nSee `autojit.process_info`: programs and memory maps, each "
     "with its bound, 0 for none."},
    {"set_limits", py_set_limits, METH_VARARGS,
     "set_limits(max_programs, max_maps, /)\n--\n\nSee `autojit.set_limits`; 0 stands "
     "for no bound."},
    {"fill_group", py_fill_group, METH_VARARGS,
     "fill_group(group, exceptions, /)\n--\n\n"
     "Put other exceptions into an exception group that no one else has seen."},
    {"configure", as_method(py_configure), METH_VARARGS | METH_KEYWORDS,
     "configure(*, leaf_types, is_leaf, identity_types, ordinary_state, reduce, "
     "set_state, arrays_differ, specialize, say_where, replay, mark_seen, lazy_types, "
     "cache_info, eager, copyreg_table, traceback_type)\n--\n\n"
     "Hand over what the core needs of Python, once, at import."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

}  // namespace autojit

NB_MODULE(_core, m) {
  using namespace autojit;
  process_limits.max_maps = default_max_maps();
  if (!init_type_plans() || PyModule_AddFunctions(m.ptr(), module_methods) < 0 ||
      PyType_Ready(&TraceCountType) < 0 || PyType_Ready(&TraceType) < 0 ||
      PyType_Ready(&TableType) < 0 || PyModule_AddType(m.ptr(), &ResultType) < 0 ||
      PyModule_AddType(m.ptr(), &SkeletonType) < 0 ||
      PyModule_AddType(m.ptr(), &DispatcherType) < 0) {
    throw nanobind::python_error();
  }
  m.doc() = "The dispatcher of autojit: see csrc/.";
}
