#include "type_plan.h"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <memory>
#include <unordered_map>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>

namespace autojit {

Config config;
PyTypeObject* hot_leaf_type = nullptr;
PyTypeObject* partial_type = nullptr;
PyTypeObject* finalize_type = nullptr;
std::uint64_t copyreg_version = UINT64_MAX;

namespace {

struct Releaser {
  void operator()(const TypePlan* plan) const { plan->release(); }
};
using PlanOwner = std::unique_ptr<TypePlan, Releaser>;

struct Entry {
  PlanOwner plan;
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

// Names that are looked up on every class, interned once.
struct Names {
  PyObject* reduce_ex;
  PyObject* reduce;
  PyObject* getstate;
  PyObject* setstate;
  PyObject* getnewargs;
  PyObject* getnewargs_ex;
  PyObject* getattribute;
  PyObject* dict;
  PyObject* fields;
  PyObject* dataclass_fields;
  PyObject* attrs_fields;
  PyObject* attr_name;
  PyObject* del;
  PyObject* module;
  PyObject* qualname;
  PyObject* name;
};
Names names{};

// Of the instructions that look up a name, and of the one that makes their arguments
// longer; -1 for one that this CPython does not have.
struct Opcodes {
  int load_global = -1;
  int load_name = -1;
  int load_from_dict_or_globals = -1;
  int extended_arg = -1;
};
Opcodes opcodes;

// The deallocator of classes that a class statement made: a class with another one
// keeps C data that we can't see.
destructor class_statement_dealloc = nullptr;

struct NumpyScalarLayout {
  PyTypeObject* type;
  Py_ssize_t offset;
  std::size_t size;
};
std::vector<NumpyScalarLayout>& numpy_scalars() {
  static auto* layouts = new std::vector<NumpyScalarLayout>();
  return *layouts;
}
const NumpyScalarLayout* numpy_scalar_layout(PyTypeObject* type) {
  for (const NumpyScalarLayout& layout : numpy_scalars()) {
    if (layout.type == type) {
      return &layout;
    }
  }
  return nullptr;
}

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
  }
}

PyObject* on_type_death(PyObject* capsule, PyObject* /*weak_type*/) {
  forget_type(static_cast<PyTypeObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  Py_RETURN_NONE;
}
PyMethodDef on_type_death_def = {"forget_type", on_type_death, METH_O, nullptr};

bool add_entry(PyTypeObject* type, PlanOwner plan) {
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

bool is_object_s(PyTypeObject* type, PyObject* name) {
  return python::type_lookup(type, name) ==
         python::type_lookup(&PyBaseObject_Type, name);
}

// Whether `function` is one of the `__getstate__` / `__setstate__` that are known to
// give and take the whole ordinary state. Runs Python if its name does, and may leave
// an exception that is no refusal.
bool is_known_ordinary(PyObject* function) {
  if (!PyFunction_Check(function)) {
    return false;
  }
  Owned module = Owned::steal(PyObject_GetAttr(function, names.module));
  Owned qualname = Owned::steal(PyObject_GetAttr(function, names.qualname));
  if (!module || !qualname) {
    clear_refusal();
    return false;
  }
  Owned full =
      Owned::steal(PyUnicode_FromFormat("%S.%S", module.get(), qualname.get()));
  int known = full ? PySet_Contains(config.ordinary_state, full.get()) : -1;
  if (known < 0) {
    clear_refusal();
  }
  return known > 0;
}

// No `__reduce__` and the like: the state of an instance is all there is.
bool reduces_by_default(PyTypeObject* type) {
  if (!is_object_s(type, names.reduce_ex) || !is_object_s(type, names.reduce) ||
      python::type_lookup(type, names.getnewargs_ex) != nullptr) {
    return false;
  }
  Owned getstate = Owned::borrow(python::type_lookup(type, names.getstate));
  Owned setstate = Owned::borrow(python::type_lookup(type, names.setstate));
  bool known = false;
  if (!is_object_s(type, names.getstate)) {
    if (!is_known_ordinary(getstate.get())) {
      return false;
    }
    known = true;
  }
  if (setstate && !(known && is_known_ordinary(setstate.get()))) {
    return false;
  }
  if (PyErr_Occurred() != nullptr) {
    return false;
  }
  int registered =
      PyDict_Contains(config.copyreg_table, reinterpret_cast<PyObject*>(type));
  // A class that can't be hashed is not registered.
  return registered == 0 || (registered < 0 && clear_refusal());
}

bool made_by_class_statement(PyTypeObject* type) {
  return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0 &&
         type->tp_dealloc == class_statement_dealloc;
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
         !(is_object_s(type, names.reduce_ex) && is_object_s(type, names.reduce)) &&
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
// state and no other way to be copied.
bool is_namedtuple(PyTypeObject* type) {
  if (!made_by_class_statement(type) || has_dict(type) ||
      type->tp_basicsize != PyTuple_Type.tp_basicsize || !reduces_by_default(type) ||
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
            {name, reinterpret_cast<PyMemberDescrObject*>(value)->d_member->offset});
        Py_INCREF(name);
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
    append_owned(plan.fields, interned);
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
  if (!is_object_s(type, names.getattribute)) {
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
  if (plan.shows_state && reduces_by_default(type) &&
      python::type_lookup(type, names.getnewargs) == nullptr) {
    plan.kind = Kind::Instance;
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
      {&PyArray_Type, Kind::NumpyArray},
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
  } else if (numpy_scalar_layout(type) != nullptr) {
    plan.kind = Kind::NumpyScalar;
  } else if (PyType_IsSubtype(type, &PyArrayDescr_Type) != 0) {
    plan.kind = Kind::NumpyDtype;
  } else if (PyType_IsSubtype(type, &PyTuple_Type) != 0 && is_namedtuple(type)) {
    plan.kind = Kind::NamedTuple;
  } else {
    return plan_instance(plan, object);
  }
  return PyErr_Occurred() == nullptr;
}

// The names of fields are interned.
bool same_plan(const TypePlan& a, const TypePlan& b) {
  return a.kind == b.kind && a.is_leaf == b.is_leaf && a.has_dict == b.has_dict &&
         a.shows_state == b.shows_state && a.owns == b.owns && a.fields == b.fields &&
         a.may_lose == b.may_lose && a.may_lose_slots == b.may_lose_slots &&
         a.may_omit == b.may_omit && a.is_users == b.is_users &&
         std::equal(a.slots.begin(), a.slots.end(), b.slots.begin(), b.slots.end(),
                    [](const TypePlan::Slot& x, const TypePlan::Slot& y) {
                      return x.offset == y.offset;
                    });
}

const TypePlan* make_or_renew(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  Owned held = Owned::borrow(reinterpret_cast<PyObject*>(type));
  PlanOwner plan(new TypePlan);
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
    in_force = found->second.plan.get();
  } else {
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
      entry.plan->version = 0;
    }
  }
  // To make a plan may run Python, which may change the class or give it another.
  for (int attempt = 0; attempt < 100; ++attempt) {
    PyTypeObject* type = Py_TYPE(object);
    const TypePlan* plan = find_plan(type);
    if (plan == nullptr || !is_current(*plan)) {
      plan = make_or_renew(object);
    }
    if (plan == nullptr || (Py_TYPE(object) == type && is_settled(*plan))) {
      return plan;
    }
  }
  PyErr_Format(PyExc_RuntimeError,
               "the class of an object, %s, changes whenever it is looked at",
               Py_TYPE(object)->tp_name);
  return nullptr;
}

// As all that holds Python objects here, it outlives the interpreter.
std::unordered_map<PyObject*, Owned>& unfaithful_objects() {
  static auto* map = new std::unordered_map<PyObject*, Owned>();
  return *map;
}

namespace {

PyObject* on_unfaithful_death(PyObject* capsule, PyObject* /*weak_object*/) {
  auto found = unfaithful_objects().find(
      static_cast<PyObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  if (found != unfaithful_objects().end()) {
    Owned weak_object = std::move(found->second);  // dropped when the map is whole
    unfaithful_objects().erase(found);
  }
  Py_RETURN_NONE;
}
PyMethodDef on_unfaithful_death_def = {"forget_object", on_unfaithful_death, METH_O,
                                       nullptr};

}  // namespace

bool note_unfaithful(PyObject* object) {
  if (PyType_SUPPORTS_WEAKREFS(Py_TYPE(object)) == 0) {
    return false;
  }
  Owned weak_object = python::on_death(object, on_unfaithful_death_def);
  if (!weak_object) {
    return false;
  }
  unfaithful_objects().try_emplace(object, std::move(weak_object));
  return true;
}

bool has_finalizer_slow(PyWeakReference* reference) {
  for (; reference != nullptr; reference = reference->wr_next) {
    if (reference->wr_callback != nullptr &&
        PyObject_TypeCheck(reference->wr_callback, finalize_type) != 0) {
      return true;
    }
  }
  return false;
}

bool is_stateless(const TypePlan& plan, PyObject* object) {
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

bool clear_refusal() {
  if (PyErr_ExceptionMatches(PyExc_Exception) != 0 &&
      PyErr_ExceptionMatches(PyExc_MemoryError) == 0 &&
      PyErr_ExceptionMatches(PyExc_RecursionError) == 0) {
    PyErr_Clear();
    return true;
  }
  return false;
}

bool global_names(PyObject* code, std::vector<PyObject*>& names) {
  auto* object = reinterpret_cast<PyCodeObject*>(code);
  Owned bytes = Owned::steal(PyCode_GetCode(object));
  if (!bytes) {
    return false;
  }
  const auto* units =
      reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  Py_ssize_t argument = 0;
  for (Py_ssize_t i = 0; i + 1 < PyBytes_GET_SIZE(bytes.get()); i += 2) {
    int opcode = units[i];
    argument = (argument << 8) | units[i + 1];
    if (opcode == opcodes.extended_arg) {
      continue;
    }
    if (opcode == opcodes.load_global || opcode == opcodes.load_name ||
        opcode == opcodes.load_from_dict_or_globals) {
      // The lowest bit says whether it is for a call.
      Py_ssize_t place = opcode == opcodes.load_global ? argument >> 1 : argument;
      names.push_back(PyTuple_GetItem(object->co_names, place));
      if (names.back() == nullptr) {
        return false;
      }
    }
    argument = 0;
  }
  return true;
}

bool is_bare_function(PyObject* object) {
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  auto* code = reinterpret_cast<PyCodeObject*>(function->func_code);
  if (function->func_closure != nullptr || function->func_defaults != nullptr ||
      function->func_kwdefaults != nullptr ||
      (function->func_annotations != nullptr &&
       PyObject_Size(function->func_annotations) != 0) ||
      function->func_name != code->co_name ||
      function->func_qualname != code->co_qualname ||
      (function->func_dict != nullptr && PyDict_GET_SIZE(function->func_dict) != 0)) {
    return false;
  }
#if PY_VERSION_HEX >= 0x030E0000
  if (function->func_annotate != nullptr) {
    return false;
  }
#endif
  // The docstring is the first constant.
  PyObject* consts = code->co_consts;
  PyObject* first =
      PyTuple_GET_SIZE(consts) != 0 ? PyTuple_GET_ITEM(consts, 0) : nullptr;
  if (function->func_doc != first &&
      (function->func_doc != Py_None || (first != nullptr && PyUnicode_Check(first)))) {
    return false;
  }
  // Nothing that it reads from its module, also not in functions inside it.
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(consts); ++i) {
    PyObject* constant = PyTuple_GET_ITEM(consts, i);
    if (constant != nullptr && PyCode_Check(constant)) {
      return false;
    }
  }
  PyObject* globals = function->func_globals;
  std::vector<PyObject*> read;
  if (!global_names(function->func_code, read)) {
    PyErr_Clear();
    return false;
  }
  for (PyObject* name : read) {
    if (PyDict_GetItemWithError(globals, name) != nullptr) {
      return false;
    }
  }
  bool of_module =
      PyDict_GetItemWithError(globals, names.name) == function->func_module;
  PyErr_Clear();
  return of_module;
}

namespace {

// Whether `object` is what the names in `qualname` lead to, from a module through
// classes. May run Python.
bool is_found(PyObject* dict, PyObject* qualname, PyObject* object) {
  Py_ssize_t size = PyUnicode_GET_LENGTH(qualname);
  if (PyUnicode_FindChar(qualname, '.', 0, size, 1) == -1) {
    return PyDict_GetItemWithError(dict, qualname) == object;
  }
  if (PyUnicode_FindChar(qualname, '<', 0, size, 1) != -1) {
    return false;  // `<locals>` are in no class
  }
  Owned dot = Owned::steal(PyUnicode_FromString("."));
  Owned path = Owned::steal(dot ? PyUnicode_Split(qualname, dot.get(), -1) : nullptr);
  if (!path) {
    return false;
  }
  PyObject* at = nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(path.get()); ++i) {
    if (at != nullptr) {
      if (!PyType_Check(at)) {
        return false;
      }
      dict = reinterpret_cast<PyTypeObject*>(at)->tp_dict;
    }
    at = dict != nullptr ? PyDict_GetItemWithError(dict, PyList_GET_ITEM(path.get(), i))
                         : nullptr;
    if (at == nullptr) {
      return false;
    }
  }
  if (Py_IS_TYPE(at, &PyClassMethod_Type) || Py_IS_TYPE(at, &PyStaticMethod_Type)) {
    Owned inside = Owned::steal(PyObject_GetAttrString(at, "__func__"));
    return inside.get() == object;
  }
  return at == object;
}

}  // namespace

bool is_named_function(PyObject* object) {
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  PyObject* name = function->func_module;
  if (name == nullptr || !PyUnicode_CheckExact(name) ||
      PyUnicode_CompareWithASCIIString(name, "__main__") == 0) {
    return false;
  }
  PyObject* modules = PyImport_GetModuleDict();  // as all that follows, borrowed
  PyObject* module = PyDict_GetItemWithError(modules, name);
  bool named = module != nullptr && PyModule_Check(module) &&
               PyModule_GetDict(module) == function->func_globals &&
               is_found(function->func_globals, function->func_qualname, object);
  PyErr_Clear();
  return named;
}

bool is_local_class(PyObject* object) {
  if (!PyType_Check(object) ||
      (reinterpret_cast<PyTypeObject*>(object)->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0) {
    return false;
  }
  PyObject* name = reinterpret_cast<PyHeapTypeObject*>(object)->ht_qualname;
  return PyUnicode_FindChar(name, '<', 0, PyUnicode_GET_LENGTH(name), 1) >= 0;
}

bool has_own_state(PyTypeObject* type) {
  return !is_object_s(type, names.getstate) ||
         python::type_lookup(type, names.setstate) != nullptr;
}

bool may_change_its_mind(PyTypeObject* type) {
  return made_by_class_statement(type) || !is_object_s(type, names.reduce);
}

namespace {

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

}  // namespace

namespace {

bool same_builtin(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyCFunctionObject*>(ours);
  auto* b = reinterpret_cast<PyCFunctionObject*>(other);
  return a->m_ml == b->m_ml && a->m_self == b->m_self;
}

}  // namespace

bool same_constant(Op op, PyObject* ours, PyObject* other) {
  if (ours == other) {
    return true;
  }
  if (Py_TYPE(ours) != Py_TYPE(other)) {
    return false;
  }
  switch (op) {
    case Op::Int:
      return PyObject_RichCompareBool(ours, other, Py_EQ) == 1;
    case Op::Float:
      return same_bits(PyFloat_AS_DOUBLE(ours), PyFloat_AS_DOUBLE(other));
    case Op::Complex: {
      const Py_complex& a = reinterpret_cast<PyComplexObject*>(ours)->cval;
      const Py_complex& b = reinterpret_cast<PyComplexObject*>(other)->cval;
      return same_bits(a.real, b.real) && same_bits(a.imag, b.imag);
    }
    case Op::Str:
      return PyUnicode_GET_LENGTH(ours) == PyUnicode_GET_LENGTH(other) &&
             PyUnicode_KIND(ours) == PyUnicode_KIND(other) &&
             std::memcmp(PyUnicode_DATA(ours), PyUnicode_DATA(other),
                         static_cast<std::size_t>(PyUnicode_GET_LENGTH(ours)) *
                             PyUnicode_KIND(ours)) == 0;
    case Op::Bytes:
      return PyBytes_GET_SIZE(ours) == PyBytes_GET_SIZE(other) &&
             std::memcmp(PyBytes_AS_STRING(ours), PyBytes_AS_STRING(other),
                         static_cast<std::size_t>(PyBytes_GET_SIZE(ours))) == 0;
    case Op::NumpyScalar: {
      Bytes a = numpy_scalar_bytes(ours);
      Bytes b = numpy_scalar_bytes(other);
      return std::memcmp(a.data, b.data, a.size) == 0;
    }
    case Op::Identity:
      // A builtin method is made anew each time it is looked up.
      return PyCFunction_Check(ours) && PyCFunction_Check(other) &&
             same_builtin(ours, other);
    default:
      return false;
  }
}

bool has_own_equality(PyTypeObject* type) {
  return type->tp_richcompare != PyBaseObject_Type.tp_richcompare &&
         type->tp_hash != nullptr && type->tp_hash != PyObject_HashNotImplemented &&
         type->tp_hash != PyBaseObject_Type.tp_hash;
}

int same_opaque(PyObject* ours, PyObject* other) {
  if (ours == other) {
    return 1;
  }
  if (Py_TYPE(ours) != Py_TYPE(other) || !has_own_equality(Py_TYPE(ours))) {
    return 0;
  }
  Py_hash_t a = PyObject_Hash(ours);
  Py_hash_t b = a == -1 ? -1 : PyObject_Hash(other);
  if (a == -1 || b == -1) {
    return clear_refusal() ? 0 : -1;
  }
  if (a != b) {
    return 0;
  }
  Owned same = Owned::steal(PyObject_RichCompare(ours, other, Py_EQ));
  if (!same) {
    return clear_refusal() ? 0 : -1;
  }
  return same.get() == Py_True ? 1 : 0;
}

bool hash_opaque(PyObject* object, Py_hash_t& result) {
  if (has_own_equality(Py_TYPE(object))) {
    result = PyObject_Hash(object);
    if (result != -1) {
      return true;
    }
    if (!clear_refusal()) {
      return false;
    }
  }
  result = static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(object) >> 4U);
  return true;
}

namespace {

// As the core needs it: nothing left to iterate over.
bool is_plain_reduction(PyObject* value) {
  return PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) >= 2 &&
         PyTuple_GET_SIZE(value) <= 6 &&
         PyCallable_Check(PyTuple_GET_ITEM(value, 0)) != 0 &&
         PyTuple_CheckExact(PyTuple_GET_ITEM(value, 1)) &&
         reduction_part(value, 3) == Py_None && reduction_part(value, 4) == Py_None;
}

}  // namespace

namespace {

// Whether a builtin class may have reduced an instance of a Python class without what
// this has added. That is to be looked at in Python then.
bool may_lose_attributes(PyObject* object, PyObject* reduction) {
  if (PyExceptionInstance_Check(object)) {
    return true;  // where it comes from
  }
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (plan == nullptr || !plan->may_lose) {
    return plan == nullptr;
  }
  if (plan->may_lose_slots) {
    return true;
  }
  PyObject* dict = python::instance_dict(object);  // may make it
  return dict != nullptr && PyDict_GET_SIZE(dict) != 0 &&
         reduction_part(reduction, 2) != dict;
}

// A set reduces to a list, in an order that says nothing: that of a subclass's instance
// then has a set instead. `reduction` as it is for all else; nothing with an exception
// set on failure.
Owned of_set(PyObject* object, Owned reduction) {
  if (!PyAnySet_Check(object)) {
    return reduction;
  }
  PyObject* args = PyTuple_GET_ITEM(reduction.get(), 1);
  PyObject* elements =
      PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : nullptr;
  PyObject* method = python::type_lookup(Py_TYPE(object), names.reduce);
  if (elements == nullptr || !PyList_CheckExact(elements) ||
      (method != python::type_lookup(&PySet_Type, names.reduce) &&
       method != python::type_lookup(&PyFrozenSet_Type, names.reduce))) {
    return reduction;
  }
  Owned set = Owned::steal(PyFrozenSet_New(elements));
  Owned new_args = Owned::steal(set ? PyTuple_Pack(1, set.get()) : nullptr);
  Owned list = Owned::steal(new_args ? PySequence_List(reduction.get()) : nullptr);
  if (!list) {
    return {};
  }
  PyList_SetItem(list.get(), 1, new_args.release());
  return Owned::steal(PyList_AsTuple(list.get()));
}

}  // namespace

PyObject* reduce(PyObject* object) {
  // Not the highest: from 5 on, arrays reduce to buffers that compare by identity.
  static PyObject* const protocol = PyLong_FromLong(4);
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  Owned registered = Owned::borrow(PyDict_GetItemWithError(config.copyreg_table, type));
  if (!registered && PyErr_Occurred() != nullptr && !clear_refusal()) {
    return nullptr;  // a class that can't be hashed is not registered
  }
  Owned value = Owned::steal(
      registered ? PyObject_CallOneArg(registered.get(), object)
                 : PyObject_CallMethodOneArg(object, names.reduce_ex, protocol));
  if (!value) {
    if (!clear_refusal()) {
      return nullptr;
    }
    value = Owned::borrow(Py_None);
  } else if (is_plain_reduction(value.get()) &&
             !may_lose_attributes(object, value.get())) {
    return of_set(object, std::move(value)).release();
  }
  Owned reduction = Owned::steal(
      PyObject_CallFunctionObjArgs(config.reduce, object, value.get(), nullptr));
  return reduction && reduction.get() != Py_None
             ? of_set(object, std::move(reduction)).release()
             : reduction.release();
}

std::uint64_t hash_bytes(const char* data, std::size_t size) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15U;
  std::array<std::uint64_t, 4> lanes{size, 1, 2, 3};
  std::size_t i = 0;
  for (; i + 32 <= size; i += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), data + i, 32);
    for (std::size_t lane = 0; lane < 4; ++lane) {
      lanes[lane] = (lanes[lane] ^ words[lane]) * kOdd;
      lanes[lane] ^= lanes[lane] >> 29U;
    }
  }
  for (; i < size; ++i) {
    lanes[i % 4] = (lanes[i % 4] ^ static_cast<unsigned char>(data[i])) * kOdd;
    lanes[i % 4] ^= lanes[i % 4] >> 29U;
  }
  std::uint64_t mixed = 0;
  for (std::uint64_t lane : lanes) {
    mixed = (mixed ^ lane) * kOdd;
    mixed ^= mixed >> 32U;
  }
  return mixed;
}

