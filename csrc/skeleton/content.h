// What is compared and not put together: what an object that is handed through whole
// holds, and what a reduction may leave out.
#pragma once

#include "python/owned.h"
#include "skeleton/skeleton.h"

namespace autojit {

// What an object holds now, as a Skeleton with the very arrays and functions.
// `has_leaves` is told whether there are arrays. Nothing with an exception set on
// failure. Runs Python.
Owned content_now(PyObject* object, bool* has_leaves = nullptr);

// What the attributes of an instance hold that its reduction may have left out, if it
// is plain data: a Skeleton, None if there is nothing, or nothing with an exception
// set. The arrays among it are appended to `arrays`, but for those that the reduction
// carries, which don't count; or they are constants. Runs Python.
Owned left_out(PyObject* object, PyObject* const* carried, std::size_t count,
               bool as_constants, OwnedVector& arrays);

}  // namespace autojit
