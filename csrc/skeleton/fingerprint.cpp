#include "skeleton/fingerprint.h"

#include <cstddef>

#include "objects/function_state.h"
#include "objects/type_plan.h"
#include "objects/values.h"
#include "python/hashing.h"
#include "python/interpreter.h"
#include "python/numpy.h"

namespace autojit {

namespace {

// What is further down, or comes later, is not looked at: there may be cycles.
constexpr std::uint32_t kDeepest = 100;
constexpr std::size_t kMostObjects = 1'000'000;

class Walk {
 public:
  // Unless `numbers_count`, a number or a numpy array is as good as any other of its
  // type.
  explicit Walk(bool numbers_count) : numbers_count_(numbers_count) {}

  std::uint64_t mixed() const { return mixed_; }
  void add(std::uint64_t number) { mixed_ = mix(mixed_, number); }

  void part(PyObject* object) {
    PyTypeObject* type = Py_TYPE(object);
    std::uint64_t value = 0;
    if (type == &PyUnicode_Type) {
      add(hash_value(Kind::Str, object));
    } else if (type == &PyLong_Type && python::is_short_int(object, value)) {
      add(numbers_count_ ? value : 0);
    } else {
      add(hash_address(type));
      if (!is_leaf_type(type)) {
        look_into(object, type);
      }
    }
  }

  void parts(PyObject* const* objects, Py_ssize_t size) {
    add(static_cast<std::uint64_t>(size));
    for (Py_ssize_t i = 0; i < size && ++seen_ < kMostObjects; ++i) {
      part(objects[i]);
    }
  }

 private:
  void look_into(PyObject* object, PyTypeObject* type) {
    const TypePlan* plan = find_plan(type);
    if (plan != nullptr && depth_ < kDeepest && ++seen_ < kMostObjects) {
      ++depth_;
      inside(object, *plan);
      --depth_;
    }
  }

  void pairs(PyObject* dict) {
    add(static_cast<std::uint64_t>(PyDict_GET_SIZE(dict)));
    Py_ssize_t position = 0;
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    while (++seen_ < kMostObjects && PyDict_Next(dict, &position, &key, &value) != 0) {
      part(key);
      part(value);
    }
  }

  void named(PyObject* object, Kind kind) {
    (void)use_named_parts(object, kind, [this](PyObject* value) {
      part(value);
      return true;
    });
    PyErr_Clear();
  }

  void instance(PyObject* object, const TypePlan& plan) {
    if (PyObject* dict = plan.has_dict ? python::instance_dict(object) : nullptr) {
      pairs(dict);
    }
    for (const TypePlan::Slot& slot : plan.slots) {
      if (PyObject* value = slot.value(object)) {
        part(value);
      }
    }
  }

  void inside(PyObject* object, const TypePlan& plan) {
    switch (plan.kind) {
      case Kind::Int:
      case Kind::Float:
      case Kind::Complex:
      case Kind::NumpyScalar:
        if (numbers_count_) {
          add(hash_value(plan.kind, object));
        }
        break;
      case Kind::Identity:
      case Kind::Str:
      case Kind::Bytes:
        add(hash_value(plan.kind, object));
        break;
      case Kind::Function:
        add(hash_address(PyFunction_GET_CODE(object)));
        break;
      case Kind::Method:
        part(PyMethod_GET_FUNCTION(object));
        part(PyMethod_GET_SELF(object));
        break;
      case Kind::Tuple:
      case Kind::NamedTuple:
        parts(PySequence_Fast_ITEMS(object), PyTuple_GET_SIZE(object));
        break;
      case Kind::List:
        parts(PySequence_Fast_ITEMS(object), PyList_GET_SIZE(object));
        break;
      case Kind::Dict:
        pairs(object);
        break;
      case Kind::DefaultDict:
        named(object, plan.kind);
        pairs(object);
        break;
      case Kind::Range:
      case Kind::Slice:
      case Kind::Partial:
        named(object, plan.kind);
        break;
      case Kind::Set:
      case Kind::FrozenSet:  // the hash of an element may run Python
        add(static_cast<std::uint64_t>(PySet_GET_SIZE(object)));
        break;
      case Kind::Bytearray:
        add(hash_sample(PyByteArray_AS_STRING(object),
                        static_cast<std::size_t>(PyByteArray_GET_SIZE(object))));
        break;
      case Kind::NumpyArray:
        if (numbers_count_) {
          add(numpy::hash_sample(object));
        }
        break;
      case Kind::Instance:
        instance(object, plan);
        break;
      default:  // to know more could run Python
        break;
    }
  }

  bool numbers_count_;
  std::uint64_t mixed_ = 0;
  std::size_t seen_ = 0;
  std::uint32_t depth_ = 0;
};

}  // namespace

std::uint64_t fingerprint_of(CallView& call) {
  if (call.fingerprint != 0) {
    return call.fingerprint;
  }
  python::NoCollection no_collection(true);
  Walk walk(call.places == nullptr);
  walk.add(call.positional);
  if (call.callable != nullptr) {
    walk.part(call.callable);
  }
  walk.parts(call.args, static_cast<Py_ssize_t>(call.positional + call.keywords()));
  if (call.kwnames != nullptr) {
    walk.part(call.kwnames);
  }
  return call.fingerprint = walk.mixed() | 1U;
}

}  // namespace autojit
