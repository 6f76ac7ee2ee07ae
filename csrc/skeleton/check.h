// Whether what is put together again is what was taken apart.
//
// A reduction may give another type or another value than the object has. That is
// noticed where a specialization is about to be made: what its skeleton describes is
// put together once more, and compared with the objects that were reduced. One that is
// not reproduced is noted and handed through whole from then on, so that what was
// flattened has to be flattened again.
//
// 1 if all are reproduced, 0, or -1 with an exception set. Run Python.
#pragma once

#include "python/owned.h"
#include "skeleton/program.h"
#include "skeleton/rebuild.h"

namespace autojit {

// What can't be put together is an error only of a call that has a specialization,
// `is_traced`: otherwise the trace will say so.
int check_call(const Program& program, PyObject* const* leaves,
               const NodeObjects& reduced, bool is_traced);
int check_result(const Program& program, PyObject* const* leaves, const Inputs& inputs,
                 const NodeObjects& reduced);

}  // namespace autojit
