// object -> leaves + skeleton
//
// Runs Python (reductions, user-given leaf types), which may change any container of
// the tree. So the parts of each container are copied into `held_` before they are
// visited and stay there until the end: an address names one object throughout.
#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <set>

#include "pointer_map.h"
#include "skeleton.h"
#include "type_plan.h"

namespace autojit {

namespace {

// Whether a skeleton hands an object through whole, and at which node.
bool is_whole_in(const Skeleton& skeleton, PyObject* object, std::size_t& node) {
  const std::vector<Node>& nodes = skeleton.program.nodes;
  auto found = std::find_if(nodes.begin(), nodes.end(), [object](const Node& at) {
    return is_handed_through(at) && at.object == object;
  });
  node = static_cast<std::size_t>(found - nodes.begin());
  return found != nodes.end();
}

// The most that is looked at of what functions hold.
constexpr std::size_t kMaxNodes = 1U << 16U;

// How many nodes are written for tuples and the like that were met before. They are
// values, so that it makes no difference whether equal ones are one object; but nested
// ones could be met along more ways than there is memory.
constexpr std::size_t kMostWrittenAgain = 1U << 16U;

bool is_immutable(Kind kind) {
  switch (kind) {
    case Kind::Tuple:
    case Kind::NamedTuple:
    case Kind::FrozenSet:
    case Kind::Slice:
    case Kind::Method:
      return true;
    default:
      return false;
  }
}

// Whether others than the call and ourselves have a reference to an object, of which so
// many are known. Local variables of functions that are running don't count: no other
// function can read them.
bool others_hold(PyObject* object, Py_ssize_t known) {
  auto ours = stateless_references().find(object);
  if (ours != stateless_references().end()) {
    known += static_cast<Py_ssize_t>(ours->second);
  }
  if (weak_references(object) != nullptr) {
    return true;
  }
  Py_ssize_t others = Py_REFCNT(object) - known;
  return others > 0 && others > python::local_references(object);
}

class Flattener {
 public:
  Flattener(PyObject* leaf_type, const char* root, Program& program,
            std::vector<PyObject*>& leaves, NodeObjects* reduced = nullptr)
      : leaf_type_(leaf_type),
        root_(root),
        program_(program),
        leaves_(leaves),
        reduced_(reduced) {}
  Flattener(const Flattener&) = delete;
  Flattener& operator=(const Flattener&) = delete;
  ~Flattener() {
    for (PyObject* object : held_) {
      Py_XDECREF(object);
    }
  }

  bool object(PyObject* object) {
    return walk([&] { return node(object); });
  }
  // `call` and the tuple `inputs` outlive the walk.
  bool result(PyObject* object, Skeleton* call, PyObject* inputs) {
    call_ = call;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(inputs); ++i) {
      PyObject* input = PyTuple_GET_ITEM(inputs, i);
      auto number = static_cast<std::uint32_t>(i);
      bool inserted = false;
      if (input == Py_None) {
        program_.withheld.push_back(number);
      } else {
        inputs_.get_or_insert(input, number, inserted);
      }
    }
    for (const Owned& function : call->program.functions) {
      bool inserted = false;
      input_functions_.get_or_insert(
          function.get(),
          static_cast<std::uint32_t>(&function - call->program.functions.data()),
          inserted);
    }
    program_.inputs = call->program.nodes.size();
    return walk([&] { return node(object); });
  }
  bool call(const CallView& call) {
    return walk([&] { return call_parts(call); });
  }
  // What functions hold, to be compared with the same of others.
  bool closures(const Program& call) {
    mode_ = Mode::Closures;
    return walk([&] { return closure_parts(call); });
  }
  // What an object holds that is handed through whole, to be compared with what it
  // holds later. `has_leaves` tells whether there are arrays.
  bool content(PyObject* object, bool* has_leaves) {
    mode_ = Mode::Content;
    bool done = walk([&] { return node(object); });
    if (has_leaves != nullptr) {
      *has_leaves = has_leaves_;
    }
    return done;
  }

 private:
  // The caller's, and the one by which it is held meanwhile.
  static constexpr Py_ssize_t kReferencesToRoot = 2;

  // What is taken out: leaves, or nothing. Of what is there to be compared only, the
  // arrays are constants.
  enum class Mode : std::uint8_t { Leaves, Closures, Content };

  std::vector<Node>& nodes() { return program_.nodes; }
  PartEntry here(std::size_t first_node, std::size_t first_leaf) const {
    return {static_cast<std::uint32_t>(program_.nodes.size() - first_node),
            static_cast<std::uint32_t>(leaves_.size() - first_leaf)};
  }
  template <typename Walk>
  bool walk(Walk walk);
  void start_again();
  bool finish(bool done);
  bool call_parts(const CallView& call);
  bool closure_parts(const Program& call);

  // Keeps `object` (an owned reference) until the walk is over.
  void keep(PyObject* object) { append_owned(held_, object); }

  std::size_t emit(Op op, std::size_t size, PyObject* owned, std::uint32_t extra = 0);
  bool constant(Op op, PyObject* object) {
    emit(op, 0, Py_NewRef(object));
    return true;
  }
  void impure() { ++impure_; }

  bool node(PyObject* object);
  bool leaf(PyObject* object);
  PyObject* consume(PyObject* lazy);
  bool inner(PyObject* object, const TypePlan& plan);
  bool parts(std::size_t begin, std::size_t end);
  bool container(Op op, PyObject* owned, std::size_t begin);
  bool immutable(PyObject* object, const TypePlan& plan);
  bool immutable_parts(PyObject* object, const TypePlan& plan);
  bool tuple(PyObject* object);
  bool set(Op op, PyObject* object);
  void keep_pairs(PyObject* dict);
  void keep_items(PyObject* const* items, Py_ssize_t size);
  bool three(Op op, PyObject* object, const char* const* names);
  bool partial(PyObject* object);
  bool instance(PyObject* object, const TypePlan& plan);
  std::vector<std::size_t> order_of_pairs(std::size_t begin, std::size_t end,
                                          const TypePlan& plan) const;
  bool reduce(PyObject* object);
  bool reduced(PyObject* object, Owned known);
  bool left_out(PyObject* object, std::size_t extent);
  bool user_object(PyObject* object, const TypePlan& plan);
  bool apart(PyObject* object, const TypePlan& plan);
  bool owner(PyObject* object, bool unfaithful);
  bool stateless(PyObject* object);
  Py_ssize_t known_references(std::size_t depth) const;
  bool is_in_the_call_alone(std::size_t count) const;
  void find_lone_bare();
  bool forwarded_whole(PyObject* object, bool has_state);
  bool function(PyObject* object);
  bool closure(PyObject* object);
  bool cell(PyObject* object);
  bool read_globals(PyObject* function);
  bool global(PyObject* globals, PyObject* name);
  bool too_much(PyObject* object);
  bool shared(PyObject* object, bool& seen);
  bool give_slot(std::size_t index);
  void pure(std::size_t index, std::size_t impure_before, PyObject* object);

