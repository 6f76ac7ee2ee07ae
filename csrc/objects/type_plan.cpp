#include "objects/type_plan.h"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>

#include "objects/config.h"
#include "objects/reduction.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/numpy.h"

namespace autojit {

PyTypeObject* hot_leaf_type = nullptr;
PyTypeObject* partial_type = nullptr;
PyTypeObject* default_dict_type = nullptr;
bool (*is_function_dispatcher)(PyObject*) = nullptr;
PyObject* (*parts_of_dispatcher)(PyObject*) = nullptr;
std::uint64_t copyreg_version = UINT64_MAX;

namespace {

PyTypeObject* finalize_type = nullptr;  // `weakref.finalize`

struct Releaser {
  void operator()(const TypePlan* plan) const { plan->release(); }
};
using NewPlan = std::unique_ptr<TypePlan, Releaser>;

struct Entry {
  NewPlan plan;
  Owned weak_type;  // its callback drops this entry
};

// Guarded by the GIL, as all that follows.
std::unordered_map<PyTypeObject*, Entry>& entries() {
  static auto* map = new std::unordered_map<PyTypeObject*, Entry>();
  return *map;
}

constexpr std::size_t kRecentTypes = 256;
std::array<const TypePlan*, kRecentTypes> recent_plans{};

const TypePlan*& recent_plan(PyTypeObject* type) {
  auto bits = reinterpret_cast<std::uintptr_t>(type);
  return recent_plans[((bits >> 4U) ^ (bits >> 12U)) % kRecentTypes];
}

// The deallocator of classes that a class statement made: a class with another one
// keeps C data that we can't see.
destructor class_statement_dealloc = nullptr;

}  // namespace

bool is_objects_own(PyTypeObject* type, PyObject* name) {
  return python::type_lookup(type, name) ==
         python::type_lookup(&PyBaseObject_Type, name);
}

bool made_by_class_statement(PyTypeObject* type) {
  return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0 &&
         type->tp_dealloc == class_statement_dealloc;
}

namespace {

void forget_type(PyTypeObject* type) {
  if (hot_leaf_type == type) {
    hot_leaf_type = nullptr;
  }
  const TypePlan*& recent = recent_plan(type);
  if (recent != nullptr && recent->type == type) {
    recent = nullptr;
  }
  auto found = entries().find(type);
  if (found != entries().end()) {
    // The entry leaves the map before its destructor, which may run Python.
    Entry entry = std::move(found->second);
    entries().erase(found);
    entry.plan->retire();
  }
}

PyObject* on_type_death(PyObject* capsule, PyObject* /*weak_type*/) {
  forget_type(static_cast<PyTypeObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  Py_RETURN_NONE;
}
PyMethodDef on_type_death_def = {"forget_type", on_type_death, METH_O, nullptr};

bool add_entry(PyTypeObject* type, NewPlan plan) {
  Entry entry{std::move(plan), Owned()};
  if ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0) {
    entry.weak_type =
        python::on_death(reinterpret_cast<PyObject*>(type), on_type_death_def);
    if (!entry.weak_type) {
      return false;
    }
  }
  entries().insert_or_assign(type, std::move(entry));
  return true;
}

// No `__reduce__` and the like: the state of an instance is all there is.
bool reduces_by_default(PyTypeObject* type) {
  if (!is_objects_own(type, names.reduce_ex) || !is_objects_own(type, names.reduce) ||
      python::type_lookup(type, names.getnewargs_ex) != nullptr) {
    return false;
  }
  if (!is_objects_own(type, names.getstate) ||
      python::type_lookup(type, names.setstate) != nullptr) {
    return false;
  }
  int registered =
      PyDict_Contains(config.copyreg_table, reinterpret_cast<PyObject*>(type));
  // A class that can't be hashed is not registered.
  return registered == 0 || (registered < 0 && clear_refusal());
}

// The same, and that nothing else says how to take an instance apart. Runs no Python.
bool has_ordinary_methods(PyTypeObject* type) {
  return is_objects_own(type, names.reduce_ex) && is_objects_own(type, names.reduce) &&
         is_objects_own(type, names.getstate) &&
         is_objects_own(type, names.getattribute) &&
         python::type_lookup(type, names.setstate) == nullptr &&
         python::type_lookup(type, names.getnewargs) == nullptr &&
         python::type_lookup(type, names.getnewargs_ex) == nullptr &&
         python::type_lookup(type, names.del) == nullptr;
}

bool has_dict(PyTypeObject* type) { return type->tp_dictoffset != 0; }

// Whether a method is one of the class's own making, which knows what it does: a Python
// function of other modules than those of the standard library and numpy.
bool is_users_own(PyObject* method) {
  if (method == nullptr || !PyFunction_Check(method)) {
    return false;
  }
  PyObject* module = reinterpret_cast<PyFunctionObject*>(method)->func_module;
  PyObject* library = PySys_GetObject("stdlib_module_names");  // borrowed
  if (module == nullptr || !PyUnicode_CheckExact(module) || library == nullptr) {
    return true;
  }
  Py_ssize_t size = PyUnicode_GET_LENGTH(module);
  Py_ssize_t dot = PyUnicode_FindChar(module, '.', 0, size, 1);
  Owned root = Owned::steal(PyUnicode_Substring(module, 0, dot < 0 ? size : dot));
  int found = root ? PySet_Contains(library, root.get()) : -1;
  PyErr_Clear();
  return found != 1 &&
         (!root || PyUnicode_CompareWithASCIIString(root.get(), "numpy") != 0);
}

// The same of the standard library or numpy, in Python.
bool is_librarys(PyObject* method) {
  return method != nullptr && PyFunction_Check(method) && !is_users_own(method);
}

bool may_lose(PyTypeObject* type) {
  return made_by_class_statement(type) &&
         !(is_objects_own(type, names.reduce_ex) &&
           is_objects_own(type, names.reduce)) &&
         !is_users_own(python::type_lookup(type, names.reduce_ex)) &&
         !is_users_own(python::type_lookup(type, names.reduce));
}

bool is_slot(PyObject* attribute, PyTypeObject* type) {
  if (!Py_IS_TYPE(attribute, &PyMemberDescr_Type)) {
    return false;
  }
  auto* descriptor = reinterpret_cast<PyMemberDescrObject*>(attribute);
  return descriptor->d_common.d_type == type &&
         descriptor->d_member->type == T_OBJECT_EX;
}

// Whether there are slots of which the class that says how to reduce knows nothing.
bool adds_slots(PyTypeObject* type) {
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if ((base->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 ||
        PyDict_GetItemWithError(base->tp_dict, names.reduce) != nullptr ||
        PyDict_GetItemWithError(base->tp_dict, names.reduce_ex) != nullptr) {
      return false;
    }
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(base->tp_dict, &position, nullptr, &value) != 0) {
      if (is_slot(value, base)) {
        return true;
      }
    }
  }
  return false;
}

// A subclass of tuple that `collections.namedtuple` made, or one of it that adds no
// state but a `__dict__` and no other way to be copied.
bool is_namedtuple(PyTypeObject* type) {
  Py_ssize_t added = type->tp_basicsize - PyTuple_Type.tp_basicsize;
  Py_ssize_t of_dict = has_dict(type) ? Py_ssize_t{sizeof(PyObject*)} : 0;
  bool has_slots = added != 0 && added != of_dict;
  if (!made_by_class_statement(type) || has_slots || !reduces_by_default(type) ||
      python::type_lookup(type, names.del) != nullptr) {
    return false;
  }
  PyObject* mro = type->tp_mro;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if ((base->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
      return false;
    }
    if (PyDict_GetItemWithError(base->tp_dict, names.getnewargs) != nullptr) {
      PyObject* fields = PyDict_GetItemWithError(base->tp_dict, names.fields);
      return fields != nullptr && PyTuple_CheckExact(fields);
    }
  }
  return false;
}

void find_slots(TypePlan& plan) {
  std::vector<TypePlan::Slot>& slots = plan.slots;
  PyObject* mro = plan.type->tp_mro;
  for (Py_ssize_t i = PyTuple_GET_SIZE(mro); i-- > 0;) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if ((base->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
      continue;
    }
    Py_ssize_t position = 0;
    PyObject* name = nullptr;
    PyObject* value = nullptr;
    while (PyDict_Next(base->tp_dict, &position, &name, &value) != 0) {
      if (is_slot(value, base)) {
        slots.push_back(
            {Owned::borrow(name),
             reinterpret_cast<PyMemberDescrObject*>(value)->d_member->offset});
      }
    }
  }
  std::sort(slots.begin(), slots.end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
}

// A proxy may answer for its own attributes what it likes. 1 if this object admits to
// be itself, 0 if not, -1 with an exception set. Runs Python.
int answers_for_itself(PyObject* object) {
  Owned reduce = Owned::steal(PyObject_GetAttr(object, names.reduce_ex));
  if (!reduce) {
    return clear_refusal() ? 0 : -1;
  }
  return PyCFunction_Check(reduce.get()) && PyCFunction_GET_SELF(reduce.get()) == object
             ? 1
             : 0;
}

// Notes the names that a class itself, and not only a base of it, declares as those of
// its attributes: it is a dataclass or of attrs. False with an exception set on
// failure. May run Python.
bool find_fields(TypePlan& plan) {
  PyObject* dict = plan.type->tp_dict;
  Owned declared = Owned::borrow(PyDict_GetItemWithError(dict, names.dataclass_fields));
  bool is_dataclass = declared && PyDict_CheckExact(declared.get());
  if (!is_dataclass && PyErr_Occurred() == nullptr) {
    declared = Owned::borrow(PyDict_GetItemWithError(dict, names.attrs_fields));
  }
  if (!declared || !(is_dataclass || PyTuple_Check(declared.get()))) {
    return PyErr_Occurred() == nullptr;
  }
  Owned fields = Owned::steal(PySequence_List(declared.get()));
  for (Py_ssize_t i = 0; fields && i < PyList_GET_SIZE(fields.get()); ++i) {
    PyObject* field = PyList_GET_ITEM(fields.get(), i);
    Owned name = is_dataclass ? Owned::borrow(field)
                              : Owned::steal(PyObject_GetAttr(field, names.attr_name));
    if (!name || !PyUnicode_CheckExact(name.get())) {
      return name || clear_refusal();
    }
    PyObject* interned = name.release();
    PyUnicode_InternInPlace(&interned);
    plan.fields.steal(interned);
  }
  return static_cast<bool>(fields);
}

// Whether the whole state of instances is what `__dict__` and `__slots__` hold, which
// then are noted: 1 if so, 0 if not, -1 with an exception set. May run Python.
int find_state(TypePlan& plan, PyObject* object) {
  PyTypeObject* type = plan.type;
  if (!made_by_class_statement(type) || type->tp_itemsize != 0) {
    return 0;
  }
  for (PyTypeObject* base = type; base != &PyBaseObject_Type; base = base->tp_base) {
    if ((base->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
      return 0;
    }
  }
  if (has_dict(type)) {
    PyObject* dict = python::type_lookup(type, names.dict);
    if (dict == nullptr || !Py_IS_TYPE(dict, &PyGetSetDescr_Type)) {
      return 0;
    }
  }
  if (!is_objects_own(type, names.getattribute)) {
    int itself = answers_for_itself(object);
    if (itself <= 0) {
      return itself;
    }
  }
  find_slots(plan);
  Py_ssize_t expected = PyBaseObject_Type.tp_basicsize +
                        static_cast<Py_ssize_t>(sizeof(PyObject*) * plan.slots.size());
  expected += type->tp_dictoffset > 0 ? static_cast<Py_ssize_t>(sizeof(PyObject*)) : 0;
  expected +=
      type->tp_weaklistoffset > 0 ? static_cast<Py_ssize_t>(sizeof(PyObject*)) : 0;
  if (expected != type->tp_basicsize) {
    return 0;
  }
  plan.has_dict = has_dict(type);
  return 1;
}

// Keeps those of the slots that were registered, and adds what stands in `__dict__`.
void keep_attributes(TypePlan& plan, PyObject* attributes) {
  std::vector<TypePlan::Slot> slots;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(attributes); ++i) {
    PyObject* name = PyTuple_GET_ITEM(attributes, i);
    Py_ssize_t offset = -1;
    for (const TypePlan::Slot& slot : plan.slots) {
      offset = PyUnicode_Compare(slot.name.get(), name) == 0 ? slot.offset : offset;
    }
    slots.push_back({Owned::borrow(name), offset});
  }
  plan.slots = std::move(slots);
  plan.has_dict = false;
  plan.is_named = true;
}

// Fills the plan of a class whose state is known otherwise, see `state_of`. 1 if it is,
// 0, or -1 with an exception set. Runs Python.
int plan_known(TypePlan& plan, PyObject* object) {
  Owned state = Owned::steal(PyObject_CallOneArg(config.state_of, object));
  if (!state || state.get() == Py_None) {
    return state ? 0 : -1;
  }
  if (state.get() == Py_True) {
    plan.kind = Kind::Constant;
    return 1;
  }
  PyObject* attributes = PyTuple_GET_ITEM(state.get(), 0);
  PyObject* make = PyTuple_GET_ITEM(state.get(), 1);
  if (!plan.shows_state) {
    return 0;
  }
  plan.make = Owned::borrow(make != Py_None ? make : nullptr);
  plan.kind = Kind::Instance;
  if (attributes != Py_None) {
    plan.kind = PyTuple_GET_SIZE(attributes) == 0 ? Kind::Fresh : Kind::Instance;
    keep_attributes(plan, attributes);
  }
  return !plan.has_dict || find_fields(plan) ? 1 : -1;
}

// Fills the plan of a class that is none of the known ones. False with an exception set
// on failure. May run Python.
bool plan_instance(TypePlan& plan, PyObject* object) {
  PyTypeObject* type = plan.type;
  int shows_state = find_state(plan, object);
  if (shows_state < 0) {
    return false;
  }
  plan.shows_state = shows_state != 0;
  plan.owns =
      made_by_class_statement(type) && python::type_lookup(type, names.del) != nullptr;
  bool is_ordinary = plan.shows_state && reduces_by_default(type) &&
                     python::type_lookup(type, names.getnewargs) == nullptr;
  int known = PyErr_Occurred() == nullptr ? plan_known(plan, object) : -1;
  if (known != 0) {
    return known > 0;
  }
  if (is_ordinary) {
    plan.kind = Kind::Instance;
    plan.can_be_checked = has_ordinary_methods(type);
    return !plan.has_dict || find_fields(plan);
  }
  plan.kind = Kind::Reduce;
  plan.may_lose = may_lose(type);
  plan.may_lose_slots = plan.may_lose && adds_slots(type);
  plan.is_users = made_by_class_statement(type) &&
                  !is_librarys(python::type_lookup(type, names.reduce_ex)) &&
                  !is_librarys(python::type_lookup(type, names.reduce));
  plan.may_omit = plan.is_users && plan.shows_state && !has_own_state(type);
  return PyErr_Occurred() == nullptr;
}

struct BuiltinKind {
  PyTypeObject* type;
  Kind kind;
};

const std::vector<BuiltinKind>& builtin_kinds() {
  static auto* kinds = new std::vector<BuiltinKind>{
      {&PyLong_Type, Kind::Int},
      {&PyFloat_Type, Kind::Float},
      {&PyComplex_Type, Kind::Complex},
      {&PyUnicode_Type, Kind::Str},
      {&PyBytes_Type, Kind::Bytes},
      {&PyBool_Type, Kind::Identity},
      {Py_TYPE(Py_None), Kind::Identity},
      {Py_TYPE(Py_Ellipsis), Kind::Identity},
      {Py_TYPE(Py_NotImplemented), Kind::Identity},
      // A bare object is there to be told from all others: it is a sentinel.
      {&PyBaseObject_Type, Kind::Identity},
      {&PyTuple_Type, Kind::Tuple},
      {&PyList_Type, Kind::List},
      {&PyDict_Type, Kind::Dict},
      {&PySet_Type, Kind::Set},
      {&PyFrozenSet_Type, Kind::FrozenSet},
      {&PyRange_Type, Kind::Range},
      {&PySlice_Type, Kind::Slice},
      {&PyByteArray_Type, Kind::Bytearray},
      {&PyMethod_Type, Kind::Method},
      {&PyFunction_Type, Kind::Function},
      {numpy::array_type(), Kind::NumpyArray},
  };
  return *kinds;
}

// False with an exception set on failure. May run Python.
bool make_plan(TypePlan& plan, PyObject* object) {
  PyTypeObject* type = plan.type;
  auto* type_object = reinterpret_cast<PyObject*>(type);
  for (const BuiltinKind& builtin : builtin_kinds()) {
    if (builtin.type == type) {
      plan.kind = builtin.kind;
      return true;
    }
  }
  int leaf = PyObject_IsSubclass(type_object, config.leaf_types);
  if (leaf < 0) {
    return false;
  }
  plan.is_leaf = leaf != 0;
  if (!plan.is_leaf) {
    Owned is_leaf = Owned::steal(PyObject_CallOneArg(config.is_leaf, object));
    if (!is_leaf) {
      return false;
    }
    plan.is_leaf = is_leaf.get() == Py_True;
  }
  if (PyType_IsSubtype(type, &PyType_Type) != 0 ||
      PyType_IsSubtype(type, &PyModule_Type) != 0) {
    plan.kind = Kind::Identity;
    return true;
  }
  int identity = PyObject_IsSubclass(type_object, config.identity_types);
  if (identity < 0) {
    return false;
  }
  if (identity != 0) {
    plan.kind = Kind::Identity;
  } else if (type == partial_type) {
    plan.kind = Kind::Partial;
  } else if (type == default_dict_type) {
    plan.kind = Kind::DefaultDict;
  } else if (numpy::is_scalar_type(type)) {
    plan.kind = Kind::NumpyScalar;
  } else if (numpy::is_dtype_type(type)) {
    plan.is_dtype = true;
  } else if (PyType_IsSubtype(type, &PyTuple_Type) != 0 && is_namedtuple(type)) {
    plan.kind = Kind::NamedTuple;
    plan.has_dict = has_dict(type);
  } else {
    return plan_instance(plan, object);
  }
  return PyErr_Occurred() == nullptr;
}

// The names of fields are interned.
bool same_plan(const TypePlan& a, const TypePlan& b) {
  return a.kind == b.kind && a.is_leaf == b.is_leaf && a.has_dict == b.has_dict &&
         a.shows_state == b.shows_state && a.owns == b.owns &&
         std::equal(a.fields.begin(), a.fields.end(), b.fields.begin(),
                    b.fields.end()) &&
         a.may_lose == b.may_lose && a.may_lose_slots == b.may_lose_slots &&
         a.may_omit == b.may_omit && a.is_users == b.is_users &&
         std::equal(a.slots.begin(), a.slots.end(), b.slots.begin(), b.slots.end(),
                    [](const TypePlan::Slot& x, const TypePlan::Slot& y) {
                      return x.offset == y.offset && x.name.get() == y.name.get();
                    }) &&
         a.make.get() == b.make.get() && a.is_named == b.is_named;
}

const TypePlan* make_or_renew(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  Owned held = Owned::borrow(reinterpret_cast<PyObject*>(type));
  NewPlan plan(new TypePlan);
  plan->type = type;
  (void)python::type_lookup(type, names.reduce);  // gives it a version
  unsigned int version = python::type_version(type);
  if (!make_plan(*plan, object)) {
    return nullptr;
  }
  // 0 if it has changed meanwhile: then the plan is not current.
  plan->version = python::type_version(type) == version ? version : 0;
  const TypePlan* in_force = plan.get();
  auto found = entries().find(type);  // only now: making a plan may make others
  if (found == entries().end()) {
    if (!add_entry(type, std::move(plan))) {
      return nullptr;
    }
  } else if (same_plan(*plan, *found->second.plan)) {
    // Still as it was: the skeletons that were made by it go on matching.
    found->second.plan->version = plan->version;
    found->second.plan->can_be_checked = plan->can_be_checked;
    in_force = found->second.plan.get();
  } else {
    // What changes from now on, this one is not told.
    found->second.plan->retire();
    found->second.plan = std::move(plan);
  }
  recent_plan(type) = in_force;
  return in_force;
}

}  // namespace

const TypePlan* find_plan(PyTypeObject* type) {
  const TypePlan* recent = recent_plan(type);
  if (recent != nullptr && recent->type == type) {
    return recent;
  }
  auto found = entries().find(type);
  if (found == entries().end()) {
    return nullptr;
  }
  return recent_plan(type) = found->second.plan.get();
}

namespace {

// Whether a plan just made holds. CPython has not a version for each class.
bool is_settled(const TypePlan& plan) {
  (void)python::type_lookup(plan.type, names.reduce);
  return is_current(plan) || python::type_version(plan.type) == 0;
}

}  // namespace

const TypePlan* plan_for(PyObject* object) {
  if (plans_are_stale()) {
    copyreg_version = python::watched_version(config.copyreg_table);
    for (auto& [type, entry] : entries()) {
      entry.plan->retire();
    }
  }
  // To make a plan may run Python, which may change the class or give it another.
  for (int attempt = 0; attempt < 100; ++attempt) {
    PyTypeObject* type = Py_TYPE(object);
    const TypePlan* plan = find_plan(type);
    if (plan != nullptr && is_current(*plan)) {
      return plan;
    }
    plan = make_or_renew(object);
    if (plan == nullptr || (Py_TYPE(object) == type && is_settled(*plan))) {
      return plan;
    }
  }
  PyErr_Format(PyExc_RuntimeError,
               "the class of an object, %s, changes whenever it is looked at",
               Py_TYPE(object)->tp_name);
  return nullptr;
}

namespace {

// Whether a class still declares the fields that its plan has. Runs no Python.
bool has_same_fields(const TypePlan& plan) {
  PyObject* dict = plan.type->tp_dict;
  if (!plan.has_dict) {
    return true;
  }
  if (PyDict_GetItemWithError(dict, names.attrs_fields) != nullptr) {
    return false;  // not known without running Python
  }
  PyObject* declared = PyDict_GetItemWithError(dict, names.dataclass_fields);
  if (declared == nullptr || !PyDict_CheckExact(declared)) {
    return declared == nullptr && plan.fields.empty();
  }
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  std::size_t count = 0;
  while (PyDict_Next(declared, &position, &name, nullptr) != 0) {
    if (count == plan.fields.size() || !PyUnicode_CheckExact(name) ||
        PyUnicode_Compare(plan.fields[count], name) != 0) {
      return false;
    }
    ++count;
  }
  return count == plan.fields.size();
}

bool has_same_slots(const TypePlan& plan) {
  return std::all_of(
      plan.slots.begin(), plan.slots.end(), [&plan](const TypePlan::Slot& slot) {
        PyObject* found = python::type_lookup(plan.type, slot.name.get());
        if (found == nullptr || !Py_IS_TYPE(found, &PyMemberDescr_Type)) {
          return false;
        }
        auto* descriptor = reinterpret_cast<PyMemberDescrObject*>(found);
        return is_slot(found, descriptor->d_common.d_type) &&
               PyType_IsSubtype(plan.type, descriptor->d_common.d_type) != 0 &&
               descriptor->d_member->offset == slot.offset;
      });
}

}  // namespace

bool TypePlan::is_as_it_was() const {
  if (!can_be_checked || !has_ordinary_methods(type) || !has_same_slots(*this) ||
      !has_same_fields(*this)) {
    return false;
  }
  PyObject* own = has_dict ? python::type_lookup(type, names.dict) : nullptr;
  if (has_dict && (own == nullptr || !Py_IS_TYPE(own, &PyGetSetDescr_Type))) {
    return false;
  }
  version = python::type_version(type);  // the look-ups have given it one
  return true;
}

bool is_finalize_among(PyWeakReference* reference) {
  for (; reference != nullptr; reference = reference->wr_next) {
    if (reference->wr_callback != nullptr &&
        PyObject_TypeCheck(reference->wr_callback, finalize_type) != 0) {
      return true;
    }
  }
  return false;
}

// Not a look-up: keys that are no strings could run Python when they are compared. Most
// names are found as the very object.
PyObject* TypePlan::Slot::in_dict(PyObject* object) const {
  PyObject* dict = python::instance_dict(object);
  for (bool by_value : {false, true}) {
    Py_ssize_t position = 0;
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    while (dict != nullptr && PyDict_Next(dict, &position, &key, &value) != 0) {
      if (by_value ? PyUnicode_Check(key) && PyUnicode_Compare(key, name.get()) == 0
                   : key == name.get()) {
        return value;
      }
    }
  }
  return nullptr;
}

bool TypePlan::Slot::set(PyObject* object, PyObject* value) const {
  Owned owned = Owned::steal(value);
  if (offset >= 0) {
    Owned old = Owned::steal(std::exchange(place(object), owned.release()));
    return true;
  }
  Owned dict = Owned::steal(PyObject_GenericGetDict(object, nullptr));
  return dict && PyDict_SetItem(dict.get(), name.get(), owned.get()) == 0;
}

bool is_stateless(const TypePlan& plan, PyObject* object) {
  if (plan.make || plan.is_named) {
    return false;
  }
  PyObject* dict = nullptr;
  if (plan.has_dict && (!python::get_instance_dict(object, dict) ||
                        (dict != nullptr && PyDict_GET_SIZE(dict) != 0))) {
    return false;
  }
  return std::all_of(
      plan.slots.begin(), plan.slots.end(),
      [object](const TypePlan::Slot& slot) { return slot.value(object) == nullptr; });
}

bool is_leaf_type_slow(PyTypeObject* type) {
  const TypePlan* plan = find_plan(type);
  if (plan == nullptr || !plan->is_leaf) {
    return false;
  }
  hot_leaf_type = type;
  return true;
}

PyObject* new_instance(PyTypeObject* type, bool has_state) {
  static PyObject* const no_args = PyTuple_New(0);
  if (!has_state && type->tp_new != PyBaseObject_Type.tp_new) {
    Owned made = Owned::steal(type->tp_new(type, no_args, nullptr));
    if (made && Py_TYPE(made.get()) == type) {
      return made.release();
    }
    if (!made && !clear_refusal()) {
      return nullptr;
    }
  }
  return PyBaseObject_Type.tp_new(type, no_args, nullptr);
}

PyObject* make_instance(const TypePlan& plan, bool has_state) {
  if (!plan.make) {
    return new_instance(plan.type, has_state || plan.is_named);
  }
  Owned made = Owned::steal(PyObject_CallNoArgs(plan.make.get()));
  if (made && Py_TYPE(made.get()) != plan.type) {
    PyErr_Format(PyExc_TypeError, "what was registered to make one made one of %s",
                 Py_TYPE(made.get())->tp_name);
    return nullptr;
  }
  return made.release();
}

namespace {

// A class of a module: a new reference, or nullptr with an exception set.
PyTypeObject* import_type(const char* module_name, const char* name) {
  Owned module = Owned::steal(PyImport_ImportModule(module_name));
  return reinterpret_cast<PyTypeObject*>(
      module ? PyObject_GetAttrString(module.get(), name) : nullptr);
}

}  // namespace

bool init_type_plans() {
  struct Imported {
    const char* module_name;
    const char* name;
    PyTypeObject*& type;
  };
  PyTypeObject* enum_type = nullptr;  // a class that a class statement made
  const Imported imported[] = {{"functools", "partial", partial_type},
                               {"collections", "defaultdict", default_dict_type},
                               {"weakref", "finalize", finalize_type},
                               {"enum", "Enum", enum_type}};
  for (const Imported& one : imported) {
    one.type = import_type(one.module_name, one.name);
    if (one.type == nullptr) {
      return false;
    }
  }
  class_statement_dealloc = enum_type->tp_dealloc;
  Py_DECREF(enum_type);
  return true;
}

}  // namespace autojit
