#include "dispatch/table.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "dispatch/limits.h"
#include "dispatch/registry.h"
#include "dispatch/statistics.h"
#include "objects/config.h"
#include "skeleton/compare.h"
#include "skeleton/dependencies.h"

namespace autojit {

std::uint64_t uses = 0;

namespace {

Table* as_table(PyObject* self) { return reinterpret_cast<Table*>(self); }

int table_traverse(PyObject* self, visitproc visit, void* arg) {
  Table* table = as_table(self);
  if (table->by_hash != nullptr) {
    for (auto [hash, specialization] : *table->by_hash) {
      Py_VISIT(specialization);
    }
  }
  Py_VISIT(table->options);
  Py_VISIT(table->dependencies);
  Py_VISIT(table->like);
  return 0;
}

int table_clear(PyObject* self) {
  clear(as_table(self));
  return 0;
}

void table_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Table* table = as_table(self);
  unfile(table);
  tables().erase(table);
  clear(table);
  delete table->by_hash;
  delete table->by_fingerprint;
  delete table->places;
  Py_XDECREF(table->options);
  Py_XDECREF(table->like);
  PyObject_GC_Del(self);
}

bool is_too_much(const Table& table) {
  const Bounds& bounds = table.bounds;
  return (bounds.size != 0 && table.by_hash->size() > bounds.size) ||
         (bounds.bytes != 0 && table.bytes > bounds.bytes && table.by_hash->size() > 1);
}

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

std::unordered_set<Table*>& tables() {
  static auto* set = new std::unordered_set<Table*>();
  return *set;
}

Owned new_table(PyObject* options, const Bounds& bounds) {
  auto* table = PyObject_GC_New(Table, &TableType);
  if (table == nullptr) {
    return {};
  }
  table->by_hash =
      new (std::nothrow) std::unordered_multimap<Py_hash_t, Specialization*>;
  table->by_fingerprint =
      new (std::nothrow) std::unordered_multimap<std::uint64_t, Specialization*>;
  table->newest = nullptr;
  table->removals = 0;
  table->hits = table->misses = table->traces = 0;
  table->bounds = bounds;
  table->bytes = 0;
  table->options = Py_NewRef(options);
  table->places = nullptr;
  table->dependencies = nullptr;
  table->key = nullptr;
  table->like = nullptr;
  table->parked = nullptr;
  table->parked_later = table->parked_earlier = nullptr;
  Owned owned = Owned::steal(table->object());
  PyObject_GC_Track(owned.get());
  if (table->by_hash == nullptr || table->by_fingerprint == nullptr) {
    throw std::bad_alloc();
  }
  tables().insert(table);
  table->places = places_of(PyDict_GetItemWithError(options, names.traced)).release();
  return PyErr_Occurred() == nullptr ? std::move(owned) : Owned();
}

void Admissions::add(const Specialization* specialization, const Table& table) {
  if (ids_.size() >= 16 && ids_.size() >= 2 * table.by_hash->size()) {
    std::vector<std::uint64_t> present;
    for (const auto& [hash, one] : *table.by_hash) {
      if (has(one)) {
        present.push_back(one->id);
      }
    }
    std::sort(present.begin(), present.end());
    ids_.swap(present);
  }
  auto place = std::lower_bound(ids_.begin(), ids_.end(), specialization->id);
  if (place == ids_.end() || *place != specialization->id) {
    ids_.insert(place, specialization->id);
  }
}

Owned dependencies_in(Table* table, PyObject* fun, const Skeleton* call) {
  Owned holder = Owned::borrow(table->object());
  if (table->dependencies != nullptr) {
    Owned last = Owned::borrow(table->dependencies->object());
    int same = same_dependencies(as_skeleton(last.get()), fun, call);
    if (same != 0) {
      return same < 0 ? Owned() : std::move(last);
    }
  }
  Owned made = dependencies_now(fun, call);
  if (made && made.get() != Py_None) {
    Skeleton* old =
        std::exchange(table->dependencies, as_skeleton(Py_NewRef(made.get())));
    Py_XDECREF(old);
  }
  return made;
}

namespace {

// Whether a dispatcher may use a specialization that its table has: 1, 0, or -1 with an
// exception set. May run Python.
int admits(Table* table, const Caller& caller, Specialization* one,
           const Skeleton* call) {
  if (caller.admissions.has(one)) {
    return 1;
  }
  Owned before = Owned::borrow(one->dependencies);
  if (before.get() == Py_None) {
    return 0;
  }
  // It is being traced just now, or else it has to be as it was then.
  int same =
      !before ? 1 : same_dependencies(as_skeleton(before.get()), caller.fun, call);
  if (same == 1) {
    caller.admissions.add(one, *table);
    ++statistics.saved;
  }
  return same;
}

}  // namespace

bool find(Table* table, const Caller& caller, Skeleton* skeleton, Found& found) {
  // Comparing may run Python, which may change the table: compare with what was there.
  // First with what the caller has used before, and then with what was used last.
  std::vector<Specialization*> candidates;
  auto [begin, end] = table->by_hash->equal_range(skeleton->hash);
  std::transform(begin, end, std::back_inserter(candidates),
                 [](const auto& filed) { return filed.second; });
  auto rank = [&caller](const Specialization* one) {
    return std::pair(caller.admissions.has(one), one->used);
  };
  std::sort(candidates.begin(), candidates.end(),
            [&](const auto* a, const auto* b) { return rank(a) > rank(b); });
  OwnedVector held;
  for (Specialization* one : candidates) {
    held.borrow(one->object());
  }
  for (Specialization* one : candidates) {
    Owned theirs = Owned::borrow(one->skeleton->object());
    int same = serves(as_skeleton(theirs.get()), skeleton);
    if (same == 1 && (one->table != table || !serves_identities(one, skeleton))) {
      same = 0;
    }
    if (same == 1) {
      same = admits(table, caller, one, skeleton);
      if (same == 0) {
        found.stale.borrow(one->object());
      }
    }
    if (same < 0) {
      return false;
    }
    if (same == 0 || one->table != table) {
      continue;
    }
    found.same_arrays =
        same_omitted(as_skeleton(theirs.get())->program, skeleton->program);
    use(one);
    // What the functions held that were traced first, with what is known of these.
    Owned not_needed = Owned::steal(std::exchange(
        skeleton->closures, Py_XNewRef(as_skeleton(theirs.get())->closures)));
    Owned old = Owned::steal(
        std::exchange(one->skeleton, as_skeleton(Py_NewRef(skeleton->object())))
            ->object());
    found.specialization = Owned::borrow(one->object());
    return true;
  }
  return true;
}

std::vector<Specialization*> by_use(const Table& table) {
  std::vector<Specialization*> all;
  for (const auto& [hash, one] : *table.by_hash) {
    all.push_back(one);
  }
  std::sort(all.begin(), all.end(),
            [](const auto* a, const auto* b) { return a->used > b->used; });
  return all;
}

Owned traced_in(const Table& table, const Specialization* except) {
  std::vector<PyObject*> skeletons;
  for (const Specialization* one : by_use(table)) {
    if (one != except && one->programs != 0) {
      skeletons.push_back(one->skeleton->object());
    }
  }
  return tuple_of(skeletons.data(), skeletons.size());
}

Owned by_value_in(const Table* table) {
  std::vector<std::string> paths;
  if (table != nullptr && table->places != nullptr) {
    paths = table->places->paths(Places::Status::ByValue);
  }
  OwnedVector texts;
  for (const std::string& path : paths) {
    texts.steal(PyUnicode_FromString(path.c_str()));
    if (texts[texts.size() - 1] == nullptr) {
      return {};
    }
  }
  return tuple_of(texts.data(), texts.size());
}

std::uint64_t hits_of(const Table& table) {
  return std::accumulate(
      table.by_hash->begin(), table.by_hash->end(), table.hits,
      [](std::uint64_t sum, const auto& filed) { return sum + filed.second->hits; });
}

int learn_from(Table* table, Skeleton* skeleton) {
  if (table->places == nullptr || !table->places->learns()) {
    return 0;
  }
  Owned holder = Owned::borrow(table->object());
  Owned traced = traced_in(*table, nullptr);
  for (Py_ssize_t i = 0; traced && i < PyTuple_GET_SIZE(traced.get()); ++i) {
    Skeleton* before = as_skeleton(PyTuple_GET_ITEM(traced.get(), i));
    if (int learned = learn(*table->places, before, skeleton); learned != 0) {
      return learned;
    }
  }
  return traced ? 0 : -1;
}

void insert(Table* table, Specialization* specialization, PyObject* compiled) {
  table->by_hash->emplace(specialization->hash, specialization);
  Py_INCREF(specialization);
  specialization->compiled = Py_NewRef(compiled);
  specialization->table = table;
  table->bytes += specialization->bytes;
  process_limits.programs += specialization->programs;
  use(specialization);
  while (is_too_much(*table)) {
    auto oldest = std::min_element(
        table->by_hash->begin(), table->by_hash->end(),
        [](const auto& a, const auto& b) { return a.second->used < b.second->used; });
    drop(oldest->second);
  }
}

void settle(Specialization* specialization, bool worked) {
  if (specialization->proven || specialization->table == nullptr) {
    return;
  }
  specialization->proven = worked;
  if (!worked && specialization->in_flight == 0) {
    drop(specialization);
  }
}

namespace {

template <typename Map>
void erase(Map& map, typename Map::key_type key, const Specialization* one) {
  auto [begin, end] = map.equal_range(key);
  map.erase(std::find_if(begin, end,
                         [one](const auto& filed) { return filed.second == one; }));
}

void forget_fingerprint(Table* table, Specialization* one) {
  if (std::exchange(one->is_fingerprinted, false)) {
    erase(*table->by_fingerprint, one->fingerprint, one);
  }
}

}  // namespace

void note_fingerprint(Specialization* specialization, std::uint64_t fingerprint) {
  Table* table = specialization->table;
  if (table == nullptr || (specialization->is_fingerprinted &&
                           specialization->fingerprint == fingerprint)) {
    return;
  }
  forget_fingerprint(table, specialization);
  table->by_fingerprint->emplace(fingerprint, specialization);
  specialization->fingerprint = fingerprint;
  specialization->is_fingerprinted = true;
}

OwnedVector likely_ones(const Table& table, std::uint64_t fingerprint) {
  constexpr std::size_t kMost = 16;  // then to take it apart is no dearer
  OwnedVector ones;
  auto [begin, end] = table.by_fingerprint->equal_range(fingerprint);
  for (auto at = begin; at != end && ones.size() < kMost; ++at) {
    ones.borrow(at->second->object());
  }
  return ones;
}

Owned take_out(Specialization* specialization) {
  Table* table = std::exchange(specialization->table, nullptr);
  ++table->removals;
  if (table->newest == specialization) {
    table->newest = nullptr;
  }
  table->bytes -= specialization->bytes;
  table->hits += specialization->hits;
  process_limits.programs -= specialization->programs;
  forget_fingerprint(table, specialization);
  erase(*table->by_hash, specialization->hash, specialization);
  return Owned::steal(specialization->object());
}

void drop(Specialization* specialization) {
  if (specialization->table != nullptr) {
    Owned one = take_out(specialization);
    Py_CLEAR(specialization->compiled);
    Py_CLEAR(specialization->dependencies);
  }
}

void clear(Table* table) {
  while (table->by_hash != nullptr && !table->by_hash->empty()) {
    drop(table->by_hash->begin()->second);
  }
  Py_CLEAR(table->dependencies);
}

}  // namespace autojit