  PyObject* leaf_type_;
  const char* root_;
  Program& program_;
  std::vector<PyObject*>& leaves_;
  NodeObjects* reduced_;
  // Owned: the parts of all containers met.
  std::vector<PyObject*> held_;
  Mode mode_ = Mode::Leaves;
  bool has_leaves_ = false;
  // Among closures: nobody but the call holds the function that is looked into.
  bool lone_function_ = false;
  PointerMap met_;  // shared objects -> their node
  // Immutable objects -> their place in `immutables_`, where their node stands and how
  // many there are, 0 while they are being written.
  PointerMap met_immutable_;
  std::vector<std::pair<std::size_t, std::size_t>> immutables_;
  std::size_t written_again_ = 0;
  bool shares_immutables_ = false;
  // An instance without state: the references to it that are the call's or of this
  // walk, and whether it is in nothing that others hold.
  struct Bare {
    std::size_t node;
    Py_ssize_t references;
    bool alone;
  };
  PointerMap met_bare_;  // -> its place in `bare_`
  std::vector<Bare> bare_;
  // The objects that this one is in, and itself, borrowed, and how many references to
  // the first of them are those of the call.
  std::vector<PyObject*> ancestors_;
  Py_ssize_t references_to_root_ = kReferencesToRoot;
  PointerMap inputs_;         // of a result: what may be forwarded -> its number
  PointerMap functions_;      // -> their number
  Skeleton* call_ = nullptr;  // of a result
  PointerMap consumed_;       // lazy iterators -> their place in `over_results_`
  std::vector<PyObject*> over_results_;
  PointerMap input_functions_;
  std::size_t bytes_ = 0;
  // What the functions read from their modules: dict and name, borrowed.
  std::vector<std::pair<PyObject*, PyObject*>> globals_;
  std::set<std::pair<PyObject*, PyObject*>> globals_seen_;
  std::set<PyObject*> homes_;  // the modules of the functions that go by value
  PointerMap read_;            // functions whose names are noted, and what they hold
  std::size_t read_count_ = 0;
  python::Signals signals_;
  // Among closures: the nodes of the objects that could be shared, and the objects.
  std::vector<std::pair<std::size_t, PyObject*>> shareable_;
  std::size_t impure_ = 0;
  std::uint32_t depth_ = 0;
};

std::size_t Flattener::emit(Op op, std::size_t size, PyObject* owned,
                            std::uint32_t extra) {
  Owned guard = Owned::steal(owned);
  if (nodes().size() >= UINT32_MAX || size > UINT32_MAX) {
    throw std::bad_alloc();
  }
  Node fresh{};
  fresh.op = op;
  fresh.extra = extra & kMaxExtra;
  fresh.size = static_cast<std::uint32_t>(size);
  fresh.object = owned;
  nodes().push_back(fresh);
  guard.release();
  return nodes().size() - 1;
}

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
  std::vector<PyObject*> old_leaves;
  old_leaves.swap(leaves_);
  if (reduced_ != nullptr) {
    reduced_->clear();
  }
  Program old;
  old.swap(program_);
  program_.inputs = old.inputs;
  program_.withheld.swap(old.withheld);
  met_ = PointerMap();
  met_immutable_ = PointerMap();
  functions_ = PointerMap();
  read_ = PointerMap();
  met_bare_ = PointerMap();
  immutables_.clear();
  bare_.clear();
  ancestors_.clear();
  globals_.clear();
  globals_seen_.clear();
  homes_.clear();
  shareable_.clear();
  impure_ = written_again_ = bytes_ = read_count_ = 0;
  references_to_root_ = kReferencesToRoot;
  depth_ = 0;
  for (PyObject* leaf : old_leaves) {
    Py_DECREF(leaf);  // may run Python, as `old` that goes does
  }
}

// The end of the walk. A RecursionError, wherever it arose, is told where that was.
bool Flattener::finish(bool done) {
  program_.leaves = static_cast<std::uint32_t>(leaves_.size());
  if (done || PyErr_ExceptionMatches(PyExc_RecursionError) == 0) {
    return done;
  }
  Owned text = Owned::steal(python::take_text_of_error());
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  Owned where =
      Owned::steal(utf8 != nullptr ? path(program_, root_, nodes().size()) : nullptr);
  if (where) {
    PyErr_Format(PyExc_RecursionError,
                 "the objects are nested too deeply to be taken apart, at %U (%s); "
                 "flatten the structure%s",
                 where.get(), utf8, python::remedy(utf8));
  }
  return false;
}

// Whether `object` was met before: then its Ref is written. If not, the next node is
// its.
bool Flattener::shared(PyObject* object, bool& seen) {
  bool inserted = false;
  std::uint32_t index =
      met_.get_or_insert(object, static_cast<std::uint32_t>(nodes().size()), inserted);
  seen = !inserted;
  impure();
  if (inserted) {
    if (mode_ == Mode::Closures) {
      shareable_.emplace_back(nodes().size(), object);
    }
    return true;
  }
  if (nodes()[index].extra == 0 && !give_slot(index)) {
    return false;
  }
  emit(Op::Ref, nodes()[index].extra, nullptr);
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

// A function is handed through whole: the trace has the caller's own.
bool Flattener::function(PyObject* object) {
  if (is_named_function(object)) {
    if (homes_.contains(PyFunction_GET_GLOBALS(object))) {
      keep(Py_NewRef(object));
      if (!read_globals(object)) {
        return false;
      }
    }
    return constant(Op::Identity, object);
  }
  if (mode_ == Mode::Closures) {
    return closure(object);
  }
  if (mode_ == Mode::Content) {
    return constant(Op::Identity, object);
  }
  impure();
  if (const std::uint32_t* input = input_functions_.find(object); input != nullptr) {
    emit(Op::Forward, *input, nullptr, kFunction);
    return true;
  }
  bool inserted = false;
  std::uint32_t number = functions_.get_or_insert(
      object, static_cast<std::uint32_t>(program_.functions.size()), inserted);
  bool bare = is_bare_function(object);
  Py_ssize_t known = ancestors_.empty() ? references_to_root_ : 2;
  bool alone = is_in_the_call_alone(ancestors_.size()) && inserted &&
               !others_hold(object, known);
  if (inserted) {
    program_.lone_functions.push_back(alone);
    program_.functions.push_back(Owned::borrow(object));
    program_.codes.push_back(Owned::borrow(PyFunction_GET_CODE(object)));
    program_.has_closures = program_.has_closures || !bare;
  } else {
    program_.lone_functions[number] = false;
  }
  emit(Op::Function, number, Py_NewRef(object), bare ? 0 : 1);
  return true;
}

// A function that holds more than can be looked at in the time of a trace goes by
// identity. True with an exception set.
bool Flattener::too_much(PyObject* object) {
  constexpr std::size_t kMaxBytes = 1U << 26U;
  if (Py_IS_TYPE(object, &PyByteArray_Type)) {
    bytes_ += static_cast<std::size_t>(PyByteArray_GET_SIZE(object));
  } else {
    bytes_ += numpy_size(object);
  }
  if (nodes().size() <= kMaxNodes && bytes_ <= kMaxBytes) {
    return false;
  }
  PyErr_SetString(PyExc_OverflowError, "a function that holds too much");
  return true;
}

// Puts what an object holds, if that can be had without running Python, into `parts`,
// borrowed: the functions that a function calls may be in there.
void find_parts(PyObject* object, std::vector<PyObject*>& parts) {
  auto add_dict = [&parts](PyObject* dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (dict != nullptr && PyDict_CheckExact(dict) &&
           PyDict_Next(dict, &position, nullptr, &value) != 0) {
      parts.push_back(value);
    }
  };
  if (PyFunction_Check(object)) {
    auto* function = reinterpret_cast<PyFunctionObject*>(object);
    parts.insert(parts.end(), {function->func_defaults, function->func_closure});
    add_dict(function->func_kwdefaults);
    add_dict(function->func_dict);
  } else if (PyCell_Check(object)) {
    parts.push_back(PyCell_GET(object));
  } else if (PyMethod_Check(object)) {
    parts.insert(parts.end(),
                 {PyMethod_GET_FUNCTION(object), PyMethod_GET_SELF(object)});
  } else if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
    PyObject* const* items = PySequence_Fast_ITEMS(object);
    parts.insert(parts.end(), items, items + PySequence_Fast_GET_SIZE(object));
  } else if (PyDict_CheckExact(object)) {
    add_dict(object);
  }
}

