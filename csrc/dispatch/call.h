// From a call to its result.
#pragma once

#include "dispatch/dispatcher.h"
#include "python/owned.h"
#include "skeleton/call_view.h"

namespace autojit {

// The result of a call, or nothing: with an exception set, or `is_eager` tells that the
// function itself is to be called (`jax.disable_jit`). Runs Python if there is
// something to compare, to warn of or to trace, or if JAX does.
Owned dispatch(Dispatcher* self, CallView& call, bool& is_eager);

// Ahead of the time of a call: finds or makes the specialization that would serve it,
// and has a stage of JAX made for that, by `config.stage` and under this name. Nothing
// with an exception set on failure. Runs Python.
Owned stage(Dispatcher* self, CallView& call, PyObject* name);

// Why a call would be traced, by `config.explain`: a new str, None if it would not be,
// or nothing with an exception set on failure. Runs Python.
Owned explain(Dispatcher* self, CallView& call);

// A call taken apart: a tuple of its skeleton and a tuple of its leaves, or nothing
// with an exception set on failure. Runs Python.
Owned take_apart(Dispatcher* self, CallView& call);

}  // namespace autojit
