#include "dispatch/statistics.h"

#include <chrono>

#include "dispatch/specialization.h"
#include "skeleton/dependencies.h"

namespace autojit {

Statistics statistics;

namespace {

// How many counted calls this thread is in.
thread_local std::uint32_t depth = 0;

}  // namespace

std::uint64_t clock_now() {
  return static_cast<std::uint64_t>(
      std::chrono::steady_clock::now().time_since_epoch() /
      std::chrono::nanoseconds(1));
}

CountedCall::CountedCall() : start_(depth++ == 0 ? clock_now() : 0) {}

CountedCall::~CountedCall() {
  if (--depth == 0) {
    ++statistics.calls;
    statistics.nanoseconds += clock_now() - start_;
  }
}

Owned why_traced(const OwnedVector& stale, PyObject* fun, const Skeleton* call) {
  if (stale.empty()) {
    return Owned::steal(PyUnicode_FromString("new arguments"));
  }
  Owned before = Owned::borrow(as_specialization(stale[0])->dependencies);
  if (!before || before.get() == Py_None) {
    return Owned::steal(PyUnicode_FromString("not to be shared"));
  }
  Owned path = changed_dependency(as_skeleton(before.get()), fun, call);
  return path ? Owned::steal(PyUnicode_FromFormat("changed: %U", path.get())) : Owned();
}

}  // namespace autojit
