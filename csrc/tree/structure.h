// The Python object that JAX compares for a Tree: what of it is static.
#pragma once

#include <cstdint>

#include "python/owned.h"
#include "skeleton/skeleton.h"

namespace autojit {

struct Structure {
  PyObject_HEAD
  PyObject* skeleton;  // owned
  // Owned: one place for each leaf of the skeleton, with the array that is no leaf of
  // the tree, or None for one that is. nullptr if all are.
  PyObject* kept;
  std::uint32_t leaves;  // how many leaves the tree has
  bool inexact;          // whether only inexact arrays are leaves
  // The one that it was last found to differ from, borrowed, or nullptr. That has a
  // pointer to this one, so that whichever goes first clears both.
  Structure* other;
  // By what `last_structure` may find it; 0 for nothing.
  std::uintptr_t key;

  PyObject* object() { return reinterpret_cast<PyObject*>(this); }
  const Program& program() const { return as_skeleton(skeleton)->program; }
};

extern PyTypeObject StructureType;

inline Structure* as_structure(PyObject* object) {
  return reinterpret_cast<Structure*>(object);
}

// A new Structure; nothing with an exception set on failure. `kept` is nullptr if all
// arrays are leaves, and else as above.
Owned new_structure(PyObject* skeleton, PyObject* kept, bool inexact);

// The structure that an object of a class had the last time, borrowed, or nullptr. The
// next one has most often the same, and to see that is faster than to make another one.
Structure* last_structure(PyTypeObject* type, bool inexact);
void note_last_structure(PyTypeObject* type, Structure* structure);

// Whether what two structures of one skeleton keep are the very same arrays.
bool have_same_arrays(PyObject* kept, PyObject* other);

// What it is like, in a few words; nothing with an exception set on failure.
Owned describe_structure(const Structure* structure);
// The paths to the leaves of the tree, from its object on: a new tuple, or nothing with
// an exception set on failure.
Owned leaf_paths(const Structure* structure);

}  // namespace autojit
