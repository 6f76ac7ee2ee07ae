// Plans: how the instances of one class are taken apart and put together.
#pragma once

#include <cstdint>
#include <vector>

#include "objects/config.h"
#include "objects/kinds.h"
#include "python/interpreter.h"
#include "python/owned.h"

namespace autojit {

// Shared by the table of plans and the nodes that were made by it: a class that garbage
// collection is about to clear leaves the table before its skeletons go.
struct TypePlan {
  // A `__slots__` entry, or an entry of `__dict__` that was registered: then its offset
  // is -1.
  struct Slot {
    Owned name;
    Py_ssize_t offset;

    // Borrowed, or nullptr. Runs no Python.
    PyObject* value(PyObject* object) const {
      return offset >= 0 ? place(object) : in_dict(object);
    }
    // Steals the value. False with an exception set on failure. May run Python.
    bool set(PyObject* object, PyObject* value) const;

   private:
    PyObject*& place(PyObject* object) const {
      return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset);
    }
    PyObject* in_dict(PyObject* object) const;
  };
  PyTypeObject* type;  // borrowed: each node owns a reference to it
  Kind kind = Kind::Reduce;
  // Instances are leaves, unless the caller says what leaves are.
  bool is_leaf = false;
  // It is the class of dtypes: most of them go by identity.
  bool is_dtype = false;
  bool has_dict = false;
  // Instances have no other state than their `__dict__` and `slots`.
  bool shows_state = false;
  // Instances own a resource: the class has `__del__`.
  bool owns = false;
  // Reduce: the reduction is a builtin's or the standard library's, and may leave out
  // what a Python class has added: in the `__dict__`, or in slots.
  bool may_lose = false;
  bool may_lose_slots = false;
  // Reduce: it is a user's class, so that its reduction is to be checked; and may leave
  // out attributes that are there to be seen.
  bool is_users = false;
  bool may_omit = false;
  // A reduction did not reproduce an instance, of which no note could be taken.
  mutable bool unfaithful = false;
  // The version of the class that the plan was made for; 0 if it holds no longer, or if
  // CPython has none to give.
  mutable unsigned int version = 0;
  // Instance: what the plan was made of can be looked at without running Python.
  mutable bool can_be_checked = false;
  // Instance with a `__dict__`: the names, interned, that the class declares its
  // attributes by, in its own order.
  OwnedVector fields;
  std::vector<Slot> slots;
  // Makes an instance, see `register_state`; nothing for `object.__new__`.
  Owned make;
  // The attributes that count were named: without them it is no sentinel.
  bool is_named = false;
  mutable std::uint32_t owners = 1;

  // Whether the class is still as it was when the plan was made.
  bool current() const {
    return (version != 0 && python::type_version(type) == version) || is_as_it_was();
  }
  // The same for a class that has changed: mostly in an attribute that is none of ours.
  // Runs no Python.
  [[gnu::noinline]] bool is_as_it_was() const;
  // It holds no longer, whatever the class is.
  void retire() const {
    version = 0;
    can_be_checked = false;
  }
  // One owner less. May run Python (the names go).
  void release() const {
    if (--owners == 0) {
      delete this;
    }
  }
};

// An owner of a plan.
class PlanOwner {
 public:
  explicit PlanOwner(const TypePlan* plan) : plan_(plan) { ++plan->owners; }
  PlanOwner(const PlanOwner&) = delete;
  PlanOwner& operator=(const PlanOwner&) = delete;
  ~PlanOwner() { plan_->release(); }

 private:
  const TypePlan* plan_;
};

// Fills in what the interpreter knows of itself. False with an exception set on
// failure.
bool init_type_plans();

// The plan for the class of `object`, borrowed. Makes it if there is none or the class
// has changed since, which may run Python. nullptr with an exception set on failure.
const TypePlan* plan_for(PyObject* object);
// The plan for a class if there is one, borrowed. Runs nothing.
const TypePlan* find_plan(PyTypeObject* type);

// Whether a plan holds for what its class is now. Builtin classes never change.
inline bool is_current(const TypePlan& plan) {
  return (plan.type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 || plan.current();
}
// Whether what is registered with `copyreg` has changed since the plans were made.
extern std::uint64_t copyreg_version;
inline bool plans_are_stale() {
  return python::watched_version(config.copyreg_table) != copyreg_version;
}

// Whether a class is one of JAX's arrays. The hot path asks first for the last one that
// was: all but always right.
extern PyTypeObject* hot_leaf_type;
bool is_leaf_type_slow(PyTypeObject* type);
inline bool is_leaf_type(PyTypeObject* type) {
  return type == hot_leaf_type || is_leaf_type_slow(type);
}

// A new instance, or nullptr with an exception set. One that will be given its whole
// state is made by `object.__new__`; for one that has none the class's own `__new__` is
// asked first, as unpickling would: it may be a singleton. May run Python.
PyObject* new_instance(PyTypeObject* type, bool has_state);
// The same for a plan: it is made as was registered, if that was said.
PyObject* make_instance(const TypePlan& plan, bool has_state);

// Whether an instance has no state at all. Its plan shows the state. Runs nothing.
bool is_stateless(const TypePlan& plan, PyObject* object);

// Whether there is a `weakref.finalize` of an object. Runs nothing.
[[gnu::noinline]] bool is_finalize_among(PyWeakReference* reference);
inline bool has_finalizer(PyObject* object) {
  PyWeakReference* first = python::weak_references(object);
  return first != nullptr && is_finalize_among(first);
}
// Whether an object owns a resource, so that a copy of it could do harm. Runs nothing.
inline bool owns_resource(const TypePlan& plan, PyObject* object) {
  return plan.owns || has_finalizer(object);
}

// `functools.partial` and `collections.defaultdict`.
extern PyTypeObject* partial_type;
extern PyTypeObject* default_dict_type;
// Whether the `__dict__` of a partial, which may be any object, is not just empty.
inline bool has_attributes(PyObject* dict) {
  return dict != nullptr && (!PyDict_CheckExact(dict) || PyDict_GET_SIZE(dict) != 0);
}
// Whether a namedtuple has attributes beside its fields: then it is reduced.
inline bool has_attributes(const TypePlan& plan, PyObject* object) {
  return plan.has_dict && has_attributes(python::instance_dict(object));
}

// Whether an object is a dispatcher of a function, which goes by identity. One of a
// bound method or another object with state is taken apart. The dispatcher's room sets
// it.
extern bool (*is_function_dispatcher)(PyObject*);
// What stands for such a dispatcher, whichever it is: its function and its options, a
// new tuple. nullptr with an exception set on failure.
extern PyObject* (*parts_of_dispatcher)(PyObject*);

// Whether a class has an attribute as `object` has it.
bool is_objects_own(PyTypeObject* type, PyObject* name);
// Whether a class statement made a class: it has no C data that we can't see.
bool made_by_class_statement(PyTypeObject* type);

}  // namespace autojit