// Notes the names in the code of a function and of those inside it, and in that of the
// functions of the same module that it holds.
bool Flattener::read_globals(PyObject* function) {
  // Each is held once by `held_` as soon as it is looked at; until then by another.
  std::vector<PyObject*> objects{function};
  PyObject* globals = PyFunction_GET_GLOBALS(function);
  while (!objects.empty()) {
    PyObject* at = objects.back();
    objects.pop_back();
    bool is_new = false;
    if (at == nullptr ||
        (PyFunction_Check(at) && PyFunction_GET_GLOBALS(at) != globals)) {
      continue;
    }
    (void)read_.get_or_insert(at, 0, is_new);
    if (!is_new) {
      continue;
    }
    keep(Py_NewRef(at));
    if (++read_count_ > kMaxNodes) {
      PyErr_SetString(PyExc_OverflowError, "a function that holds too much");
      return false;
    }
    if (Py_IS_TYPE(at, partial_type)) {
      for (const char* name : {"func", "args", "keywords"}) {
        Owned part = Owned::steal(PyObject_GetAttrString(at, name));
        if (!part) {
          return false;
        }
        objects.push_back(part.get());  // the partial's
      }
    } else {
      find_parts(at, objects);
    }
    if (!PyFunction_Check(at)) {
      continue;
    }
    keep(Py_NewRef(PyFunction_GET_CODE(at)));
    std::vector<PyObject*> codes{PyFunction_GET_CODE(at)};
    while (!codes.empty()) {
      auto* code = reinterpret_cast<PyCodeObject*>(codes.back());
      codes.pop_back();
      std::vector<PyObject*> names;
      if (!global_names(reinterpret_cast<PyObject*>(code), names)) {
        return false;
      }
      for (PyObject* name : names) {
        if (globals_seen_.emplace(globals, name).second) {
          globals_.emplace_back(globals, name);
        }
      }
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_consts); ++i) {
        PyObject* inner = PyTuple_GET_ITEM(code->co_consts, i);
        if (PyCode_Check(inner)) {
          codes.push_back(inner);
        }
      }
    }
  }
  return true;
}

// What a name stands for in a module. A function there is not made anew, but it may
// read what has changed.
bool Flattener::global(PyObject* globals, PyObject* name) {
  constant(Op::Identity, globals);
  constant(Op::Str, name);
  PyObject* value = PyDict_GetItemWithError(globals, name);
  if (value == nullptr) {
    emit(Op::Unset, 0, nullptr);
    return PyErr_Occurred() == nullptr;
  }
  keep(Py_NewRef(value));
  if (!PyFunction_Check(value)) {
    return node(value);
  }
  return (PyFunction_GET_GLOBALS(value) != globals || read_globals(value)) &&
         constant(Op::Identity, value);
}

bool Flattener::closure(PyObject* object) {
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (seen) {
    return true;
  }
  // Those of the call are known; one inside of another has one holder.
  bool alone = lone_function_;
  if (!ancestors_.empty()) {
    Py_ssize_t known = 2 + (read_.find(object) != nullptr ? 1 : 0);
    alone = is_in_the_call_alone(ancestors_.size()) && !others_hold(object, known);
  }
  // Held: looking at its parts may run Python, which may change it.
  auto* function = reinterpret_cast<PyFunctionObject*>(object);
  if (!read_globals(object)) {
    return false;
  }
  homes_.insert(function->func_globals);
  std::size_t begin = held_.size();
  for (PyObject* part : {function->func_code, function->func_globals}) {
    keep(Py_NewRef(part));
  }
  std::size_t constants_end = held_.size();
  PyObject* annotations = PyFunction_GetAnnotations(object);
  if (annotations == nullptr && PyErr_Occurred() != nullptr) {
    return false;
  }
  for (PyObject* part :
       {function->func_defaults, function->func_kwdefaults, function->func_dict,
        function->func_name, function->func_qualname, function->func_module,
        function->func_doc, annotations}) {
    // To look at an attribute may make an empty dict.
    bool empty =
        part != nullptr && PyDict_CheckExact(part) && PyDict_GET_SIZE(part) == 0;
    keep(empty ? nullptr : Py_XNewRef(part));
  }
  PyObject* cells = function->func_closure;
  for (Py_ssize_t i = 0; cells != nullptr && i < PyTuple_GET_SIZE(cells); ++i) {
    keep(Py_NewRef(PyTuple_GET_ITEM(cells, i)));
  }
  std::size_t end = held_.size();
  emit(Op::Function, 0, Py_NewRef(object));
  std::size_t extent = emit(Op::Extent, 0, nullptr);
  for (std::size_t i = begin; i < constants_end; ++i) {
    constant(Op::Identity, held_[i]);
  }
  const python::Level level;
  if (!level.entered()) {
    return false;
  }
  bool outer = lone_function_;
  lone_function_ = alone;
  for (std::size_t i = constants_end; i < end; ++i) {
    if (held_[i] == nullptr) {
      emit(Op::Unset, 0, nullptr);
    } else if (PyCell_Check(held_[i]) ? !cell(held_[i]) : !node(held_[i])) {
      return false;
    }
  }
  lone_function_ = outer;
  nodes()[extent].size = static_cast<std::uint32_t>(nodes().size() - extent - 1);
  return true;
}

// Functions can share a variable: a cell is like a list of its content.
bool Flattener::cell(PyObject* object) {
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (seen) {
    return true;
  }
  PyObject* content = PyCell_Get(object);
  if (content == nullptr) {
    emit(Op::List, 0, nullptr);
    return true;
  }
  keep(content);
  emit(Op::List, 1, nullptr);
  ancestors_.push_back(object);
  bool done = node(content);
  ancestors_.pop_back();
  return done;
}

