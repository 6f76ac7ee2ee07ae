#include "objects/reduction.h"

#include "objects/config.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"

namespace autojit {

// As all that holds Python objects here, it outlives the interpreter.
std::unordered_map<PyObject*, Owned>& unfaithful_objects() {
  static auto* map = new std::unordered_map<PyObject*, Owned>();
  return *map;
}

namespace {

PyObject* on_unfaithful_death(PyObject* capsule, PyObject* /*weak_object*/) {
  auto found = unfaithful_objects().find(
      static_cast<PyObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  if (found != unfaithful_objects().end()) {
    Owned weak_object = std::move(found->second);  // dropped when the map is whole
    unfaithful_objects().erase(found);
  }
  Py_RETURN_NONE;
}
PyMethodDef on_unfaithful_death_def = {"forget_object", on_unfaithful_death, METH_O,
                                       nullptr};

}  // namespace

bool note_unfaithful(PyObject* object) {
  if (PyType_SUPPORTS_WEAKREFS(Py_TYPE(object)) == 0) {
    return false;
  }
  Owned weak_object = python::on_death(object, on_unfaithful_death_def);
  if (!weak_object) {
    return false;
  }
  unfaithful_objects().try_emplace(object, std::move(weak_object));
  return true;
}

bool has_own_state(PyTypeObject* type) {
  return !is_objects_own(type, names.getstate) ||
         python::type_lookup(type, names.setstate) != nullptr;
}

namespace {

// As the core needs it: nothing left to iterate over.
bool is_plain_reduction(PyObject* value) {
  return PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) >= 2 &&
         PyTuple_GET_SIZE(value) <= 6 &&
         PyCallable_Check(PyTuple_GET_ITEM(value, 0)) != 0 &&
         PyTuple_CheckExact(PyTuple_GET_ITEM(value, 1)) &&
         reduction_part(value, kListItems) == Py_None &&
         reduction_part(value, kDictItems) == Py_None;
}

// Whether a reduction may have left out what a Python class has added to an instance of
// a builtin one. That is to be looked at in Python then.
bool may_have_lost(const TypePlan& plan, PyObject* object, PyObject* reduction) {
  if (plan.may_lose_slots) {
    return true;
  }
  PyObject* dict = python::instance_dict(object);  // may make it
  return dict != nullptr && PyDict_GET_SIZE(dict) != 0 &&
         reduction_part(reduction, kState) != dict;
}

// A set reduces to a list, in an order that says nothing: that of a subclass's instance
// then has a set instead. `reduction` as it is for all else; nothing with an exception
// set on failure.
Owned of_set(PyObject* object, Owned reduction) {
  if (!PyAnySet_Check(object)) {
    return reduction;
  }
  PyObject* args = PyTuple_GET_ITEM(reduction.get(), 1);
  PyObject* elements =
      PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : nullptr;
  PyObject* method = python::type_lookup(Py_TYPE(object), names.reduce);
  if (elements == nullptr || !PyList_CheckExact(elements) ||
      (method != python::type_lookup(&PySet_Type, names.reduce) &&
       method != python::type_lookup(&PyFrozenSet_Type, names.reduce))) {
    return reduction;
  }
  Owned set = Owned::steal(PyFrozenSet_New(elements));
  Owned new_args = Owned::steal(set ? PyTuple_Pack(1, set.get()) : nullptr);
  Owned list = Owned::steal(new_args ? PySequence_List(reduction.get()) : nullptr);
  if (!list) {
    return {};
  }
  PyList_SetItem(list.get(), 1, new_args.release());
  return Owned::steal(PyList_AsTuple(list.get()));
}

}  // namespace

PyObject* reduce(PyObject* object) {
  // Not the highest: from 5 on, arrays reduce to buffers that compare by identity.
  static PyObject* const protocol = PyLong_FromLong(4);
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  Owned registered = Owned::borrow(PyDict_GetItemWithError(config.copyreg_table, type));
  if (!registered && PyErr_Occurred() != nullptr && !clear_refusal()) {
    return nullptr;  // a class that can't be hashed is not registered
  }
  Owned value = Owned::steal(
      registered ? PyObject_CallOneArg(registered.get(), object)
                 : PyObject_CallMethodOneArg(object, names.reduce_ex, protocol));
  if (!value && !clear_refusal()) {
    return nullptr;
  }
  const TypePlan* plan = plan_for(object);
  if (plan == nullptr) {
    return nullptr;
  }
  bool may_lose = !registered && plan->may_lose;
  if (value && is_plain_reduction(value.get()) && !PyExceptionInstance_Check(object) &&
      !(may_lose && may_have_lost(*plan, object, value.get()))) {
    return of_set(object, std::move(value)).release();
  }
  Owned reduction = Owned::steal(
      PyObject_CallFunctionObjArgs(config.reduce, object, value ? value.get() : Py_None,
                                   may_lose ? Py_True : Py_False, nullptr));
  return reduction && reduction.get() != Py_None
             ? of_set(object, std::move(reduction)).release()
             : reduction.release();
}

}  // namespace autojit
