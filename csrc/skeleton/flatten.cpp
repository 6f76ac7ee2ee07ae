#include "skeleton/flatten.h"

#include <algorithm>
#include <new>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "objects/config.h"
#include "objects/function_state.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "objects/values.h"
#include "python/errors.h"
#include "python/frames.h"
#include "python/interpreter.h"
#include "python/numpy.h"
#include "python/pointer_map.h"
#include "python/recursion.h"
#include "skeleton/content.h"
#include "skeleton/describe.h"
#include "skeleton/places.h"
#include "skeleton/set_order.h"

namespace autojit {

namespace {

// The most that is looked at of what functions hold.
constexpr std::size_t kMostNodes = 1U << 22U;
constexpr std::size_t kMostBytes = 1U << 26U;
// The same of what a wrapped function depends on, at which all are looked at. Larger
// arrays go by identity.
constexpr std::size_t kMostNodesOfWrapped = 1U << 17U;
constexpr std::size_t kLargestArrayOfWrapped = 1U << 16U;

// How many nodes are written for tuples and the like that were met before. They are
// values, so that it makes no difference whether equal ones are one object; but nested
// ones could be met along more ways than there is memory.
constexpr std::size_t kMostWrittenAgain = 1U << 16U;

// Whether a skeleton hands an object through whole, and at which node.
bool is_whole_in(const Skeleton& skeleton, PyObject* object, std::size_t& node) {
  const std::vector<Node>& nodes = skeleton.program.nodes;
  auto found = std::find_if(nodes.begin(), nodes.end(), [object](const Node& at) {
    return is_handed_through(at) && at.object == object;
  });
  node = static_cast<std::size_t>(found - nodes.begin());
  return found != nodes.end();
}

// Whether a skeleton, or what its functions hold, hands an object through whole.
bool hands_through(Skeleton* skeleton, PyObject* object) {
  std::size_t node = 0;
  if (is_whole_in(*skeleton, object, node)) {
    return true;
  }
  PyObject* closures = skeleton->closures;
  return closures != nullptr && closures != Py_None &&
         hands_through(as_skeleton(closures), object);
}

// Whether a builtin class does not say how to reduce its instances, so that only
// cloudpickle could.
bool is_opaque_to_pickle(PyTypeObject* type) {
  return (type->tp_flags & Py_TPFLAGS_HEAPTYPE) == 0 &&
         is_objects_own(type, names.reduce_ex) && is_objects_own(type, names.reduce);
}

// Whether a class is one of itertools, of which CPython warns if an instance is
// reduced.
bool is_of_itertools(PyTypeObject* type) {
  return PY_VERSION_HEX >= 0x030C0000 &&
         std::string_view(type->tp_name).starts_with("itertools.");
}

// Whether others than the call and ourselves have a reference to an object, of which so
// many are known. Local variables of functions that are running don't count: no other
// function can read them.
bool others_hold(PyObject* object, Py_ssize_t known) {
  auto ours = stateless_references().find(object);
  if (ours != stateless_references().end()) {
    known += static_cast<Py_ssize_t>(ours->second);
  }
  if (python::weak_references(object) != nullptr) {
    return true;
  }
  Py_ssize_t others = Py_REFCNT(object) - known;
  return others > 0 && others > python::local_references(object);
}

// Whether a reduction says no more than what class an instance is of.
bool has_class_only(PyObject* reduction, PyTypeObject* type) {
  for (std::uint32_t part = kState; part < kReduceParts; ++part) {
    if (reduction_part(reduction, part) != Py_None) {
      return false;
    }
  }
  auto* of = reinterpret_cast<PyObject*>(type);
  PyObject* args = reduction_part(reduction, kArgs);
  return PyTuple_GET_SIZE(args) == 0
             ? reduction_part(reduction, kFunc) == of
             : PyTuple_GET_SIZE(args) == 1 && PyTuple_GET_ITEM(args, 0) == of;
}

// Python may run here, which may change any container of the tree. So the parts of each
// container are copied into `held_` before they are visited and stay there until the
// end: an address names one object throughout.
class Flattener {
 public:
  Flattener(PyObject* leaf_type, const char* root, Program& program,
            OwnedVector& leaves, NodeObjects* reduced = nullptr)
      : leaf_type_(leaf_type),
        root_(root),
        program_(program),
        leaves_(leaves),
        reduced_(reduced) {}

  bool object(PyObject* object) {
    return walk([&] { return node(object); });
  }
  // `call` and the tuple `inputs` outlive the walk.
  bool result(PyObject* object, Skeleton* call, PyObject* inputs);
  bool call(CallView& call) {
    stand_ins_ = call.stand_ins;
    places_ = call.places;
    bool done = walk([&] { return call_parts(call); });
    call.has_stand_ins = has_stand_ins_;
    return done;
  }
  bool after(PyObject* result, const CallView& call) {
    return walk([&] {
      emit(Kind::Tuple, 2, nullptr);
      return node(result) && call_parts(call);
    });
  }
  bool closures(const Program& call) {
    mode_ = Mode::Closures;
    return walk([&] { return closure_parts(call); });
  }
  bool dependencies(PyObject* settings, const std::vector<PyObject*>& functions,
                    const std::vector<PyObject*>& arguments) {
    mode_ = Mode::Closures;
    is_wrapped_ = true;
    return walk([&] { return dependency_parts(settings, functions, arguments); });
  }
  bool content(PyObject* object, bool& has_leaves) {
    mode_ = Mode::Content;
    bool done = walk([&] { return node(object); });
    has_leaves = has_leaves_;
    return done;
  }

 private:
  // The caller's, and the one by which it is held meanwhile.
  static constexpr Py_ssize_t kReferencesToRoot = 2;

  // What is taken out: leaves, or nothing. Of what is there to be compared only, the
  // arrays are values.
  enum class Mode : std::uint8_t { Leaves, Closures, Content };

  // An instance without state: the references to it that are the call's or of this
  // walk, and whether it is in nothing that others hold.
  struct Bare {
    std::size_t node;
    Py_ssize_t references;
    bool alone;
  };

  // The walk.
  template <typename Walk>
  bool walk(Walk walk);
  void start_again();
  bool finish(bool done);
  bool call_parts(const CallView& call);
  bool sorted_keywords(const CallView& call, Owned& kwnames);
  bool closure_parts(const Program& call);
  bool dependency_parts(PyObject* settings, const std::vector<PyObject*>& functions,
                        const std::vector<PyObject*>& arguments);
  bool reads();
  bool read_value(PyObject* value, Read::As as);
  bool node(PyObject* object);
  bool is_leaf(PyObject* object, const TypePlan*& plan, bool& leaf);
  bool inner(PyObject* object, const TypePlan& plan);

