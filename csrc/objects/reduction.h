// Reductions: how pickle would take an object apart, and whether that reproduces it.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "objects/type_plan.h"
#include "python/owned.h"

namespace autojit {

// How pickle would reduce `object`: a new reference to a tuple, whose parts are below,
// or to None if the object is opaque. nullptr with an exception set on failure. Runs
// Python.
PyObject* reduce(PyObject* object);

// The parts of a reduction, in the order in which they follow their node. The first two
// are always there.
enum ReducePart : std::uint8_t {
  kFunc,
  kArgs,
  kState,
  kListItems,
  kDictItems,
  kStateSetter,
};
inline constexpr std::uint32_t kReduceParts = kStateSetter + 1;

// A part, borrowed: None if it is not there.
inline PyObject* reduction_part(PyObject* reduction, std::uint32_t part) {
  return static_cast<Py_ssize_t>(part) < PyTuple_GET_SIZE(reduction)
             ? PyTuple_GET_ITEM(reduction, static_cast<Py_ssize_t>(part))
             : Py_None;
}

// Which parts are there, a bit for each. It is the `size` of a node.
inline std::uint32_t parts_present(PyObject* reduction) {
  std::uint32_t present = 0;
  for (std::uint32_t part = 0; part < kReduceParts; ++part) {
    bool is_there = part <= kArgs || reduction_part(reduction, part) != Py_None;
    present |= is_there ? 1U << part : 0U;
  }
  return present;
}
inline bool has_part(std::uint32_t present, std::uint32_t part) {
  return (present & (1U << part)) != 0;
}

// Whether a class has a `__getstate__` or `__setstate__` of its own: then it knows what
// its state is.
bool has_own_state(PyTypeObject* type);

// Objects that their reductions do not reproduce, with weak references to them. They
// are handed through whole.
std::unordered_map<PyObject*, Owned>& unfaithful_objects();
inline bool is_unfaithful(const TypePlan& plan, PyObject* object) {
  return plan.unfaithful || unfaithful_objects().contains(object);
}
// Notes one, as long as it lives. One that takes no weak references is not noted: then
// this is false, or with an exception set on failure.
bool note_unfaithful(PyObject* object);

}  // namespace autojit
