// call -> a number that mostly tells it from others
#pragma once

#include <cstdint>

#include "skeleton/call_view.h"

namespace autojit {

// The same for calls that are equal and were made in the same way, and mostly another
// for others: it looks at what is cheap to look at, and no further than some depth and
// number of objects. Allocates nothing that grows with the call, and runs no Python.
// Looks once: what the function does to its arguments makes no other call of it. Never
// 0.
std::uint64_t fingerprint_of(CallView& call);

}  // namespace autojit
