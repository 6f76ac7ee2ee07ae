#include "specializations.h"

#include <structmember.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "type_plan.h"

namespace autojit {

namespace {

void unlink(Table* table, Specialization* entry) {
  (entry->newer != nullptr ? entry->newer->older : table->newest) = entry->older;
  (entry->older != nullptr ? entry->older->newer : table->oldest) = entry->newer;
}

void link_front(Table* table, Specialization* entry) {
  entry->newer = nullptr;
  entry->older = table->newest;
  (table->newest != nullptr ? table->newest->newer : table->oldest) = entry;
  table->newest = entry;
}

// Takes an entry out; the caller then drops it, when the table is whole again.
void take_out(Table* table, Specialization* entry) {
  ++table->removals;
  unlink(table, entry);
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
  trace->entry = nullptr;
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
  for (Specialization* entry = table->newest; entry != nullptr; entry = entry->older) {
    Py_VISIT(entry->trace);
    Py_VISIT(entry->compiled);
  }
  Py_VISIT(table->options);
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

// Guarded by the GIL, as all that follows.
std::unordered_map<PyObject*, Home>& homes() {
  static auto* map = new std::unordered_map<PyObject*, Home>();
  return *map;
}

// What a table holds may lead to the function itself, which would then never go. Hence
// the bounds, and the low one for tables that are likely to.
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
    Owned capsule = Owned::steal(PyCapsule_New(key, nullptr, nullptr));
    Owned callback = Owned::steal(
        capsule ? PyCFunction_New(&on_key_death_def, capsule.get()) : nullptr);
    Owned weak_key =
        Owned::steal(callback ? PyWeakref_NewRef(key, callback.get()) : nullptr);
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
  clear(table);
  delete table->by_hash;
  Py_XDECREF(table->traces);
  Py_XDECREF(table->options);
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
  Owned skeleton = Owned::borrow(reinterpret_cast<PyObject*>(trace->skeleton));
  try {
    return !std::exchange(trace->has_begun, true) ||
                   note_changed_functions(trace->skeleton)
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
  trace->has_begun = false;
  trace->by_identity = false;
  trace->entry = nullptr;
  trace->in_flight = 0;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(trace));
  return trace;
}

namespace {

Table* new_table(PyObject* options, std::size_t maxsize) {
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
  table->newest = table->oldest = nullptr;
  table->removals = 0;
  table->traces = traces;
  table->hits = table->misses = 0;
  table->maxsize = maxsize;
  table->options = Py_NewRef(options);
  table->key = nullptr;
  table->parked = nullptr;
  table->parked_later = table->parked_earlier = nullptr;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(table));
  if (table->by_hash == nullptr) {
    Py_DECREF(table);
    PyErr_NoMemory();
    return nullptr;
  }
  return table;
}

// The table filed under `key` that has these options: a new reference, or nullptr.
// False with an exception set on failure. May run Python.
bool find_table(PyObject* key, PyObject* options, std::size_t maxsize, Table*& found) {
  found = nullptr;
  std::vector<Owned> candidates;  // comparing may change the homes
  if (Home* home = home_of(key); home != nullptr) {
    for (Table* table : home->tables) {
      candidates.push_back(Owned::borrow(reinterpret_cast<PyObject*>(table)));
    }
  }
  for (Owned& candidate : candidates) {
    auto* table = reinterpret_cast<Table*>(candidate.get());
    if (table->maxsize != maxsize) {
      continue;
    }
    int same = PyObject_RichCompareBool(table->options, options, Py_EQ);
    if (same < 0) {
      return false;
    }
    if (same != 0 && table->key == key) {
      if (table->parked != nullptr) {
        unpark(table);
        Py_DECREF(table);  // `candidate` holds it
      }
      candidate.release();
      found = table;
      return true;
    }
  }
  return true;
}

}  // namespace

Table* table_for(PyObject* key, PyObject* options, std::size_t maxsize) {
  Table* found = nullptr;
  if (!find_table(key, options, maxsize, found)) {
    return nullptr;
  }
  if (found != nullptr) {
    return found;
  }
  Owned table = Owned::steal(reinterpret_cast<PyObject*>(new_table(options, maxsize)));
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
      return true;
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
  if (!PyFunction_Check(table->key) || is_named_function(table->key)) {
    return false;
  }
  for (const Specialization* entry = table->newest; entry != nullptr;
       entry = entry->older) {
    const std::vector<Node>& nodes = entry->skeleton->program.nodes;
    if (std::any_of(nodes.begin(), nodes.end(), may_lead_to_function)) {
      return true;
    }
  }
  return false;
}

}  // namespace

void park(Table* table) {
  if (Py_REFCNT(table) != 1 || table->key == nullptr || table->newest == nullptr) {
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

bool same_identities(const Skeleton* a, const Skeleton* b) {
  const Program& x = a->program;
  const Program& y = b->program;
  return a == b || (std::equal(x.functions.begin(), x.functions.end(),
                               y.functions.begin(), y.functions.end(),
                               [](const Owned& one, const Owned& other) {
                                 return one.get() == other.get();
                               }) &&
                    std::equal(x.nodes.begin(), x.nodes.end(), y.nodes.begin(),
                               y.nodes.end(), [](const Node& one, const Node& other) {
                                 return one.op != Op::Opaque ||
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
                 Owned::borrow(reinterpret_cast<PyObject*>(it->second->trace))});
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

bool insert(Table* table, Py_hash_t hash, const Compiled& compiled) {
  auto* trace = reinterpret_cast<Trace*>(compiled.trace.get());
  auto* entry = new (std::nothrow) Specialization{
      trace,   trace->skeleton, compiled.function.get(), hash, false, false,
      nullptr, nullptr};
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
  link_front(table, entry);
  if (table->maxsize != 0 && table->by_hash->size() > table->maxsize) {
    Specialization* oldest = table->oldest;
    take_out(table, oldest);
    drop(oldest);
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

void move_to_front(Table* table, Specialization* entry) {
  unlink(table, entry);
  link_front(table, entry);
}

void clear(Table* table) {
  while (table->newest != nullptr) {
    Specialization* entry = table->newest;
    take_out(table, entry);
    drop(entry);
  }
}

}  // namespace autojit
