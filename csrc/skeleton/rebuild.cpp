#include "skeleton/rebuild.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "objects/config.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "python/recursion.h"
#include "skeleton/describe.h"

namespace autojit {

namespace {

// Whatever it has built is owned, and no half-filled tuple or list is ever visible to
// others: Python may run here.
class Rebuilder {
 public:
  Rebuilder(const Program& program, const char* root, PyObject* const* leaves,
            const Inputs* inputs = nullptr, NodeObjects* rebuilt = nullptr)
      : program_(program),
        root_(root),
        pc_(program.nodes.data()),
        leaf_(leaves),
        inputs_(inputs),
        rebuilt_(rebuilt),
        guarded_(program.depth > python::kShallow),
        slots_(program.slots != 0 ? program.slots + 1 : 0) {}

  PyObject* part();
  PyObject* call();

 private:
  PyObject* node();
  PyObject* forwarded(const Node& head) const;
  PyObject* forwarded_leaf(std::uint32_t leaf) const;
  // Builds parts onto `built_`. False with an exception set on failure.
  bool parts(std::uint32_t count);
  PyObject* take_tuple(std::uint32_t count);
  PyObject* take_items(PyObject* made, PyObject** items, std::uint32_t count);
  bool fill_dict(PyObject* dict, const Node& head);
  PyObject* list(const Node& head);
  PyObject* set(const Node& head);
  PyObject* partial(const Node& head);
  PyObject* default_dict(const Node& head);
  PyObject* instance(const Node& head);
  PyObject* fresh(const Node& head);
  PyObject* reduce(const Node& head);
  PyObject* failed(const Node& head);
  std::size_t index_of(const Node& node) const {
    return static_cast<std::size_t>(&node - program_.nodes.data());
  }
  void meet(const Node& head, PyObject* object) {
    if (head.extra != 0) {
      slots_.replace(head.extra, Py_NewRef(object));
    }
  }
  // The same for what may be nullptr, with an exception set.
  PyObject* met(const Node& head, PyObject* object) {
    if (object != nullptr) {
      meet(head, object);
    }
    return object;
  }

