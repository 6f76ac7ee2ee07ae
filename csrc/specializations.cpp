#include "specializations.h"

#include <structmember.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

#include "type_plan.h"

namespace autojit {

std::uint64_t uses = 0;
ProcessLimits process_limits;

namespace {

// All tables. Guarded by the GIL, as all that follows.
std::unordered_set<Table*>& tables() {
  static auto* set = new std::unordered_set<Table*>();
  return *set;
}

// Takes an entry out; the caller then drops it, when the table is whole again.
void take_out(Table* table, Specialization* entry) {
  ++table->removals;
  if (table->newest == entry) {
    table->newest = nullptr;
  }
  table->bytes -= entry->bytes;
  process_limits.programs -= entry->trace->programs;
  entry->trace->entry = nullptr;
  auto [begin, end] = table->by_hash->equal_range(entry->hash);
  for (auto it = begin; it != end; ++it) {
    if (it->second == entry) {
      table->by_hash->erase(it);
      break;
    }
  }
}

// May run Python.
void drop(Specialization* entry) {
  Trace* trace = entry->trace;
  PyObject* compiled = entry->compiled;
  delete entry;
  Py_DECREF(trace);
  Py_DECREF(compiled);
}

Specialization* entry_of(Table* table, Py_hash_t hash, PyObject* compiled) {
  auto [begin, end] = table->by_hash->equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (it->second->compiled == compiled) {
      return it->second;
    }
  }
  return nullptr;
}

int table_traverse(PyObject* self, visitproc visit, void* arg) {
  auto* table = reinterpret_cast<Table*>(self);
  if (table->by_hash != nullptr) {
    for (auto [hash, entry] : *table->by_hash) {
      Py_VISIT(entry->trace);
      Py_VISIT(entry->compiled);
    }
  }
  Py_VISIT(table->options);
  Py_VISIT(table->like);
  return 0;
}

int table_clear(PyObject* self) {
  clear(reinterpret_cast<Table*>(self));
  return 0;
}

// The tables of one function.
struct Home {
  Owned weak_key;              // its callback takes this home away
  std::vector<Table*> tables;  // borrowed: a table that goes takes itself out
};

std::unordered_map<PyObject*, Home>& homes() {
  static auto* map = new std::unordered_map<PyObject*, Home>();
  return *map;
}

// The tables of callable objects, by the hash of their skeletons; borrowed like those.
std::unordered_multimap<Py_hash_t, Table*>& tables_of_objects() {
  static auto* map = new std::unordered_multimap<Py_hash_t, Table*>();
  return *map;
}

// What a table holds may lead to the function itself, which would then never go. Hence
// the bounds, and the low one for tables that are likely to, or keep what an object
// held.
Parked parked_alone{.maxsize = 4096};
Parked parked_with_function{.maxsize = 64};

// Takes a table out of the parked ones: the reference is now the caller's.
void unpark(Table* table) {
  Parked& parked = *std::exchange(table->parked, nullptr);
  (table->parked_later != nullptr ? table->parked_later->parked_earlier : parked.last) =
      table->parked_earlier;
  (table->parked_earlier != nullptr ? table->parked_earlier->parked_later
                                    : parked.first) = table->parked_later;
  table->parked_later = table->parked_earlier = nullptr;
  --parked.count;
}

// A table that is filed nowhere is not shared and not parked. May run Python.
void strike_off(Table* table) {
  table->key = nullptr;
  if (table->parked != nullptr) {
    unpark(table);
    Py_DECREF(table);
  }
}

PyObject* on_key_death(PyObject* capsule, PyObject* /*weak_key*/) {
  auto found =
      homes().find(static_cast<PyObject*>(PyCapsule_GetPointer(capsule, nullptr)));
  if (found != homes().end()) {
    // Out of the map before anything runs.
    Home home = std::move(found->second);
    homes().erase(found);
    for (Table* table : home.tables) {
      Py_INCREF(table);
    }
    for (Table* table : home.tables) {
      strike_off(table);
      Py_DECREF(table);
    }
  }
  Py_RETURN_NONE;
}
PyMethodDef on_key_death_def = {"forget_function", on_key_death, METH_O, nullptr};

Home* home_of(PyObject* key) {
  auto found = homes().find(key);
  return found != homes().end() ? &found->second : nullptr;
}

// Files a new table. One whose key takes no weak references stays by itself. False with
// an exception set on failure.
bool file(Table* table, PyObject* key) {
  Home* home = home_of(key);
  if (home == nullptr) {
    if (PyType_SUPPORTS_WEAKREFS(Py_TYPE(key)) == 0) {
      return true;
    }
    Owned weak_key = python::on_death(key, on_key_death_def);
    if (!weak_key) {
      return false;
    }
    home = &homes().emplace(key, Home{std::move(weak_key), {}}).first->second;
  }
  home->tables.push_back(table);
  table->key = key;
  return true;
}

void unfile(Table* table) {
  if (table->like != nullptr) {
    auto [begin, end] = tables_of_objects().equal_range(table->like->hash);
    auto found = std::find_if(
        begin, end, [table](const auto& filed) { return filed.second == table; });
    if (found != end) {
      tables_of_objects().erase(found);
    }
    return;
  }
  Home* home = table->key != nullptr ? home_of(table->key) : nullptr;
  if (home == nullptr) {
    return;
  }
  std::erase(home->tables, table);
  if (home->tables.empty()) {
    Owned weak_key = std::move(home->weak_key);  // dropped when the map is whole
    homes().erase(table->key);
  }
  table->key = nullptr;
}

void table_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  auto* table = reinterpret_cast<Table*>(self);
  unfile(table);
  tables().erase(table);
  clear(table);
  delete table->by_hash;
  Py_XDECREF(table->traces);
  Py_XDECREF(table->options);
  Py_XDECREF(table->like);
  PyObject_GC_Del(self);
}