bool Flattener::closure_parts(const Program& call) {
  for (std::size_t i = 0; i < call.functions.size(); ++i) {
    lone_function_ = call.lone_functions[i];
    if (!node(call.functions[i].get())) {
      return false;
    }
  }
  std::size_t next = 0;
  references_to_root_ = 0;          // others can read it by its name
  while (next < globals_.size()) {  // it grows
    auto [globals, name] = globals_[next++];
    if (!global(globals, name)) {
      return false;
    }
  }
  for (auto [index, object] : shareable_) {
    if (nodes()[index].extra == 0 && !give_slot(index)) {
      return false;
    }
  }
  program_.originals.resize(program_.slots + 1);
  for (auto [index, object] : shareable_) {
    program_.originals[nodes()[index].extra] = Owned::borrow(object);
    if (nodes()[index].op == Op::Stateless) {
      ++stateless_references()[object];
    }
  }
  return true;
}

bool Flattener::leaf(PyObject* object) {
  if (mode_ != Mode::Leaves) {
    has_leaves_ = true;
    return constant(Op::Identity, object);
  }
  impure();
  if (const std::uint32_t* input = inputs_.find(object); input != nullptr) {
    emit(Op::Forward, *input, nullptr, kLeaf);
    return true;
  }
  emit(Op::Leaf, 0, nullptr);
  leaves_.push_back(object);
  Py_INCREF(object);
  return true;
}

// Whether a skeleton, or what its functions hold, hands an object through whole.
bool hands_through(Skeleton* skeleton, PyObject* object) {
  std::size_t node = 0;
  if (is_whole_in(*skeleton, object, node)) {
    return true;
  }
  PyObject* closures = skeleton->closures;
  return closures != nullptr && closures != Py_None &&
         hands_through(reinterpret_cast<Skeleton*>(closures), object);
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
  keep(Py_NewRef(lazy));
  over_results_.push_back(lazy);  // also should it give itself
  if (hands_through(call_, lazy)) {
    return lazy;
  }
  Owned results = Owned::steal(PySequence_List(lazy));
  PyObject* iterator = results ? PyObject_GetIter(results.get()) : nullptr;
  if (iterator != nullptr) {
    keep(iterator);
    over_results_[place] = iterator;
  }
  return iterator;
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
  if (mode_ == Mode::Closures && too_much(object)) {
    return false;
  }
  if (!signals_.look()) {
    return false;
  }
  const TypePlan* plan = plan_for(object);
  if (plan == nullptr) {
    return false;
  }
  bool leaf = plan->is_leaf;
  if (leaf_type_ != nullptr) {
    int is_instance = PyObject_IsInstance(object, leaf_type_);
    if (is_instance < 0) {
      if (!clear_refusal()) {
        return false;
      }
      is_instance = 0;  // a hostile `__class__`
    }
    leaf = is_instance != 0;
    plan = plan_for(object);
    if (plan == nullptr) {
      return false;
    }
  }
  if (leaf) {
    return this->leaf(object);
  }
  switch (plan->kind) {
    case Kind::Identity:
      return constant(Op::Identity, object);
    case Kind::Function:
      return function(object);
    case Kind::Int:
      return constant(Op::Int, object);
    case Kind::Float:
      return constant(Op::Float, object);
    case Kind::Complex:
      return constant(Op::Complex, object);
    case Kind::Str:
      return constant(Op::Str, object);
    case Kind::Bytes:
      return constant(Op::Bytes, object);
    case Kind::NumpyScalar:
      return constant(Op::NumpyScalar, object);
    default:
      break;
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

// The parts that lie in `held_[begin:end]`.
bool Flattener::parts(std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    if (!node(held_[i])) {
      return false;
    }
  }
  return true;
}

bool Flattener::container(Op op, PyObject* owned, std::size_t begin) {
  std::size_t end = held_.size();
  emit(op, end - begin, owned);
  return parts(begin, end);
}

// A node whose parts turned out to be constants can be compared and rebuilt as one.
void Flattener::pure(std::size_t index, std::size_t impure_before, PyObject* object) {
  std::size_t size = nodes().size() - index;
  if (impure_ == impure_before && size <= kMaxExtra && !shares_immutables_) {
    nodes()[index].object = Py_NewRef(object);
    nodes()[index].extra = static_cast<std::uint32_t>(size) & kMaxExtra;
  }
}

// A value that may have been met before. While it is being written, it can be met in
// what it holds that can be changed, and is then written once more.
bool Flattener::immutable(PyObject* object, const TypePlan& plan) {
  // No one but its holder and `held_` refers to it, so that it is met once.
  if (Py_REFCNT(object) <= 2) {
    return immutable_parts(object, plan);
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
      impure();
      if (nodes()[first].extra == 0 && !give_slot(first)) {
        return false;
      }
      emit(Op::Ref, nodes()[first].extra, nullptr);
      return true;
    }
  }
  if (!immutable_parts(object, plan)) {
    return false;
  }
  std::size_t size = nodes().size() - index;
  if (inserted || shares_immutables_) {
    immutables_[place] = {index, size};  // an inner one is done first
    return true;
  }
  written_again_ += size;
  if (written_again_ > kMostWrittenAgain && !shares_immutables_) {
    shares_immutables_ = true;
    return false;  // to begin again
  }
  return true;
}

bool Flattener::tuple(PyObject* object) {
  std::size_t begin = held_.size();
  std::size_t impure_before = impure_;
  keep_items(PySequence_Fast_ITEMS(object), PyTuple_GET_SIZE(object));
  std::size_t index = nodes().size();
  if (!container(Op::Tuple, nullptr, begin)) {
    return false;
  }
  pure(index, impure_before, object);
  return true;
}

class PlanHolder {
 public:
  explicit PlanHolder(const TypePlan* plan) : plan_(plan) { ++plan->owners; }
  PlanHolder(const PlanHolder&) = delete;
  PlanHolder& operator=(const PlanHolder&) = delete;
  ~PlanHolder() { plan_->release(); }

 private:
  const TypePlan* plan_;
};

// Numbers for the elements of a set, by which they are put in order. They depend on
// what an element is only, and neither on addresses nor on the hashes of strings, so
// that all processes of a computation have the same order. Elements that differ below
// the first levels, or by their arrays, may have one number: they keep their order.
class Ordering {
 public:
  explicit Ordering(PyObject* leaf_type) : leaf_type_(leaf_type) {}
  // What decides among elements of one number: the shapes and types of their arrays.
  std::uint64_t leaves() const { return leaves_; }
  // False with an exception set on failure. May run Python.
  bool of(PyObject* object, int levels, std::uint64_t& mixed);

 private:
  static std::uint64_t text(const char* text) {
    return hash_bytes(text, std::strlen(text));
  }
  static std::uint64_t text(PyObject* string) {
    return hash_bytes(static_cast<const char*>(PyUnicode_DATA(string)),
                      static_cast<std::size_t>(PyUnicode_GET_LENGTH(string)) *
                          PyUnicode_KIND(string));
  }
  static std::uint64_t name_of(PyObject* object);
  static bool attribute(PyObject* object, const char* name, std::uint64_t& mixed);
  bool parts(PyObject* list, bool ordered, int levels, std::uint64_t& mixed);
  bool inside(PyObject* object, const TypePlan& plan, int levels, std::uint64_t& mixed);

