// What the functions of a skeleton hold and read.
//
// A function goes by identity: the very object hits whatever it holds by now, as in
// `jax.jit`. One that is made anew hits if it equals the one that was traced, as that
// was before the trace.
#pragma once

#include "python/owned.h"
#include "skeleton/skeleton.h"

namespace autojit {

// What the functions of `skeleton` held when this was first asked, as a Skeleton that
// is there to be compared; None if they go by identity. Borrowed; nullptr with an
// exception set on failure. Runs Python the first time, which has to be before a
// function is called: that may change it.
PyObject* closures_of(Skeleton* skeleton);

// Whether the functions of two skeletons that are equal but for these held the same.
// 1, 0, or -1 with an exception set. Runs Python.
int same_closures(Skeleton* first, Skeleton* second);
// The same for the functions of a call as they are now; those that are in both may have
// changed. Runs Python.
int same_functions(Skeleton* first, Skeleton* call);

// The functions of `skeleton` are about to be traced once more: if they no longer hold
// what they held, they go by identity from now on. False with an exception set on
// failure. Runs Python.
bool note_changed_functions(Skeleton* skeleton);

}  // namespace autojit