// --- numpy ---

Bytes numpy_scalar_bytes(PyObject* scalar) {
  const NumpyScalarLayout* layout = numpy_scalar_layout(Py_TYPE(scalar));
  return {reinterpret_cast<const char*>(scalar) + layout->offset, layout->size};
}

bool numpy_is_array(PyObject* object) { return PyArray_CheckExact(object); }

std::size_t numpy_size(PyObject* object) {
  return PyArray_Check(object) ? static_cast<std::size_t>(PyArray_NBYTES(
                                     reinterpret_cast<PyArrayObject*>(object)))
                               : 0;
}

bool numpy_is_plain(PyObject* array) {
  PyArray_Descr* dtype = PyArray_DESCR(reinterpret_cast<PyArrayObject*>(array));
  constexpr npy_uint64 kNotPlain =
      NPY_ITEM_REFCOUNT | NPY_ITEM_IS_POINTER | NPY_LIST_PICKLE;
  return (PyDataType_FLAGS(dtype) & kNotPlain) == 0;
}

PyObject* numpy_dtype_singleton(PyObject* object) {
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

bool same_data(PyArrayObject* a, PyArrayObject* b) {
  return std::memcmp(PyArray_BYTES(a), PyArray_BYTES(b),
                     static_cast<std::size_t>(PyArray_NBYTES(a))) == 0;
}

}  // namespace

