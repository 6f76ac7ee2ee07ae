// How deep a walk through objects may go, and how long before it looks for signals.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "python/errors.h"
#include "python/owned.h"

namespace autojit::python {

// How many bytes of C stack this thread has left. CPython before 3.14 counts calls
// instead, and its count takes a stack of the usual size for granted.
inline std::size_t stack_left() {
  thread_local const char* end = nullptr;
  if (end == nullptr) {
#ifdef __APPLE__
    end = static_cast<const char*>(pthread_get_stackaddr_np(pthread_self())) -
          pthread_get_stacksize_np(pthread_self());
#else
    pthread_attr_t attributes;
    void* address = nullptr;
    std::size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
      pthread_attr_getstack(&attributes, &address, &size);
      pthread_attr_destroy(&attributes);
    }
    end = static_cast<const char*>(address);
#endif
  }
  const char here = 0;
  return reinterpret_cast<std::uintptr_t>(&here) -
         reinterpret_cast<std::uintptr_t>(end);
}

// For recursion over objects: keep this much for what else has to run.
inline constexpr std::size_t kStackReserve = std::size_t{96} * 1024;

// Objects that are nested less deeply than this need no watching.
inline constexpr std::uint32_t kShallow = 50;

// What is said where a recursion ends, and what then helps, beside a flatter structure.
inline constexpr const char* kStackUsedUp = "the C stack is all but used up";
inline constexpr const char* kWhileWalking = " while walking through objects";
inline constexpr const char* kLargerStack =
    ", or call from a thread with a larger threading.stack_size()";
inline constexpr const char* kHigherLimit = ", or raise sys.setrecursionlimit()";
inline constexpr const char* kNothingElse = ": CPython's limit of calls in C is fixed";

// Takes the exception that is set, and gives its text; nothing with another one set on
// failure. Runs nothing of a class of the user's.
inline Owned take_text_of_error() {
  Owned error = take_exception();
  PyObject* args = reinterpret_cast<PyBaseExceptionObject*>(error.get())->args;
  if (args != nullptr && PyTuple_GET_SIZE(args) != 0 &&
      PyUnicode_CheckExact(PyTuple_GET_ITEM(args, 0))) {
    return Owned::borrow(PyTuple_GET_ITEM(args, 0));
  }
  return Owned::steal(PyUnicode_FromString(Py_TYPE(error.get())->tp_name));
}

// What helps against a RecursionError with this text.
inline const char* remedy(const char* text) {
  if (std::strstr(text, kStackUsedUp) != nullptr) {
    return kLargerStack;
  }
#if PY_VERSION_HEX >= 0x030E0000
  // CPython itself looks at the stack.
  return std::strncmp(text, "Stack overflow", 14) == 0 ? kLargerStack : kHigherLimit;
#elif PY_VERSION_HEX >= 0x030C0000
  // Calls in C have a limit of their own, which nothing raises. What it says of the
  // other one has no more to it.
  return std::strcmp(text, "maximum recursion depth exceeded") == 0 ? kHigherLimit
                                                                    : kNothingElse;
#else
  return kHigherLimit;
#endif
}

// One more level of recursion, for as long as this lives: if it is not safe, it is not
// entered, and a RecursionError is set.
class Level {
 public:
  Level() : entered_(enter()) {}
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;
  ~Level() {
    if (entered_) {
      Py_LeaveRecursiveCall();
    }
  }
  bool entered() const { return entered_; }

 private:
  static bool enter() {
    if (stack_left() < kStackReserve) {
      PyErr_SetString(PyExc_RecursionError, kStackUsedUp);
      return false;
    }
    return Py_EnterRecursiveCall(kWhileWalking) == 0;
  }

  bool entered_;
};

// Looks for signals now and then in a walk that may take long.
class Signals {
 public:
  // False with an exception set if there was one and its handler raised. May run
  // Python.
  bool look() { return --left_ != 0 || look_now(); }

 private:
  bool look_now() {
    left_ = kSteps;
    return PyErr_CheckSignals() == 0;
  }

  static constexpr std::uint32_t kSteps = 4096;
  std::uint32_t left_ = kSteps;
};

}  // namespace autojit::python
