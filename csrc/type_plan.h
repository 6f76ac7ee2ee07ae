// How one Python type is taken apart and put together.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "python_api.h"
#include "skeleton.h"

namespace autojit {

// What the Python side hands over once, at import.
struct Config {
  PyObject* leaf_types = nullptr;  // tuple of classes: JAX's arrays
  PyObject* is_leaf = nullptr;     // object -> whether JAX takes it for another value
  PyObject* identity_types = nullptr;  // tuple of classes compared by identity
  PyObject* ordinary_state = nullptr;  // frozenset of names, see `_reduce.py`
  PyObject* reduce = nullptr;          // (object, value) -> reduction or None
  PyObject* set_state = nullptr;       // (object, state, list, dict, setter)
  PyObject* arrays_differ = nullptr;   // (array, array) -> whether they do
  PyObject* specialize = nullptr;      // (fun, in_tree, trace, options) -> compiled
  PyObject* say_where = nullptr;       // (error, skeleton, compiled, leaves)
  PyObject* replay = nullptr;          // (warnings, leaves, seen)
  PyObject* mark_seen = nullptr;       // (warnings, leaves, seen)
  PyObject* lazy_types = nullptr;      // frozenset: iterators that run code when asked
  PyObject* cache_info = nullptr;      // the class of `cache_info()`
  PyObject* eager = nullptr;           // what a compiled function returns under
                                       // `jax.disable_jit`
  PyObject* copyreg_table = nullptr;   // copyreg.dispatch_table
  PyObject* traceback_type = nullptr;  // what stands for an exception's traceback
};
extern Config config;

enum class Kind : std::uint8_t {
  Identity,
  Function,
  Int,
  Float,
  Complex,
  Str,
  Bytes,
  NumpyScalar,
  NumpyDtype,
  Tuple,
  NamedTuple,
  List,
  Dict,
  Set,
  FrozenSet,
  Range,
  Slice,
  Bytearray,
  NumpyArray,
  Method,
  Partial,
  Instance,
  Reduce,
};

// Shared by the table of plans and the nodes that were made by it: a class that garbage
// collection is about to clear leaves the table before its skeletons go.
struct TypePlan {
  struct Slot {
    PyObject* name;  // owned str
    Py_ssize_t offset;

    PyObject*& value(PyObject* object) const {
      return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset);
    }
  };
  PyTypeObject* type;  // borrowed: each node owns a reference to it
  Kind kind = Kind::Reduce;
  bool is_leaf = false;
  bool has_dict = false;
  // Instances have no other state than their `__dict__` and `slots`.
  bool shows_state = false;
  // Instances own a resource: the class has `__del__`.
  bool owns = false;
  // Reduce: whether its reduction may leave out attributes, see `_reduce.py`.
  bool may_lose = false;
  bool may_lose_slots = false;
  // Reduce: a user's own reduction may leave out attributes that are there to be seen.
  bool may_omit = false;
  // Reduce: it is a user's class, so that its reduction is to be checked.
  bool is_users = false;
  // A reduction did not reproduce an instance, of which no note could be taken.
  mutable bool unfaithful = false;
  unsigned int version = 0;
  // The names that a class declares its attributes by, in its own order, owned: of an
  // Instance with a `__dict__`.
  std::vector<PyObject*> fields;
  std::vector<Slot> slots;
  mutable std::uint32_t owners = 1;

  TypePlan() = default;
  TypePlan(const TypePlan&) = delete;
  TypePlan& operator=(const TypePlan&) = delete;
  ~TypePlan() {
    for (const Slot& slot : slots) {
      Py_DECREF(slot.name);
    }
    for (PyObject* field : fields) {
      Py_DECREF(field);
    }
  }
  void release() const {
    if (--owners == 0) {
      delete this;
    }
  }

  // Whether the class is still as it was when the plan was made.
  bool current() const { return version != 0 && python::type_version(type) == version; }
};

// The plan for the type of `object`. Makes it if there is none or the class has changed
// since, which may run Python. nullptr with an exception set on failure.
const TypePlan* plan_for(PyObject* object);

// The plan for a type if there is one. Runs nothing.
const TypePlan* find_plan(PyTypeObject* type);

// The last type that turned out to be one of JAX's arrays: all but always right, so
// the hot path asks it first.
extern PyTypeObject* hot_leaf_type;
bool is_leaf_type_slow(PyTypeObject* type);
inline bool is_leaf_type(PyTypeObject* type) {
  return type == hot_leaf_type || is_leaf_type_slow(type);
}