Trace* cast_trace(PyObject* self) { return reinterpret_cast<Trace*>(self); }

int trace_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(cast_trace(self)->skeleton);
  Py_VISIT(cast_trace(self)->warnings);
  return 0;
}

// No tp_clear: a cycle through a trace goes through its table or its function too.
void trace_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_XDECREF(cast_trace(self)->traces);
  Py_XDECREF(cast_trace(self)->skeleton);
  Py_XDECREF(cast_trace(self)->warnings);
  PyObject_GC_Del(self);
}

PyObject* trace_begin(PyObject* self, PyObject* /*args*/) {
  Trace* trace = cast_trace(self);
  ++trace->traces->count;
  if (trace->entry != nullptr) {
    ++process_limits.programs;
  }
  Owned skeleton = Owned::borrow(reinterpret_cast<PyObject*>(trace->skeleton));
  try {
    return trace->programs++ == 0 || note_changed_functions(trace->skeleton)
               ? skeleton.release()
               : nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* trace_go_by_identity(PyObject* self, PyObject* skeleton) {
  if (!Py_IS_TYPE(skeleton, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of the call is needed");
    return nullptr;
  }
  Trace* trace = cast_trace(self);
  trace->by_identity = true;
  // Not that of a call which came meanwhile.
  Owned old = Owned::steal(reinterpret_cast<PyObject*>(std::exchange(
      trace->skeleton, reinterpret_cast<Skeleton*>(Py_NewRef(skeleton)))));
  if (trace->entry != nullptr) {
    trace->entry->skeleton = trace->skeleton;
  }
  Py_RETURN_NONE;
}

PyMethodDef trace_methods[] = {
    {"go_by_identity", trace_go_by_identity, METH_O,
     "go_by_identity($self, skeleton, /)\n--\n\n"
     "Serve only calls with the very functions and opaque objects of this one."},
    {"begin", trace_begin, METH_NOARGS,
     "begin($self, /)\n--\n\n"
     "Count a trace, and return the skeleton of the call that it is for."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef trace_members[] = {
    {"skeleton", T_OBJECT, offsetof(Trace, skeleton), READONLY, nullptr},
    {"warnings", T_OBJECT, offsetof(Trace, warnings), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

PyTypeObject TableType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Table",
    .tp_basicsize = sizeof(Table),
    .tp_dealloc = table_dealloc,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "The specializations of one function.",
    .tp_traverse = table_traverse,
    .tp_clear = table_clear,
};

PyTypeObject TraceCountType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.TraceCount",
    .tp_basicsize = sizeof(TraceCount),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "Counts how often a function body was traced.",
};

PyTypeObject TraceType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Trace",
    .tp_basicsize = sizeof(Trace),
    .tp_dealloc = trace_dealloc,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What a compiled function knows of the calls that it serves.",
    .tp_traverse = trace_traverse,
    .tp_methods = trace_methods,
    .tp_members = trace_members,
};

Trace* new_trace(Table* table, Skeleton* skeleton) {
  Owned warnings = Owned::steal(PyDict_New());
  auto* trace = warnings ? PyObject_GC_New(Trace, &TraceType) : nullptr;
  if (trace == nullptr) {
    return nullptr;
  }
  Py_INCREF(table->traces);
  trace->traces = table->traces;
  Py_INCREF(skeleton);
  trace->skeleton = skeleton;
  trace->warnings = warnings.release();
  trace->programs = 0;
  trace->by_identity = false;
  trace->entry = nullptr;
  trace->in_flight = 0;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(trace));
  return trace;
}

namespace {

Table* new_table(PyObject* options, const Bounds& bounds) {
  auto* traces = PyObject_New(TraceCount, &TraceCountType);
  if (traces == nullptr) {
    return nullptr;
  }
  traces->count = 0;
  auto* table = PyObject_GC_New(Table, &TableType);
  if (table == nullptr) {
    Py_DECREF(traces);
    return nullptr;
  }
  table->by_hash =
      new (std::nothrow) std::unordered_multimap<Py_hash_t, Specialization*>;
  table->newest = nullptr;
  table->removals = 0;
  table->traces = traces;
  table->hits = table->misses = 0;
  table->bounds = bounds;
  table->bytes = 0;
  table->options = Py_NewRef(options);
  table->key = nullptr;
  table->like = nullptr;
  table->parked = nullptr;
  table->parked_later = table->parked_earlier = nullptr;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(table));
  if (table->by_hash == nullptr) {
    Py_DECREF(table);
    PyErr_NoMemory();
    return nullptr;
  }
  Owned guard = Owned::steal(reinterpret_cast<PyObject*>(table));
  tables().insert(table);
  guard.release();
  return table;
}

// Takes a table, which is held, for another dispatcher: a new reference.
Table* take(Table* table) {
  Py_INCREF(table);
  if (table->parked != nullptr) {
    unpark(table);
    Py_DECREF(table);
  }
  return table;
}

// The table filed under `key` that has these options: a new reference, or nullptr.
// False with an exception set on failure. May run Python.
bool find_table(PyObject* key, PyObject* options, const Bounds& bounds, Table*& found) {
  found = nullptr;
  std::vector<Owned> candidates;  // comparing may change the homes
  if (Home* home = home_of(key); home != nullptr) {
    for (Table* table : home->tables) {
      candidates.push_back(Owned::borrow(reinterpret_cast<PyObject*>(table)));
    }
  }
  for (const Owned& candidate : candidates) {
    auto* table = reinterpret_cast<Table*>(candidate.get());
    if (table->bounds != bounds) {
      continue;
    }
    int same = PyObject_RichCompareBool(table->options, options, Py_EQ);
    if (same < 0) {
      return false;
    }
    if (same != 0 && table->key == key) {
      found = take(table);
      return true;
    }
  }
  return true;
}

}  // namespace

namespace {

// The skeleton of a callable object, with its hash; nothing if it can't be taken apart,
// or with an exception set on failure. May run Python.
Owned skeleton_of(PyObject* object) {
  LeafVector arrays;
  Program program;
  bool done = flatten(object, nullptr, "obj", program, arrays.leaves);
  arrays.clear();
  Owned skeleton = Owned::steal(
      done ? reinterpret_cast<PyObject*>(new_skeleton(std::move(program), "obj"))
           : nullptr);
  auto* like = reinterpret_cast<Skeleton*>(skeleton.get());
  if (skeleton && PyObject_Hash(skeleton.get()) != -1 &&
      (!like->program.has_closures || closures_of(like) != nullptr)) {
    return skeleton;
  }
  if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0 || clear_refusal()) {
    PyErr_Clear();
  }
  return {};
}

}  // namespace

Table* table_for_object(PyObject* object, PyObject* options, const Bounds& bounds) {
  // An object that can't be taken apart has a table of its own.
  Owned like = skeleton_of(object);
  if (!like) {
    return PyErr_Occurred() == nullptr ? new_table(options, bounds) : nullptr;
  }
  auto* skeleton = reinterpret_cast<Skeleton*>(like.get());
  std::vector<Owned> candidates;  // comparing may change what there is
  auto [begin, end] = tables_of_objects().equal_range(skeleton->hash);
  for (auto it = begin; it != end; ++it) {
    candidates.push_back(Owned::borrow(reinterpret_cast<PyObject*>(it->second)));
  }
  for (const Owned& candidate : candidates) {
    auto* table = reinterpret_cast<Table*>(candidate.get());
    if (table->bounds != bounds) {
      continue;
    }
    int same = PyObject_RichCompareBool(table->options, options, Py_EQ);
    same = same == 1 ? equal(table->like, skeleton) : same;
    if (same != 0) {
      return same < 0 ? nullptr : take(table);
    }
  }
  Table* table = new_table(options, bounds);
  if (table != nullptr) {
    Owned guard = Owned::steal(reinterpret_cast<PyObject*>(table));
    tables_of_objects().emplace(skeleton->hash, table);
    table->like = reinterpret_cast<Skeleton*>(like.release());
    guard.release();
  }
  return table;
}

Table* table_for(PyObject* key, PyObject* options, const Bounds& bounds) {
  Table* found = nullptr;
  if (!find_table(key, options, bounds, found)) {
    return nullptr;
  }
  if (found != nullptr) {
    return found;
  }
  Owned table = Owned::steal(reinterpret_cast<PyObject*>(new_table(options, bounds)));
  return table && file(reinterpret_cast<Table*>(table.get()), key)
             ? reinterpret_cast<Table*>(table.release())
             : nullptr;
}

namespace {

// Whether a node holds what may have been made beside a function, and lead to it: a
// class of its own, a wrapper, or something that is not looked into.
bool may_lead_to_function(const Node& node) {
  PyObject* object = nullptr;
  switch (node.op) {
    case Op::Function:
    case Op::Opaque:
    case Op::Owner:
      return true;
    case Op::Stateless:
      object = reinterpret_cast<PyObject*>(Py_TYPE(node.object));
      break;
    case Op::Instance:
      object = reinterpret_cast<PyObject*>(node.plan->type);
      break;
    case Op::Identity:
    case Op::NamedTuple:
    case Op::Reduce:
      object = node.object;
      break;
    default:
      return false;
  }
  if (!PyType_Check(object)) {
    return PyCallable_Check(object) != 0 && PyObject_IS_GC(object) != 0 &&
           !PyFunction_Check(object) && !PyCFunction_Check(object);
  }
  return is_local_class(object);
}

// Whether the static parts of a table may keep the function alive that it belongs to.
bool may_hold_its_function(const Table* table) {
  if (table->like != nullptr) {
    return true;
  }
  if (!PyFunction_Check(table->key) || is_named_function(table->key)) {
    return false;
  }
  return std::any_of(
      table->by_hash->begin(), table->by_hash->end(), [](const auto& filed) {
        const std::vector<Node>& nodes = filed.second->skeleton->program.nodes;
        return std::any_of(nodes.begin(), nodes.end(), may_lead_to_function);
      });
}

}  // namespace

void park(Table* table) {
  bool is_filed = table->key != nullptr || table->like != nullptr;
  if (Py_REFCNT(table) != 1 || !is_filed || table->by_hash->empty()) {
    Py_DECREF(table);
    return;
  }
  Parked& parked = may_hold_its_function(table) ? parked_with_function : parked_alone;
  table->parked = &parked;
  table->parked_earlier = parked.last;
  (parked.last != nullptr ? parked.last->parked_later : parked.first) = table;
  parked.last = table;
  if (++parked.count > parked.maxsize) {
    Table* first = parked.first;
    unpark(first);
    Py_DECREF(first);
  }
}

namespace {

bool same_objects(const std::vector<Owned>& a, const std::vector<Owned>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const Owned& one, const Owned& other) { return one.get() == other.get(); });
}

