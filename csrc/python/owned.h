// Owned references.
//
// Python may run here: dropping a reference may run a finalizer, which may change any
// container and call the dispatcher. So whoever drops one has first made whole what
// others can see: an entry leaves its table, a vector is emptied, and then the
// references go. "May run Python" on a function says that it may do so, or asks an
// object for something (`__eq__`, `__hash__`, `__reduce_ex__`); whoever calls it holds
// what it still needs, and looks again at what may have changed.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace autojit {

// One owned reference, or none. May run Python when it goes.
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
  // Inlined: each hit drops some.
  [[gnu::always_inline]] ~Owned() { Py_XDECREF(object_); }

  // Takes over a new reference; nullptr is none.
  static Owned steal(PyObject* object) {
    Owned owned;
    owned.object_ = object;
    return owned;
  }
  // Adds a reference to a borrowed object; nullptr is none.
  static Owned borrow(PyObject* object) { return steal(Py_XNewRef(object)); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// Owned references in a row, nullptr among them. May run Python when they go, all of
// them after the vector is empty.
class OwnedVector {
 public:
  OwnedVector() = default;
  OwnedVector(const OwnedVector&) = delete;
  OwnedVector& operator=(const OwnedVector&) = delete;
  OwnedVector(OwnedVector&& other) noexcept { swap(other); }
  OwnedVector& operator=(OwnedVector&& other) noexcept {
    swap(other);
    return *this;
  }
  ~OwnedVector() {
    for (PyObject* object : objects_) {  // no one else sees it any more
      Py_XDECREF(object);
    }
  }

  // Takes over a new reference, which is dropped if there is no memory for it.
  void steal(PyObject* object) {
    Owned guard = Owned::steal(object);
    objects_.push_back(object);
    guard.release();
  }
  void borrow(PyObject* object) { steal(Py_XNewRef(object)); }
  void clear() {
    for (PyObject* object : std::exchange(objects_, {})) {
      Py_XDECREF(object);
    }
  }
  // Forgets all from `size` on, whose references are now someone else's.
  void release_from(std::size_t size) { objects_.resize(size); }
  // So many places, with nothing in them yet.
  explicit OwnedVector(std::size_t size) : objects_(size) {}
  // Puts a new reference in the place of what was there, which is then dropped.
  void replace(std::size_t place, PyObject* object) {
    Owned old = Owned::steal(std::exchange(objects_[place], object));
  }
  void swap(OwnedVector& other) noexcept { objects_.swap(other.objects_); }

  std::size_t size() const { return objects_.size(); }
  bool empty() const { return objects_.empty(); }
  PyObject* operator[](std::size_t place) const { return objects_[place]; }
  PyObject* const* data() const { return objects_.data(); }
  auto begin() const { return objects_.begin(); }
  auto end() const { return objects_.end(); }
  int traverse(visitproc visit, void* arg) const {
    for (PyObject* object : objects_) {
      Py_VISIT(object);
    }
    return 0;
  }

 private:
  std::vector<PyObject*> objects_;
};

// A new tuple of borrowed objects, or nothing with an exception set on failure.
inline Owned tuple_of(PyObject* const* objects, std::size_t count) {
  Owned tuple = Owned::steal(PyTuple_New(static_cast<Py_ssize_t>(count)));
  for (std::size_t i = 0; tuple && i < count; ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), Py_NewRef(objects[i]));
  }
  return tuple;
}

}  // namespace autojit
