// skeleton x object -> leaves, or no
//
// The hot path. First a walk in which no Python runs, so that everything is borrowed;
// what may run Python (reductions, `__eq__` of opaque objects) is put off until the
// walk is over. That is possible because the skeleton says in advance where the leaves
// of the part that was put off belong.
#include <algorithm>
#include <array>
#include <cstring>

#include "pointer_map.h"
#include "skeleton.h"
#include "type_plan.h"

namespace autojit {

namespace {

// A few elements on the C stack, more on the heap.
template <typename T, std::size_t kInline>
class SmallVector {
 public:
  SmallVector() = default;
  SmallVector(const SmallVector&) = delete;
  SmallVector& operator=(const SmallVector&) = delete;

  void push_back(T value) {
    if (size_ < kInline) {
      inline_[size_++] = value;
    } else {
      spill(value);
    }
  }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data()[i]; }
  T* data() { return heap_.empty() ? inline_ : heap_.data(); }

 private:
  void spill(T value) {
    if (heap_.empty()) {
      heap_.assign(inline_, inline_ + size_);
    }
    heap_.push_back(value);
    ++size_;
  }

  T inline_[kInline];
  std::size_t size_ = 0;
  std::vector<T> heap_;
};

class Matcher {
 public:
  Matcher(const Program& program, PyObject** leaves)
      : program_(program), pc_(program.nodes.data()), leaf_(leaves) {
    if (program.slots != 0) {
      slots_.resize(program.slots + 1);
    }
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  ~Matcher() {
    for (const Later& later : later_) {
      Py_DECREF(later.object);
    }
    for (PyObject* object : held_) {
      Py_DECREF(object);
    }
  }

  bool call(const CallView& call);
  // What was put off; runs Python.
  Match finish(NodeObjects& opaque);
  bool distinct();
  bool has_later() const { return !later_.empty(); }

 private:
  struct Later {
    PyObject* object;  // owned
    const Node* node;
    PyObject** leaf;
  };

  bool part(PyObject* object);
  bool node(PyObject* object);
  bool pairs(PyObject* dict, std::uint32_t size);
  bool attributes_in_own_order(PyObject* dict, const Node& head, const Node& extent);
  bool items(PyObject* const* items, std::uint32_t size);
  bool set(PyObject* object, const Node& head);
  bool attributes(PyObject* object, const std::array<const char*, 3>& names);
  bool three(PyObject* object);
  bool instance(PyObject* object, const Node& head);
  bool partial(PyObject* object);
  static int still_opaque(PyObject* object);
  int same_content(PyObject* object, std::size_t number) const;
  int same_left_out(const Later& later) const;
  Match reduction(const Later& later);
  void put_off(PyObject* object, const Node* node) {
    later_.push_back({object, node, leaf_});
    Py_INCREF(object);
  }
  // Notes an object that could occur twice. One that is referred to once cannot, unless
  // a reduction finds it by other ways; and then it also has to stay what it is.
  void meet(PyObject* object, std::uint32_t slot) {
    if (slot != 0) {
      slots_[slot] = object;
    }
    if (program_.reduces) {
      append_owned(held_, Py_NewRef(object));
      met_.push_back(object);
    } else if (Py_REFCNT(object) > 1) {
      met_.push_back(object);
    }
  }

  // The same for a value, which may occur more often than the skeleton says.
  void meet_value(PyObject* object, const Node& head) {
    if (head.extra != 0) {
      slots_[head.extra] = object;
      if (program_.reduces) {
        append_owned(held_, Py_NewRef(object));
      }
    }
  }

  const Program& program_;
  const Node* pc_;
  PyObject** leaf_;
  std::vector<PyObject*> slots_;    // borrowed
  SmallVector<PyObject*, 64> met_;  // borrowed
  std::vector<Later> later_;
  std::vector<PyObject*> held_;  // owned: what else would be gone before the end
};

// The common kinds of part without a call.
inline bool Matcher::part(PyObject* object) {
  const Node& head = *pc_;
  if (head.op == Op::Leaf) {
    if (!is_leaf_type(Py_TYPE(object))) {
      return false;
    }
    ++pc_;
    *leaf_++ = Py_NewRef(object);
    return true;
  }
  if (is_constant(head.op)) {
    ++pc_;
    return object == head.object || same_constant(head.op, head.object, object);
  }
  return node(object);
}

inline bool Matcher::items(PyObject* const* items, std::uint32_t size) {
  for (std::uint32_t i = 0; i < size; ++i) {
    if (!part(items[i])) {
      return false;
    }
  }
  return true;
}

inline bool Matcher::pairs(PyObject* dict, std::uint32_t size) {
  if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(size)) {
    return false;
  }
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value) != 0) {
    if (!part(key) || !part(value)) {
      return false;
    }
  }
  return true;
}

