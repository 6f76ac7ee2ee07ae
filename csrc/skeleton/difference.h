// What tells two skeletons apart, for a reader.
#pragma once

#include "python/owned.h"
#include "skeleton/call_view.h"
#include "skeleton/skeleton.h"

namespace autojit {

// The first place where `now` is not what `before` was, with what stood and stands
// there: `args[1].config['act']: was 'tanh', now 'relu'`. A new str, None if the two
// are equal, or nothing with an exception set on failure. Runs Python. The caller must
// hold both.
Owned difference(Skeleton* before, Skeleton* now);

// The parts that differ, at most so many: a new list of tuples of a path, the texts of
// what stood and stands there, and whether that could be traced; nothing with an
// exception set on failure. Runs Python.
Owned differences(const Skeleton* before, const Skeleton* now, std::size_t most);

// The paths of what a function has changed in its arguments and not returned, the first
// few of them: a new list, or nothing with an exception set on failure. `leaves` are
// those that it was called with. Runs Python.
Owned lost_changes(const Skeleton* before, PyObject* const* leaves, PyObject* result,
                   CallView& after);
// The same as the first of them has it, without what the other has:
// `args[1].config['act'] is 'tanh'`.
Owned difference_as_first(Skeleton* first, Skeleton* other);

// How far apart two skeletons are, to find the nearest of several: in how many nodes
// they differ, if they have the same structure; else more, the sooner they part. Only
// what is compared without running Python counts.
std::size_t distance(const Skeleton* first, const Skeleton* second);

}  // namespace autojit
