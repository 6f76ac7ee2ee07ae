#include "skeleton/set_order.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "objects/function_state.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/hashing.h"
#include "python/numpy.h"

namespace autojit {

namespace {

std::uint64_t hash_text(const char* text) {
  return hash_bytes(text, std::strlen(text));
}
std::uint64_t hash_text(PyObject* string) {
  return hash_bytes(
      static_cast<const char*>(PyUnicode_DATA(string)),
      static_cast<std::size_t>(PyUnicode_GET_LENGTH(string)) * PyUnicode_KIND(string));
}

// Of what goes by identity, as far as it has a name. May run Python, and may leave an
// exception that is no refusal.
std::uint64_t hash_name(PyObject* object) {
  if (PyType_Check(object)) {
    return hash_text(reinterpret_cast<PyTypeObject*>(object)->tp_name);
  }
  if (PyCFunction_Check(object)) {
    return hash_text(reinterpret_cast<PyCFunctionObject*>(object)->m_ml->ml_name);
  }
  for (const char* attribute : {"_name_", "__qualname__", "__name__"}) {
    Owned name = Owned::steal(PyObject_GetAttrString(object, attribute));
    if (name && PyUnicode_Check(name.get())) {
      return hash_text(name.get());
    }
    if (!name && !clear_refusal()) {
      return 0;
    }
  }
  return PyBool_Check(object) && object == Py_True ? 1 : 0;
}

// A number for one element of a set. Elements that differ below the first levels may
// have one number.
class Digest {
 public:
  explicit Digest(PyObject* leaf_type) : leaf_type_(leaf_type) {}
  // Sets `mixed`. False with an exception set on failure. May run Python.
  bool of(PyObject* object, int levels, std::uint64_t& mixed);
  // What decides among elements of one number: the shapes and dtypes of their arrays.
  std::uint64_t leaves() const { return leaves_; }

 private:
  bool is_leaf(PyObject* object, const TypePlan& plan, bool& leaf) const;
  bool leaf(PyObject* object);
  static Owned parts_in_list(PyObject* object, const TypePlan& plan, bool& ordered);
  bool parts(PyObject* list, bool ordered, int levels, std::uint64_t& mixed);

