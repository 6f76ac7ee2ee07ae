// What of CPython differs between versions, or has a name that says too little.
#pragma once

#include <cstdint>
#include <utility>

#include "python/owned.h"

namespace autojit::python {

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

// Whether an exact int is of one digit, and then its value.
inline bool is_short_int(PyObject* object, std::uint64_t& value) {
  auto* number = reinterpret_cast<PyLongObject*>(object);
#if PY_VERSION_HEX < 0x030C0000
  Py_ssize_t size = Py_SIZE(object);
  if (size < -1 || size > 1) {
    return false;
  }
  value =
      static_cast<std::uint64_t>(size * static_cast<Py_ssize_t>(number->ob_digit[0]));
#else
  if (PyUnstable_Long_IsCompact(number) == 0) {
    return false;
  }
  value = static_cast<std::uint64_t>(PyUnstable_Long_CompactValue(number));
#endif
  return true;
}

// The first weak reference to an object, or nullptr.
inline PyWeakReference* weak_references(PyObject* object) {
  Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
  return offset == 0 ? nullptr
                     : *reinterpret_cast<PyWeakReference**>(
                           reinterpret_cast<char*>(object) + offset);
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

// A number that changes whenever a dict does; 0 if CPython has none to give.
#if PY_VERSION_HEX < 0x030E0000
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // there is no other way
inline std::uint64_t dict_version(PyObject* dict) {
  auto* object = reinterpret_cast<PyDictObject*>(dict);
#if PY_VERSION_HEX >= 0x030D0000
  // The values of one that shares them with an instance are set past it.
  if (object->ma_values != nullptr) {
    return 0;
  }
#endif
  return object->ma_version_tag;
}
#pragma GCC diagnostic pop
// Whether what a dict held may go, which may run Python, before its version does: the
// bytecode STORE_ATTR_WITH_HINT sets attributes so, unless the dict shares its keys
// with those of other instances.
inline bool may_lose_before_its_version(PyObject* dict) {
  return reinterpret_cast<PyDictObject*>(dict)->ma_values == nullptr;
}
#else
inline bool may_lose_before_its_version(PyObject* /*dict*/) { return true; }
inline std::uint64_t dict_version(PyObject* /*dict*/) { return 0; }
#endif

}  // namespace autojit::python
