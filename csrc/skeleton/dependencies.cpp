#include "skeleton/dependencies.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "objects/config.h"
#include "objects/function_state.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "skeleton/describe.h"
#include "skeleton/flatten.h"
#include "skeleton/match.h"

namespace autojit {

namespace {

// What a call runs and asks, borrowed: the functions, and what else it has that they
// may ask for attributes.
struct Roots {
  Owned settings;  // of JAX, or nothing with an exception set
  std::vector<PyObject*> functions;
  std::vector<PyObject*> arguments;

  void add(PyObject* object) {
    std::vector<PyObject*>& to = PyFunction_Check(object) ? functions : arguments;
    if (std::find(to.begin(), to.end(), object) == to.end()) {
      to.push_back(object);
    }
  }
};

Roots roots_of(PyObject* fun, const Program& call) {
  static PyObject* const new_name = PyUnicode_InternFromString("__new__");
  static PyObject* const init_name = PyUnicode_InternFromString("__init__");
  Roots roots;
  roots.settings = Owned::steal(PyObject_CallNoArgs(config.settings));
  if (fun != nullptr && PyFunction_Check(fun)) {
    roots.add(fun);
  }
  if (fun != nullptr && PyType_Check(fun)) {
    for (PyObject* name : {new_name, init_name}) {
      PyObject* method =
          python::type_lookup(reinterpret_cast<PyTypeObject*>(fun), name);
      if (method != nullptr && PyFunction_Check(method)) {
        roots.add(method);
      }
    }
    roots.add(fun);
  }
  // Such as the function and the rules of a `jax.custom_jvp`. It is not kept itself.
  PyObject* dict = fun != nullptr && !PyFunction_Check(fun) && !PyType_Check(fun)
                       ? python::instance_dict(fun)
                       : nullptr;
  Py_ssize_t position = 0;
  PyObject* part = nullptr;
  while (dict != nullptr && PyDict_Next(dict, &position, nullptr, &part) != 0) {
    if (PyFunction_Check(part)) {
      roots.add(part);
    }
  }
  // A callable object is the first part of its call, and its class has the function.
  bool is_callable = fun == nullptr;
  for (const Node& node : call.nodes) {
    PyObject* object = nullptr;
    switch (node.kind) {
      case Kind::Identity:
      case Kind::Function:
        // Not numbers and strings, of which there is nothing to be asked.
        object = PyFunction_Check(node.object) || PyType_Check(node.object) ||
                         python::instance_dict(node.object) != nullptr ||
                         (Py_TYPE(node.object)->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0
                     ? node.object
                     : nullptr;
        break;
      case Kind::Instance:
        object = reinterpret_cast<PyObject*>(node.plan->type);
        break;
      case Kind::NamedTuple:
      case Kind::Fresh:
      case Kind::Reduce:
        object = node.object;
        break;
      case Kind::Opaque:
      case Kind::Owner:
      case Kind::Stateless:
        object = reinterpret_cast<PyObject*>(Py_TYPE(node.object));
        break;
      default:
        break;
    }
    if (object == nullptr) {
      continue;
    }
    if (is_callable && PyType_Check(object)) {
      PyObject* method = call_of(reinterpret_cast<PyTypeObject*>(object));
      if (method != nullptr) {
        roots.add(method);
      }
    }
    is_callable = false;
    roots.add(object);
  }
  return roots;
}

}  // namespace

Owned dependencies_now(PyObject* fun, const Skeleton* call) {
  Roots roots = roots_of(fun, call->program);
  if (!roots.settings) {
    return {};
  }
  Program program;
  if (flatten_dependencies(roots.settings.get(), roots.functions, roots.arguments,
                           program)) {
    return new_skeleton(std::move(program), "function");
  }
  if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0 || clear_refusal()) {
    PyErr_Clear();
    return Owned::borrow(Py_None);
  }
  return {};
}

int same_dependencies(Skeleton* before, PyObject* fun, const Skeleton* call) {
  Roots roots = roots_of(fun, call->program);
  if (!roots.settings) {
    return -1;
  }
  Owned held = Owned::borrow(before->object());
  Match match = match_dependencies(before->program, roots.settings.get(),
                                   roots.functions, roots.arguments);
  return match == Match::Error ? -1 : static_cast<int>(match == Match::Yes);
}

Owned changed_dependency(Skeleton* before, PyObject* fun, const Skeleton* call) {
  Roots roots = roots_of(fun, call->program);
  if (!roots.settings) {
    return {};
  }
  Owned held = Owned::borrow(before->object());
  const Program& program = before->program;
  std::size_t read = program.holders.size();
  const char* other = first_changed(program, roots.settings.get(), roots.functions,
                                    roots.arguments, read);
  if (read >= program.holders.size()) {
    return Owned::steal(PyUnicode_FromString(other));
  }
  return describe_read(program, read);
}

}  // namespace autojit