// The version of `copyreg.dispatch_table` when the plans were made.
extern std::uint64_t copyreg_version;
inline bool plans_are_stale() {
  return python::watched_version(config.copyreg_table) != copyreg_version;
}
// Whether a plan holds for what its class is now. Builtin classes never change.
inline bool is_current(const TypePlan& plan) {
  return (plan.type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 || plan.current();
}

// A new instance. One that will be given its whole state is made by `object.__new__`;
// for one that has none the class's own `__new__` is asked first, as unpickling would:
// it may be a singleton. May run Python.
PyObject* new_instance(PyTypeObject* type, bool has_state);

// Whether an object owns a resource, so that a copy of it could do harm: its class has
// `__del__`, or there is a `weakref.finalize` of it. Runs nothing.
inline bool has_finalizer(PyObject* object);
inline bool owns_resource(const TypePlan& plan, PyObject* object) {
  return plan.owns || has_finalizer(object);
}

// Whether an instance has no state at all. Its plan shows the state. May make its
// `__dict__`; runs nothing.
bool is_stateless(const TypePlan& plan, PyObject* object);

// Objects that their reductions do not reproduce, as long as they live. One that takes
// no weak references is not noted: then `note_unfaithful` returns false, or with an
// exception set on failure.
std::unordered_map<PyObject*, Owned>& unfaithful_objects();
inline bool is_unfaithful(const TypePlan& plan, PyObject* object) {
  return plan.unfaithful || unfaithful_objects().contains(object);
}
bool note_unfaithful(PyObject* object);

// Whether a class has a `__getstate__` or `__setstate__` of its own: then it knows what
// its state is.
bool has_own_state(PyTypeObject* type);

// `weakref.finalize`.
extern PyTypeObject* finalize_type;
[[gnu::noinline]] bool has_finalizer_slow(PyWeakReference* reference);
// The first weak reference to an object, or nullptr.
inline PyWeakReference* weak_references(PyObject* object) {
  Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
  return offset == 0 ? nullptr
                     : *reinterpret_cast<PyWeakReference**>(
                           reinterpret_cast<char*>(object) + offset);
}
inline bool has_finalizer(PyObject* object) {
  PyWeakReference* first = weak_references(object);
  return first != nullptr && has_finalizer_slow(first);
}

// `functools.partial`.
extern PyTypeObject* partial_type;
// Whether the `__dict__` of a partial, which may be any object, is not just empty.
inline bool has_attributes(PyObject* dict) {
  return dict != nullptr && (!PyDict_CheckExact(dict) || PyDict_GET_SIZE(dict) != 0);
}

// Whether `other` is the constant `ours` of kind `op`; never true for different types.
// Runs no Python. Opaque: by identity only.
bool same_constant(Op op, PyObject* ours, PyObject* other);
// Whether an opaque object of this type may be another time one that can be reduced:
// the methods of a class that a class statement made can decide what they like.
bool may_change_its_mind(PyTypeObject* type);
// Whether comparing opaque objects of this type can tell more than identity.
bool has_own_equality(PyTypeObject* type);
// 1, 0, -1 with an exception set. Runs Python.
int same_opaque(PyObject* ours, PyObject* other);
// Sets `result`. False with an exception set on failure. Runs Python.
bool hash_opaque(PyObject* object, Py_hash_t& result);

// How pickle would reduce `object`: a new reference to a tuple, whose parts
// `reduction_part` gives, or to None if it is opaque. nullptr with an exception set on
// failure. Runs Python.
PyObject* reduce(PyObject* object);
// func, args, state, list_items, dict_items, state_setter: borrowed, None if not there.
inline PyObject* reduction_part(PyObject* reduction, Py_ssize_t part) {
  return part < PyTuple_GET_SIZE(reduction) ? PyTuple_GET_ITEM(reduction, part)
                                            : Py_None;
}

// Whether a Python function is one that an imported module defines: never made anew, it
// goes by identity. May run Python.
bool is_named_function(PyObject* object);
// Whether an object is a dispatcher of a function, which goes by identity. One of a
// bound method or another object with state is taken apart.
bool is_function_dispatcher(PyObject* object);
// Whether a Python function is no more than its code. May run Python.
bool is_bare_function(PyObject* object);

// Appends the names that code looks up as globals, borrowed from it. False with an
// exception set on failure.
bool global_names(PyObject* code, std::vector<PyObject*>& names);

// Whether an object is a class that was made inside a function.
bool is_local_class(PyObject* object);

// After a failure of user code: clears it and returns true if it was no more than a
// refusal.
bool clear_refusal();

// The part of a numpy scalar that is its value.
struct Bytes {
  const char* data;
  std::size_t size;
};
Bytes numpy_scalar_bytes(PyObject* scalar);

bool numpy_is_array(PyObject* object);  // and of no subclass
// The bytes of a numpy array; 0 for anything else.
std::size_t numpy_size(PyObject* object);
// numpy arrays of plain bytes. `object` must be exactly a numpy.ndarray.
bool numpy_is_plain(PyObject* array);
// A dtype that is equal to one of numpy's own singletons: that one, borrowed; or
// nullptr.
PyObject* numpy_dtype_singleton(PyObject* object);
// A contiguous copy in the array's own order.
PyObject* numpy_copy(PyObject* object);
// Whether two arrays are the same without running Python: 1, 0, or -1 for "look closer"
// with `numpy_same_slowly`, which gives 1, 0, or -1 with an exception set.
int numpy_same(PyObject* ours, PyObject* other);
int numpy_same_slowly(PyObject* ours, PyObject* other);
// The class of an array's dtype, its shape and its bytes, mixed.
std::uint64_t numpy_hash(PyObject* object);

std::uint64_t hash_bytes(const char* data, std::size_t size);

// Fills the table of builtin types. False with an exception set on failure.
bool init_type_plans();

}  // namespace autojit
