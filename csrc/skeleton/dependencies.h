// What a trace depends on beside its call.
//
// A function that is wrapped again may take what another wrapper has traced if a trace
// of its own would be the same: if all that the function holds and reads by name, and
// the functions that it calls, is as it was then. See `objects/function_state.h`.
#pragma once

#include "python/owned.h"
#include "skeleton/skeleton.h"

namespace autojit {

// What a trace of `fun` for a call depends on beside the call, as a Skeleton that is
// there to be compared: what the function holds and reads, and the same of what it
// calls. None if that is too much to look at; nothing with an exception set on failure.
// `fun` is nullptr if it is part of the call. Runs Python.
Owned dependencies_now(PyObject* fun, const Skeleton* call);
// Whether that is as it was: 1, 0, or -1 with an exception set. May run Python.
int same_dependencies(Skeleton* before, PyObject* fun, const Skeleton* call);
// What is not as it was, as one would write it: `module.name`. A new str, or nothing
// with an exception set on failure. May run Python.
Owned changed_dependency(Skeleton* before, PyObject* fun, const Skeleton* call);

}  // namespace autojit
