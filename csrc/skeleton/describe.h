// skeleton -> text
//
// Each gives a new str, or nothing with an exception set on failure. Run Python only
// for the repr of values and opaque objects.
#pragma once

#include "python/owned.h"
#include "skeleton/program.h"

namespace autojit {

// The repr of a skeleton.
Owned describe(const Program& program);
// The same of what stands at one node, on one line.
Owned describe_part(const Program& program, std::size_t index);
// What has a name that functions read, as one would write it: `module.name`.
Owned describe_read(const Program& program, std::size_t read);

// How a reader would write the way from the root to node `index`, like
// `args[1].config['act']`; "" for the root of a call. `index` may be the end of an
// unfinished program.
Owned path(const Program& program, const char* root, std::size_t index);
// The path to leaf `leaf`, which must be one.
Owned leaf_path(const Program& program, const char* root, std::uint32_t leaf);
// The paths to all leaves, none of them abridged. False with an exception set on
// failure.
bool all_leaf_paths(const Program& program, const char* root, OwnedVector& paths);

// A text that is not too long, by what stands around a place in it.
Owned abridged(const Owned& text, Py_ssize_t around);

}  // namespace autojit