// In the order of iteration, which is that of an equal set made in the same way. An
// equal set in another order is found by its hash.
bool Matcher::set(PyObject* object, const Node& head) {
  if (PySet_GET_SIZE(object) != static_cast<Py_ssize_t>(head.size)) {
    return false;
  }
  const PartEntry* entry = program_.part_entries.data() + pc_->number;
  const Node* first_node = pc_ + 1;
  PyObject** first_leaf = leaf_;
  Owned elements = Owned::steal(PySequence_List(object));
  if (!elements) {
    PyErr_Clear();
    return false;
  }
  // The list is new and its elements are the set's: dropping it runs nothing.
  for (std::uint32_t i = 0; i < head.size; ++i, ++entry) {
    pc_ = first_node + entry->node;
    leaf_ = first_leaf + entry->leaf;
    if (!part(PyList_GET_ITEM(elements.get(), static_cast<Py_ssize_t>(i)))) {
      return false;
    }
  }
  pc_ = first_node + entry->node;
  leaf_ = first_leaf + entry->leaf;
  return true;
}

// The attributes of an instance in an order of its own, which is that of others made in
// the same way. `pc_` is where they begin.
bool Matcher::attributes_in_own_order(PyObject* dict, const Node& head,
                                      const Node& extent) {
  if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(head.size)) {
    return false;
  }
  const Node* first_node = pc_;
  PyObject** first_leaf = leaf_;
  const PartEntry* entry = program_.part_entries.data() + extent.number;
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value) != 0) {
    pc_ = first_node + entry->node;
    leaf_ = first_leaf + entry->leaf;
    if (!part(key) || !part(value)) {
      return false;
    }
    ++entry;
  }
  pc_ = first_node + entry->node;
  leaf_ = first_leaf + entry->leaf;
  return true;
}

// Of a builtin object, which keeps them alive.
bool Matcher::attributes(PyObject* object, const std::array<const char*, 3>& names) {
  for (const char* name : names) {
    Owned value = Owned::steal(PyObject_GetAttrString(object, name));
    if (!value) {
      PyErr_Clear();
      return false;
    }
    if (!part(value.get())) {
      return false;
    }
  }
  return true;
}

bool Matcher::three(PyObject* object) {
  if (PySlice_Check(object)) {
    auto* slice = reinterpret_cast<PySliceObject*>(object);
    return part(slice->start) && part(slice->stop) && part(slice->step);
  }
  return attributes(object, {"start", "stop", "step"});
}

bool Matcher::instance(PyObject* object, const Node& head) {
  const TypePlan& plan = *head.plan;
  if (Py_TYPE(object) != plan.type || !plan.current() || has_finalizer(object)) {
    return false;
  }
  meet(object, head.extra);
  PyObject* dict = nullptr;
  if (plan.has_dict && !python::get_instance_dict(object, dict)) {
    return false;
  }
  const Node* extent = plan.fields.empty() ? nullptr : pc_++;
  if (dict == nullptr) {
    if (head.size != 0) {
      return false;
    }
  } else if (extent != nullptr && extent->number != kInOrder) {
    if (!attributes_in_own_order(dict, head, *extent)) {
      return false;
    }
  } else if (!pairs(dict, head.size)) {
    return false;
  }
  for (const TypePlan::Slot& slot : plan.slots) {
    PyObject* value = slot.value(object);
    if (value == nullptr) {
      if (pc_->op != Op::Unset) {
        return false;
      }
      ++pc_;
    } else if (!part(value)) {
      return false;
    }
  }
  return true;
}