PyObject* numpy_copy(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  if (!has_fields(array)) {
    return PyArray_NewCopy(array, is_fortran(array) ? NPY_FORTRANORDER : NPY_CORDER);
  }
  // numpy copies fields and leaves the gaps between them as they are: make them zero.
  PyArray_Descr* dtype = PyArray_DESCR(array);
  Py_INCREF(dtype);
  Owned copy = Owned::steal(PyArray_Zeros(PyArray_NDIM(array), PyArray_DIMS(array),
                                          dtype, is_fortran(array) ? 1 : 0));
  if (!copy ||
      PyArray_CopyInto(reinterpret_cast<PyArrayObject*>(copy.get()), array) < 0) {
    return nullptr;
  }
  return copy.release();
}

int numpy_same(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyArrayObject*>(ours);
  auto* b = reinterpret_cast<PyArrayObject*>(other);
  if (Py_TYPE(ours) != Py_TYPE(other) || !same_shape(a, b) ||
      is_fortran(a) != is_fortran(b)) {
    return 0;
  }
  if (PyArray_DESCR(a) != PyArray_DESCR(b) || has_fields(b) ||
      !(PyArray_IS_C_CONTIGUOUS(b) || PyArray_IS_F_CONTIGUOUS(b))) {
    return -1;
  }
  return same_data(a, b) ? 1 : 0;
}