  // The kinds.
  bool leaf(PyObject* object);
  bool function(PyObject* object);
  bool is_key(PyObject* function) const;
  bool reduces_by_users_code(PyTypeObject* type) const;
  bool closure(PyObject* object);
  bool cell(PyObject* object);
  template <typename Write>
  bool value_once(PyObject* object, Write write);
  bool copied(Kind kind, PyObject* copy);
  template <typename Write>
  bool object_once(PyObject* object, Write write) {
    bool seen = false;
    return shared(object, seen) && (seen || write());
  }
  bool tuple(PyObject* object);
  bool set(Kind kind, PyObject* object);
  bool user_object(PyObject* object, const TypePlan& plan);
  bool apart(PyObject* object, const TypePlan& plan);
  bool instance(PyObject* object, const TypePlan& plan);
  bool constant(PyObject* object);
  bool stateless(PyObject* object);
  bool owner(PyObject* object, bool unfaithful);
  bool reduce(PyObject* object);
  bool reduced(PyObject* object, Owned reduction);
  bool note_left_out(PyObject* object, std::size_t extent);
  bool forwarded_whole(PyObject* object, bool has_state);
  PyObject* consume(PyObject* lazy);
  std::vector<std::size_t> order_of_pairs(std::size_t begin, std::size_t end,
                                          const TypePlan& plan) const;

  // Parts, held.
  void keep_items(PyObject* const* items, Py_ssize_t size);
  void keep_pairs(PyObject* dict);
  bool keep_named(PyObject* object, Kind kind);
  bool parts(std::size_t begin, std::size_t end);
  bool container(Kind kind, std::size_t size, PyObject* owned, std::size_t begin) {
    emit(kind, size, owned);
    return parts(begin, held_.size());
  }

  // Nodes.
  std::vector<Node>& nodes() { return program_.nodes; }
  PartEntry here(std::size_t first_node, std::size_t first_leaf) const {
    return {static_cast<std::uint32_t>(program_.nodes.size() - first_node),
            static_cast<std::uint32_t>(leaves_.size() - first_leaf)};
  }
  std::size_t emit(Kind kind, std::size_t size, PyObject* owned,
                   std::uint32_t extra = 0);
  bool value(Kind kind, PyObject* object) {
    emit(kind, 0, Py_NewRef(object));
    return true;
  }
  std::size_t emit_extent(std::size_t number = 0) {
    std::size_t extent = emit(Kind::Extent, 0, nullptr);
    nodes()[extent].number = number;
    return extent;
  }
  void end_extent(std::size_t extent) {
    nodes()[extent].size = static_cast<std::uint32_t>(nodes().size() - extent - 1);
  }
  bool shared(PyObject* object, bool& seen);
  bool give_slot(std::size_t index);
  void fold(std::size_t index, std::size_t mutable_before, PyObject* object);
  bool is_too_much(PyObject* object);

  // Who else holds what.
  Py_ssize_t known_references(std::size_t depth) const;
  bool is_in_the_call_alone(std::size_t count) const;
  void find_lone_bare();