  static constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15U;
  // How many objects are looked at: what is shared is met again and again.
  std::uint32_t budget_ = 2000;
  PyObject* leaf_type_;  // as for flattening
  std::uint64_t leaves_ = 0;
};

// Of what goes by identity, as far as it has a name. May run Python, and may leave an
// exception that is no refusal.
std::uint64_t Ordering::name_of(PyObject* object) {
  if (PyType_Check(object)) {
    return text(reinterpret_cast<PyTypeObject*>(object)->tp_name);
  }
  if (PyCFunction_Check(object)) {
    return text(reinterpret_cast<PyCFunctionObject*>(object)->m_ml->ml_name);
  }
  for (const char* attribute : {"_name_", "__qualname__", "__name__"}) {
    Owned name = Owned::steal(PyObject_GetAttrString(object, attribute));
    if (name && PyUnicode_Check(name.get())) {
      return text(name.get());
    }
    if (!name && !clear_refusal()) {
      return 0;
    }
  }
  return PyBool_Check(object) && object == Py_True ? 1 : 0;
}

// Mixes in the text of an attribute, if there is one.
bool Ordering::attribute(PyObject* object, const char* name, std::uint64_t& mixed) {
  Owned value = Owned::steal(PyObject_GetAttrString(object, name));
  Owned string = Owned::steal(value ? PyObject_Str(value.get()) : nullptr);
  if (!string) {
    return clear_refusal();
  }
  mixed = (mixed ^ text(string.get())) * kOdd;
  return true;
}

bool Ordering::parts(PyObject* list, bool ordered, int levels, std::uint64_t& mixed) {
  std::uint64_t sum = 0;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    Owned part = Owned::borrow(PyList_GET_ITEM(list, i));
    std::uint64_t number = 0;
    if (!part || !of(part.get(), levels - 1, number)) {
      return false;
    }
    sum = (ordered ? (sum ^ number) * kOdd : sum + number * kOdd);
    sum ^= ordered ? sum >> 32U : 0;
  }
  mixed ^= sum;
  return true;
}

bool Ordering::inside(PyObject* object, const TypePlan& plan, int levels,
                      std::uint64_t& mixed) {
  Owned list;
  bool ordered = true;
  switch (plan.kind) {
    case Kind::Set:
    case Kind::FrozenSet:
      ordered = false;
      [[fallthrough]];
    case Kind::Tuple:
    case Kind::NamedTuple:
    case Kind::List:
      list = Owned::steal(PySequence_List(object));
      break;
    case Kind::Dict:
      list = Owned::steal(PyDict_Items(object));
      break;
    case Kind::Partial: {
      list = Owned::steal(PyList_New(0));
      for (const char* name : {"func", "args", "keywords"}) {
        Owned part =
            Owned::steal(list ? PyObject_GetAttrString(object, name) : nullptr);
        if (!part || PyList_Append(list.get(), part.get()) < 0) {
          return false;
        }
      }
      // One that was asked for its attributes has an empty dict.
      PyObject* dict = python::instance_dict(object);
      if (has_attributes(dict) && PyList_Append(list.get(), dict) < 0) {
        return false;
      }
      break;
    }
    case Kind::Method:
      list = Owned::steal(PyList_New(0));
      if (list && (PyList_Append(list.get(), PyMethod_GET_FUNCTION(object)) < 0 ||
                   PyList_Append(list.get(), PyMethod_GET_SELF(object)) < 0)) {
        return false;
      }
      break;
    case Kind::Instance: {
      ordered = plan.fields.empty();
      PyObject* dict = plan.has_dict ? python::instance_dict(object) : nullptr;
      list = Owned::steal(dict != nullptr ? PyDict_Items(dict) : PyList_New(0));
      for (const TypePlan::Slot& slot : plan.slots) {
        PyObject* value = slot.value(object);
        if (list && value != nullptr && PyList_Append(list.get(), value) < 0) {
          return false;
        }
      }
      break;
    }
    default: {
      Owned reduction = Owned::steal(autojit::reduce(object));
      if (!reduction) {
        return false;
      }
      if (reduction.get() == Py_None) {
        return true;
      }
      list = Owned::steal(PySequence_List(reduction.get()));
      break;
    }
  }
  return list && parts(list.get(), ordered, levels, mixed);
}

bool Ordering::of(PyObject* object, int levels, std::uint64_t& mixed) {
  const TypePlan* plan = plan_for(object);
  if (plan == nullptr) {
    return false;
  }
  // Held: what runs may change the class.
  Owned type = Owned::borrow(reinterpret_cast<PyObject*>(plan->type));
  const PlanHolder holder(plan);
  int leaf = plan->is_leaf ? 1 : 0;
  if (leaf_type_ != nullptr) {
    leaf = PyObject_IsInstance(object, leaf_type_);
    if (leaf < 0 && !clear_refusal()) {
      return false;
    }
  }
  if (leaf > 0) {
    mixed = kOdd;
    return !plan->is_leaf ||
           (attribute(object, "shape", leaves_) && attribute(object, "dtype", leaves_));
  }
  mixed = text(plan->type->tp_name) * kOdd;
  if (budget_ == 0) {
    return true;
  }
  --budget_;
  switch (plan->kind) {
    case Kind::Identity:
    case Kind::Function:
      mixed ^= name_of(object) * kOdd;
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
      mixed ^= static_cast<std::uint64_t>(PyObject_Hash(object)) * kOdd;
      return true;
    case Kind::Str:
      mixed ^= text(object);
      return true;
    case Kind::Bytes:
      mixed ^= hash_bytes(PyBytes_AS_STRING(object),
                          static_cast<std::size_t>(PyBytes_GET_SIZE(object)));
      return true;
    case Kind::NumpyScalar: {
      Bytes bytes = numpy_scalar_bytes(object);
      mixed ^= hash_bytes(bytes.data, bytes.size);
      return true;
    }
    default:
      return levels == 0 || inside(object, *plan, levels, mixed);
  }
}

bool Flattener::set(Op op, PyObject* object) {
  program_.allocates = true;
  PyObject* elements = PySequence_List(object);
  if (elements == nullptr) {
    return false;
  }
  keep(elements);
  auto size = static_cast<std::size_t>(PyList_GET_SIZE(elements));
  std::vector<std::pair<std::uint64_t, std::uint64_t>> order(size);
  for (std::size_t i = 0; i < size && size > 1; ++i) {
    constexpr int kLevels = 6;
    Ordering ordering(leaf_type_);
    if (PyErr_CheckSignals() < 0 ||
        !ordering.of(PyList_GET_ITEM(elements, static_cast<Py_ssize_t>(i)), kLevels,
                     order[i].first)) {
      return false;
    }
    order[i].second = ordering.leaves();
  }
  std::vector<std::size_t> sorted(size);
  std::iota(sorted.begin(), sorted.end(), std::size_t{0});
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](std::size_t a, std::size_t b) { return order[a] < order[b]; });

  std::size_t impure_before = impure_;
  std::size_t index = emit(op, size, nullptr);
  std::size_t first_entry = program_.part_entries.size();
  program_.part_entries.resize(first_entry + size + 1);
  std::size_t extent = emit(Op::Extent, 0, nullptr);
  nodes()[extent].number = first_entry;
  std::size_t first_node = nodes().size();
  std::size_t first_leaf = leaves_.size();
  for (std::size_t i : sorted) {
    program_.part_entries[first_entry + i] = here(first_node, first_leaf);
    if (!node(PyList_GET_ITEM(elements, static_cast<Py_ssize_t>(i)))) {
      return false;
    }
  }
  program_.part_entries[first_entry + size] = here(first_node, first_leaf);
  nodes()[extent].size = static_cast<std::uint32_t>(nodes().size() - first_node);
  if (op == Op::FrozenSet) {
    pure(index, impure_before, object);
  }
  return true;
}