int numpy_same_slowly(PyObject* ours, PyObject* other) {
  auto* a = reinterpret_cast<PyArrayObject*>(ours);
  if (!numpy_is_plain(other)) {
    return 0;
  }
  Owned copy = Owned::steal(numpy_copy(other));
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
  return same_data(a, b) ? 1 : 0;
}

std::uint64_t numpy_hash(PyObject* object) {
  auto* array = reinterpret_cast<PyArrayObject*>(object);
  const auto* shape = reinterpret_cast<const char*>(PyArray_DIMS(array));
  auto mixed = reinterpret_cast<std::uintptr_t>(Py_TYPE(PyArray_DESCR(array)));
  mixed ^= hash_bytes(shape,
                      sizeof(npy_intp) * static_cast<std::size_t>(PyArray_NDIM(array)));
  return mixed ^ hash_bytes(PyArray_BYTES(array),
                            static_cast<std::size_t>(PyArray_NBYTES(array))) *
                     3U;
}

namespace {

template <typename Scalar>
void add_numpy_scalar(PyTypeObject& type) {
  numpy_scalars().push_back(
      {&type, offsetof(Scalar, obval), sizeof(std::declval<Scalar>().obval)});
}

bool import_numpy() {
  import_array1(false);
  add_numpy_scalar<PyBoolScalarObject>(PyBoolArrType_Type);
  add_numpy_scalar<PyByteScalarObject>(PyByteArrType_Type);
  add_numpy_scalar<PyUByteScalarObject>(PyUByteArrType_Type);
  add_numpy_scalar<PyShortScalarObject>(PyShortArrType_Type);
  add_numpy_scalar<PyUShortScalarObject>(PyUShortArrType_Type);
  add_numpy_scalar<PyIntScalarObject>(PyIntArrType_Type);
  add_numpy_scalar<PyUIntScalarObject>(PyUIntArrType_Type);
  add_numpy_scalar<PyLongScalarObject>(PyLongArrType_Type);
  add_numpy_scalar<PyULongScalarObject>(PyULongArrType_Type);
  add_numpy_scalar<PyLongLongScalarObject>(PyLongLongArrType_Type);
  add_numpy_scalar<PyULongLongScalarObject>(PyULongLongArrType_Type);
  add_numpy_scalar<PyHalfScalarObject>(PyHalfArrType_Type);
  add_numpy_scalar<PyFloatScalarObject>(PyFloatArrType_Type);
  add_numpy_scalar<PyDoubleScalarObject>(PyDoubleArrType_Type);
  add_numpy_scalar<PyCFloatScalarObject>(PyCFloatArrType_Type);
  add_numpy_scalar<PyCDoubleScalarObject>(PyCDoubleArrType_Type);
  return true;
}

bool find_opcodes() {
  Owned module = Owned::steal(PyImport_ImportModule("opcode"));
  Owned map =
      Owned::steal(module ? PyObject_GetAttrString(module.get(), "opmap") : nullptr);
  if (!map) {
    return false;
  }
  const std::pair<const char*, int*> wanted[] = {
      {"LOAD_GLOBAL", &opcodes.load_global},
      {"LOAD_NAME", &opcodes.load_name},
      {"LOAD_FROM_DICT_OR_GLOBALS", &opcodes.load_from_dict_or_globals},
      {"EXTENDED_ARG", &opcodes.extended_arg}};
  for (auto [name, place] : wanted) {
    Owned number = Owned::steal(PyMapping_GetItemString(map.get(), name));
    *place = number ? static_cast<int>(PyLong_AsLong(number.get())) : -1;
    PyErr_Clear();
  }
  return true;
}

bool intern(PyObject*& place, const char* text) {
  place = PyUnicode_InternFromString(text);
  return place != nullptr;
}

}  // namespace

