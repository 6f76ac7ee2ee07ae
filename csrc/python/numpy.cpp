#include "python/numpy.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "python/hashing.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>

namespace autojit::numpy {

namespace {

struct ScalarLayout {
  PyTypeObject* type;
  Py_ssize_t offset;
  std::size_t size;
};
std::vector<ScalarLayout>& scalar_layouts() {
  static auto* layouts = new std::vector<ScalarLayout>();
  return *layouts;
}
const ScalarLayout* scalar_layout(PyTypeObject* type) {
  for (const ScalarLayout& layout : scalar_layouts()) {
    if (layout.type == type) {
      return &layout;
    }
  }
  return nullptr;
}

}  // namespace

Bytes scalar_bytes(PyObject* scalar) {
  const ScalarLayout* layout = scalar_layout(Py_TYPE(scalar));
  return {reinterpret_cast<const char*>(scalar) + layout->offset, layout->size};
}

PyTypeObject* array_type() { return &PyArray_Type; }

bool is_array_type(PyTypeObject* type) {
  return PyType_IsSubtype(type, &PyArray_Type) != 0;
}

bool is_scalar_type(PyTypeObject* type) { return scalar_layout(type) != nullptr; }

bool is_dtype_type(PyTypeObject* type) {
  return PyType_IsSubtype(type, &PyArrayDescr_Type) != 0;
}

bool is_plain(PyObject* array) {
  PyArray_Descr* dtype = PyArray_DESCR(reinterpret_cast<PyArrayObject*>(array));
  constexpr npy_uint64 kNotPlain =
      NPY_ITEM_REFCOUNT | NPY_ITEM_IS_POINTER | NPY_LIST_PICKLE;
  return (PyDataType_FLAGS(dtype) & kNotPlain) == 0;
}

namespace {

bool is_known_to_jax(int number) {
  return ((PyTypeNum_ISNUMBER(number) || PyTypeNum_ISBOOL(number)) &&
          number != NPY_LONGDOUBLE && number != NPY_CLONGDOUBLE) ||
         PyTypeNum_ISUSERDEF(number);  // such as bfloat16
}

}  // namespace

bool can_be_traced(PyObject* array) {
  PyArray_Descr* dtype = PyArray_DESCR(reinterpret_cast<PyArrayObject*>(array));
  return is_known_to_jax(dtype->type_num) && PyArray_ISNBO(dtype->byteorder);
}

bool is_number(PyObject* object, bool is_short) {
  if (!PyArray_IsScalar(object, Number) || PyArray_IsScalar(object, LongDouble) ||
      PyArray_IsScalar(object, CLongDouble) || !is_scalar_type(Py_TYPE(object))) {
    return false;
  }
  Bytes bytes = scalar_bytes(object);
  if (!is_short || !PyArray_IsScalar(object, Integer) || bytes.size <= 4) {
    return true;
  }
  std::int64_t value = 0;
  std::memcpy(&value, bytes.data, std::min(bytes.size, sizeof(value)));
  return value == static_cast<std::int32_t>(value);
}

PyObject* dtype_singleton(PyObject* object) {
  auto* dtype = reinterpret_cast<PyArray_Descr*>(object);
  int number = dtype->type_num;
  if (number < 0 || number >= NPY_NTYPES_LEGACY || PyTypeNum_ISFLEXIBLE(number) ||
      PyTypeNum_ISDATETIME(number) || !PyArray_ISNBO(dtype->byteorder) ||
      PyDataType_METADATA(dtype) != nullptr) {
    return nullptr;
  }
  PyArray_Descr* singleton = PyArray_DescrFromType(number);
  if (singleton == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  Py_DECREF(singleton);  // numpy keeps its own for ever
  return Py_TYPE(singleton) == Py_TYPE(dtype) ? reinterpret_cast<PyObject*>(singleton)
                                              : nullptr;
}

namespace {

bool is_fortran(PyArrayObject* array) {
  return PyArray_IS_F_CONTIGUOUS(array) && !PyArray_IS_C_CONTIGUOUS(array);
}

bool has_fields(PyArrayObject* array) {
  return PyDataType_HASFIELDS(PyArray_DESCR(array));
}

bool same_shape(PyArrayObject* a, PyArrayObject* b) {
  return PyArray_NDIM(a) == PyArray_NDIM(b) &&
         std::equal(PyArray_DIMS(a), PyArray_DIMS(a) + PyArray_NDIM(a),
                    PyArray_DIMS(b));
}

// Whether an array repeats its items along an axis. Items of no bytes lie all at one
// place, and are no repetition.
bool repeats(PyArrayObject* array, int axis) {
  return PyArray_STRIDE(array, axis) == 0 && PyArray_DIM(array, axis) > 1 &&
         PyArray_ITEMSIZE(array) != 0;
}
bool repeats(PyArrayObject* array) {
  for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
    if (repeats(array, axis)) {
      return PyArray_SIZE(array) != 0;
    }
  }
  return false;
}
// A view of the memory of an array: each item once if `once`, and else with the shape
// of `like`. nullptr with an exception set on failure.
PyObject* view_of(PyArrayObject* array, PyArrayObject* like, bool once) {
  npy_intp shape[NPY_MAXDIMS];
  npy_intp strides[NPY_MAXDIMS];
  for (int axis = 0; axis < PyArray_NDIM(like); ++axis) {
    bool is_repeated = repeats(like, axis);
    shape[axis] = once && is_repeated ? 1 : PyArray_DIM(like, axis);
    strides[axis] = is_repeated ? 0 : PyArray_STRIDE(array, axis);
  }
  Py_INCREF(PyArray_DESCR(array));
  Owned view = Owned::steal(PyArray_NewFromDescr(&PyArray_Type, PyArray_DESCR(array),
                                                 PyArray_NDIM(like), shape, strides,
                                                 PyArray_DATA(array), 0, nullptr));
  if (!view) {
    return nullptr;
  }
  Py_INCREF(array);  // which the view then owns, or drops
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(view.get()),
                            reinterpret_cast<PyObject*>(array)) < 0) {
    return nullptr;
  }
  return view.release();
}

