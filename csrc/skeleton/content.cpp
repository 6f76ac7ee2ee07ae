#include "skeleton/content.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "objects/type_plan.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "skeleton/flatten.h"

namespace autojit {

namespace {

// What is plain data: numbers, strings, numpy arrays that are not large, arrays of JAX
// that a reduction does not carry, and tuples, lists and dicts of them.
class PlainData {
 public:
  PlainData(PyObject* const* carried, std::size_t count)
      : carried_(carried), end_(carried + count) {}
  // Runs nothing.
  bool has(PyObject* value) {
    budget_ = kMostObjects;
    return is_plain(value);
  }

 private:
  bool is_plain(PyObject* value);

  static constexpr int kMostObjects = 1000;
  static constexpr std::size_t kMostBytes = 1U << 20U;
  PyObject* const* carried_;
  PyObject* const* end_;
  int budget_ = 0;
};

bool PlainData::is_plain(PyObject* value) {
  if (value == Py_None || PyBool_Check(value)) {
    return true;
  }
  if (--budget_ < 0) {
    return false;
  }
  PyTypeObject* type = Py_TYPE(value);
  if (is_leaf_type(type)) {
    return std::find(carried_, end_, value) == end_;
  }
  if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type ||
      type == &PyComplex_Type || type == &PyBytes_Type) {
    return true;
  }
  if (numpy::is_array(value)) {
    return numpy::is_plain(value) && numpy::size_in_bytes(value) <= kMostBytes;
  }
  if (type == &PyTuple_Type || type == &PyList_Type) {
    PyObject* const* items = PySequence_Fast_ITEMS(value);
    return std::all_of(items, items + PySequence_Fast_GET_SIZE(value),
                       [&](PyObject* item) { return is_plain(item); });
  }
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* item = nullptr;
  while (type == &PyDict_Type && PyDict_Next(value, &position, &key, &item) != 0) {
    if (!is_plain(key) || !is_plain(item)) {
      return false;
    }
  }
  return type == &PyDict_Type;
}

// The attributes of an instance, held.
std::vector<std::pair<Owned, Owned>> attributes_of(PyObject* object,
                                                   const TypePlan& plan) {
  std::vector<std::pair<Owned, Owned>> attributes;
  PyObject* dict = plan.has_dict ? python::instance_dict(object) : nullptr;
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  while (dict != nullptr && PyDict_Next(dict, &position, &name, &value) != 0) {
    attributes.emplace_back(Owned::borrow(name), Owned::borrow(value));
  }
  for (const TypePlan::Slot& slot : plan.slots) {
    attributes.emplace_back(Owned::borrow(slot.name.get()),
                            Owned::borrow(slot.value(object)));
  }
  return attributes;
}

}  // namespace

Owned content_now(PyObject* object, bool* has_leaves) {
  Owned holder = Owned::borrow(object);
  Program program;
  bool found = false;
  if (!flatten_content(object, program, found)) {
    return {};
  }
  if (has_leaves != nullptr) {
    *has_leaves = found;
  }
  return new_skeleton(std::move(program), "obj");
}

Owned left_out(PyObject* object, PyObject* const* carried, std::size_t count,
               bool as_constants, OwnedVector& arrays) {
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (plan == nullptr || !plan->may_omit) {
    return Owned::borrow(Py_None);
  }
  Owned plain;
  PlainData data(carried, count);
  for (const auto& [name, value] : attributes_of(object, *plan)) {
    // Names of other types could run Python.
    if (!value || !PyUnicode_CheckExact(name.get())) {
      continue;
    }
    if (plan_for(value.get()) == nullptr) {  // whether it is an array
      return {};
    }
    if (!data.has(value.get())) {
      continue;
    }
    if (!plain) {
      plain = Owned::steal(PyDict_New());
    }
    if (!plain || PyDict_SetItem(plain.get(), name.get(), value.get()) < 0) {
      return {};
    }
  }
  if (!plain) {
    return Owned::borrow(Py_None);
  }
  if (as_constants) {
    return content_now(plain.get());
  }
  Program program;
  return flatten(plain.get(), nullptr, "obj", program, arrays)
             ? new_skeleton(std::move(program), "obj")
             : Owned();
}

}  // namespace autojit
