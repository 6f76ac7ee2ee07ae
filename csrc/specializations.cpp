#include "specializations.h"

#include <new>
#include <vector>

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
  Skeleton* skeleton = entry->skeleton;
  PyObject* compiled = entry->compiled;
  delete entry;
  Py_DECREF(skeleton);
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
    Py_VISIT(entry->skeleton);
    Py_VISIT(entry->compiled);
  }
  return 0;
}

int table_clear(PyObject* self) {
  clear(reinterpret_cast<Table*>(self));
  return 0;
}

void table_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  auto* table = reinterpret_cast<Table*>(self);
  clear(table);
  delete table->by_hash;
  Py_XDECREF(table->traces);
  PyObject_GC_Del(self);
}

PyObject* count_trace(PyObject* self, PyObject* /*args*/) {
  ++reinterpret_cast<TraceCount*>(self)->count;
  Py_RETURN_NONE;
}

PyMethodDef trace_count_methods[] = {
    {"increment", count_trace, METH_NOARGS,
     "increment($self, /)\n--\n\nNote that the function body is traced once more."},
    {nullptr, nullptr, 0, nullptr},
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
    .tp_methods = trace_count_methods,
};

Table* new_table(std::size_t maxsize) {
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
  table->traces = traces;
  table->hits = table->misses = 0;
  table->maxsize = maxsize;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(table));
  if (table->by_hash == nullptr) {
    Py_DECREF(table);
    PyErr_NoMemory();
    return nullptr;
  }
  return table;
}

bool find(Table* table, Skeleton* skeleton, Py_hash_t hash, Owned& compiled) {
  // Comparing may run Python, which may change the table: compare with what was there.
  std::vector<std::pair<Owned, Owned>> candidates;
  auto [begin, end] = table->by_hash->equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    candidates.emplace_back(
        Owned::borrow(reinterpret_cast<PyObject*>(it->second->skeleton)),
        Owned::borrow(it->second->compiled));
  }
  for (auto& [candidate, its_compiled] : candidates) {
    int same =
        equal(reinterpret_cast<Skeleton*>(candidate.get())->program, skeleton->program);
    if (same < 0) {
      return false;
    }
    if (same == 0) {
      continue;
    }
    Specialization* entry = entry_of(table, hash, its_compiled.get());
    if (entry != nullptr) {
      unlink(table, entry);
      link_front(table, entry);
      Py_INCREF(skeleton);
      std::swap(entry->skeleton, skeleton);
      Py_DECREF(skeleton);  // `candidate` still holds it
    }
    compiled = std::move(its_compiled);
    return true;
  }
  return true;
}

bool insert(Table* table, Skeleton* skeleton, Py_hash_t hash, PyObject* compiled) {
  auto* entry = new (std::nothrow)
      Specialization{skeleton, compiled, hash, false, nullptr, nullptr};
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
  Py_INCREF(skeleton);
  Py_INCREF(compiled);
  link_front(table, entry);
  if (table->maxsize != 0 && table->by_hash->size() > table->maxsize) {
    Specialization* oldest = table->oldest;
    take_out(table, oldest);
    drop(oldest);
  }
  return true;
}

void settle(Table* table, Py_hash_t hash, PyObject* compiled, bool worked) {
  Specialization* entry = entry_of(table, hash, compiled);
  if (entry == nullptr || entry->proven) {
    return;
  }
  if (worked) {
    entry->proven = true;
    return;
  }
  take_out(table, entry);
  drop(entry);
}

void clear(Table* table) {
  while (table->newest != nullptr) {
    Specialization* entry = table->newest;
    take_out(table, entry);
    drop(entry);
  }
}

}  // namespace autojit