  PyObject* leaf_type_;
  PyObject* stand_ins_ = nullptr;
  bool has_stand_ins_ = false;  // that are no leaves
  const Places* places_ = nullptr;
  const char* root_;
  Program& program_;
  OwnedVector& leaves_;
  NodeObjects* reduced_;
  Mode mode_ = Mode::Leaves;
  bool has_leaves_ = false;
  OwnedVector held_;  // the parts of all containers met
  PointerMap met_;    // shared objects -> their node
  // How many nodes are no values, or not for ever: what holds one cannot be folded.
  std::size_t mutables_ = 0;
  // Immutable objects -> their place in `immutables_`, where their node stands and how
  // many there are, 0 while they are being written.
  PointerMap met_immutable_;
  std::vector<std::pair<std::size_t, std::size_t>> immutables_;
  std::size_t written_again_ = 0;
  bool shares_immutables_ = false;
  PointerMap met_bare_;  // -> its place in `bare_`
  std::vector<Bare> bare_;
  // The objects that this one is in, and itself, borrowed, and how many references to
  // the first of them are those of the call.
  std::vector<PyObject*> ancestors_;
  Py_ssize_t references_to_root_ = kReferencesToRoot;
  PointerMap functions_;  // -> their number
  // Of a result: the call, and what may come back from it -> its number.
  Skeleton* call_ = nullptr;
  PointerMap inputs_;
  std::vector<bool> traced_inputs_;
  PointerMap input_functions_;
  PointerMap consumed_;  // lazy iterators -> their place in `over_results_`
  std::vector<PyObject*> over_results_;
  // Among closures: what the functions read, whether nobody but the call holds the
  // function that is looked into, and how many bytes arrays have.
  Reads reads_;
  bool is_wrapped_ = false;  // of a wrapped function: it is not kept
  bool lone_function_ = false;
  std::size_t bytes_ = 0;
  python::Signals signals_;
  std::uint32_t depth_ = 0;
};

// --- the walk ---

// Writes the program. With immutable objects that are met along too many ways it is
// begun again, and they are told apart like other objects.
template <typename Walk>
bool Flattener::walk(Walk walk) {
  bool done = walk();
  if (!done && shares_immutables_) {  // not for an exception
    start_again();
    done = walk();
  }
  if (done) {
    find_lone_bare();
  }
  return finish(done);
}

// What lazy iterators gave stays.
void Flattener::start_again() {
  Program old;
  old.swap(program_);
  program_.inputs = old.inputs;
  program_.withheld.swap(old.withheld);
  if (reduced_ != nullptr) {
    reduced_->clear();
  }
  met_ = PointerMap();
  met_immutable_ = PointerMap();
  met_bare_ = PointerMap();
  functions_ = PointerMap();
  immutables_.clear();
  bare_.clear();
  ancestors_.clear();
  reads_ = Reads();
  mutables_ = written_again_ = bytes_ = 0;
  references_to_root_ = kReferencesToRoot;
  depth_ = 0;
  leaves_.clear();  // may run Python, as `old` that goes does
}

// The end of the walk. A RecursionError, wherever it arose, is told where that was.
bool Flattener::finish(bool done) {
  program_.leaves = static_cast<std::uint32_t>(leaves_.size());
  if (done || PyErr_ExceptionMatches(PyExc_RecursionError) == 0) {
    return done;
  }
  Owned text = python::take_text_of_error();
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  Owned where = utf8 != nullptr ? path(program_, root_, nodes().size()) : Owned();
  if (where) {
    PyErr_Format(PyExc_RecursionError,
                 "the objects are nested too deeply to be taken apart, at %U (%s); "
                 "flatten the structure%s",
                 where.get(), utf8, python::remedy(utf8));
  }
  return false;
}

bool Flattener::result(PyObject* object, Skeleton* call, PyObject* inputs) {
  call_ = call;
  bool inserted = false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(inputs); ++i) {
    PyObject* input = PyTuple_GET_ITEM(inputs, i);
    auto number = static_cast<std::uint32_t>(i);
    if (input == Py_None) {
      program_.withheld.push_back(number);
    } else {
      inputs_.get_or_insert(input, number, inserted);
    }
  }
  for (const Node& node : call->program.nodes) {
    if (autojit::is_leaf(node.kind)) {
      traced_inputs_.push_back(node.kind == Kind::Traced);
    }
  }
  const OwnedVector& functions = call->program.functions;
  for (std::uint32_t i = 0; i < functions.size(); ++i) {
    input_functions_.get_or_insert(functions[i], i, inserted);
  }
  program_.inputs = call->program.nodes.size();
  return walk([&] { return node(object); });
}

// The names of keyword arguments in the order of the program. Exact strings: what else
// a name may be is no part of it, and could run Python.
bool Flattener::sorted_keywords(const CallView& call, Owned& kwnames) {
  std::size_t count = call.keywords();
  std::vector<std::uint32_t>& places = program_.keyword_places;
  places.resize(count);
  std::iota(places.begin(), places.end(), 0U);
  if (count == 0) {
    return true;
  }
  OwnedVector names;
  for (std::size_t i = 0; i < count; ++i) {
    names.steal(PyUnicode_FromObject(
        PyTuple_GET_ITEM(call.kwnames, static_cast<Py_ssize_t>(i))));
    if (names[i] == nullptr) {
      return false;
    }
  }
  if (!call.keyword_order_matters) {
    std::sort(places.begin(), places.end(), [&](std::uint32_t a, std::uint32_t b) {
      return PyUnicode_Compare(names[a], names[b]) < 0;
    });
  }
  std::vector<PyObject*> sorted;
  sorted.reserve(count);
  for (std::uint32_t place : places) {
    sorted.push_back(names[place]);
  }
  kwnames = tuple_of(sorted.data(), count);
  program_.call_kwnames = Owned::borrow(call.kwnames);
  return static_cast<bool>(kwnames);
}

bool Flattener::call_parts(const CallView& call) {
  Owned kwnames;
  if (!sorted_keywords(call, kwnames)) {
    return false;
  }
  emit(Kind::Call, call.positional, kwnames.release(),
       call.callable != nullptr ? 1 : 0);
  references_to_root_ = 1;  // the dispatcher's
  if (call.callable != nullptr && !node(call.callable)) {
    return false;
  }
  // A tuple that others know may have them in place of the caller's stack.
  references_to_root_ = call.on_stack ? kReferencesToRoot : 0;
  for (std::uint32_t i = 0; i < call.positional; ++i) {
    if (!node(call.args[i])) {
      return false;
    }
  }
  for (std::uint32_t place : program_.keyword_places) {
    if (!node(call.args[call.positional + place])) {
      return false;
    }
  }
  return true;
}

bool Flattener::closure_parts(const Program& call) {
  for (std::size_t i = 0; i < call.functions.size(); ++i) {
    lone_function_ = call.lone_functions[i];
    if (!node(call.functions[i])) {
      return false;
    }
  }
  return reads();
}

bool Flattener::dependency_parts(PyObject* settings,
                                 const std::vector<PyObject*>& functions,
                                 const std::vector<PyObject*>& arguments) {
  reads_.begin_wrapped(functions.empty() ? nullptr : functions.front());
  if (arguments.size() > kMaxExtra) {
    PyErr_SetString(PyExc_OverflowError, "too many classes in one call tree");
    return false;
  }
  emit(Kind::Call, functions.size(), nullptr,
       static_cast<std::uint32_t>(arguments.size()));
  return node(settings) &&
         std::all_of(functions.begin(), functions.end(),
                     [this](PyObject* function) { return closure(function); }) &&
         std::all_of(arguments.begin(), arguments.end(),
                     [this](PyObject* argument) {
                       return reads_.reach(argument) && value(Kind::Identity, argument);
                     }) &&
         reads();
}

// What the functions read.
bool Flattener::reads() {
  references_to_root_ = 0;  // others can read it by its name

  // Of holders, among the settled.
  std::unordered_map<PyObject*, std::size_t> places;
  constexpr std::size_t kNone = SIZE_MAX;
  while (const Read* next = reads_.next()) {
    const Read at = *next;
    const ReadAt place{static_cast<std::uint32_t>(program_.holders.size()),
                       static_cast<std::uint32_t>(nodes().size())};
    auto [known, is_new] = places.emplace(at.holder, kNone);
    if (is_new) {
      program_.held.borrow(at.holder);
    }
    program_.holders.push_back(at.holder);
    program_.names_read.borrow(at.name);
    PyObject* value = read(at.holder, at.name).release();
    if (value != nullptr) {
      held_.steal(value);
      if (!read_value(value, at.as)) {
        return false;
      }
    } else if (PyErr_Occurred() == nullptr) {
      emit(Kind::Unset, 0, nullptr);
    } else {
      return false;
    }
    Kind kind = nodes()[place.node].kind;
    if (!PyDict_Check(at.holder) || (!is_value(kind) && kind != Kind::Unset)) {
      program_.unsettled.push_back(place);
      continue;
    }
    if (known->second == kNone) {
      known->second = program_.settled.size();
      program_.settled.push_back({at.holder, 0, {}});
    }
    program_.settled[known->second].reads.push_back(place);
  }
  return PyErr_Occurred() == nullptr;
}

// What stands under a name.
bool Flattener::read_value(PyObject* value, Read::As as) {
  const TypePlan* plan = plan_for(value);
  if (plan == nullptr) {
    return false;
  }
  if (PyFunction_Check(value) && met_.find(value) != nullptr) {
    return closure(value);
  }
  if (is_wrapped_ && as == Read::As::Identity &&
      (!is_value(plan->kind) || plan->kind == Kind::Function)) {
    if (Py_REFCNT(value) > 1) {
      return this->value(Kind::Identity, value);
    }
    // It was made to be looked at, and its parts count.
    Py_ssize_t size = PyTuple_GET_SIZE(value);
    emit(Kind::Tuple, static_cast<std::size_t>(size), nullptr);
    for (Py_ssize_t i = 0; i < size; ++i) {
      PyObject* part = PyTuple_GET_ITEM(value, i);
      if (!(PyFunction_Check(part) ? this->value(Kind::Identity, part) : node(part))) {
        return false;
      }
    }
    return true;
  }
  if ((PyFunction_Check(value) && reads_.is_librarys(value)) || is_descriptor(value)) {
    return reads_.reach(value) && reads_.reach_inside(value) &&
           this->value(Kind::Identity, value);
  }
  bool is_instance = plan->kind == Kind::Instance || plan->kind == Kind::Reduce ||
                     plan->kind == Kind::Method;
  bool by_identity = (as == Read::As::Identity && !is_value(plan->kind)) ||
                     (as == Read::As::Librarys && is_instance && !plan->is_leaf) ||
                     value == PyImport_GetModuleDict();
  return by_identity ? reads_.reach(value) && this->value(Kind::Identity, value)
                     : node(value);
}

// Whether an object is a leaf. Its plan is brought up to date. False with an exception
// set on failure.
bool Flattener::is_leaf(PyObject* object, const TypePlan*& plan, bool& leaf) {
  plan = plan_for(object);
  leaf = plan != nullptr &&
         (plan->is_leaf || reinterpret_cast<PyObject*>(Py_TYPE(object)) == stand_ins_);
  if (plan == nullptr || leaf_type_ == nullptr) {
    return plan != nullptr;
  }
  int is_instance = PyObject_IsInstance(object, leaf_type_);
  if (is_instance < 0 && !clear_refusal()) {  // a hostile `__class__`
    return false;
  }
  leaf = is_instance > 0;
  plan = plan_for(object);
  return plan != nullptr;
}

bool Flattener::node(PyObject* object) {
  if (call_ != nullptr && Py_TYPE(object)->tp_iternext != nullptr) {
    int lazy =
        PySet_Contains(config.lazy_types, reinterpret_cast<PyObject*>(Py_TYPE(object)));
    if (lazy > 0) {
      object = consume(object);
    }
    if (object == nullptr || (lazy < 0 && !clear_refusal())) {
      return false;
    }
  }
  if ((mode_ == Mode::Closures && (is_too_much(object) || !reads_.reach(object))) ||
      !signals_.look()) {
    return false;
  }
  const TypePlan* plan = nullptr;
  bool leaf = false;
  if (!is_leaf(object, plan, leaf)) {
    return false;
  }
  if (leaf) {
    return this->leaf(object);
  }
  if (is_value(plan->kind)) {
    return plan->kind == Kind::Function ? function(object) : value(plan->kind, object);
  }
  const python::Level level;
  if (!level.entered()) {
    return false;
  }
  program_.depth = std::max(program_.depth, ++depth_);
  ancestors_.push_back(object);
  bool done = inner(object, *plan);
  ancestors_.pop_back();
  --depth_;
  return done;
}

// A value that may have been met before. While it is being written, it can be met in
// what it holds that can be changed, and is then written once more.
template <typename Write>
bool Flattener::value_once(PyObject* object, Write write) {
  // No one but its holder and `held_` refers to it, so that it is met once.
  if (Py_REFCNT(object) <= 2) {
    return write();
  }
  bool inserted = false;
  std::uint32_t place = met_immutable_.get_or_insert(
      object, static_cast<std::uint32_t>(immutables_.size()), inserted);
  std::size_t index = nodes().size();
  if (inserted) {
    immutables_.emplace_back(index, 0);
  } else if (shares_immutables_) {
    auto [first, size] = immutables_[place];
    if (size != 0) {
      ++mutables_;
      if (nodes()[first].extra == 0 && !give_slot(first)) {
        return false;
      }
      emit(Kind::Ref, nodes()[first].extra, nullptr);
      return true;
    }
  }
  if (!write()) {
    return false;
  }
  std::size_t size = nodes().size() - index;
  if (inserted || shares_immutables_) {
    immutables_[place] = {index, size};  // an inner one is done first
    return true;
  }
  written_again_ += size;
  if (written_again_ > kMostWrittenAgain) {
    shares_immutables_ = true;
    return false;  // to begin again
  }
  return true;
}

// Values may be written again, other objects are met once.
bool Flattener::inner(PyObject* object, const TypePlan& plan) {
  Kind kind = plan.kind;
  auto named = [&] {
    std::size_t begin = held_.size();
    return keep_named(object, kind) && container(kind, 0, nullptr, begin);
  };
  switch (kind) {
    case Kind::Tuple:
      return value_once(object, [&] { return tuple(object); });
    case Kind::NamedTuple: {
      auto write = [&] {
        std::size_t begin = held_.size();
        keep_items(PySequence_Fast_ITEMS(object), PyTuple_GET_SIZE(object));
        return container(kind, held_.size() - begin,
                         Py_NewRef(reinterpret_cast<PyObject*>(plan.type)), begin);
      };
      if (has_attributes(plan, object)) {
        return reduce(object);
      }
      // One that can be given attributes is no value.
      return plan.has_dict ? object_once(object, write) : value_once(object, write);
    }
    case Kind::FrozenSet:
      return value_once(object, [&] { return set(kind, object); });
    case Kind::Slice:
    case Kind::Method:
      return value_once(object, named);
    case Kind::Range:
      return named();
    case Kind::List:
      return object_once(object, [&] {
        std::size_t begin = held_.size();
        keep_items(PySequence_Fast_ITEMS(object), PyList_GET_SIZE(object));
        return container(kind, held_.size() - begin, nullptr, begin);
      });
    case Kind::Dict:
    case Kind::DefaultDict:  // its factory comes first
      return object_once(object, [&] {
        std::size_t begin = held_.size();
        if (!keep_named(object, kind)) {
          return false;
        }
        std::size_t first_pair = held_.size();
        keep_pairs(object);
        return container(kind, (held_.size() - first_pair) / 2, nullptr, begin);
      });
    case Kind::Set:
      return object_once(object, [&] { return set(kind, object); });
    case Kind::Bytearray:
      return object_once(object, [&] {
        return copied(kind, PyBytes_FromStringAndSize(PyByteArray_AS_STRING(object),
                                                      PyByteArray_GET_SIZE(object)));
      });
    case Kind::NumpyArray:
      if (is_wrapped_ && numpy::size_in_bytes(object) > kLargestArrayOfWrapped) {
        return value(Kind::Identity, object);
      }
      if (!numpy::is_plain(object)) {
        return reduce(object);
      }
      // What is not traced there is copied by `trace_at`.
      return object_once(object, [&] {
        return copied(
            kind, places_ == nullptr ? numpy::kept_copy_of(object) : Py_NewRef(object));
      });
    case Kind::Partial:
      return object_once(object, named);
    case Kind::Constant:
      return constant(object);
    case Kind::Fresh:
      ++mutables_;  // a tuple that it is in is not kept either
      emit(kind, 0, Py_NewRef(reinterpret_cast<PyObject*>(plan.type)));
      return true;
    case Kind::Instance:
    case Kind::Reduce:
      return user_object(object, plan);
    case Kind::Identity:
    case Kind::Int:
    case Kind::Float:
    case Kind::Complex:
    case Kind::Str:
    case Kind::Bytes:
    case Kind::NumpyScalar:
    case Kind::Function:
    case Kind::Leaf:
    case Kind::Traced:
    case Kind::Forward:
    case Kind::Opaque:
    case Kind::Owner:
    case Kind::Stateless:
    case Kind::Unset:
    case Kind::Ref:
    case Kind::Extent:
    case Kind::Closure:
    case Kind::Cell:
    case Kind::Call:
      break;  // values have been seen to, and the rest is no plan's
  }
  PyErr_SetString(PyExc_SystemError, "autojit: no plan is of this kind");
  return false;
}

// The node of an object whose content was copied; nullptr for a failed copy.
bool Flattener::copied(Kind kind, PyObject* copy) {
  if (copy != nullptr) {
    emit(kind, 0, copy);
  }
  return copy != nullptr;
}

// --- nodes ---

std::size_t Flattener::emit(Kind kind, std::size_t size, PyObject* owned,
                            std::uint32_t extra) {
  Owned guard = Owned::steal(owned);
  if (nodes().size() >= UINT32_MAX || size > UINT32_MAX) {
    throw std::bad_alloc();
  }
  Node fresh{};
  fresh.kind = kind;
  fresh.extra = extra & kMaxExtra;
  fresh.size = static_cast<std::uint32_t>(size);
  fresh.object = owned;
  nodes().push_back(fresh);
  guard.release();
  return nodes().size() - 1;
}

// Whether `object` was met before: then its Ref is written. If not, the next node is
// its.
bool Flattener::shared(PyObject* object, bool& seen) {
  bool inserted = false;
  std::uint32_t index =
      met_.get_or_insert(object, static_cast<std::uint32_t>(nodes().size()), inserted);
  seen = !inserted;
  ++mutables_;
  if (inserted) {
    return true;
  }
  if (nodes()[index].extra == 0 && !give_slot(index)) {
    return false;
  }
  emit(Kind::Ref, nodes()[index].extra, nullptr);
  return true;
}

bool Flattener::give_slot(std::size_t index) {
  if (program_.slots == kMaxExtra) {
    PyErr_SetString(PyExc_OverflowError, "too many shared objects in one call tree");
    return false;
  }
  nodes()[index].extra = ++program_.slots & kMaxExtra;
  return true;
}

// A node whose parts turned out to be values can be compared and rebuilt as one.
void Flattener::fold(std::size_t index, std::size_t mutable_before, PyObject* object) {
  std::size_t size = nodes().size() - index;
  if (mutables_ == mutable_before && size <= kMaxExtra && !shares_immutables_) {
    nodes()[index].object = Py_NewRef(object);
    nodes()[index].extra = static_cast<std::uint32_t>(size) & kMaxExtra;
  }
}

// A function that holds more than can be looked at in the time of a trace goes by
// identity. True with an exception set.
bool Flattener::is_too_much(PyObject* object) {
  if (Py_IS_TYPE(object, &PyByteArray_Type)) {
    bytes_ += static_cast<std::size_t>(PyByteArray_GET_SIZE(object));
  } else if (!is_wrapped_) {
    bytes_ += numpy::size_in_bytes(object);
  }
  std::size_t most = is_wrapped_ ? kMostNodesOfWrapped : kMostNodes;
  if (nodes().size() <= most && bytes_ <= kMostBytes) {
    return false;
  }
  PyErr_SetString(PyExc_OverflowError, "a function that holds too much");
  return true;
}

// --- parts ---

void Flattener::keep_items(PyObject* const* items, Py_ssize_t size) {
  for (Py_ssize_t i = 0; i < size; ++i) {
    held_.borrow(items[i]);
  }
}

void Flattener::keep_pairs(PyObject* dict) {
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value) != 0) {
    held_.borrow(key);
    held_.borrow(value);
  }
}