bool Matcher::partial(PyObject* object) {
  if (!attributes(object, {"func", "args", "keywords"})) {
    return false;
  }
  PyObject* dict = python::instance_dict(object);
  return part(has_attributes(dict) ? dict : Py_None);
}

// Whether objects of this class would still be taken apart as `kind`.
bool is_still(Kind kind, PyTypeObject* type) {
  const TypePlan* plan = find_plan(type);
  return plan != nullptr && plan->kind == kind && is_current(*plan);
}

// Whether this object would still be reduced.
bool is_still_reduced(PyObject* object) {
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (plan == nullptr || !is_current(*plan)) {
    return false;
  }
  switch (plan->kind) {
    case Kind::Reduce:
      return !is_unfaithful(*plan, object) && !owns_resource(*plan, object);
    case Kind::NumpyArray:
      return !numpy_is_plain(object);
    default:
      return plan->kind == Kind::NumpyDtype;
  }
}

// Whether this object would still be handed through as one without state.
bool is_still_stateless(PyObject* object) {
  const TypePlan* plan = find_plan(Py_TYPE(object));
  return plan != nullptr && is_current(*plan) && plan->shows_state &&
         is_stateless(*plan, object);
}

bool Matcher::node(PyObject* object) {
  const Node& head = *pc_++;
  PyTypeObject* type = Py_TYPE(object);
  switch (head.op) {
    case Op::Tuple:
      if (object == head.object) {
        pc_ = &head + head.extra;
        return true;
      }
      if (type != &PyTuple_Type ||
          PyTuple_GET_SIZE(object) != static_cast<Py_ssize_t>(head.size)) {
        return false;
      }
      if (head.object == nullptr) {
        meet_value(object, head);
      }
      return items(PySequence_Fast_ITEMS(object), head.size);
    case Op::NamedTuple:
      if (reinterpret_cast<PyObject*>(type) != head.object ||
          !is_still(Kind::NamedTuple, type) ||
          PyTuple_GET_SIZE(object) != static_cast<Py_ssize_t>(head.size)) {
        return false;
      }
      meet_value(object, head);
      return items(PySequence_Fast_ITEMS(object), head.size);
    case Op::List:
      if (type != &PyList_Type) {
        return false;
      }
      meet(object, head.extra);
      return PyList_GET_SIZE(object) == static_cast<Py_ssize_t>(head.size) &&
             items(PySequence_Fast_ITEMS(object), head.size);
    case Op::Dict:
      if (type != &PyDict_Type) {
        return false;
      }
      meet(object, head.extra);
      return pairs(object, head.size);
    case Op::Instance:
      return instance(object, head);
    case Op::Ref:
      if (slots_[head.size] == nullptr) {
        put_off(object, &head);  // inside what was put off
        return true;
      }
      return slots_[head.size] == object;
    case Op::Set:
      if (type != &PySet_Type) {
        return false;
      }
      meet(object, head.extra);
      return set(object, head);
    case Op::FrozenSet:
      if (object == head.object) {
        pc_ = &head + head.extra;
        return true;
      }
      if (type != &PyFrozenSet_Type) {
        return false;
      }
      if (head.object == nullptr) {
        meet_value(object, head);
      }
      return set(object, head);
    case Op::Range:
      return type == &PyRange_Type && three(object);
    case Op::Slice:
      if (type != &PySlice_Type) {
        return false;
      }
      meet_value(object, head);
      return three(object);
    case Op::Method:
      if (type != &PyMethod_Type) {
        return false;
      }
      meet_value(object, head);
      return part(PyMethod_GET_FUNCTION(object)) && part(PyMethod_GET_SELF(object));
    case Op::Partial:
      if (type != partial_type) {
        return false;
      }
      meet(object, head.extra);
      return partial(object);
    case Op::Bytearray:
      if (type != &PyByteArray_Type) {
        return false;
      }
      meet(object, head.extra);
      return PyByteArray_GET_SIZE(object) == PyBytes_GET_SIZE(head.object) &&
             std::memcmp(PyByteArray_AS_STRING(object), PyBytes_AS_STRING(head.object),
                         static_cast<std::size_t>(PyBytes_GET_SIZE(head.object))) == 0;
    case Op::NumpyArray: {
      if (type != Py_TYPE(head.object)) {
        return false;
      }
      meet(object, head.extra);
      int same = numpy_same(head.object, object);
      if (same < 0) {
        put_off(object, &head);
      }
      return same != 0;
    }
    case Op::Opaque:
      meet(object, head.extra);
      if (type != Py_TYPE(head.object) ||
          (object != head.object && !has_own_equality(type))) {
        return false;
      }
      if (object != head.object || may_change_its_mind(type)) {
        put_off(object, &head);
      }
      return true;
    case Op::Owner:
      if (object != head.object) {
        return false;
      }
      meet(object, head.extra);
      put_off(object, &head);
      return true;
    case Op::Stateless:
      // Another that is equal is found by its hash.
      if (object != head.object || !is_still_stateless(object)) {
        return false;
      }
      meet(object, head.extra);
      return true;
    case Op::Reduce:
      if (reinterpret_cast<PyObject*>(type) != head.object ||
          !is_still_reduced(object)) {
        return false;
      }
      meet(object, head.extra);
      put_off(object, &head);
      leaf_ += pc_->number;
      pc_ += 1 + pc_->size;
      return true;
    default:
      return false;
  }
}