bool same_bytes(PyArrayObject* a, PyArrayObject* b) {
  return std::memcmp(PyArray_BYTES(a), PyArray_BYTES(b),
                     static_cast<std::size_t>(PyArray_NBYTES(a))) == 0;
}

// Where the items of an array lie, from an axis on.
struct Lying {
  const char* at;
  npy_intp stride;
};

template <std::size_t kSize>
bool same_items(Lying a, Lying b, npy_intp count) {
  for (npy_intp i = 0; i < count; ++i, a.at += a.stride, b.at += b.stride) {
    if (std::memcmp(a.at, b.at, kSize) != 0) {
      return false;
    }
  }
  return true;
}

bool same_row(Lying a, Lying b, npy_intp count, npy_intp size) {
  if (a.stride == size && b.stride == size) {
    return std::memcmp(a.at, b.at, static_cast<std::size_t>(count * size)) == 0;
  }
  switch (size) {
    case 1:
      return same_items<1>(a, b, count);
    case 4:
      return same_items<4>(a, b, count);
    case 8:
      return same_items<8>(a, b, count);
    default:
      break;
  }
  for (npy_intp i = 0; i < count; ++i, a.at += a.stride, b.at += b.stride) {
    if (std::memcmp(a.at, b.at, static_cast<std::size_t>(size)) != 0) {
      return false;
    }
  }
  return true;
}

// Whether two arrays of one shape have the same items, from an axis on. What both
// repeat is looked at once.
bool same_from(PyArrayObject* a, const char* in_a, PyArrayObject* b, const char* in_b,
               int axis) {
  npy_intp size = PyArray_ITEMSIZE(b);
  if (axis == PyArray_NDIM(b)) {
    return std::memcmp(in_a, in_b, static_cast<std::size_t>(size)) == 0;
  }
  npy_intp count = repeats(a, axis) && repeats(b, axis) ? 1 : PyArray_DIM(b, axis);
  Lying row_a{in_a, PyArray_STRIDE(a, axis)};
  Lying row_b{in_b, PyArray_STRIDE(b, axis)};
  if (axis == PyArray_NDIM(b) - 1) {
    return same_row(row_a, row_b, count, size);
  }
  for (npy_intp i = 0; i < count;
       ++i, row_a.at += row_a.stride, row_b.at += row_b.stride) {
    if (!same_from(a, row_a.at, b, row_b.at, axis + 1)) {
      return false;
    }
  }
  return true;
}