bool same_omitted(const Program& a, const Program& b) {
  return a.omitted.size() == b.omitted.size() &&
         std::all_of(a.omitted.begin(), a.omitted.end(), [&](const auto& arrays) {
           auto found = b.omitted.find(arrays.first);
           return found != b.omitted.end() &&
                  same_objects(arrays.second, found->second);
         });
}

}  // namespace

bool same_identities(const Skeleton* a, const Skeleton* b) {
  const Program& x = a->program;
  const Program& y = b->program;
  return a == b || (same_objects(x.functions, y.functions) &&
                    std::equal(x.nodes.begin(), x.nodes.end(), y.nodes.begin(),
                               y.nodes.end(), [](const Node& one, const Node& other) {
                                 return !is_handed_through(one) ||
                                        one.object == other.object;
                               }));
}

bool find(Table* table, Skeleton* skeleton, Py_hash_t hash, Compiled& compiled) {
  // Comparing may run Python, which may change the table: compare with what was there.
  std::vector<std::pair<Owned, Compiled>> candidates;
  auto [begin, end] = table->by_hash->equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    candidates.emplace_back(
        Owned::borrow(reinterpret_cast<PyObject*>(it->second->skeleton)),
        Compiled{Owned::borrow(it->second->compiled),
                 Owned::borrow(reinterpret_cast<PyObject*>(it->second->trace)), true});
  }
  for (auto& [candidate, its_compiled] : candidates) {
    auto* theirs = reinterpret_cast<Skeleton*>(candidate.get());
    int same = equal(theirs, skeleton);
    if (same < 0) {
      return false;
    }
    auto* trace = reinterpret_cast<Trace*>(its_compiled.trace.get());
    if (same == 0 ||
        (trace->by_identity && !same_identities(trace->skeleton, skeleton))) {
      continue;
    }
    its_compiled.same_omitted = same_omitted(theirs->program, skeleton->program);
    Specialization* entry = entry_of(table, hash, its_compiled.function.get());
    if (entry != nullptr) {
      use(table, entry);
      // What the functions held that were traced first, with what is known of these.
      Owned not_needed =
          Owned::steal(std::exchange(skeleton->closures, Py_XNewRef(theirs->closures)));
      Owned old = Owned::steal(reinterpret_cast<PyObject*>(entry->trace->skeleton));
      Py_INCREF(skeleton);
      entry->trace->skeleton = entry->skeleton = skeleton;
    }
    compiled = std::move(its_compiled);
    return true;
  }
  return true;
}