// 1 if flattening would hand `object` through whole, 0 if it would take it apart, -1
// with an exception set.
int Matcher::still_opaque(PyObject* object) {
  if (!may_change_its_mind(Py_TYPE(object))) {
    return 1;
  }
  Owned reduction = Owned::steal(reduce(object));
  if (!reduction) {
    return -1;
  }
  return reduction.get() == Py_None ? 1 : 0;
}

// 1 if an object holds what it held when it was handed through whole, 0 if not, -1 with
// an exception set.
int Matcher::same_content(PyObject* object, std::size_t number) const {
  Owned now = Owned::steal(content_now(object));
  if (!now) {
    return -1;
  }
  auto* before = reinterpret_cast<Skeleton*>(program_.contents[number].get());
  return equal(before, reinterpret_cast<Skeleton*>(now.get()));
}

// The same for what a reduction may leave out.
int Matcher::same_left_out(const Later& later) const {
  std::size_t number = later.node[1].extra;
  LeafVector arrays;
  Owned now = Owned::steal(
      left_out(later.object, later.leaf, later.node[1].number, false, arrays));
  if (!now) {
    return -1;
  }
  if (number == 0 || now.get() == Py_None) {
    return number == 0 && now.get() == Py_None ? 1 : 0;
  }
  if (!arrays.leaves.empty()) {
    auto known = program_.omitted.find(number);
    if (known == program_.omitted.end() ||
        !std::equal(known->second.begin(), known->second.end(), arrays.leaves.begin(),
                    arrays.leaves.end(), [](const Owned& one, PyObject* other) {
                      return one.get() == other;
                    })) {
      return 0;  // they are to be looked at
    }
  }
  return equal(reinterpret_cast<Skeleton*>(program_.contents[number - 1].get()),
               reinterpret_cast<Skeleton*>(now.get()));
}

Match Matcher::reduction(const Later& later) {
  PyObject* reduction = reduce(later.object);
  if (reduction == nullptr) {
    return Match::Error;
  }
  append_owned(held_, reduction);
  if (reduction == Py_None) {
    return Match::No;
  }
  python::NoCollection no_collection(true);  // a walk like the first
  pc_ = later.node + 2;
  leaf_ = later.leaf;
  for (std::uint32_t i = 0; i < 6; ++i) {
    PyObject* value = reduction_part(reduction, i);
    bool expected = i < 2 || (later.node->size & (1U << (i - 2))) != 0;
    if (i >= 2 && expected != (value != Py_None)) {
      return Match::No;
    }
    if (expected && !part(value)) {
      return Match::No;
    }
  }
  return Match::Yes;
}