bool same_strided(PyArrayObject* a, PyArrayObject* b) {
  return same_from(a, PyArray_BYTES(a), b, PyArray_BYTES(b), 0);
}

}  // namespace

namespace {

PyObject* copy_in(PyArrayObject* array, bool fortran) {
  if (!has_fields(array)) {
    return PyArray_NewCopy(array, fortran ? NPY_FORTRANORDER : NPY_CORDER);
  }
  // numpy copies fields and leaves the gaps between them as they are: make them zero.
  PyArray_Descr* dtype = PyArray_DESCR(array);
  Py_INCREF(dtype);
  Owned copy = Owned::steal(
      PyArray_Zeros(PyArray_NDIM(array), PyArray_DIMS(array), dtype, fortran ? 1 : 0));
  if (!copy ||
      PyArray_CopyInto(reinterpret_cast<PyArrayObject*>(copy.get()), array) < 0) {
    return nullptr;
  }
  return copy.release();
}

}  // namespace

PyObject* copy_of(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  return copy_in(array, is_fortran(array));
}

PyObject* kept_copy_of(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  if (!repeats(array)) {
    return copy_of(object);
  }
  Owned once = Owned::steal(view_of(array, array, true));
  Owned items = Owned::steal(
      once ? copy_in(reinterpret_cast<PyArrayObject*>(once.get()), false) : nullptr);
  return items ? view_of(reinterpret_cast<PyArrayObject*>(items.get()), array, false)
               : nullptr;
}

std::size_t size_in_bytes(PyObject* object) {
  if (PyArray_Check(object) == 0) {
    return 0;
  }
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  auto size = static_cast<std::size_t>(PyArray_NBYTES(array));
  for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
    size /=
        repeats(array, axis) ? static_cast<std::size_t>(PyArray_DIM(array, axis)) : 1;
  }
  return size;
}

int same(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyArrayObject*>(ours);
  auto* b = reinterpret_cast<PyArrayObject*>(other);
  if (Py_TYPE(ours) != Py_TYPE(other) || !same_shape(a, b) ||
      is_fortran(a) != is_fortran(b)) {
    return 0;
  }
  if (PyArray_DESCR(a) != PyArray_DESCR(b) || has_fields(b)) {
    return -1;
  }
  if ((PyArray_IS_C_CONTIGUOUS(b) || PyArray_IS_F_CONTIGUOUS(b)) && !repeats(a)) {
    return same_bytes(a, b) ? 1 : 0;
  }
  return same_strided(a, b) ? 1 : 0;
}

int same_slowly(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyArrayObject*>(ours);
  if (!is_plain(other)) {
    return 0;
  }
  Owned copy = Owned::steal(kept_copy_of(other));
  if (!copy) {
    return -1;
  }
  auto* b = reinterpret_cast<PyArrayObject*>(copy.get());
  if (!same_shape(a, b) || is_fortran(a) != is_fortran(b) ||
      PyArray_NBYTES(a) != PyArray_NBYTES(b)) {
    return 0;
  }
  // `==` of two dtypes forgets titles, alignment and metadata; their repr the last, and
  // which of C's types of one size it is.
  if (PyArray_DESCR(a)->type_num != PyArray_DESCR(b)->type_num) {
    return 0;
  }
  if (PyArray_DESCR(a) != PyArray_DESCR(b)) {
    PyObject* ours_meta = PyDataType_METADATA(PyArray_DESCR(a));
    PyObject* other_meta = PyDataType_METADATA(PyArray_DESCR(b));
    if (ours_meta != other_meta) {
      int same = ours_meta == nullptr || other_meta == nullptr
                     ? 0
                     : PyObject_RichCompareBool(ours_meta, other_meta, Py_EQ);
      if (same != 1) {
        return same;
      }
    }
    Owned dtype_a =
        Owned::steal(PyObject_Repr(reinterpret_cast<PyObject*>(PyArray_DESCR(a))));
    Owned dtype_b = Owned::steal(
        !dtype_a ? nullptr
                 : PyObject_Repr(reinterpret_cast<PyObject*>(PyArray_DESCR(b))));
    if (!dtype_a || !dtype_b) {
      return -1;
    }
    if (PyUnicode_Compare(dtype_a.get(), dtype_b.get()) != 0) {
      return PyErr_Occurred() != nullptr ? -1 : 0;
    }
  }
  return same_strided(a, b) ? 1 : 0;
}