// The parts of a builtin object that its kind names.
bool Flattener::keep_named(PyObject* object, Kind kind) {
  return use_named_parts(object, kind, [this](PyObject* value) {
    held_.borrow(value);
    return true;
  });
}

// The parts that lie in `held_[begin:end]`.
bool Flattener::parts(std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    if (held_[i] == nullptr) {
      emit(Kind::Unset, 0, nullptr);
    } else if (!node(held_[i])) {
      return false;
    }
  }
  return true;
}

// --- the kinds ---

bool Flattener::leaf(PyObject* object) {
  if (mode_ != Mode::Leaves) {
    has_leaves_ = true;
    return value(Kind::Identity, object);
  }
  ++mutables_;
  if (const std::uint32_t* input = inputs_.find(object); input != nullptr) {
    emit(Kind::Forward, *input, nullptr, traced_inputs_[*input] ? kTraced : kLeaf);
    return true;
  }
  emit(Kind::Leaf, 0, nullptr);
  leaves_.borrow(object);
  return true;
}

// Whether a class says in Python how to reduce it, and is no library's.
bool Flattener::reduces_by_users_code(PyTypeObject* type) const {
  for (PyObject* name : {names.reduce_ex, names.reduce, names.getstate,
                         names.getnewargs, names.getnewargs_ex}) {
    PyObject* found = python::type_lookup(type, name);
    if (found != nullptr && PyFunction_Check(found) && !reads_.is_librarys(found)) {
      return true;
    }
  }
  return false;
}