Match Matcher::finish(NodeObjects& opaque) {
  std::size_t next = 0;
  while (next < later_.size()) {  // it grows
    Later later = later_[next++];
    int same = 1;
    switch (later.node->op) {
      case Op::Reduce: {
        Match match = reduction(later);
        if (match != Match::Yes) {
          return match;
        }
        same = same_left_out(later);
        break;
      }
      case Op::Ref:
        continue;  // when all slots are filled
      case Op::Owner:
        same = same_content(later.object, later.node->size);
        break;
      case Op::Opaque:
        same = still_opaque(later.object);
        if (same == 1) {
          same = same_opaque(later.node->object, later.object);
        }
        if (same == 1 && later.node->object != later.object) {
          opaque.emplace_back(later.node - program_.nodes.data(),
                              Owned::borrow(later.object));
        }
        break;
      default:
        same = numpy_same_slowly(later.node->object, later.object);
        break;
    }
    if (same != 1) {
      return same == 0 ? Match::No : Match::Error;
    }
  }
  for (const Later& later : later_) {
    if (later.node->op == Op::Ref && slots_[later.node->size] != later.object) {
      return Match::No;
    }
  }
  return Match::Yes;
}

// Whether all objects met are different ones: the skeleton has a Ref for each that is
// not.
bool Matcher::distinct() {
  std::size_t size = met_.size();
  PyObject** met = met_.data();
  if (size <= 12) {
    for (std::size_t i = 1; i < size; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (met[i] == met[j]) {
          return false;
        }
      }
    }
    return true;
  }
  PointerMap map;
  map.reserve(size);
  for (std::size_t i = 0; i < size; ++i) {
    bool inserted = false;
    map.get_or_insert(met[i], 0, inserted);
    if (!inserted) {
      return false;
    }
  }
  return true;
}

bool Matcher::call(const CallView& call) {
  const Node& head = *pc_++;
  std::size_t keywords = call.kwnames != nullptr
                             ? static_cast<std::size_t>(PyTuple_GET_SIZE(call.kwnames))
                             : 0;
  // A function and a bound method of it have one table.
  if (head.size != call.positional || program_.keyword_places.size() != keywords ||
      (head.extra != 0) != (call.callable != nullptr)) {
    return false;
  }
  PyObject* expected = program_.call_kwnames.get();
  if (keywords != 0 && call.kwnames != expected) {
    for (std::size_t i = 0; i < keywords; ++i) {
      auto place = static_cast<Py_ssize_t>(i);
      if (!same_constant(Op::Str, PyTuple_GET_ITEM(expected, place),
                         PyTuple_GET_ITEM(call.kwnames, place))) {
        return false;
      }
    }
  }
  if (head.extra != 0 && !part(call.callable)) {
    return false;
  }
  if constexpr (python::kArgumentsMayBeBorrowed) {
    for (std::size_t i = 0; i < call.positional + keywords; ++i) {
      append_owned(held_, Py_NewRef(call.args[i]));
    }
  }
  if (!items(call.args, call.positional)) {
    return false;
  }
  for (std::uint32_t place : program_.keyword_places) {
    if (!part(call.args[call.positional + place])) {
      return false;
    }
  }
  return true;
}

}  // namespace

Match match_call(const Program& program, CallView& call, PyObject** leaves,
                 NodeObjects& opaque) {
  std::fill(leaves, leaves + program.leaves, nullptr);
  if (plans_are_stale()) {
    return Match::No;
  }
  // The walk is no deeper than the program, and takes no more than this for a level.
  // Where that may be too much, flattening gives the error.
  constexpr std::size_t kLevel = 512;
  if (program.depth > python::kShallow &&
      python::stack_left() < python::kStackReserve + program.depth * kLevel) {
    return Match::No;
  }
  python::NoCollection no_collection(program.allocates);
  Matcher matcher(program, leaves);
  bool walked = matcher.call(call);
  no_collection.end();
  if (!walked) {
    return Match::No;
  }
  Match match = Match::Yes;
  if (matcher.has_later()) {
    call.hold();
    match = matcher.finish(opaque);
  }
  return match == Match::Yes && !matcher.distinct() ? Match::No : match;
}

}  // namespace autojit
