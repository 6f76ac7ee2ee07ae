// The Python object `autojit.Skeleton`: what is left of an object when its leaves are
// taken out.
#pragma once

#include "python/owned.h"
#include "skeleton/program.h"

namespace autojit {

struct Skeleton {
  PyObject_HEAD
  Program program;
  // What stands for the root in a path: "obj", "result" or, for a call, nothing.
  const char* root;
  Py_hash_t hash;  // -1: not yet computed
  // Owned: a Skeleton of what the functions hold, None if they go by identity, or
  // nullptr for not yet known. See `closures.h`.
  PyObject* closures;

  PyObject* object() { return reinterpret_cast<PyObject*>(this); }
};

extern PyTypeObject SkeletonType;

inline Skeleton* as_skeleton(PyObject* object) {
  return reinterpret_cast<Skeleton*>(object);
}

// A new Skeleton that takes over `program`; nothing with an exception set on failure.
Owned new_skeleton(Program&& program, const char* root);

// How many bytes a skeleton keeps that are not JAX's, its functions' content included.
std::size_t static_bytes(const Skeleton* skeleton);

}  // namespace autojit