  // How many objects are looked at: what is shared is met again and again.
  std::uint32_t budget_ = 2000;
  PyObject* leaf_type_;
  std::uint64_t leaves_ = 0;
};

bool Digest::is_leaf(PyObject* object, const TypePlan& plan, bool& leaf) const {
  leaf = plan.is_leaf;
  if (leaf_type_ != nullptr) {
    int is_instance = PyObject_IsInstance(object, leaf_type_);
    if (is_instance < 0 && !clear_refusal()) {
      return false;
    }
    leaf = is_instance > 0;
  }
  return true;
}

// Mixes in the shape and dtype of an array.
bool Digest::leaf(PyObject* object) {
  for (const char* name : {"shape", "dtype"}) {
    Owned value = Owned::steal(PyObject_GetAttrString(object, name));
    Owned string = Owned::steal(value ? PyObject_Str(value.get()) : nullptr);
    if (string) {
      leaves_ = (leaves_ ^ hash_text(string.get())) * kGolden;
    } else if (!clear_refusal()) {
      return false;
    }
  }
  return true;
}

bool Digest::parts(PyObject* list, bool ordered, int levels, std::uint64_t& mixed) {
  std::uint64_t sum = 0;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    Owned part = Owned::borrow(PyList_GET_ITEM(list, i));
    std::uint64_t number = 0;
    if (!part || !of(part.get(), levels - 1, number)) {
      return false;
    }
    sum = ordered ? mix(sum, number) : sum + number * kGolden;
  }
  mixed ^= sum;
  return true;
}

// The parts of an object in a new list, None if nothing looks inside, or nothing with
// an exception set.
Owned Digest::parts_in_list(PyObject* object, const TypePlan& plan, bool& ordered) {
  switch (plan.kind) {
    case Kind::Set:
    case Kind::FrozenSet:
      ordered = false;
      return Owned::steal(PySequence_List(object));
    case Kind::Tuple:
    case Kind::NamedTuple:
    case Kind::List:
      return Owned::steal(PySequence_List(object));
    case Kind::Dict:
      return Owned::steal(PyDict_Items(object));
    case Kind::Instance: {
      ordered = plan.fields.empty();
      PyObject* dict = plan.has_dict ? python::instance_dict(object) : nullptr;
      Owned list = Owned::steal(dict != nullptr ? PyDict_Items(dict) : PyList_New(0));
      for (const TypePlan::Slot& slot : plan.slots) {
        PyObject* value = slot.value(object);
        if (list && value != nullptr && PyList_Append(list.get(), value) < 0) {
          return {};
        }
      }
      return list;
    }
    case Kind::Range:
    case Kind::Slice:
    case Kind::Method:
    case Kind::Partial: {
      Owned list = Owned::steal(PyList_New(0));
      bool done = list && use_named_parts(object, plan.kind, [&list](PyObject* part) {
                    return PyList_Append(list.get(), part) == 0;
                  });
      return done ? std::move(list) : Owned();
    }
    default: {
      Owned reduction = Owned::steal(reduce(object));
      return reduction && reduction.get() != Py_None
                 ? Owned::steal(PySequence_List(reduction.get()))
                 : std::move(reduction);
    }
  }
}

bool Digest::of(PyObject* object, int levels, std::uint64_t& mixed) {
  const TypePlan* plan = plan_for(object);
  if (plan == nullptr) {
    return false;
  }
  // Held: what runs may change the class.
  Owned type = Owned::borrow(reinterpret_cast<PyObject*>(plan->type));
  const PlanOwner owner(plan);
  bool leaf = false;
  if (!is_leaf(object, *plan, leaf)) {
    return false;
  }
  if (leaf) {
    mixed = kGolden;
    return !plan->is_leaf || this->leaf(object);
  }
  mixed = hash_text(plan->type->tp_name) * kGolden;
  if (budget_ == 0) {
    return true;
  }
  --budget_;
  switch (plan->kind) {
    case Kind::Identity:
    case Kind::Function:
      mixed ^= hash_name(object) * kGolden;
      return PyErr_Occurred() == nullptr;
    case Kind::Float: {
      double value = PyFloat_AS_DOUBLE(object);
      mixed ^= hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
      return true;
    }
    case Kind::Complex: {
      const Py_complex& value = reinterpret_cast<PyComplexObject*>(object)->cval;
      mixed ^= hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
      return true;
    }
    case Kind::Int:  // hashes are modulo 2 ** 61 - 1, and that of -1 is that of -2
      mixed += PyLong_AsUnsignedLongLongMask(object);
      mixed ^= static_cast<std::uint64_t>(PyObject_Hash(object)) * kGolden;
      return true;
    case Kind::Str:
      mixed ^= hash_text(object);
      return true;
    case Kind::Bytes:
      mixed ^= hash_bytes(PyBytes_AS_STRING(object),
                          static_cast<std::size_t>(PyBytes_GET_SIZE(object)));
      return true;
    case Kind::NumpyScalar: {
      numpy::Bytes bytes = numpy::scalar_bytes(object);
      mixed ^= hash_bytes(bytes.data, bytes.size);
      return true;
    }
    default:
      break;
  }
  if (levels == 0) {
    return true;
  }
  bool ordered = true;
  Owned list = parts_in_list(object, *plan, ordered);
  return list && (list.get() == Py_None || parts(list.get(), ordered, levels, mixed));
}

}  // namespace

bool set_order(PyObject* list, PyObject* leaf_type, std::vector<std::size_t>& order) {
  constexpr int kLevels = 6;
  auto size = static_cast<std::size_t>(PyList_GET_SIZE(list));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> numbers(size);
  for (std::size_t i = 0; i < size && size > 1; ++i) {
    Digest digest(leaf_type);
    if (PyErr_CheckSignals() < 0 ||
        !digest.of(PyList_GET_ITEM(list, static_cast<Py_ssize_t>(i)), kLevels,
                   numbers[i].first)) {
      return false;
    }
    numbers[i].second = digest.leaves();
  }
  order.resize(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return numbers[a] < numbers[b];
  });
  return true;
}

}  // namespace autojit