namespace {

bool is_too_much(const Table& table) {
  const Bounds& bounds = table.bounds;
  return (bounds.size != 0 && table.by_hash->size() > bounds.size) ||
         (bounds.bytes != 0 && table.bytes > bounds.bytes && table.by_hash->size() > 1);
}

}  // namespace

bool insert(Table* table, Py_hash_t hash, const Compiled& compiled) {
  auto* trace = reinterpret_cast<Trace*>(compiled.trace.get());
  auto* entry = new (std::nothrow) Specialization{trace,
                                                  trace->skeleton,
                                                  compiled.function.get(),
                                                  hash,
                                                  false,
                                                  false,
                                                  0,
                                                  static_bytes(trace->skeleton)};
  if (entry == nullptr) {
    PyErr_NoMemory();
    return false;
  }
  try {
    table->by_hash->emplace(hash, entry);
  } catch (const std::bad_alloc&) {
    delete entry;
    PyErr_NoMemory();
    return false;
  }
  Py_INCREF(entry->trace);
  Py_INCREF(entry->compiled);
  trace->entry = entry;
  table->bytes += entry->bytes;
  process_limits.programs += trace->programs;
  use(table, entry);
  while (is_too_much(*table)) {
    auto oldest = std::min_element(
        table->by_hash->begin(), table->by_hash->end(),
        [](const auto& a, const auto& b) { return a.second->used < b.second->used; });
    Specialization* goes = oldest->second;
    take_out(table, goes);
    drop(goes);
  }
  return true;
}

