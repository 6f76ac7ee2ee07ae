// What Python sees of the core.
#include <nanobind/nanobind.h>

#include <iterator>
#include <utility>

#include "dispatch/dispatcher.h"
#include "dispatch/limits.h"
#include "dispatch/result.h"
#include "dispatch/statistics.h"
#include "objects/config.h"
#include "objects/function_state.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "skeleton/check.h"
#include "skeleton/closures.h"
#include "skeleton/flatten.h"
#include "skeleton/skeleton.h"
#include "tree/structure.h"
#include "tree/tree.h"

namespace autojit {

namespace {

// Takes an object apart. `taken` gives the leaves and the program; `call` and `inputs`
// are those of `flatten_result`, or nullptr. A skeleton, or nothing with an exception
// set. Runs Python.
Owned take_apart_result(PyObject* object, Skeleton* call, PyObject* inputs,
                        OwnedVector& leaves) {
  for (;;) {
    Program program;
    NodeObjects reduced;
    if (!flatten_result(object, call, inputs, program, leaves, reduced)) {
      return {};
    }
    const NodeObjects none;
    int faithful =
        reduced.empty()
            ? 1
            : check_result(program, leaves.data(),
                           {call->program, PySequence_Fast_ITEMS(inputs), none},
                           reduced);
    if (faithful == 1) {
      return new_skeleton(std::move(program), "result");
    }
    if (faithful < 0) {
      return {};
    }
    leaves.clear();  // what was taken apart in vain is now known
  }
}

PyObject* py_flatten(PyObject* /*module*/, PyObject* args) {
  PyObject* object = nullptr;
  PyObject* leaf_type = nullptr;
  if (PyArg_ParseTuple(args, "OO:flatten", &object, &leaf_type) == 0) {
    return nullptr;
  }
  OwnedVector leaves;
  Program program;
  if (!flatten(object, leaf_type == Py_None ? nullptr : leaf_type, "obj", program,
               leaves)) {
    return nullptr;
  }
  Owned skeleton = new_skeleton(std::move(program), "obj");
  // Now: what the functions hold may change.
  Skeleton* flat = as_skeleton(skeleton.get());
  if (!skeleton || (!flat->program.functions.empty() && closures_of(flat) == nullptr)) {
    return nullptr;
  }
  Owned tuple = tuple_of(leaves.data(), leaves.size());
  Owned list = Owned::steal(tuple ? PySequence_List(tuple.get()) : nullptr);
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
  OwnedVector leaves;
  Owned skeleton = take_apart_result(object, as_skeleton(call), inputs, leaves);
  if (!skeleton) {
    return nullptr;
  }
  if (leaves.size() == 1 && leaves[0] == object) {
    return Py_NewRef(object);
  }
  Owned tuple = tuple_of(leaves.data(), leaves.size());
  return tuple ? new_result(as_skeleton(skeleton.get()), tuple.get()) : nullptr;
}

PyObject* py_new_result(PyObject* /*module*/, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2 || !Py_IS_TYPE(args[0], &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "new_result(skeleton, leaves)");
    return nullptr;
  }
  Owned leaves = Owned::steal(PySequence_Tuple(args[1]));
  return leaves ? new_result(as_skeleton(args[0]), leaves.get()) : nullptr;
}

// What a stage of JAX gives for the result of a call, put together.
PyObject* py_unwrap(PyObject* /*module*/, PyObject* args) {
  PyObject* returned = nullptr;
  PyObject* call = nullptr;
  PyObject* leaves = nullptr;
  if (PyArg_ParseTuple(args, "OO!O!:unwrap", &returned, &SkeletonType, &call,
                       &PyTuple_Type, &leaves) == 0) {
    return nullptr;
  }
  const Program& program = as_skeleton(call)->program;
  if (PyTuple_GET_SIZE(leaves) != static_cast<Py_ssize_t>(program.leaves)) {
    PyErr_SetString(PyExc_ValueError, "these are not the leaves of the call");
    return nullptr;
  }
  const NodeObjects none;
  return unwrap(Owned::borrow(returned), {program, PySequence_Fast_ITEMS(leaves), none})
      .release();
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

PyObject* py_forget_plans(PyObject* /*module*/, PyObject* /*args*/) {
  copyreg_version = UINT64_MAX;
  Py_RETURN_NONE;
}

PyObject* py_configure(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  if (config.leaf_types != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "autojit is already configured");
    return nullptr;
  }
  if (PyTuple_GET_SIZE(args) != 0 || kwargs == nullptr ||
      PyDict_GET_SIZE(kwargs) != static_cast<Py_ssize_t>(std::size(kConfig))) {
    PyErr_SetString(PyExc_TypeError, "each of the parameters is needed, by its name");
    return nullptr;
  }
  Config given;
  for (auto [name, member] : kConfig) {
    given.*member = PyDict_GetItemString(kwargs, name);
    if (given.*member == nullptr) {
      return PyErr_Format(PyExc_TypeError, "configure needs %s", name);
    }
  }
  if (!python::watch(given.copyreg_table)) {
    return nullptr;
  }
  for (auto [name, member] : kConfig) {
    Py_INCREF(given.*member);  // for as long as the process lives
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
  keep_within_limits();
  Py_RETURN_NONE;
}

PyObject* py_set_counting(PyObject* /*module*/, PyObject* is_on) {
  statistics.is_on = is_on == Py_True;
  Py_RETURN_NONE;
}

PyObject* py_counts(PyObject* /*module*/, PyObject* /*args*/) {
  return Py_BuildValue("(KdK)", static_cast<unsigned long long>(statistics.calls),
                       static_cast<double>(statistics.nanoseconds) * 1e-9,
                       static_cast<unsigned long long>(statistics.saved));
}

PyObject* py_tree(PyObject* /*module*/, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) {
    PyErr_SetString(PyExc_TypeError, "tree(obj, inexact)");
    return nullptr;
  }
  return new_tree(args[0], args[1] == Py_True);
}

PyObject* py_empty_tree(PyObject* /*module*/, PyObject* inexact) {
  return new_tree(nullptr, inexact == Py_True);
}

PyObject* py_new_structure(PyObject* /*module*/, PyObject* args) {
  PyObject* skeleton = nullptr;
  PyObject* kept = nullptr;
  int inexact = 0;
  if (PyArg_ParseTuple(args, "O!Op:new_structure", &SkeletonType, &skeleton, &kept,
                       &inexact) == 0) {
    return nullptr;
  }
  bool has_kept = PyTuple_CheckExact(kept) &&
                  PyTuple_GET_SIZE(kept) ==
                      static_cast<Py_ssize_t>(as_skeleton(skeleton)->program.leaves);
  if (has_kept != (inexact != 0)) {
    PyErr_SetString(PyExc_ValueError, "these are not the leaves of the skeleton");
    return nullptr;
  }
  return new_structure(skeleton, has_kept ? kept : nullptr, inexact != 0).release();
}

PyMethodDef module_methods[] = {
    {"flatten", guarded<py_flatten>, METH_VARARGS,
     "flatten(obj, leaf_type, /)\n--\n\nSee `autojit.flatten`; None stands for what "
     "is traced."},
    {"flatten_result", guarded<py_flatten_result>, METH_VARARGS,
     "flatten_result(obj, call, inputs, /)\n--\n\n"
     "Take a result apart at JAX's arrays: a `Result`, or `obj` if it is an array.\n\n"
     "`call` is the skeleton of the call, `inputs` a tuple of its leaves. One that "
     "comes back as itself is\n"
     "not among the leaves of the result: the dispatcher forwards it. None stands for\n"
     "one that is not to be forwarded."},
    {"unwrap", guarded<py_unwrap>, METH_VARARGS,
     "unwrap(returned, call, leaves, /)\n--\n\n"
     "Put together what a compiled function returned, a `Result` or an array.\n\n"
     "`call` is the skeleton of the call, `leaves` a tuple of what stands for its "
     "leaves."},
    {"new_result", as_method(py_new_result), METH_FASTCALL,
     "new_result(skeleton, leaves, /)\n--\n\n"
     "Make a `Result`. JAX calls this for each call, so that no Python runs."},
    {"tree", as_method(py_tree), METH_FASTCALL,
     "tree(obj, inexact, /)\n--\n\nSee `autojit.tree`."},
    {"empty_tree", py_empty_tree, METH_O,
     "empty_tree(inexact, /)\n--\n\nMake a tree without an object, for "
     "`__setstate__`."},
    {"new_structure", guarded<py_new_structure>, METH_VARARGS,
     "new_structure(skeleton, kept, inexact, /)\n--\n\n"
     "Make a `Structure`. `kept` has for each leaf of `skeleton` the array that is no\n"
     "leaf of the tree, or None for one that is; it is None if all are."},
    {"flatten_tree", guarded<flatten_tree>, METH_O,
     "flatten_tree(tree, /)\n--\n\n"
     "Take a `Tree` apart: a tuple of its only child and its `Structure`."},
    {"unflatten_tree", as_method(guarded<unflatten_tree>), METH_FASTCALL,
     "unflatten_tree(structure, children, /)\n--\n\n"
     "Make a `Tree` of what `flatten_tree` returns."},
    {"flatten_leaves", flatten_leaves, METH_O,
     "flatten_leaves(leaves, /)\n--\n\n"
     "Take the child of a `Tree` apart: a tuple of the leaves and of None."},
    {"unflatten_leaves", as_method(guarded<unflatten_leaves>), METH_FASTCALL,
     "unflatten_leaves(static, children, /)\n--\n\n"
     "Make the child of a `Tree` of any objects. Nothing of it is static."},
    {"process_info", py_process_info, METH_NOARGS,
     "process_info()\n--\n\nSee `autojit.process_info`: programs and memory maps, each "
     "with its bound, 0 for none."},
    {"set_limits", guarded<py_set_limits>, METH_VARARGS,
     "set_limits(max_programs, max_maps, /)\n--\n\nSee `autojit.set_limits`; 0 stands "
     "for no bound."},
    {"set_counting", py_set_counting, METH_O,
     "set_counting(is_on, /)\n--\n\n"
     "Whether dispatchers that are made from now on count their calls."},
    {"counts", py_counts, METH_NOARGS,
     "counts()\n--\n\n"
     "Tell how many calls were counted, how many seconds they took, and how often a\n"
     "dispatcher took what another had traced."},
    {"fill_group", py_fill_group, METH_VARARGS,
     "fill_group(group, exceptions, /)\n--\n\n"
     "Put other exceptions into an exception group that no one else has seen."},
    {"forget_plans", py_forget_plans, METH_NOARGS,
     "forget_plans()\n--\n\n"
     "Ask each class once more how its instances are taken apart."},
    {"configure", as_method(py_configure), METH_VARARGS | METH_KEYWORDS,
     "configure(**config)\n--\n\n"
     "Hand over what the core needs of Python, once, at import."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

}  // namespace autojit

NB_MODULE(_core, m) {
  using namespace autojit;
  process_limits.max_maps = default_max_maps();
  if (!init_names() || !numpy::init() || !init_function_state() || !init_type_plans() ||
      !init_dispatcher() || PyModule_AddFunctions(m.ptr(), module_methods) < 0 ||
      PyType_Ready(&SpecializationType) < 0 || PyType_Ready(&TableType) < 0 ||
      PyModule_AddType(m.ptr(), &ResultType) < 0 ||
      PyModule_AddType(m.ptr(), &SkeletonType) < 0 ||
      PyModule_AddType(m.ptr(), &StructureType) < 0 ||
      PyModule_AddType(m.ptr(), &LeavesType) < 0 ||
      PyModule_AddType(m.ptr(), &TreeType) < 0 ||
      PyModule_AddType(m.ptr(), &DispatcherType) < 0) {
    throw nanobind::python_error();
  }
  m.doc() = "The dispatcher of autojit: see csrc/.";
}