// Whether a function is a key of the dict that is being written: in a registry, it is
// there to be found, and not to be called. Runs no Python.
bool Flattener::is_key(PyObject* function) const {
  return !ancestors_.empty() && PyDict_CheckExact(ancestors_.back()) &&
         PyDict_GetItemWithError(ancestors_.back(), function) != nullptr;
}

// A function is handed through whole: the trace has the caller's own.
bool Flattener::function(PyObject* object) {
  if (is_wrapped_ && is_key(object)) {
    return value(Kind::Identity, object);
  }
  if (is_named_function(object)) {
    return (mode_ != Mode::Closures || reads_.add(object, false)) &&
           value(Kind::Identity, object);
  }
  if (mode_ == Mode::Closures) {
    return closure(object);
  }
  if (mode_ == Mode::Content) {
    return value(Kind::Identity, object);
  }
  ++mutables_;
  if (const std::uint32_t* input = input_functions_.find(object); input != nullptr) {
    emit(Kind::Forward, *input, nullptr, kFunction);
    return true;
  }
  bool inserted = false;
  std::uint32_t number = functions_.get_or_insert(
      object, static_cast<std::uint32_t>(program_.functions.size()), inserted);
  if (inserted) {
    Py_ssize_t known = ancestors_.empty() ? references_to_root_ : 2;
    program_.lone_functions.push_back(is_in_the_call_alone(ancestors_.size()) &&
                                      !others_hold(object, known));
    program_.functions.borrow(object);
    program_.codes.borrow(PyFunction_GET_CODE(object));
  } else {
    program_.lone_functions[number] = false;
  }
  emit(Kind::Function, number, Py_NewRef(object));
  return true;
}

