// The few places where CPython versions differ, and the handle type for what we own.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace autojit {

// An owned reference: the count goes down when the handle goes out of scope, which
// may run Python.
class Owned {
 public:
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Owned(Owned&& other) noexcept : object_(other.release()) {}
  Owned& operator=(Owned&& other) noexcept {
    PyObject* old = std::exchange(object_, other.release());
    Py_XDECREF(old);
    return *this;
  }
  ~Owned() { Py_XDECREF(object_); }

  static Owned steal(PyObject* object) {
    Owned owned;
    owned.object_ = object;
    return owned;
  }
  static Owned borrow(PyObject* object) { return steal(Py_XNewRef(object)); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// Appends an owned reference, which is dropped if there is no memory for it.
template <typename Vector>
void append_owned(Vector& vector, PyObject* object) {
  Owned guard = Owned::steal(object);
  vector.push_back(object);
  guard.release();
}

// A new tuple of borrowed objects, or nothing with an exception set on failure.
inline Owned tuple_of(PyObject* const* objects, std::size_t count) {
  Owned tuple = Owned::steal(PyTuple_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; tuple && i < count; ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), Py_NewRef(objects[i]));
  }
  return tuple;
}

namespace python {

// Sets `dict` to the `__dict__` of an instance, borrowed, or to nullptr if it has none.
// False if there is no memory for it. May allocate the dict, never runs Python inside a
// `NoCollection`. `PyObject_GenericGetDict` is the public way and makes an empty dict
// for each instance that has none.
[[gnu::always_inline]] inline bool get_instance_dict(PyObject* object,
                                                     PyObject*& dict) {
  PyObject** place = _PyObject_GetDictPtr(object);
  dict = place != nullptr ? *place : nullptr;
  return place != nullptr || Py_TYPE(object)->tp_dictoffset == 0;
}

// The same where a lack of memory may pass for a lack of attributes.
inline PyObject* instance_dict(PyObject* object) {
  PyObject* dict = nullptr;
  (void)get_instance_dict(object, dict);
  return dict;
}

// While one of these lives, an allocation does not start a garbage collection, whose
// finalizers could change what is being walked. CPython 3.12 and later collect between
// two bytecodes only.
class NoCollection {
 public:
  NoCollection(const NoCollection&) = delete;
  NoCollection& operator=(const NoCollection&) = delete;
#if PY_VERSION_HEX < 0x030C0000
  explicit NoCollection(bool needed) : enabled_(needed && PyGC_Disable() != 0) {}
  ~NoCollection() { end(); }
  void end() {
    if (std::exchange(enabled_, false)) {
      PyGC_Enable();
    }
  }

 private:
  bool enabled_;
#else
  explicit NoCollection(bool /*needed*/) {}
  void end() {}
#endif
};

// A weak reference that calls a function when its object goes, with a capsule of the
// object's address. Nothing with an exception set on failure.
inline Owned on_death(PyObject* object, PyMethodDef& function) {
  Owned address = Owned::steal(PyCapsule_New(object, nullptr, nullptr));
  Owned callback =
      Owned::steal(address ? PyCFunction_New(&function, address.get()) : nullptr);
  return Owned::steal(callback ? PyWeakref_NewRef(object, callback.get()) : nullptr);
}

// From CPython 3.14 on the caller's stack may borrow the arguments of a call, so that
// a reference count of one no longer says that an argument occurs once.
inline constexpr bool kArgumentsMayBeBorrowed = PY_VERSION_HEX >= 0x030E0000;

// The class attribute that an instance's special method would come from, borrowed.
// Looks at the types of the MRO only: no descriptor, no metaclass, no Python runs.
inline PyObject* type_lookup(PyTypeObject* type, PyObject* name) {
  return _PyType_Lookup(type, name);
}

// A number that changes whenever the class or one of its bases does; 0 if CPython has
// none to give.
inline unsigned int type_version(PyTypeObject* type) { return type->tp_version_tag; }

// A number that changes whenever the one dict that is watched does.
#if PY_VERSION_HEX < 0x030C0000
inline bool watch(PyObject* /*dict*/) { return true; }
inline std::uint64_t watched_version(PyObject* dict) {
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
}
#else
inline std::uint64_t watched_changes = 0;
inline bool watch(PyObject* dict) {
  int watcher =
      PyDict_AddWatcher([](PyDict_WatchEvent, PyObject*, PyObject*, PyObject*) {
        ++watched_changes;
        return 0;
      });
  return watcher >= 0 && PyDict_Watch(watcher, dict) == 0;
}
inline std::uint64_t watched_version(PyObject* /*dict*/) { return watched_changes; }
#endif

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

// How many local variables of the functions that this thread is running refer to an
// object. Those that inner functions share are not among them. May allocate.
Py_ssize_t local_references(PyObject* object);

// Objects that are nested less deeply than this need no watching.
inline constexpr std::uint32_t kShallow = 50;

// What is said where a recursion ends, and what then helps, beside a flatter structure.
inline constexpr const char* kStackUsedUp = "the C stack is all but used up";
inline constexpr const char* kWhileWalking = " while walking through objects";
inline constexpr const char* kLargerStack =
    ", or call from a thread with a larger threading.stack_size()";
inline constexpr const char* kHigherLimit = ", or raise sys.setrecursionlimit()";
inline constexpr const char* kNothingElse = ": CPython's limit of calls in C is fixed";

// Clears the error that is set, and returns its text: a new reference, or nullptr with
// another one set. Runs nothing of a class of the user's.
inline PyObject* take_text_of_error() {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyObject* text = nullptr;
  auto* args = reinterpret_cast<PyBaseExceptionObject*>(value)->args;
  if (args != nullptr && PyTuple_GET_SIZE(args) != 0 &&
      PyUnicode_CheckExact(PyTuple_GET_ITEM(args, 0))) {
    text = Py_NewRef(PyTuple_GET_ITEM(args, 0));
  } else {
    text = PyUnicode_FromString(Py_TYPE(value)->tp_name);
  }
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  return text;
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

}  // namespace python
}  // namespace autojit
