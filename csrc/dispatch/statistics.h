// What is counted for those who ask: how often dispatchers are called, for how long,
// and why functions are traced.
#pragma once

#include <cstdint>

#include "python/owned.h"
#include "skeleton/skeleton.h"

namespace autojit {

struct Statistics {
  bool is_on = false;       // dispatchers that are made now count their calls
  std::uint64_t calls = 0;  // but for those within another
  std::uint64_t nanoseconds = 0;
  std::uint64_t saved = 0;  // how often a dispatcher took what another had traced
};
extern Statistics statistics;

// The time of a clock that is never set, in nanoseconds.
std::uint64_t clock_now();

// Counts a call, and the time until it goes.
class CountedCall {
 public:
  CountedCall();
  CountedCall(const CountedCall&) = delete;
  CountedCall& operator=(const CountedCall&) = delete;
  ~CountedCall();

 private:
  std::uint64_t start_;
};

// Why a call is traced for which there are specializations, if there are any, of which
// none may be used: a new str, or nothing with an exception set on failure. May run
// Python.
Owned why_traced(const OwnedVector& stale, PyObject* fun, const Skeleton* call);

}  // namespace autojit
