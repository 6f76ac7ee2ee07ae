#include "skeleton/match.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "objects/function_state.h"
#include "objects/opaque.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "objects/values.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "python/pointer_map.h"
#include "python/recursion.h"
#include "skeleton/compare.h"
#include "skeleton/content.h"

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
  // Forgets all from `size` on.
  void truncate(std::size_t size) {
    if (!heap_.empty()) {
      heap_.resize(size);
      if (size <= kInline) {
        std::copy(heap_.begin(), heap_.end(), inline_);
        heap_.clear();
      }
    }
    size_ = size;
  }

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

// The hot path. First a walk in which no Python runs, so that everything is borrowed;
// what may run Python (reductions, `__eq__` of opaque objects) is put off until the
// walk is over. That is possible because the skeleton says in advance where the leaves
// of the part that was put off belong.
class Matcher {
 public:
  Matcher(const Program& program, PyObject** leaves, bool any_leaf = false)
      : program_(program),
        pc_(program.nodes.data()),
        leaf_(leaves),
        any_leaf_(any_leaf) {
    if (program.slots != 0) {
      slots_.resize(program.slots + 1);
    }
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;
  [[gnu::always_inline]] ~Matcher() {
    for (const Later& later : later_) {
      Py_DECREF(later.object);
    }
  }

  bool object(PyObject* object) { return part(object); }
  bool call(const CallView& call);
  bool closures(const Program& call, const OwnedVector& handed_through, bool strictly);
  bool dependencies(PyObject* settings, const std::vector<PyObject*>& functions,
                    const std::vector<PyObject*>& arguments);
  bool has_same_settings() const { return has_same_settings_; }
  std::size_t changed_read() const { return read_; }
  bool has_later() const { return !later_.empty(); }
  // What was put off; runs Python.
  Match finish(NodeObjects& opaque);
  // Whether all objects that could occur twice are different ones: the skeleton has a
  // Ref for each that is not.
  bool are_distinct() { return met_.size() < 2 || are_many_distinct(); }

 private:
  struct Later {
    PyObject* object;  // owned
    const Node* node;
    PyObject** leaf;
  };

  bool are_many_distinct();
  bool part(PyObject* object);
  bool part_or_unset(PyObject* object);
  bool node(PyObject* object);
  bool items(PyObject* const* items, std::uint32_t size);
  bool pairs(PyObject* dict, std::uint32_t size);
  bool dict(PyObject* dict, std::uint32_t size, const Node& kept);
  bool learn(PyObject* dict, std::uint32_t size, const Node& kept,
             std::uint64_t version);
  bool pairs_in_own_order(PyObject* dict, std::uint32_t size, const Node& extent);
  bool set(PyObject* object, const Node& head);
  bool named(PyObject* object, Kind kind);
  bool instance(PyObject* object, const Node& head);
  bool read_again(ReadAt at);
  bool reads();
  bool closure(PyObject* object, const Node& head);
  bool closure_parts(PyObject* object, const Node& head);
  bool skip_changed(PyObject* function, const Node* begin, const Node* end);
  bool has_same_place(PyObject* ours, PyObject* other) const;
  Match reduction(const Later& later);
  int finish_one(const Later& later, NodeObjects& opaque);
  int same_content(PyObject* object, std::size_t number) const;
  int same_reduction(PyObject* reduction, std::size_t number) const;
  int same_left_out(const Later& later) const;
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
      held_.borrow(object);
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
        held_.borrow(object);
      }
    }
  }

  const Program& program_;
  const Node* pc_;
  PyObject** leaf_;
  bool any_leaf_;                   // whatever stands where a leaf is to be is one
  std::vector<PyObject*> slots_;    // borrowed
  SmallVector<PyObject*, 64> met_;  // borrowed
  std::vector<Later> later_;
  OwnedVector held_;  // what else would be gone before the end
  // Among closures: what the call hands through, and whether a function that is in both
  // must not have changed.
  const OwnedVector* handed_through_ = nullptr;
  bool has_same_settings_ = false;
  std::size_t read_ = SIZE_MAX;  // what is being looked at, among all that is read
  bool strictly_ = false;
};