bool init_type_plans() {
  if (!import_numpy() || !find_opcodes() || !intern(names.reduce_ex, "__reduce_ex__") ||
      !intern(names.reduce, "__reduce__") || !intern(names.getstate, "__getstate__") ||
      !intern(names.setstate, "__setstate__") ||
      !intern(names.getnewargs, "__getnewargs__") ||
      !intern(names.getnewargs_ex, "__getnewargs_ex__") ||
      !intern(names.getattribute, "__getattribute__") ||
      !intern(names.dict, "__dict__") || !intern(names.fields, "_fields") ||
      !intern(names.dataclass_fields, "__dataclass_fields__") ||
      !intern(names.attrs_fields, "__attrs_attrs__") ||
      !intern(names.attr_name, "name") || !intern(names.del, "__del__") ||
      !intern(names.module, "__module__") || !intern(names.name, "__name__") ||
      !intern(names.qualname, "__qualname__")) {
    return false;
  }
  Owned functools = Owned::steal(PyImport_ImportModule("functools"));
  Owned enums = Owned::steal(PyImport_ImportModule("enum"));
  Owned weakref = Owned::steal(PyImport_ImportModule("weakref"));
  if (!functools || !enums || !weakref) {
    return false;
  }
  finalize_type = reinterpret_cast<PyTypeObject*>(
      PyObject_GetAttrString(weakref.get(), "finalize"));
  partial_type = reinterpret_cast<PyTypeObject*>(
      PyObject_GetAttrString(functools.get(), "partial"));
  Owned enum_class = Owned::steal(PyObject_GetAttrString(enums.get(), "Enum"));
  if (partial_type == nullptr || finalize_type == nullptr || !enum_class) {
    return false;
  }
  class_statement_dealloc =
      reinterpret_cast<PyTypeObject*>(enum_class.get())->tp_dealloc;
  return true;
}

}  // namespace autojit