// Among closures: a function with all that it holds.
bool Flattener::closure(PyObject* object) {
  bool seen = false;
  if (!shared(object, seen) || seen) {
    return seen;
  }
  // Those of the call are known; one inside of another has one holder.
  bool alone = lone_function_;
  if (!ancestors_.empty()) {
    Py_ssize_t known = 2 + (reads_.holds(object) ? 1 : 0);
    alone = is_in_the_call_alone(ancestors_.size()) && !others_hold(object, known);
  }
  if (!reads_.add(object, true)) {
    return false;
  }
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  PyObject* annotations = PyFunction_GetAnnotations(object);
  if (annotations == nullptr && PyErr_Occurred() != nullptr) {
    return false;
  }
  // Held: looking at a part may run Python, which may change the function.
  std::size_t begin = held_.size();
  for (PyObject* part : state_of(object, annotations)) {
    held_.borrow(part);
  }
  std::size_t first_cell = held_.size();
  PyObject* cells = function->func_closure;
  for (Py_ssize_t i = 0; cells != nullptr && i < PyTuple_GET_SIZE(cells); ++i) {
    held_.borrow(PyTuple_GET_ITEM(cells, i));
  }
  std::size_t end = held_.size();
  PyObject* code = held_[begin];
  emit(Kind::Closure, end - begin, is_wrapped_ ? nullptr : Py_NewRef(object));
  std::size_t extent = emit_extent();
  const python::Level level;
  if (!level.entered()) {
    return false;
  }
  depth_ += 2;  // with a cell
  program_.depth = std::max(program_.depth, depth_);
  bool outer = std::exchange(lone_function_, alone);
  value(Kind::Identity, code);
  value(Kind::Identity, held_[begin + 1]);  // the globals
  if (!parts(begin + 2, first_cell)) {
    return false;
  }
  for (std::size_t i = first_cell; i < end; ++i) {
    if (!cell(held_[i])) {
      return false;
    }
  }
  lone_function_ = outer;
  depth_ -= 2;
  end_extent(extent);
  return true;
}

// Functions can share a variable: it occurs again like a list of its content.
bool Flattener::cell(PyObject* object) {
  bool seen = false;
  if (!shared(object, seen) || seen) {
    return seen;
  }
  std::size_t begin = held_.size();
  if (PyObject* content = PyCell_Get(object); content != nullptr) {
    held_.steal(content);
  }
  ancestors_.push_back(object);
  bool done = container(Kind::Cell, held_.size() - begin, nullptr, begin);
  ancestors_.pop_back();
  return done;
}

bool Flattener::tuple(PyObject* object) {
  std::size_t begin = held_.size();
  std::size_t mutable_before = mutables_;
  std::size_t index = nodes().size();
  keep_items(PySequence_Fast_ITEMS(object), PyTuple_GET_SIZE(object));
  if (!container(Kind::Tuple, held_.size() - begin, nullptr, begin)) {
    return false;
  }
  fold(index, mutable_before, object);
  return true;
}

bool Flattener::set(Kind kind, PyObject* object) {
  program_.allocates = true;
  PyObject* elements = PySequence_List(object);
  if (elements == nullptr) {
    return false;
  }
  held_.steal(elements);
  std::vector<std::size_t> order;
  if (!set_order(elements, leaf_type_, order)) {
    return false;
  }
  std::size_t size = order.size();
  std::size_t mutable_before = mutables_;
  std::size_t index = emit(kind, size, nullptr);
  std::size_t first_entry = program_.part_entries.size();
  program_.part_entries.resize(first_entry + size + 1);
  std::size_t extent = emit_extent(first_entry);
  std::size_t first_node = nodes().size();
  std::size_t first_leaf = leaves_.size();
  for (std::size_t i : order) {
    program_.part_entries[first_entry + i] = here(first_node, first_leaf);
    if (!node(PyList_GET_ITEM(elements, static_cast<Py_ssize_t>(i)))) {
      return false;
    }
  }
  program_.part_entries[first_entry + size] = here(first_node, first_leaf);
  end_extent(extent);
  if (kind == Kind::FrozenSet) {
    fold(index, mutable_before, object);
  }
  return true;
}

// An instance of a class that is none of the known ones.
bool Flattener::user_object(PyObject* object, const TypePlan& plan) {
  has_stand_ins_ =
      has_stand_ins_ || reinterpret_cast<PyObject*>(plan.type) == config.stand_ins;
  if (plan.kind == Kind::Instance && is_stateless(plan, object)) {
    return stateless(object);
  }
  if (plan.is_dtype) {
    PyObject* singleton = numpy::dtype_singleton(object);
    if (singleton != nullptr) {
      return value(Kind::Identity, singleton);
    }
  }
  // It makes no difference, and would keep what its frames hold.
  auto* type = reinterpret_cast<PyObject*>(plan.type);
  if (mode_ != Mode::Leaves && type == config.traceback_type) {
    ++mutables_;  // a tuple that it is in is not kept either
    return value(Kind::Identity, type);
  }
  // What a wrapped function depends on is looked at again and again, without running
  // what a user wrote, and is never rebuilt.
  if (is_wrapped_ && plan.shows_state) {
    bool seen = false;
    return shared(object, seen) && (seen || instance(object, plan));
  }
  bool unfaithful = !is_wrapped_ && is_unfaithful(plan, object);
  if (!is_wrapped_ && mode_ != Mode::Content &&
      (unfaithful || owns_resource(plan, object))) {
    return owner(object, unfaithful);
  }
  return apart(object, plan);
}

bool Flattener::apart(PyObject* object, const TypePlan& plan) {
  if (plan.kind == Kind::Reduce) {
    return reduce(object);
  }
  bool seen = false;
  return shared(object, seen) && (seen || instance(object, plan));
}

