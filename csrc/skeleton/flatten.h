// object -> leaves + skeleton
//
// Each of these is false with an exception set on failure, and appends owned references
// to `leaves`. All run Python (reductions).
#pragma once

#include <vector>

#include "python/owned.h"
#include "skeleton/call_view.h"
#include "skeleton/program.h"
#include "skeleton/skeleton.h"

namespace autojit {

// `leaf_type` is a class, a tuple of classes, or nullptr for JAX's arrays. `root`
// stands for the object in messages.
bool flatten(PyObject* object, PyObject* leaf_type, const char* root, Program& program,
             OwnedVector& leaves);

// A call. `reduced` gets the objects that were reduced.
bool flatten_call(CallView& call, Program& program, OwnedVector& leaves,
                  NodeObjects& reduced);

// The result of a function. `call` is the skeleton of its call and `inputs` a tuple of
// the leaves that it was given, None for one that must not come back, because it was
// donated.
bool flatten_result(PyObject* object, Skeleton* call, PyObject* inputs,
                    Program& program, OwnedVector& leaves, NodeObjects& reduced);

// The result of a function and, after it, the call that it has returned from, in a
// tuple.
bool flatten_after(PyObject* result, CallView& call, Program& program,
                   OwnedVector& leaves);

// What an object holds that is handed through whole, there to be compared: it has the
// very arrays and functions. `has_leaves` tells whether there are arrays.
bool flatten_content(PyObject* object, Program& program, bool& has_leaves);

// What the functions of a call hold and read, there to be compared. What can't be told
// or is too much is an exception, most often a refusal.
bool flatten_closures(const Program& call, Program& program);

// What a wrapped function depends on, beside its call: what `functions` hold and read,
// there to be compared. `settings` are those of JAX, `arguments` what the call has that
// functions may ask for attributes. The functions are not kept.
bool flatten_dependencies(PyObject* settings, const std::vector<PyObject*>& functions,
                          const std::vector<PyObject*>& arguments, Program& program);

}  // namespace autojit
