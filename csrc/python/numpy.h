// numpy's arrays, scalars and dtypes. No other file includes numpy's headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "python/owned.h"

namespace autojit::numpy {

// Before all else. False with an exception set on failure.
bool init();

// `numpy.ndarray`.
PyTypeObject* array_type();
inline bool is_array(PyObject* object) { return Py_IS_TYPE(object, array_type()); }
// Whether a class is that of arrays or derived of it.
bool is_array_type(PyTypeObject* type);
// How many bytes the items of an array have, those that are repeated counted once; 0
// for anything else.
std::size_t size_in_bytes(PyObject* object);
// Whether the items of a `numpy.ndarray` are bytes, and no objects.
bool is_plain(PyObject* array);
// A new array of the same items in the array's own order, or nullptr with an exception
// set. It has no bytes but those of the items: gaps between fields are zero.
PyObject* copy_of(PyObject* object);
// The same to be kept: of an array that repeats its items along an axis, as a view that
// `numpy.broadcast_to` returns, they are there once.
PyObject* kept_copy_of(PyObject* object);
// Whether two arrays have the same items, shape, order and dtype. 1, 0, or -1: then
// `same_slowly` can tell. `ours` is a copy that `kept_copy_of` has made. Runs nothing.
int same(PyObject* ours, PyObject* other);
// The same, always: 1, 0, or -1 with an exception set. May run Python (the metadata of
// a dtype).
int same_slowly(PyObject* ours, PyObject* other);
// Of the class of an array's dtype, its shape and its bytes. `kept_copy_of` has made
// it.
std::uint64_t hash(PyObject* object);
// Of an array as the user has it: of its shape and some of its bytes. Runs nothing.
std::uint64_t hash_sample(PyObject* object);

// Whether a class is that of scalars of fixed size and without padding.
bool is_scalar_type(PyTypeObject* type);
// Whether a `numpy.ndarray` has a dtype that JAX has, or an extension of it.
bool can_be_traced(PyObject* array);
// Whether an object is a scalar of numpy that is a number of such a dtype, and no bool;
// if `is_short`, no integer of more than 32 bits.
bool is_number(PyObject* object, bool is_short);
struct Bytes {
  const char* data;
  std::size_t size;
};
// The value of a scalar of such a class, borrowed from it.
Bytes scalar_bytes(PyObject* scalar);

// Whether a class is `numpy.dtype` or a class of one.
bool is_dtype_type(PyTypeObject* type);
// The dtype that numpy itself has for what this one says, borrowed for ever, or
// nullptr.
PyObject* dtype_singleton(PyObject* object);

}  // namespace autojit::numpy
