// Exceptions: put aside, asked what they are, made of a lack of memory.
#pragma once

#include <new>
#include <type_traits>
#include <utility>

#include "python/owned.h"

namespace autojit {

// After a failure of user code: whether the exception that is set is no more than a
// refusal. A KeyboardInterrupt, a MemoryError and a RecursionError are none.
inline bool is_refusal() {
  return PyErr_ExceptionMatches(PyExc_Exception) != 0 &&
         PyErr_ExceptionMatches(PyExc_MemoryError) == 0 &&
         PyErr_ExceptionMatches(PyExc_RecursionError) == 0;
}
// The same, and then it is cleared.
inline bool clear_refusal() {
  if (!is_refusal()) {
    return false;
  }
  PyErr_Clear();
  return true;
}

// Takes the exception that is set, with its traceback; nothing if there is none.
inline Owned take_exception() {
#if PY_VERSION_HEX >= 0x030C0000
  return Owned::steal(PyErr_GetRaisedException());
#else
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (value != nullptr && traceback != nullptr) {
    PyException_SetTraceback(value, traceback);
  }
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  return Owned::steal(value);
#endif
}

// Sets an exception that was taken, in place of one that may be set.
inline void set_exception(Owned exception) {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(exception.release());
#else
  PyObject* value = exception.release();
  PyErr_Restore(value != nullptr
                    ? Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value)))
                    : nullptr,
                value, value != nullptr ? PyException_GetTraceback(value) : nullptr);
#endif
}

// The exception that is set, if any, is out of the way for as long as this lives. Runs
// no Python but what the exceptions that are dropped meanwhile may run.
class SavedError {
 public:
  SavedError(const SavedError&) = delete;
  SavedError& operator=(const SavedError&) = delete;
#if PY_VERSION_HEX >= 0x030C0000
  SavedError() : exception_(PyErr_GetRaisedException()) {}
  ~SavedError() { PyErr_SetRaisedException(exception_); }

 private:
  PyObject* exception_;
#else
  SavedError() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~SavedError() { PyErr_Restore(type_, value_, traceback_); }

 private:
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
#endif
};

namespace detail {

template <auto kFunction>
struct Guarded;

template <typename Result, typename... Args, Result (*kFunction)(Args...)>
struct Guarded<kFunction> {
  static Result call(Args... args) noexcept {
    try {
      return kFunction(args...);
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    }
    if constexpr (std::is_pointer_v<Result>) {
      return nullptr;
    } else {
      return -1;
    }
  }
};

}  // namespace detail

// A function as CPython is to call it: a lack of memory becomes a MemoryError. Each
// that allocates stands so in the table of its type or module.
template <auto kFunction>
inline constexpr auto guarded = &detail::Guarded<kFunction>::call;

// The way CPython wants methods of other signatures to be named.
template <typename Function>
PyCFunction as_method(Function* function) noexcept {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace autojit