// The places of the pairs in `held_[begin:end]` in the order of the class: first what
// it declares, then the rest as it stands. Nothing if they stand so.
std::vector<std::size_t> Flattener::order_of_pairs(std::size_t begin, std::size_t end,
                                                   const TypePlan& plan) const {
  const OwnedVector& fields = plan.fields;
  std::vector<std::size_t> ranks;
  std::size_t next = 0;  // most stand as they are declared
  for (std::size_t i = begin; i < end; i += 2) {
    PyObject* name = held_[i];
    if (next == fields.size() || fields[next] != name) {
      auto found = std::find(fields.begin(), fields.end(), name);
      if (found == fields.end() && PyUnicode_CheckExact(name)) {  // not interned
        found = std::find_if(fields.begin(), fields.end(), [name](PyObject* field) {
          return same_value(Kind::Str, field, name);
        });
      }
      next = static_cast<std::size_t>(found - fields.begin());
    }
    ranks.push_back(next);
    next += next < fields.size() ? 1U : 0U;
  }
  std::vector<std::size_t> order;
  if (!std::is_sorted(ranks.begin(), ranks.end())) {
    order.resize(ranks.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return ranks[a] < ranks[b]; });
  }
  return order;
}

bool Flattener::instance(PyObject* object, const TypePlan& plan) {
  program_.allocates = true;
  // Held from now on: making the dict may run Python, which may change the class.
  std::size_t index = emit(Kind::Instance, 0, nullptr);
  nodes()[index].plan = &plan;
  ++plan.owners;
  Py_INCREF(plan.type);
  PyObject* dict = nullptr;
  if (plan.has_dict && !python::get_instance_dict(object, dict)) {
    PyErr_NoMemory();
    return false;
  }
  std::size_t begin = held_.size();
  if (dict != nullptr) {
    keep_pairs(dict);
  }
  std::size_t end_of_dict = held_.size();
  for (const TypePlan::Slot& slot : plan.slots) {
    held_.borrow(slot.value(object));
  }
  std::size_t end = held_.size();
  std::size_t count = (end_of_dict - begin) / 2;
  nodes()[index].size = static_cast<std::uint32_t>(count);
  std::vector<std::size_t> order;
  std::size_t extent = 0;
  std::size_t first_entry = program_.part_entries.size();
  if (plan.has_dict) {
    if (!plan.fields.empty()) {
      order = order_of_pairs(begin, end_of_dict, plan);
    }
    program_.part_entries.resize(first_entry + (order.empty() ? 0 : count + 1));
    extent = emit_extent();
    nodes()[extent].memo =
        order.empty() ? DictMemo::in_order() : DictMemo::in_order_of(first_entry);
  }
  std::size_t first_node = nodes().size();
  std::size_t first_leaf = leaves_.size();
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t pair = order.empty() ? i : order[i];
    if (!order.empty()) {
      program_.part_entries[first_entry + pair] = here(first_node, first_leaf);
    }
    std::size_t key = begin + 2 * pair;
    if (!parts(key, key + 2)) {
      return false;
    }
  }
  if (!order.empty()) {
    program_.part_entries[first_entry + count] = here(first_node, first_leaf);
  }
  if (!parts(end_of_dict, end)) {
    return false;
  }
  if (plan.has_dict) {
    end_extent(extent);
  }
  return true;
}

// Whether what a constant holds never changes either.
bool is_immutable(const Program& content) {
  auto is_part = [](const Node& node) {
    switch (node.kind) {
      case Kind::Constant:
      case Kind::Tuple:
      case Kind::FrozenSet:
      case Kind::Extent:
      case Kind::Dict:  // which the reduction has made
        return true;
      default:
        return is_value(node.kind);
    }
  };
  return std::all_of(content.nodes.begin(), content.nodes.end(), is_part);
}

// A constant is as good as a copy of it. What it holds, such as a time zone, may be
// another matter.
bool Flattener::constant(PyObject* object) {
  Owned reduction = Owned::steal(autojit::reduce(object));
  if (!reduction) {
    return false;
  }
  if (reduction.get() == Py_None) {
    return value(Kind::Opaque, object);
  }
  Owned content = content_now(reduction.get());
  if (!content) {
    return false;
  }
  if (!is_immutable(as_skeleton(content.get())->program)) {
    return reduce(object);
  }
  std::size_t number = program_.contents.size();
  program_.contents.steal(content.release());
  emit(Kind::Constant, number, Py_NewRef(object));
  return true;
}

// An instance without state may be there to be told by `is`: it is handed through.
bool Flattener::stateless(PyObject* object) {
  if (forwarded_whole(object, false)) {
    return true;
  }
  bool inserted = false;
  std::uint32_t place = met_bare_.get_or_insert(
      object, static_cast<std::uint32_t>(bare_.size()), inserted);
  if (inserted) {
    bare_.push_back({nodes().size(), 0, true});
  }
  Py_ssize_t known = known_references(ancestors_.size() - 1);
  bare_[place].references += known;
  bare_[place].alone =
      bare_[place].alone && is_in_the_call_alone(ancestors_.size() - 1);
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (!seen) {
    emit(Kind::Stateless, 0, Py_NewRef(object));
    ++stateless_references()[object];
  }
  return true;
}

// An object that cannot be copied without harm is handed through whole. In a result it
// is taken apart if there are arrays in it, which have to be carried out.
bool Flattener::owner(PyObject* object, bool unfaithful) {
  if (forwarded_whole(object, true)) {
    return true;
  }
  Owned content;
  if (met_.find(object) == nullptr) {
    bool has_leaves = false;
    content = content_now(object, &has_leaves);
    if (!content) {
      return false;
    }
    if (call_ != nullptr && has_leaves && !unfaithful) {
      const TypePlan* now = plan_for(object);
      return now != nullptr && apart(object, *now);
    }
  }
  bool seen = false;
  if (!shared(object, seen) || seen) {
    return seen;
  }
  if (call_ != nullptr) {
    return value(Kind::Opaque, object);
  }
  program_.reduces = true;
  std::size_t number = program_.contents.size();
  program_.contents.steal(content.release());
  emit(Kind::Owner, number, Py_NewRef(object));
  return true;
}

bool Flattener::reduce(PyObject* object) {
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (is_function_dispatcher(object)) {
    return value(Kind::Identity, object);
  }
  if (is_wrapped_ && is_of_itertools(Py_TYPE(object))) {
    PyErr_SetString(PyExc_LookupError, "an iterator that can't be looked into");
    return false;
  }
  if (is_wrapped_ && plan != nullptr &&
      (reduces_by_users_code(plan->type) || is_opaque_to_pickle(plan->type))) {
    return value(Kind::Identity, object);
  }
  if (forwarded_whole(object, true)) {
    return true;
  }
  Owned reduction;
  auto write = [&] {
    bool seen = false;
    return shared(object, seen) && (seen || reduced(object, std::move(reduction)));
  };
  bool bare = plan != nullptr && plan->shows_state && is_stateless(*plan, object);
  bool compared = plan != nullptr && plan->may_omit && mode_ == Mode::Content &&
                  met_.find(object) == nullptr;
  if (!bare && !compared) {
    return write();
  }
  reduction = Owned::steal(autojit::reduce(object));
  if (!reduction) {
    return false;
  }
  if (reduction.get() == Py_None) {
    return write();
  }
  if (bare) {
    return has_class_only(reduction.get(), Py_TYPE(object)) ? stateless(object)
                                                            : write();
  }
  // An object is compared with itself: with all that it holds.
  plan = plan_for(object);
  bool seen = false;
  return plan != nullptr && shared(object, seen) &&
         (plan->shows_state ? instance(object, *plan)
                            : reduced(object, std::move(reduction)));
}

