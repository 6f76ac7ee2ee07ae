// Which parts of two skeletons differ, where each that does is passed over.
#pragma once

#include <cstddef>
#include <vector>

#include "skeleton/program.h"

namespace autojit {

// What stands at one place in two programs.
struct Differing {
  std::size_t before;
  std::size_t now;
};

// What a function has returned stands before the nodes of its call in the second
// program. What it has changed and returned is not lost.
struct Returned {
  std::size_t end;  // of its nodes
  PyObject* const* leaves_before;
  const OwnedVector& leaves_now;
};

// The first parts that differ, at most so many. Keys and attributes may stand in
// another order. Without `returned`, arrays don't differ, and functions only in their
// code; with it, arrays differ if they are not identical, and what is handed through
// whole does not. False with an exception set on failure. May run Python.
bool differing_parts(const Program& before, const Program& now,
                     const Returned* returned, std::size_t most,
                     std::vector<Differing>& found);

}  // namespace autojit