  const Program& program_;
  const char* root_;
  const Node* pc_;
  PyObject* const* leaf_;
  const Inputs* inputs_;  // of a result
  NodeObjects* rebuilt_;
  bool guarded_;
  OwnedVector slots_;
  OwnedVector built_;                               // parts of what is not yet built
  std::vector<std::pair<PyObject*, Owned>> fresh_;  // by their classes
};

inline PyObject* Rebuilder::part() {
  const Node& head = *pc_;
  if (head.kind == Kind::Leaf) {
    ++pc_;
    return Py_NewRef(*leaf_++);
  }
  if (is_value(head.kind)) {
    ++pc_;
    return Py_NewRef(head.object);
  }
  if (!guarded_) {
    return node();
  }
  const python::Level level;
  return level.entered() ? node() : nullptr;
}

bool Rebuilder::parts(std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) {
    PyObject* object = part();
    if (object == nullptr) {
      return false;
    }
    built_.steal(object);
  }
  return true;
}

// Moves the last `count` of `built_` into a new container's empty items.
PyObject* Rebuilder::take_items(PyObject* made, PyObject** items, std::uint32_t count) {
  std::size_t begin = built_.size() - count;
  for (std::uint32_t i = 0; i < count; ++i) {
    items[i] = built_[begin + i];
  }
  built_.release_from(begin);
  return made;
}

PyObject* Rebuilder::take_tuple(std::uint32_t count) {
  PyObject* made = PyTuple_New(count);
  return made == nullptr || count == 0
             ? made
             : take_items(made, PySequence_Fast_ITEMS(made), count);
}

PyObject* Rebuilder::list(const Node& head) {
  if (head.extra == 0) {
    if (!parts(head.size)) {
      return nullptr;
    }
    PyObject* made = PyList_New(head.size);
    return made == nullptr || head.size == 0
               ? made
               : take_items(made, PySequence_Fast_ITEMS(made), head.size);
  }
  Owned made = Owned::steal(PyList_New(0));
  if (!made) {
    return nullptr;
  }
  meet(head, made.get());
  for (std::uint32_t i = 0; i < head.size; ++i) {
    Owned value = Owned::steal(part());
    if (!value || PyList_Append(made.get(), value.get()) < 0) {
      return nullptr;
    }
  }
  return made.release();
}

bool Rebuilder::fill_dict(PyObject* dict, const Node& head) {
  for (std::uint32_t i = 0; i < head.size; ++i) {
    Owned key = Owned::steal(part());
    if (!key) {
      return false;
    }
    Owned value = Owned::steal(part());
    if (!value) {
      return false;
    }
    if (PyDict_SetItem(dict, key.get(), value.get()) < 0) {
      failed(head);
      return false;
    }
  }
  return true;
}

PyObject* Rebuilder::set(const Node& head) {
  ++pc_;  // Extent
  if (head.kind == Kind::FrozenSet) {
    if (!parts(head.size)) {
      return nullptr;
    }
    Owned elements = Owned::steal(take_tuple(head.size));
    return met(head, elements ? PyFrozenSet_New(elements.get()) : nullptr);
  }
  Owned made = Owned::steal(PySet_New(nullptr));
  if (!made) {
    return nullptr;
  }
  meet(head, made.get());
  for (std::uint32_t i = 0; i < head.size; ++i) {
    Owned element = Owned::steal(part());
    if (!element || PySet_Add(made.get(), element.get()) < 0) {
      return nullptr;
    }
  }
  return made.release();
}

// Made of anything that can be called first, so that its own parts can refer to it.
PyObject* Rebuilder::partial(const Node& head) {
  Owned made = Owned::steal(
      PyObject_CallOneArg(reinterpret_cast<PyObject*>(partial_type),
                          reinterpret_cast<PyObject*>(&PyBaseObject_Type)));
  if (!made) {
    return failed(head);
  }
  meet(head, made.get());
  Owned state = Owned::steal(parts(4) ? take_tuple(4) : nullptr);
  if (!state) {
    return nullptr;
  }
  Owned done =
      Owned::steal(PyObject_CallMethod(made.get(), "__setstate__", "(O)", state.get()));
  return done ? made.release() : failed(head);
}

// Its factory may refer to it, so that it is made without one.
PyObject* Rebuilder::default_dict(const Node& head) {
  Owned made =
      Owned::steal(PyObject_CallNoArgs(reinterpret_cast<PyObject*>(default_dict_type)));
  if (!made) {
    return nullptr;
  }
  meet(head, made.get());
  Owned factory = Owned::steal(part());
  if (!factory ||
      PyObject_SetAttrString(made.get(), "default_factory", factory.get()) < 0) {
    return nullptr;
  }
  return fill_dict(made.get(), head) ? made.release() : nullptr;
}

PyObject* Rebuilder::instance(const Node& head) {
  const TypePlan& plan = *head.plan;
  if (plan.has_dict) {
    ++pc_;  // Extent
  }
  bool has_state = head.size != 0;
  for (std::size_t i = 0; i < plan.slots.size() && !has_state; ++i) {
    has_state = pc_[i].kind != Kind::Unset;
  }
  Owned made = Owned::steal(make_instance(plan, has_state));
  if (!made) {
    return failed(head);
  }
  meet(head, made.get());
  if (head.size != 0) {
    // Filling the instance's own dict keeps its keys shared with the class's others.
    Owned dict = Owned::steal(PyObject_GenericGetDict(made.get(), nullptr));
    if (!dict || !fill_dict(dict.get(), head)) {
      return nullptr;
    }
  }
  for (const TypePlan::Slot& slot : plan.slots) {
    if (pc_->kind == Kind::Unset) {
      ++pc_;
      continue;
    }
    PyObject* value = part();
    if (value == nullptr) {
      return nullptr;
    }
    if (!slot.set(made.get(), value)) {
      return nullptr;
    }
  }
  return made.release();
}

// One for all of a class.
PyObject* Rebuilder::fresh(const Node& head) {
  auto found = std::find_if(fresh_.begin(), fresh_.end(), [&head](const auto& one) {
    return one.first == head.object;
  });
  if (found == fresh_.end()) {
    auto* type = reinterpret_cast<PyTypeObject*>(head.object);
    const TypePlan* plan = find_plan(type);
    bool is_made = plan != nullptr && plan->kind == Kind::Fresh;
    Owned made =
        Owned::steal(is_made ? make_instance(*plan, true) : new_instance(type, true));
    if (!made) {
      return failed(head);
    }
    found = fresh_.emplace(fresh_.end(), head.object, std::move(made));
  }
  return Py_NewRef(found->second.get());
}

PyObject* Rebuilder::reduce(const Node& head) {
  ++pc_;  // Extent
  Owned func = Owned::steal(part());
  if (!func) {
    return nullptr;
  }
  Owned args = Owned::steal(part());
  if (!args) {
    return nullptr;
  }
  Owned made = Owned::steal(PyObject_CallObject(func.get(), args.get()));
  if (!made) {
    return failed(head);
  }
  meet(head, made.get());
  if (rebuilt_ != nullptr) {
    rebuilt_->emplace_back(index_of(head), Owned::borrow(made.get()));
  }
  if (parts_of(program_, head) == 2) {
    return made.release();
  }
  for (std::uint32_t i = kState; i < kReduceParts; ++i) {
    if (!has_part(head.size, i)) {
      built_.borrow(Py_None);
    } else if (!parts(1)) {
      return nullptr;
    }
  }
  Owned rest = Owned::steal(take_tuple(4));
  if (!rest) {
    return nullptr;
  }
  Owned done = Owned::steal(PyObject_CallFunctionObjArgs(
      config.set_state, made.get(), PyTuple_GET_ITEM(rest.get(), 0),
      PyTuple_GET_ITEM(rest.get(), 1), PyTuple_GET_ITEM(rest.get(), 2),
      PyTuple_GET_ITEM(rest.get(), 3), nullptr));
  return done ? made.release() : failed(head);
}

// The name of the class of what a node makes.
const char* class_of(const Node& node) {
  switch (row_of(node.kind).payload) {
    case Payload::Plan:
      return node.plan->type->tp_name;
    case Payload::Class:
      return reinterpret_cast<const PyTypeObject*>(node.object)->tp_name;
    case Payload::Whole:
      return Py_TYPE(node.object)->tp_name;
    default:
      break;
  }
  switch (node.kind) {
    case Kind::Partial:
      return "functools.partial";
    case Kind::DefaultDict:
      return "collections.defaultdict";
    default:
      return "dict";
  }
}

// Turns what user code raised into a TypeError that says where. Returns nullptr.
PyObject* Rebuilder::failed(const Node& head) {
  if (!is_refusal()) {
    return nullptr;
  }
  Owned reason = take_exception();
  Owned where = path(program_, root_, index_of(head));
  if (!where) {
    return nullptr;
  }
  PyErr_Format(PyExc_TypeError,
               "%U, an instance of %s, cannot be put together again: %R; make its "
               "__reduce__ return what rebuilds it",
               where.get(), class_of(head), reason.get());
  Owned error = take_exception();
  if (error && reason) {
    PyException_SetCause(error.get(), reason.release());
  }
  set_exception(std::move(error));
  return nullptr;
}

PyObject* damaged() {
  PyErr_SetString(PyExc_SystemError, "autojit: damaged skeleton");
  return nullptr;
}

// Whether the memory of an array has gone; not of a tracer. Runs Python.
bool is_deleted(PyObject* array) {
  Owned deleted = Owned::steal(PyObject_CallMethod(array, "is_deleted", nullptr));
  if (!deleted) {
    PyErr_Clear();
  }
  return deleted.get() == Py_True;
}

// An array that comes back untouched, borrowed, unless its memory was donated in
// another place: then it is gone.
PyObject* Rebuilder::forwarded_leaf(std::uint32_t leaf) const {
  PyObject* object = inputs_->leaves[leaf];
  if (program_.withheld.empty() || !is_deleted(object)) {
    return object;
  }
  std::uint32_t other = program_.withheld.front();
  for (std::uint32_t withheld : program_.withheld) {
    other = inputs_->leaves[withheld] == object ? withheld : other;
  }
  const char* like = inputs_->leaves[other] == object ? "" : "another array, perhaps ";
  Owned here = leaf_path(inputs_->call, "", leaf);
  Owned there = here ? leaf_path(inputs_->call, "", other) : Owned();
  if (there) {
    PyErr_Format(
        PyExc_ValueError,
        "the function returns %U, which is deleted: its memory was donated with "
        "that of %s%U; pass a copy of it",
        here.get(), like, there.get());
  }
  return nullptr;
}

// Borrowed; nullptr with an exception set on failure.
PyObject* Rebuilder::forwarded(const Node& head) const {
  if (head.extra == kLeaf || head.extra == kTraced) {
    return forwarded_leaf(head.size);
  }
  if (head.extra == kFunction) {
    return inputs_->call.functions[head.size];
  }
  for (const auto& [node, object] : inputs_->opaque) {
    if (node == head.size) {
      return object.get();
    }
  }
  return inputs_->call.nodes[head.size].object;
}

PyObject* Rebuilder::node() {
  const Node& head = *pc_++;
  switch (head.kind) {
    case Kind::Tuple:
      if (head.object != nullptr) {
        pc_ = &head + head.extra;
        return Py_NewRef(head.object);
      }
      return parts(head.size) ? met(head, take_tuple(head.size)) : nullptr;
    case Kind::NamedTuple: {
      if (!parts(head.size)) {
        return nullptr;
      }
      auto* type = reinterpret_cast<PyTypeObject*>(head.object);
      PyObject* made = met(head, type->tp_alloc(type, head.size));
      return made == nullptr || head.size == 0
                 ? made
                 : take_items(made, PySequence_Fast_ITEMS(made), head.size);
    }
    case Kind::List:
      return list(head);
    case Kind::Dict: {
      Owned made = Owned::steal(PyDict_New());
      if (!made) {
        return nullptr;
      }
      meet(head, made.get());
      return fill_dict(made.get(), head) ? made.release() : nullptr;
    }
    case Kind::DefaultDict:
      return default_dict(head);
    case Kind::Set:
      return set(head);
    case Kind::FrozenSet:
      if (head.object != nullptr) {
        pc_ = &head + head.extra;
        return Py_NewRef(head.object);
      }
      return set(head);
    case Kind::Range:
    case Kind::Slice: {
      if (!parts(3)) {
        return nullptr;
      }
      Owned three = Owned::steal(take_tuple(3));
      if (!three) {
        return nullptr;
      }
      if (head.kind == Kind::Range) {
        return PyObject_CallObject(reinterpret_cast<PyObject*>(&PyRange_Type),
                                   three.get());
      }
      return met(head, PySlice_New(PyTuple_GET_ITEM(three.get(), 0),
                                   PyTuple_GET_ITEM(three.get(), 1),
                                   PyTuple_GET_ITEM(three.get(), 2)));
    }
    case Kind::Bytearray:
      return met(head, PyByteArray_FromStringAndSize(PyBytes_AS_STRING(head.object),
                                                     PyBytes_GET_SIZE(head.object)));
    case Kind::NumpyArray:
      return met(head, numpy::copy_of(head.object));
    case Kind::Forward: {
      PyObject* object = inputs_ != nullptr ? forwarded(head) : damaged();
      // A number comes back as it is; a numpy array would be the caller's own.
      bool is_callers =
          object != nullptr && head.extra == kTraced && numpy::is_array(object);
      return is_callers ? PyObject_CallOneArg(config.to_array, object)
                        : Py_XNewRef(object);
    }
    case Kind::Stateless: {
      const TypePlan* plan = find_plan(Py_TYPE(head.object));
      if (head.size == 1 && plan != nullptr && plan->kind == Kind::Instance) {
        PyObject* made = new_instance(Py_TYPE(head.object), false);
        return made != nullptr ? met(head, made) : failed(head);
      }
      meet(head, head.object);
      return Py_NewRef(head.object);
    }
    case Kind::Constant:
      return Py_NewRef(head.object);
    case Kind::Fresh:
      return fresh(head);
    case Kind::Opaque:
    case Kind::Owner:
      meet(head, head.object);
      return Py_NewRef(head.object);
    case Kind::Method: {
      Owned func = Owned::steal(part());
      if (!func) {
        return nullptr;
      }
      Owned self = Owned::steal(part());
      return self ? met(head, PyMethod_New(func.get(), self.get())) : nullptr;
    }
    case Kind::Partial:
      return partial(head);
    case Kind::Instance:
      return instance(head);
    case Kind::Reduce:
      return reduce(head);
    case Kind::Traced:
      return Py_NewRef(*leaf_++);
    case Kind::Ref:
      if (slots_[head.size] == nullptr) {
        Owned where = path(program_, root_, index_of(head));
        if (where) {
          PyErr_Format(PyExc_TypeError,
                       "%U cannot be put together again: it is part of the arguments "
                       "that its own reduction is called with; let __reduce__ return "
                       "it as state instead",
                       where.get());
        }
        return nullptr;
      }
      return Py_NewRef(slots_[head.size]);
    case Kind::Identity:
    case Kind::Int:
    case Kind::Float:
    case Kind::Complex:
    case Kind::Str:
    case Kind::Bytes:
    case Kind::NumpyScalar:
    case Kind::Function:
    case Kind::Leaf:  // these are in `part`, and the rest is not put together
    case Kind::Unset:
    case Kind::Extent:
    case Kind::Closure:
    case Kind::Cell:
    case Kind::Call:
      break;
  }
  return damaged();
}

PyObject* Rebuilder::call() {
  const Node& head = *pc_++;
  Owned callable = head.extra != 0 ? Owned::steal(part()) : Owned::borrow(Py_None);
  if (!callable || !parts(head.size)) {
    return nullptr;
  }
  Owned args = Owned::steal(take_tuple(head.size));
  Owned kwargs = Owned::steal(PyDict_New());
  if (!args || !kwargs) {
    return nullptr;
  }
  for (std::size_t i = 0; i < program_.keyword_places.size(); ++i) {
    Owned value = Owned::steal(part());
    if (!value ||
        PyDict_SetItem(kwargs.get(),
                       PyTuple_GET_ITEM(head.object, static_cast<Py_ssize_t>(i)),
                       value.get()) < 0) {
      return nullptr;
    }
  }
  return PyTuple_Pack(3, callable.get(), args.get(), kwargs.get());
}

}  // namespace

Owned rebuild(const Program& program, const char* root, PyObject* const* leaves) {
  return Owned::steal(Rebuilder(program, root, leaves).part());
}

Owned rebuild_result(const Program& program, PyObject* const* leaves,
                     const Inputs& inputs, NodeObjects* rebuilt) {
  return Owned::steal(Rebuilder(program, "result", leaves, &inputs, rebuilt).part());
}

Owned rebuild_call(const Program& program, PyObject* const* leaves,
                   NodeObjects* rebuilt) {
  return Owned::steal(Rebuilder(program, "", leaves, nullptr, rebuilt).call());
}

}  // namespace autojit