// An object by its reduction, if that is known already.
bool Flattener::reduced(PyObject* object, Owned reduction) {
  PyObject* held = reduction ? reduction.release() : autojit::reduce(object);
  if (held == nullptr) {
    return false;
  }
  held_.steal(held);
  if (held == Py_None) {
    return value(Kind::Opaque, object);
  }
  program_.reduces = true;
  if (reduced_ != nullptr) {
    reduced_->emplace_back(nodes().size(), Owned::borrow(object));
  }
  std::uint32_t present = parts_present(held);
  emit(Kind::Reduce, present, Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(object))));
  std::size_t extent = emit_extent();
  std::size_t first_leaf = leaves_.size();
  for (std::uint32_t part = 0; part < kReduceParts; ++part) {
    if (has_part(present, part) && !node(reduction_part(held, part))) {
      return false;
    }
  }
  end_extent(extent);
  nodes()[extent].number = leaves_.size() - first_leaf;
  return note_left_out(object, extent);
}

// Notes what the reduction that was written last may have left out.
bool Flattener::note_left_out(PyObject* object, std::size_t extent) {
  std::size_t count = nodes()[extent].number;
  OwnedVector arrays;
  Owned content = left_out(object, leaves_.data() + leaves_.size() - count, count,
                           mode_ != Mode::Leaves, arrays);
  if (!content || content.get() == Py_None) {
    return static_cast<bool>(content);
  }
  program_.contents.steal(content.release());
  std::size_t number = program_.contents.size();
  if (number > kMaxExtra) {
    PyErr_SetString(PyExc_OverflowError, "too many reduced objects in one call tree");
    return false;
  }
  nodes()[extent].extra = number & kMaxExtra;
  if (!arrays.empty()) {
    program_.omitted[number] = std::move(arrays);
  }
  return true;
}

// --- results ---

// Whether a result is what the call handed through whole: then it is written. To an
// instance without state the function may have given some.
bool Flattener::forwarded_whole(PyObject* object, bool has_state) {
  std::size_t node = 0;
  if (call_ == nullptr || !is_whole_in(*call_, object, node) ||
      (has_state && call_->program.nodes[node].kind == Kind::Stateless)) {
    return false;
  }
  ++mutables_;
  emit(Kind::Forward, node, nullptr, kWhole);
  return true;
}

// A generator or the like in a result runs inside the trace: what stands for it is an
// iterator over what it gave, borrowed. One that the caller handed in stays as it is.
// nullptr with an exception set on failure.
PyObject* Flattener::consume(PyObject* lazy) {
  bool inserted = false;
  std::uint32_t place = consumed_.get_or_insert(
      lazy, static_cast<std::uint32_t>(over_results_.size()), inserted);
  if (!inserted) {
    return over_results_[place];
  }
  held_.borrow(lazy);
  over_results_.push_back(lazy);  // also should it give itself
  if (hands_through(call_, lazy)) {
    return lazy;
  }
  Owned results = Owned::steal(PySequence_List(lazy));
  PyObject* iterator = results ? PyObject_GetIter(results.get()) : nullptr;
  if (iterator != nullptr) {
    held_.steal(iterator);
    over_results_[place] = iterator;
  }
  return iterator;
}

// --- who else holds what ---

// How many references to one of the ancestors are known: its holder's, that of `held_`,
// and that of `reads_`.
Py_ssize_t Flattener::known_references(std::size_t depth) const {
  return (depth == 0 ? references_to_root_ : 2) +
         (reads_.holds(ancestors_[depth]) ? 1 : 0);
}

// Whether nobody but the call holds any of the first ancestors.
bool Flattener::is_in_the_call_alone(std::size_t count) const {
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* dict = python::instance_dict(ancestors_[i]);
    if (others_hold(ancestors_[i], known_references(i)) ||
        (dict != nullptr && Py_REFCNT(dict) > 1)) {
      return false;
    }
  }
  return mode_ == Mode::Leaves || (mode_ == Mode::Closures && lone_function_);
}

// Nobody could tell one that the call alone holds from another of its class, nor one
// that the function has made for its result.
void Flattener::find_lone_bare() {
  for (const Bare& bare : bare_) {
    Node& node = nodes()[bare.node];
    if (bare.alone && !others_hold(node.object, bare.references)) {
      node.size = 1;
    }
  }
}

}  // namespace

bool flatten(PyObject* object, PyObject* leaf_type, const char* root, Program& program,
             OwnedVector& leaves) {
  return Flattener(leaf_type, root, program, leaves).object(object);
}

bool flatten_call(CallView& call, Program& program, OwnedVector& leaves,
                  NodeObjects& reduced) {
  call.hold();
  return Flattener(nullptr, "", program, leaves, &reduced).call(call) &&
         (call.places == nullptr || trace_at(*call.places, program, leaves));
}

bool flatten_result(PyObject* object, Skeleton* call, PyObject* inputs,
                    Program& program, OwnedVector& leaves, NodeObjects& reduced) {
  return Flattener(nullptr, "result", program, leaves, &reduced)
      .result(object, call, inputs);
}

bool flatten_after(PyObject* result, CallView& call, Program& program,
                   OwnedVector& leaves) {
  call.hold();
  return Flattener(nullptr, "", program, leaves).after(result, call);
}

bool flatten_content(PyObject* object, Program& program, bool& has_leaves) {
  OwnedVector no_leaves;
  return Flattener(nullptr, "obj", program, no_leaves).content(object, has_leaves);
}

bool flatten_dependencies(PyObject* settings, const std::vector<PyObject*>& functions,
                          const std::vector<PyObject*>& arguments, Program& program) {
  OwnedVector no_leaves;
  return Flattener(nullptr, "function", program, no_leaves)
      .dependencies(settings, functions, arguments);
}

bool flatten_closures(const Program& call, Program& program) {
  OwnedVector no_leaves;
  return Flattener(nullptr, "function", program, no_leaves).closures(call);
}

}  // namespace autojit