void settle(Table* table, Py_hash_t hash, const Compiled& compiled, bool worked) {
  Specialization* entry = entry_of(table, hash, compiled.function.get());
  if (entry == nullptr || entry->proven) {
    return;
  }
  entry->proven = worked;
  if (!worked && entry->trace->in_flight == 0) {
    take_out(table, entry);
    drop(entry);
  }
}

PyObject* traced_warnings(Table* table, Py_hash_t hash, PyObject* compiled) {
  Specialization* entry = entry_of(table, hash, compiled);
  if (entry == nullptr || PyDict_GET_SIZE(entry->trace->warnings) == 0) {
    return nullptr;
  }
  entry->warns = true;
  return entry->trace->warnings;
}

void clear(Table* table) {
  while (table->by_hash != nullptr && !table->by_hash->empty()) {
    Specialization* entry = table->by_hash->begin()->second;
    take_out(table, entry);
    drop(entry);
  }
}

void keep_within_limits() {
  ProcessLimits& limits = process_limits;
  std::size_t keep = limits.programs;
  if (limits.max_programs != 0 && keep > limits.max_programs) {
    // Some more, so that it need not be done each time.
    keep = limits.max_programs - limits.max_programs / 8;
  }
  if (limits.max_maps != 0 && limits.programs_until_count-- == 0) {
    // A program holds three maps for each of its kernels, few have more than this.
    constexpr std::size_t kMapsOfProgram = 256;
    constexpr std::size_t kFewestPrograms = 16;
    std::size_t maps = count_maps();
    std::size_t left = limits.max_maps - std::min(maps, limits.max_maps);
    limits.programs_until_count = std::max(left / kMapsOfProgram, kFewestPrograms);
    if (left == 0) {
      keep = std::min(keep, limits.programs / 2);
    }
  }
  if (keep == limits.programs) {
    return;
  }
  std::vector<std::pair<Table*, Specialization*>> all;
  for (Table* table : tables()) {
    for (auto [hash, entry] : *table->by_hash) {
      all.emplace_back(table, entry);
    }
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.second->used < b.second->used;
  });
  std::size_t count = 0;
  for (; count < all.size() && limits.programs > keep; ++count) {
    take_out(all[count].first, all[count].second);
  }
  for (std::size_t i = 0; i < count; ++i) {
    drop(all[i].second);
  }
}

std::size_t default_max_maps() {
  std::size_t allowed = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> allowed;
  return allowed / 2;
}

std::size_t count_maps() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(maps),
                                             std::istreambuf_iterator<char>(), '\n'));
}

}  // namespace autojit