std::uint64_t hash(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  const auto* shape = reinterpret_cast<const char*>(PyArray_DIMS(array));
  auto mixed = reinterpret_cast<std::uintptr_t>(Py_TYPE(PyArray_DESCR(array)));
  mixed ^= hash_bytes(shape,
                      sizeof(npy_intp) * static_cast<std::size_t>(PyArray_NDIM(array)));
  // As if what it repeats were written out: one that is may be equal.
  Owned written = Owned::steal(repeats(array) ? copy_in(array, false) : nullptr);
  if (repeats(array) && !written) {
    PyErr_Clear();
    return mixed;
  }
  auto* items = written ? reinterpret_cast<PyArrayObject*>(written.get()) : array;
  return mixed ^ hash_bytes(PyArray_BYTES(items),
                            static_cast<std::size_t>(PyArray_NBYTES(items))) *
                     3U;
}

std::uint64_t hash_sample(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  const auto* shape = reinterpret_cast<const char*>(PyArray_DIMS(array));
  std::uint64_t mixed = hash_bytes(
      shape, sizeof(npy_intp) * static_cast<std::size_t>(PyArray_NDIM(array)));
  // Others have gaps between their items, or the addresses of objects in them.
  bool is_whole = (PyArray_IS_C_CONTIGUOUS(array) || PyArray_IS_F_CONTIGUOUS(array)) &&
                  is_plain(object) && !has_fields(array);
  return is_whole ? mix(mixed, autojit::hash_sample(
                                   PyArray_BYTES(array),
                                   static_cast<std::size_t>(PyArray_NBYTES(array))))
                  : mixed;
}

namespace {

template <typename Scalar>
void add_scalar(PyTypeObject& type) {
  scalar_layouts().push_back(
      {&type, offsetof(Scalar, obval), sizeof(std::declval<Scalar>().obval)});
}

}  // namespace

bool init() {
  import_array1(false);
  add_scalar<PyBoolScalarObject>(PyBoolArrType_Type);
  add_scalar<PyByteScalarObject>(PyByteArrType_Type);
  add_scalar<PyUByteScalarObject>(PyUByteArrType_Type);
  add_scalar<PyShortScalarObject>(PyShortArrType_Type);
  add_scalar<PyUShortScalarObject>(PyUShortArrType_Type);
  add_scalar<PyIntScalarObject>(PyIntArrType_Type);
  add_scalar<PyUIntScalarObject>(PyUIntArrType_Type);
  add_scalar<PyLongScalarObject>(PyLongArrType_Type);
  add_scalar<PyULongScalarObject>(PyULongArrType_Type);
  add_scalar<PyLongLongScalarObject>(PyLongLongArrType_Type);
  add_scalar<PyULongLongScalarObject>(PyULongLongArrType_Type);
  add_scalar<PyHalfScalarObject>(PyHalfArrType_Type);
  add_scalar<PyFloatScalarObject>(PyFloatArrType_Type);
  add_scalar<PyDoubleScalarObject>(PyDoubleArrType_Type);
  add_scalar<PyCFloatScalarObject>(PyCFloatArrType_Type);
  add_scalar<PyCDoubleScalarObject>(PyCDoubleArrType_Type);
  return true;
}

}  // namespace autojit::numpy
