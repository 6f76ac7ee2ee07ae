// What a compiled function returns.
#pragma once

#include "python/owned.h"
#include "skeleton/rebuild.h"
#include "skeleton/skeleton.h"

namespace autojit {

// A pytree node, registered with JAX, whose children are the leaves of the result and
// whose static part is its skeleton. So JAX keeps the right skeleton with each variant
// that it compiles, and the dispatcher puts the result together.
struct Result {
  PyObject_HEAD
  Skeleton* skeleton;  // owned
  PyObject* leaves;    // owned tuple
};

extern PyTypeObject ResultType;

// nullptr with an exception set on failure. `leaves` must be a tuple.
PyObject* new_result(Skeleton* skeleton, PyObject* leaves);

// Puts together what a compiled function returned. Nothing with an exception set on
// failure. May run Python.
Owned unwrap(Owned returned, const Inputs& inputs);

}  // namespace autojit