void Flattener::keep_pairs(PyObject* dict) {
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value) != 0) {
    keep(Py_NewRef(key));
    keep(Py_NewRef(value));
  }
}

void Flattener::keep_items(PyObject* const* items, Py_ssize_t size) {
  for (Py_ssize_t i = 0; i < size; ++i) {
    keep(Py_NewRef(items[i]));
  }
}

bool Flattener::three(Op op, PyObject* object, const char* const* names) {
  std::size_t begin = held_.size();
  for (int i = 0; i < 3; ++i) {
    PyObject* part = PyObject_GetAttrString(object, names[i]);
    if (part == nullptr) {
      return false;
    }
    keep(part);
  }
  return container(op, nullptr, begin);
}

bool Flattener::partial(PyObject* object) {
  static const char* const names[] = {"func", "args", "keywords"};
  emit(Op::Partial, 4, nullptr);
  std::size_t begin = held_.size();
  for (const char* name : names) {
    PyObject* part = PyObject_GetAttrString(object, name);
    if (part == nullptr) {
      return false;
    }
    keep(part);
  }
  PyObject* dict = python::instance_dict(object);
  keep(Py_NewRef(has_attributes(dict) ? dict : Py_None));
  return parts(begin, held_.size());
}

// The places of the pairs in `held_[begin:end]` in the order of the class: first what
// it declares, then the rest as it stands. Nothing if they stand so.
std::vector<std::size_t> Flattener::order_of_pairs(std::size_t begin, std::size_t end,
                                                   const TypePlan& plan) const {
  const std::vector<PyObject*>& fields = plan.fields;
  std::vector<std::size_t> ranks;
  std::size_t next = 0;  // most stand as they are declared
  for (std::size_t i = begin; i < end; i += 2) {
    PyObject* name = held_[i];
    if (next == fields.size() || fields[next] != name) {
      auto found = std::find(fields.begin(), fields.end(), name);
      if (found == fields.end() && PyUnicode_CheckExact(name)) {  // not interned
        found = std::find_if(fields.begin(), fields.end(), [name](PyObject* field) {
          return same_constant(Op::Str, field, name);
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
  std::size_t index = emit(Op::Instance, 0, nullptr);
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
    keep(Py_XNewRef(slot.value(object)));
  }
  std::size_t end = held_.size();
  std::size_t count = (end_of_dict - begin) / 2;
  nodes()[index].size = static_cast<std::uint32_t>(count);
  std::vector<std::size_t> order;
  bool has_fields = !plan.fields.empty();
  std::size_t first_entry = program_.part_entries.size();
  if (has_fields) {
    order = order_of_pairs(begin, end_of_dict, plan);
    program_.part_entries.resize(first_entry + (order.empty() ? 0 : count + 1));
    std::size_t extent = emit(Op::Extent, 0, nullptr);
    nodes()[extent].number = order.empty() ? kInOrder : first_entry;
  }
  std::size_t first_node = nodes().size();
  std::size_t first_leaf = leaves_.size();
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t pair = order.empty() ? i : order[i];
    if (!order.empty()) {
      program_.part_entries[first_entry + pair] = here(first_node, first_leaf);
    }
    std::size_t key = begin + 2 * pair;
    if (!node(held_[key]) || !node(held_[key + 1])) {
      return false;
    }
  }
  if (!order.empty()) {
    program_.part_entries[first_entry + count] = here(first_node, first_leaf);
  }
  for (std::size_t i = end_of_dict; i < end; ++i) {
    if (held_[i] == nullptr) {
      emit(Op::Unset, 0, nullptr);
    } else if (!node(held_[i])) {
      return false;
    }
  }
  if (has_fields) {
    nodes()[first_node - 1].size =
        static_cast<std::uint32_t>(nodes().size() - first_node);
  }
  return true;
}

// Whether a result is what the call handed through whole: then it is written. To an
// instance without state the function may have given some.
bool Flattener::forwarded_whole(PyObject* object, bool has_state) {
  std::size_t node = 0;
  if (call_ == nullptr || !is_whole_in(*call_, object, node) ||
      (has_state && call_->program.nodes[node].op == Op::Stateless)) {
    return false;
  }
  impure();
  emit(Op::Forward, node, nullptr, kWhole);
  return true;
}

// How many references to one of the ancestors are known: its holder's, that of `held_`,
// and one more if functions were looked through for it.
Py_ssize_t Flattener::known_references(std::size_t depth) const {
  return (depth == 0 ? references_to_root_ : 2) +
         (read_.find(ancestors_[depth]) != nullptr ? 1 : 0);
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
  // It is looked through once.
  bare_[place].references += inserted ? known : std::min<Py_ssize_t>(known, 2);
  bare_[place].alone =
      bare_[place].alone && is_in_the_call_alone(ancestors_.size() - 1);
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (!seen) {
    emit(Op::Stateless, 0, Py_NewRef(object));
    ++stateless_references()[object];
  }
  return true;
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

// An object that cannot be copied without harm is handed through whole. In a result it
// is taken apart if there are arrays in it, which have to be carried out.
bool Flattener::owner(PyObject* object, bool unfaithful) {
  if (forwarded_whole(object, true)) {
    return true;
  }
  Owned content;
  if (met_.find(object) == nullptr) {
    bool has_leaves = false;
    content = Owned::steal(content_now(object, &has_leaves));
    if (!content) {
      return false;
    }
    if (call_ != nullptr && has_leaves && !unfaithful) {
      const TypePlan* now = plan_for(object);
      return now != nullptr && apart(object, *now);
    }
  }
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (seen) {
    return true;
  }
  if (call_ != nullptr) {
    return constant(Op::Opaque, object);
  }
  program_.reduces = true;
  std::size_t number = program_.contents.size();
  program_.contents.push_back(std::move(content));
  emit(Op::Owner, number, Py_NewRef(object));
  return true;
}

// An instance of a class that is none of the known ones.
bool Flattener::user_object(PyObject* object, const TypePlan& plan) {
  if (plan.kind == Kind::Instance && is_stateless(plan, object)) {
    return stateless(object);
  }
  if (mode_ != Mode::Content &&
      (is_unfaithful(plan, object) || owns_resource(plan, object))) {
    return owner(object, is_unfaithful(plan, object));
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

// Whether a reduction says no more than what class an instance is of.
bool has_class_only(PyObject* reduction, PyTypeObject* type) {
  for (std::uint32_t part = 2; part < 6; ++part) {
    if (reduction_part(reduction, part) != Py_None) {
      return false;
    }
  }
  auto* of = reinterpret_cast<PyObject*>(type);
  PyObject* args = reduction_part(reduction, 1);
  return PyTuple_GET_SIZE(args) == 0
             ? reduction_part(reduction, 0) == of
             : PyTuple_GET_SIZE(args) == 1 && PyTuple_GET_ITEM(args, 0) == of;
}

bool Flattener::reduce(PyObject* object) {
  // It makes no difference, and would keep what its frames hold.
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  if (mode_ != Mode::Leaves && type == config.traceback_type) {
    impure();  // a tuple that it is in is not kept either
    return constant(Op::Identity, type);
  }
  if (is_function_dispatcher(object)) {
    return constant(Op::Identity, object);
  }
  if (forwarded_whole(object, true)) {
    return true;
  }
  Owned reduction;
  auto write = [&] {
    bool seen = false;
    return shared(object, seen) && (seen || reduced(object, std::move(reduction)));
  };
  const TypePlan* plan = find_plan(Py_TYPE(object));
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
bool Flattener::reduced(PyObject* object, Owned known) {
  PyObject* reduction = known ? known.release() : autojit::reduce(object);
  if (reduction == nullptr) {
    return false;
  }
  keep(reduction);
  if (reduction == Py_None) {
    return constant(Op::Opaque, object);
  }
  program_.reduces = true;
  if (reduced_ != nullptr) {
    reduced_->emplace_back(nodes().size(), Owned::borrow(object));
  }
  std::uint32_t present = 0;
  for (std::uint32_t part = 0; part < 4; ++part) {
    if (reduction_part(reduction, part + 2) != Py_None) {
      present |= 1U << part;
    }
  }
  emit(Op::Reduce, present, Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(object))));
  std::size_t extent = emit(Op::Extent, 0, nullptr);
  std::size_t first_leaf = leaves_.size();
  for (std::uint32_t part = 0; part < 6; ++part) {
    if ((part < 2 || (present & (1U << (part - 2))) != 0) &&
        !node(reduction_part(reduction, part))) {
      return false;
    }
  }
  nodes()[extent].size = static_cast<std::uint32_t>(nodes().size() - extent - 1);
  nodes()[extent].number = leaves_.size() - first_leaf;
  return left_out(object, extent);
}

// Notes what the reduction that was written last may have left out.
bool Flattener::left_out(PyObject* object, std::size_t extent) {
  std::size_t count = nodes()[extent].number;
  LeafVector arrays;
  Owned content =
      Owned::steal(autojit::left_out(object, leaves_.data() + leaves_.size() - count,
                                     count, mode_ != Mode::Leaves, arrays));
  if (!content || content.get() == Py_None) {
    return static_cast<bool>(content);
  }
  program_.contents.push_back(std::move(content));
  std::size_t number = program_.contents.size();
  if (number > kMaxExtra) {
    PyErr_SetString(PyExc_OverflowError, "too many reduced objects in one call tree");
    return false;
  }
  nodes()[extent].extra = number & kMaxExtra;
  if (!arrays.leaves.empty()) {
    std::vector<Owned>& known = program_.omitted[number];
    for (PyObject* array : arrays.leaves) {
      known.push_back(Owned::borrow(array));
    }
  }
  return true;
}

bool Flattener::immutable_parts(PyObject* object, const TypePlan& plan) {
  static const char* const slice_parts[] = {"start", "stop", "step"};
  std::size_t begin = 0;
  switch (plan.kind) {
    case Kind::Tuple:
      return tuple(object);
    case Kind::NamedTuple: {
      begin = held_.size();
      keep_items(PySequence_Fast_ITEMS(object), PyTuple_GET_SIZE(object));
      return container(Op::NamedTuple,
                       Py_NewRef(reinterpret_cast<PyObject*>(plan.type)), begin);
    }
    case Kind::FrozenSet:
      return set(Op::FrozenSet, object);
    case Kind::Slice:
      return three(Op::Slice, object, slice_parts);
    default:
      begin = held_.size();
      keep(Py_NewRef(PyMethod_GET_FUNCTION(object)));
      keep(Py_NewRef(PyMethod_GET_SELF(object)));
      return container(Op::Method, nullptr, begin);
  }
}

bool Flattener::inner(PyObject* object, const TypePlan& plan) {
  static const char* const range_parts[] = {"start", "stop", "step"};
  if (is_immutable(plan.kind)) {
    return immutable(object, plan);
  }
  std::size_t begin = 0;
  switch (plan.kind) {
    case Kind::Range:
      return three(Op::Range, object, range_parts);
    case Kind::NumpyDtype: {
      PyObject* singleton = numpy_dtype_singleton(object);
      return singleton != nullptr ? constant(Op::Identity, singleton) : reduce(object);
    }
    case Kind::Instance:
    case Kind::Reduce:
      return user_object(object, plan);
    default:
      break;
  }
  if (plan.kind == Kind::NumpyArray && !numpy_is_plain(object)) {
    return reduce(object);
  }
  bool seen = false;
  if (!shared(object, seen)) {
    return false;
  }
  if (seen) {
    return true;
  }
  switch (plan.kind) {
    case Kind::List:
      begin = held_.size();
      keep_items(PySequence_Fast_ITEMS(object), PyList_GET_SIZE(object));
      return container(Op::List, nullptr, begin);
    case Kind::Dict: {
      begin = held_.size();
      keep_pairs(object);
      std::size_t end = held_.size();
      emit(Op::Dict, (end - begin) / 2, nullptr);
      return parts(begin, end);
    }
    case Kind::Set:
      return set(Op::Set, object);
    case Kind::Bytearray: {
      PyObject* content = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(object),
                                                    PyByteArray_GET_SIZE(object));
      if (content == nullptr) {
        return false;
      }
      emit(Op::Bytearray, 0, content);
      return true;
    }
    case Kind::NumpyArray: {
      PyObject* copy = numpy_copy(object);
      if (copy == nullptr) {
        return false;
      }
      emit(Op::NumpyArray, 0, copy);
      return true;
    }
    default:
      return partial(object);
  }
}

bool Flattener::call_parts(const CallView& call) {
  Py_ssize_t keywords = call.kwnames != nullptr ? PyTuple_GET_SIZE(call.kwnames) : 0;
  auto count = static_cast<std::size_t>(keywords);
  std::vector<std::uint32_t>& places = program_.keyword_places;
  places.resize(count);
  std::iota(places.begin(), places.end(), 0U);
  PyObject* kwnames = nullptr;
  if (count != 0) {
    // Exact strings: what else a name may be is no part of it, and could run Python.
    std::vector<Owned> names;
    for (std::size_t i = 0; i < count; ++i) {
      names.push_back(Owned::steal(PyUnicode_FromObject(
          PyTuple_GET_ITEM(call.kwnames, static_cast<Py_ssize_t>(i)))));
      if (!names.back()) {
        return false;
      }
    }
    if (!call.keyword_order_matters) {
      std::sort(places.begin(), places.end(), [&](std::uint32_t a, std::uint32_t b) {
        return PyUnicode_Compare(names[a].get(), names[b].get()) < 0;
      });
    }
    kwnames = PyTuple_New(keywords);
    if (kwnames == nullptr) {
      return false;
    }
    for (std::size_t i = 0; i < count; ++i) {
      PyTuple_SET_ITEM(kwnames, static_cast<Py_ssize_t>(i), names[places[i]].release());
    }
    program_.call_kwnames = Owned::borrow(call.kwnames);
  }
  emit(Op::Call, call.positional, kwnames, call.callable != nullptr ? 1 : 0);
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
  for (std::uint32_t place : places) {
    if (!node(call.args[call.positional + place])) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool flatten(PyObject* object, PyObject* leaf_type, const char* root, Program& program,
             std::vector<PyObject*>& leaves) {
  return Flattener(leaf_type, root, program, leaves).object(object);
}

bool flatten_result(PyObject* object, Skeleton* call, PyObject* inputs,
                    Program& program, std::vector<PyObject*>& leaves,
                    NodeObjects& reduced) {
  return Flattener(nullptr, "result", program, leaves, &reduced)
      .result(object, call, inputs);
}

void CallView::hold() {
  std::size_t count = positional;
  if (kwnames != nullptr) {
    count += static_cast<std::size_t>(PyTuple_GET_SIZE(kwnames));
  }
  if (held != 0 || count == 0) {
    return;
  }
  PyObject** place = few.data();
  if (count > few.size()) {
    many.resize(count);
    place = many.data();
  }
  for (std::size_t i = 0; i < count; ++i) {
    place[i] = Py_NewRef(args[i]);
  }
  Py_XINCREF(kwnames);
  args = place;
  held = count;
}

bool flatten_call(CallView& call, Program& program, std::vector<PyObject*>& leaves,
                  NodeObjects& reduced) {
  call.hold();
  return Flattener(nullptr, "", program, leaves, &reduced).call(call);
}

namespace {

// What is plain data: numbers, strings, numpy arrays that are not large, arrays of JAX
// that a reduction does not carry, and tuples, lists and dicts of them.
class PlainData {
 public:
  PlainData(PyObject* const* carried, std::size_t count)
      : carried_(carried), end_(carried + count) {}
  // Runs nothing.
  bool has(PyObject* value) {
    budget_ = kMostObjects;
    return is_plain(value);
  }

 private:
  bool is_plain(PyObject* value);

  static constexpr int kMostObjects = 1000;
  static constexpr std::size_t kMostBytes = 1U << 20U;
  PyObject* const* carried_;
  PyObject* const* end_;
  int budget_ = 0;
};

bool PlainData::is_plain(PyObject* value) {
  if (value == Py_None || PyBool_Check(value)) {
    return true;
  }
  if (--budget_ < 0) {
    return false;
  }
  PyTypeObject* type = Py_TYPE(value);
  if (is_leaf_type(type)) {
    return std::find(carried_, end_, value) == end_;
  }
  if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyFloat_Type ||
      type == &PyComplex_Type || type == &PyBytes_Type) {
    return true;
  }
  if (numpy_is_array(value)) {
    return numpy_is_plain(value) && numpy_size(value) <= kMostBytes;
  }
  if (type == &PyTuple_Type || type == &PyList_Type) {
    PyObject* const* items = PySequence_Fast_ITEMS(value);
    return std::all_of(items, items + PySequence_Fast_GET_SIZE(value),
                       [&](PyObject* item) { return is_plain(item); });
  }
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* item = nullptr;
  while (type == &PyDict_Type && PyDict_Next(value, &position, &key, &item) != 0) {
    if (!is_plain(key) || !is_plain(item)) {
      return false;
    }
  }
  return type == &PyDict_Type;
}

// The attributes of an instance, held.
std::vector<std::pair<Owned, Owned>> attributes_of(PyObject* object,
                                                   const TypePlan& plan) {
  std::vector<std::pair<Owned, Owned>> attributes;
  PyObject* dict = plan.has_dict ? python::instance_dict(object) : nullptr;
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  PyObject* value = nullptr;
  while (dict != nullptr && PyDict_Next(dict, &position, &name, &value) != 0) {
    attributes.emplace_back(Owned::borrow(name), Owned::borrow(value));
  }
  for (const TypePlan::Slot& slot : plan.slots) {
    attributes.emplace_back(Owned::borrow(slot.name),
                            Owned::borrow(slot.value(object)));
  }
  return attributes;
}

}  // namespace

PyObject* left_out(PyObject* object, PyObject* const* carried, std::size_t count,
                   bool as_constants, LeafVector& arrays) {
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (plan == nullptr || !plan->may_omit) {
    return Py_NewRef(Py_None);
  }
  Owned plain;
  PlainData data(carried, count);
  for (const auto& [name, value] : attributes_of(object, *plan)) {
    // Names of other types could run Python.
    if (!value || !PyUnicode_CheckExact(name.get())) {
      continue;
    }
    if (plan_for(value.get()) == nullptr) {  // whether it is an array
      return nullptr;
    }
    if (!data.has(value.get())) {
      continue;
    }
    if (!plain) {
      plain = Owned::steal(PyDict_New());
    }
    if (!plain || PyDict_SetItem(plain.get(), name.get(), value.get()) < 0) {
      return nullptr;
    }
  }
  if (!plain) {
    return Py_NewRef(Py_None);
  }
  if (as_constants) {
    return content_now(plain.get());
  }
  Program program;
  return flatten(plain.get(), nullptr, "obj", program, arrays.leaves)
             ? reinterpret_cast<PyObject*>(new_skeleton(std::move(program), "obj"))
             : nullptr;
}

PyObject* content_now(PyObject* object, bool* has_leaves) {
  Owned holder = Owned::borrow(object);
  Program program;
  std::vector<PyObject*> no_leaves;
  return Flattener(nullptr, "obj", program, no_leaves).content(object, has_leaves)
             ? reinterpret_cast<PyObject*>(new_skeleton(std::move(program), "obj"))
             : nullptr;
}

PyObject* closures_now(Skeleton* skeleton) {
  Owned holder = Owned::borrow(reinterpret_cast<PyObject*>(skeleton));
  Program program;
  std::vector<PyObject*> no_leaves;
  try {
    if (Flattener(nullptr, "function", program, no_leaves)
            .closures(skeleton->program)) {
      for (const Node& node : skeleton->program.nodes) {
        if (is_handed_through(node)) {
          program.call_opaque.push_back(Owned::borrow(node.object));
        }
        if (node.op == Op::Stateless) {
          ++stateless_references()[node.object];
        }
      }
      return reinterpret_cast<PyObject*>(new_skeleton(std::move(program), "function"));
    }
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0 || clear_refusal()) {
    PyErr_Clear();
    return Py_NewRef(Py_None);
  }
  return nullptr;
}

PyObject* closures_of(Skeleton* skeleton) {
  if (skeleton->closures == nullptr) {
    Owned made = Owned::steal(closures_now(skeleton));
    if (skeleton->closures == nullptr) {  // what ran may have been here too
      skeleton->closures = made.release();
    }
  }
  return skeleton->closures;
}

}  // namespace autojit