// The common kinds of part without a call.
inline bool Matcher::part(PyObject* object) {
  const Node& head = *pc_;
  if (head.kind == Kind::Leaf) {
    if (!is_leaf_type(Py_TYPE(object)) && !any_leaf_) {
      return false;
    }
    ++pc_;
    *leaf_++ = Py_NewRef(object);
    return true;
  }
  if (is_value(head.kind)) {
    ++pc_;
    return object == head.object || same_value(head.kind, head.object, object);
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

// Whether a part of a dict that has matched may match no longer, or is a leaf. Whether
// another constant is equal, or a tuple that has one in it, is not known before the
// walk is over.
bool is_to_be_looked_at(const Node& node, PyObject* object) {
  bool can_be_told =
      node.kind == Kind::Constant || row_of(node.kind).payload == Payload::Folded;
  return !is_value(node.kind) && (!can_be_told || node.object != object);
}

// What a dict has in the place of a part by now, borrowed, or nullptr.
inline PyObject* ask(PyObject* dict, const KnownDict::Part& which) {
  Py_ssize_t position = which.position;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  bool found = PyDict_Next(dict, &position, &key, &value) != 0;
  return found && which.is_key ? key : value;
}

// `kept` has the memo, and is the node before the pairs.
[[gnu::always_inline]] inline bool Matcher::dict(PyObject* dict, std::uint32_t size,
                                                 const Node& kept) {
  std::uint64_t version = python::dict_version(dict);
  if (version == 0) {
    return pairs(dict, size);
  }
  const KnownDict* known = kept.memo.known();
  if (known != nullptr && known->version == version) {
    for (const KnownDict::Part& which : known->parts) {
      pc_ = &kept + which.node;
      PyObject* object = which.object != nullptr ? which.object : ask(dict, which);
      if (object == nullptr || !part(object)) {
        return false;
      }
    }
    pc_ = &kept + known->nodes;
    return true;
  }
  if (kept.memo.has_seen(version)) {
    return learn(dict, size, kept, version);
  }
  if (!pairs(dict, size)) {
    return false;
  }
  kept.memo.see(version);
  return true;
}

// Not the first time: one that is made anew for each call would be learned in vain.
[[gnu::noinline]] bool Matcher::learn(PyObject* dict, std::uint32_t size,
                                      const Node& kept, std::uint64_t version) {
  if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(size)) {
    return false;
  }
  auto known = std::make_unique<KnownDict>();
  known->version = version;
  bool can_be_kept = !python::may_lose_before_its_version(dict);
  Py_ssize_t position = 0;
  Py_ssize_t next = 0;
  PyObject* pair[] = {nullptr, nullptr};
  for (; PyDict_Next(dict, &next, &pair[0], &pair[1]) != 0; position = next) {
    for (PyObject*& object : pair) {
      const Node& node = *pc_;
      if (is_to_be_looked_at(node, object)) {
        known->parts.push_back({static_cast<std::uint32_t>(&node - &kept),
                                &object == pair, position,
                                can_be_kept ? object : nullptr});
      }
      if (!part(object)) {
        return false;
      }
    }
  }
  known->nodes = static_cast<std::uint32_t>(pc_ - &kept);
  kept.memo.learn(known.release());
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
bool Matcher::pairs_in_own_order(PyObject* dict, std::uint32_t size,
                                 const Node& extent) {
  if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(size)) {
    return false;
  }
  const Node* first_node = pc_;
  PyObject** first_leaf = leaf_;
  const PartEntry* entry = program_.part_entries.data() + extent.memo.first_entry();
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

// The parts of a builtin object, which keeps them alive, that its kind names.
bool Matcher::named(PyObject* object, Kind kind) {
  bool same =
      use_named_parts(object, kind, [this](PyObject* value) { return part(value); });
  PyErr_Clear();
  return same;
}

inline bool Matcher::part_or_unset(PyObject* object) {
  if (object != nullptr) {
    return part(object);
  }
  return pc_++->kind == Kind::Unset;
}

bool Matcher::instance(PyObject* object, const Node& head) {
  const TypePlan& plan = *head.plan;
  if (Py_TYPE(object) != plan.type || !plan.current() || has_finalizer(object)) {
    return false;
  }
  meet(object, head.extra);
  if (plan.has_dict) {
    PyObject* attributes = nullptr;
    if (!python::get_instance_dict(object, attributes)) {
      return false;
    }
    const Node& extent = *pc_++;
    if (attributes == nullptr) {
      if (head.size != 0) {
        return false;
      }
    } else if (!extent.memo.is_in_order()) {
      if (!pairs_in_own_order(attributes, head.size, extent)) {
        return false;
      }
    } else if (!dict(attributes, head.size, extent)) {
      return false;
    }
  }
  for (const TypePlan::Slot& slot : plan.slots) {
    if (!part_or_unset(slot.value(object))) {
      return false;
    }
  }
  return true;
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
      if (plan->is_dtype && numpy::dtype_singleton(object) != nullptr) {
        return false;
      }
      return !is_unfaithful(*plan, object) && !owns_resource(*plan, object);
    case Kind::NumpyArray:
      return !numpy::is_plain(object);
    case Kind::NamedTuple:
      return has_attributes(*plan, object);
    default:
      return false;
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
  switch (head.kind) {
    case Kind::Tuple:
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
    case Kind::NamedTuple: {
      const TypePlan* plan = find_plan(type);
      if (reinterpret_cast<PyObject*>(type) != head.object || plan == nullptr ||
          plan->kind != Kind::NamedTuple || !is_current(*plan) ||
          PyTuple_GET_SIZE(object) != static_cast<Py_ssize_t>(head.size) ||
          has_attributes(*plan, object)) {
        return false;
      }
      if (plan->has_dict) {
        meet(object, head.extra);
      } else {
        meet_value(object, head);
      }
      return items(PySequence_Fast_ITEMS(object), head.size);
    }
    case Kind::List:
      if (type != &PyList_Type) {
        return false;
      }
      meet(object, head.extra);
      return PyList_GET_SIZE(object) == static_cast<Py_ssize_t>(head.size) &&
             items(PySequence_Fast_ITEMS(object), head.size);
    case Kind::Dict:
      if (type != &PyDict_Type) {
        return false;
      }
      meet(object, head.extra);
      return dict(object, head.size, head);
    case Kind::Instance:
      return instance(object, head);
    case Kind::Ref:
      if (slots_[head.size] == nullptr) {
        put_off(object, &head);  // inside what was put off
        return true;
      }
      return slots_[head.size] == object;
    case Kind::Set:
      if (type != &PySet_Type) {
        return false;
      }
      meet(object, head.extra);
      return set(object, head);
    case Kind::FrozenSet:
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
    case Kind::DefaultDict:
      if (type != default_dict_type) {
        return false;
      }
      meet(object, head.extra);
      return named(object, head.kind) && pairs(object, head.size);
    case Kind::Range:
      return type == &PyRange_Type && named(object, head.kind);
    case Kind::Slice: {
      if (type != &PySlice_Type) {
        return false;
      }
      meet_value(object, head);
      auto* slice = reinterpret_cast<PySliceObject*>(object);
      return part(slice->start) && part(slice->stop) && part(slice->step);
    }
    case Kind::Method:
      if (type != &PyMethod_Type) {
        return false;
      }
      meet_value(object, head);
      return part(PyMethod_GET_FUNCTION(object)) && part(PyMethod_GET_SELF(object));
    case Kind::Partial:
      if (type != partial_type) {
        return false;
      }
      meet(object, head.extra);
      return named(object, head.kind);
    case Kind::Bytearray:
      if (type != &PyByteArray_Type) {
        return false;
      }
      meet(object, head.extra);
      return PyByteArray_GET_SIZE(object) == PyBytes_GET_SIZE(head.object) &&
             std::memcmp(PyByteArray_AS_STRING(object), PyBytes_AS_STRING(head.object),
                         static_cast<std::size_t>(PyBytes_GET_SIZE(head.object))) == 0;
    case Kind::NumpyArray: {
      if (type != Py_TYPE(head.object)) {
        return false;
      }
      meet(object, head.extra);
      int same = numpy::same(head.object, object);
      if (same < 0) {
        put_off(object, &head);
      }
      return same != 0;
    }
    case Kind::Opaque:
      meet(object, head.extra);
      if (!has_same_place(head.object, object) || type != Py_TYPE(head.object) ||
          (object != head.object && !has_own_equality(type))) {
        return false;
      }
      if (object != head.object || may_change_its_mind(type)) {
        put_off(object, &head);
      }
      return true;
    case Kind::Owner:
      if (object != head.object || !has_same_place(head.object, object)) {
        return false;
      }
      meet(object, head.extra);
      put_off(object, &head);
      return true;
    case Kind::Stateless:
      // Another that is equal is found by its hash.
      if (object != head.object || !is_still_stateless(object) ||
          !has_same_place(head.object, object)) {
        return false;
      }
      meet(object, head.extra);
      return true;
    case Kind::Constant:
      if (object != head.object) {
        if (type != Py_TYPE(head.object) || !is_still(Kind::Constant, type)) {
          return false;
        }
        put_off(object, &head);
      }
      return true;
    case Kind::Fresh:
      return reinterpret_cast<PyObject*>(type) == head.object &&
             is_still(Kind::Fresh, type);
    case Kind::Reduce:
      if (reinterpret_cast<PyObject*>(type) != head.object ||
          !is_still_reduced(object)) {
        return false;
      }
      meet(object, head.extra);
      put_off(object, &head);
      leaf_ += pc_->number;
      pc_ += 1 + pc_->size;
      return true;
    case Kind::Traced:
      if (!can_be_traced(object, head.size)) {
        return false;
      }
      *leaf_++ = Py_NewRef(object);
      return true;
    case Kind::Closure:
      return type == &PyFunction_Type && closure(object, head);
    case Kind::Cell:
      if (type != &PyCell_Type || (PyCell_GET(object) != nullptr) != (head.size != 0)) {
        return false;
      }
      meet(object, head.extra);
      return head.size == 0 || part(PyCell_GET(object));
    case Kind::Identity:
    case Kind::Int:
    case Kind::Float:
    case Kind::Complex:
    case Kind::Str:
    case Kind::Bytes:
    case Kind::NumpyScalar:
    case Kind::Function:
    case Kind::Leaf:  // these are in `part`, and the rest is no part of a call
    case Kind::Forward:
    case Kind::Unset:
    case Kind::Extent:
    case Kind::Call:
      break;
  }
  return false;
}

// 1 if flattening would hand `object` through whole, 0 if it would take it apart, -1
// with an exception set.
int is_still_opaque(PyObject* object) {
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
  Owned now = content_now(object);
  return now ? equal(as_skeleton(program_.contents[number]), as_skeleton(now.get()))
             : -1;
}

// The same for the reduction of a constant. Most are told by a walk.
int Matcher::same_reduction(PyObject* reduction, std::size_t number) const {
  NodeObjects opaque;
  const Program& before = as_skeleton(program_.contents[number])->program;
  Match match = match_object(before, reduction, nullptr, false, opaque);
  if (match == Match::No) {
    return same_content(reduction, number);
  }
  return match == Match::Yes ? 1 : -1;
}

// The same for what a reduction may leave out.
int Matcher::same_left_out(const Later& later) const {
  std::size_t number = later.node[1].extra;
  OwnedVector arrays;
  Owned now = left_out(later.object, later.leaf, later.node[1].number, false, arrays);
  if (!now) {
    return -1;
  }
  if (number == 0 || now.get() == Py_None) {
    return number == 0 && now.get() == Py_None ? 1 : 0;
  }
  if (!arrays.empty()) {
    auto known = program_.omitted.find(number);
    if (known == program_.omitted.end() ||
        !std::equal(known->second.begin(), known->second.end(), arrays.begin(),
                    arrays.end())) {
      return 0;  // they are to be looked at
    }
  }
  return equal(as_skeleton(program_.contents[number - 1]), as_skeleton(now.get()));
}

Match Matcher::reduction(const Later& later) {
  PyObject* reduction = reduce(later.object);
  if (reduction == nullptr) {
    return Match::Error;
  }
  held_.steal(reduction);
  if (reduction == Py_None || parts_present(reduction) != later.node->size) {
    return Match::No;
  }
  python::NoCollection no_collection(true);  // a walk like the first
  pc_ = later.node + 2;
  leaf_ = later.leaf;
  for (std::uint32_t i = 0; i < kReduceParts; ++i) {
    if (has_part(later.node->size, i) && !part(reduction_part(reduction, i))) {
      return Match::No;
    }
  }
  return Match::Yes;
}

// 1 if what was put off is the same, 0 if not, -1 with an exception set.
int Matcher::finish_one(const Later& later, NodeObjects& opaque) {
  switch (later.node->kind) {
    case Kind::Reduce: {
      Match match = reduction(later);
      if (match != Match::Yes) {
        return match == Match::Error ? -1 : 0;
      }
      return same_left_out(later);
    }
    case Kind::Ref:
      return 1;  // when all slots are filled
    case Kind::Owner:
      return same_content(later.object, later.node->size);
    case Kind::Constant: {
      Owned reduction = Owned::steal(reduce(later.object));
      return reduction ? same_reduction(reduction.get(), later.node->size) : -1;
    }
    case Kind::Opaque: {
      int same = is_still_opaque(later.object);
      same = same == 1 ? same_opaque(later.node->object, later.object) : same;
      if (same == 1 && later.node->object != later.object) {
        opaque.emplace_back(later.node - program_.nodes.data(),
                            Owned::borrow(later.object));
      }
      return same;
    }
    default:
      return numpy::same_slowly(later.node->object, later.object);
  }
}

Match Matcher::finish(NodeObjects& opaque) {
  std::size_t next = 0;
  while (next < later_.size()) {  // it grows
    Later later = later_[next++];
    int same = finish_one(later, opaque);
    if (same != 1) {
      return same == 0 ? Match::No : Match::Error;
    }
  }
  for (const Later& later : later_) {
    if (later.node->kind == Kind::Ref && slots_[later.node->size] != later.object) {
      return Match::No;
    }
  }
  return Match::Yes;
}

bool Matcher::are_many_distinct() {
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

// --- closures ---

// The trace can tell whether what a function holds is what the call handed through as
// well. Always true in a call itself.
bool Matcher::has_same_place(PyObject* ours, PyObject* other) const {
  for (std::size_t i = 0; handed_through_ != nullptr && i < handed_through_->size();
       ++i) {
    if ((ours == program_.handed_through[i]) != (other == (*handed_through_)[i])) {
      return false;
    }
  }
  return true;
}

bool Matcher::closure_parts(PyObject* object, const Node& head) {
  PyObject* annotations = PyFunction_GetAnnotations(object);
  PyErr_Clear();
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  PyObject* cells = function->func_closure;
  Py_ssize_t count = cells != nullptr ? PyTuple_GET_SIZE(cells) : 0;
  if (head.size != kStateParts + static_cast<std::size_t>(count)) {
    return false;
  }
  ++pc_;  // Extent
  for (PyObject* value : state_of(object, annotations)) {
    if (!part_or_unset(value)) {
      return false;
    }
  }
  return count == 0 ||
         items(PySequence_Fast_ITEMS(cells), static_cast<std::uint32_t>(count));
}

bool Matcher::closure(PyObject* object, const Node& head) {
  meet(object, head.extra);
  if (object != head.object || strictly_) {
    return closure_parts(object, head);
  }
  const Node* extent = pc_;
  const Node* end = extent + 1 + extent->size;
  std::size_t met = met_.size();
  std::size_t later = later_.size();
  if (closure_parts(object, head)) {
    return true;
  }
  // It has changed, and hits all the same.
  met_.truncate(met);
  for (; later_.size() > later; later_.pop_back()) {
    Py_DECREF(later_.back().object);  // the function's
  }
  return skip_changed(object, extent + 1, end);
}

// Past the nodes of a function that has changed. What it held, or holds by now, must be
// nothing that the others have too: of that nothing would be known.
bool Matcher::skip_changed(PyObject* function, const Node* begin, const Node* end) {
  for (const Node* at = begin; at != end; ++at) {
    if (has_slot(*at) && at->extra != 0) {
      slots_[at->extra] = nullptr;
    }
  }
  for (const Node* at = begin; at != end; ++at) {
    if (at->kind == Kind::Ref && slots_[at->size] != nullptr &&
        slots_[at->size] != function) {
      return false;
    }
  }
  pc_ = end;
  std::vector<PyObject*> held;
  if (!held_by(function, held)) {
    return false;
  }
  for (PyObject* object : held) {
    if (object != function) {
      met_.push_back(object);
    }
  }
  return true;
}

bool Matcher::closures(const Program& call, const OwnedVector& handed_through,
                       bool strictly) {
  handed_through_ = &handed_through;
  strictly_ = strictly;
  return handed_through.size() == program_.handed_through.size() &&
         items(call.functions.data(),
               static_cast<std::uint32_t>(call.functions.size())) &&
         reads();
}

bool Matcher::dependencies(PyObject* settings, const std::vector<PyObject*>& functions,
                           const std::vector<PyObject*>& arguments) {
  strictly_ = true;
  const Node& head = *pc_++;
  has_same_settings_ = part(settings);
  return has_same_settings_ && head.size == functions.size() &&
         head.extra == arguments.size() && items(functions.data(), head.size) &&
         items(arguments.data(), head.extra) && reads();
}

bool Matcher::read_again(ReadAt at) {
  read_ = at.read;
  pc_ = program_.nodes.data() + at.node;
  Owned value = read(program_.holders[at.read], program_.names_read[at.read]);
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return false;
  }
  PyObject* object = value.get();
  if (object != nullptr && Py_REFCNT(object) == 1) {  // it was made to be looked at
    held_.steal(value.release());
  }
  return part_or_unset(object);
}

// What the functions read.
bool Matcher::reads() {
  strictly_ = true;
  auto is_same = [this](ReadAt at) { return read_again(at); };
  for (const SettledReads& settled : program_.settled) {
    std::uint64_t version = python::dict_version(settled.dict);
    if (version != 0 && version == settled.version) {
      continue;
    }
    if (!std::all_of(settled.reads.begin(), settled.reads.end(), is_same)) {
      return false;
    }
    settled.version = version;
  }
  if (!std::all_of(program_.unsettled.begin(), program_.unsettled.end(), is_same)) {
    return false;
  }
  read_ = SIZE_MAX;
  return true;
}

// --- calls ---

// Inlined: each hit goes through it.
[[gnu::always_inline]] inline bool Matcher::call(const CallView& call) {
  const Node& head = *pc_++;
  std::size_t keywords = call.keywords();
  // A function and a bound method of it have one table.
  if (head.size != call.positional || program_.keyword_places.size() != keywords ||
      (head.extra != 0) != (call.callable != nullptr)) {
    return false;
  }
  PyObject* expected = program_.call_kwnames.get();
  if (keywords != 0 && call.kwnames != expected) {
    for (std::size_t i = 0; i < keywords; ++i) {
      auto place = static_cast<Py_ssize_t>(i);
      if (!same_value(Kind::Str, PyTuple_GET_ITEM(expected, place),
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
      held_.borrow(call.args[i]);
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

// A walk is no deeper than its program, and takes no more than this for a level. Where
// that may be too much, flattening gives the error.
constexpr std::size_t kLevel = 512;
bool has_room(const Program& program) {
  return program.depth <= python::kShallow ||
         python::stack_left() >= python::kStackReserve + program.depth * kLevel;
}

}  // namespace

Match match_call(const Program& program, CallView& call, PyObject** leaves,
                 NodeObjects& opaque) {
  std::fill(leaves, leaves + program.leaves, nullptr);
  if (plans_are_stale() || !has_room(program)) {
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
  return match == Match::Yes && !matcher.are_distinct() ? Match::No : match;
}

namespace {

// Whether `walk` goes to the end of a program. What it meets its caller holds.
template <typename Walk>
Match match_held(const Program& program, PyObject** leaves, bool any_leaf,
                 NodeObjects& opaque, Walk walk) {
  if (plans_are_stale() || !has_room(program)) {
    return Match::No;
  }
  python::NoCollection no_collection(true);
  Matcher matcher(program, leaves, any_leaf);
  bool walked = walk(matcher);
  no_collection.end();
  if (!walked) {
    return Match::No;
  }
  Match match = matcher.has_later() ? matcher.finish(opaque) : Match::Yes;
  return match == Match::Yes && !matcher.are_distinct() ? Match::No : match;
}

// The same for a program without leaves.
template <typename Walk>
Match match_functions(const Program& program, Walk walk) {
  NodeObjects opaque;
  return match_held(program, nullptr, false, opaque, walk);
}

}  // namespace

Match match_held_call(const Program& program, const CallView& call, PyObject** leaves,
                      NodeObjects& opaque) {
  std::fill(leaves, leaves + program.leaves, nullptr);
  return match_held(program, leaves, false, opaque,
                    [&](Matcher& matcher) { return matcher.call(call); });
}

Match match_object(const Program& program, PyObject* object, PyObject** leaves,
                   bool any_leaf, NodeObjects& opaque) {
  std::fill_n(leaves, program.leaves, nullptr);
  return match_held(program, leaves, any_leaf, opaque,
                    [&](Matcher& matcher) { return matcher.object(object); });
}

Match match_closures(const Program& closures, const Program& call,
                     const OwnedVector& handed_through, bool strictly) {
  return match_functions(closures, [&](Matcher& matcher) {
    return matcher.closures(call, handed_through, strictly);
  });
}

Match match_dependencies(const Program& dependencies, PyObject* settings,
                         const std::vector<PyObject*>& functions,
                         const std::vector<PyObject*>& arguments) {
  return match_functions(dependencies, [&](Matcher& matcher) {
    return matcher.dependencies(settings, functions, arguments);
  });
}

const char* first_changed(const Program& dependencies, PyObject* settings,
                          const std::vector<PyObject*>& functions,
                          const std::vector<PyObject*>& arguments, std::size_t& read) {
  const char* what = nullptr;
  (void)match_functions(dependencies, [&](Matcher& matcher) {
    (void)matcher.dependencies(settings, functions, arguments);
    read = std::min(matcher.changed_read(), dependencies.holders.size());
    what = matcher.has_same_settings() ? "what the function holds" : "a setting of JAX";
    return false;  // what is put off need not be looked at
  });
  return what;
}

}  // namespace autojit
