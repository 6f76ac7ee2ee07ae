// The specializations of one function.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "dispatch/specialization.h"
#include "python/owned.h"
#include "skeleton/places.h"

namespace autojit {

// How much a table may keep; 0: as much as comes.
struct Bounds {
  std::size_t size;   // specializations
  std::size_t bytes;  // of static data, but for the specialization used last

  bool operator==(const Bounds&) const = default;
};

// A Python object, shared by all dispatchers of the function with equal options. When
// it is full, the specialization that was used least recently goes.
struct Table {
  PyObject_HEAD
  // Owned references to specializations.
  std::unordered_multimap<Py_hash_t, Specialization*>* by_hash;
  // Some of them, borrowed, by the fingerprint of a call that each has served: it says
  // which is likely to serve another, before that is taken apart.
  std::unordered_multimap<std::uint64_t, Specialization*>* by_fingerprint;
  Specialization* newest;  // the one used last, or nullptr if that has gone
  std::uint64_t removals;  // how often one has gone
  std::uint64_t hits;      // of specializations that have gone
  std::uint64_t misses;
  std::uint64_t traces;
  Bounds bounds;
  std::size_t bytes;       // of all specializations
  PyObject* options;       // owned
  Places* places;          // owned: where numbers are traced; nullptr for nowhere
  Skeleton* dependencies;  // owned: of the last trace that had others, or nullptr
  // What it is filed under, see `registry.h`: a function, borrowed, or the skeleton of
  // a callable object, owned. Both are nullptr if it is not filed, or no longer.
  PyObject* key;
  Skeleton* like;
  // Among the tables that no dispatcher holds, see `registry.h`: from the one put there
  // last to the first. `parked` is nullptr if it is not there.
  struct Parked* parked;
  Table* parked_later;
  Table* parked_earlier;

  PyObject* object() { return reinterpret_cast<PyObject*>(this); }
};

extern PyTypeObject TableType;

// All tables. Guarded by the GIL, as all that is shared here.
std::unordered_set<Table*>& tables();

// A new table that is filed nowhere; nothing with an exception set on failure.
Owned new_table(PyObject* options, const Bounds& bounds);

// Which specializations a dispatcher may use: those that it has made, and those of
// which it was seen, in its first call, that a trace of its own would be the same.
class Admissions {
 public:
  bool has(const Specialization* specialization) const {
    return std::binary_search(ids_.begin(), ids_.end(), specialization->id);
  }
  // Those that have left the table are forgotten.
  void add(const Specialization* specialization, const Table& table);

 private:
  std::vector<std::uint64_t> ids_;  // sorted
};

// Who calls: the function, nullptr if it is part of the call, and what may serve it.
struct Caller {
  PyObject* fun;
  Admissions& admissions;
};

// What a table has for a call.
struct Found {
  Owned specialization;  // or nothing
  // What its reductions leave out are the very arrays of this call.
  bool same_arrays = false;
  // Equal ones that this caller may not use: something has changed since. The one used
  // last comes first.
  OwnedVector stale;
};

// What a trace of `fun` depends on now, the object that the last one of the table has
// if that is the same. See `dependencies_now`.
Owned dependencies_in(Table* table, PyObject* fun, const Skeleton* call);

// Looks for the specialization that serves a call, whose skeleton has its hash. Lets it
// match and trace by `skeleton` from now on, whose hints and functions are those of
// this call. False with an exception set on failure. May run Python.
bool find(Table* table, const Caller& caller, Skeleton* skeleton, Found& found);

// All specializations, borrowed, the one used last first.
std::vector<Specialization*> by_use(const Table& table);

// The skeletons that the function was traced for, but for that of `except`, the one
// used last first: a new tuple, or nothing with an exception set on failure.
Owned traced_in(const Table& table, const Specialization* except);

// The paths of numbers that a table does not trace, since the function needs their
// values: a new tuple, or nothing with an exception set on failure.
Owned by_value_in(const Table* table);

// Whether something is learned from a call that has no specialization: at which places
// numbers are to be traced. 1, 0, or -1 with an exception set. May run Python.
int learn_from(Table* table, Skeleton* skeleton);

// Notes that a specialization has served a call of this fingerprint, if it is still in
// its table.
void note_fingerprint(Specialization* specialization, std::uint64_t fingerprint);
// Those that have served such calls, up to a few.
OwnedVector likely_ones(const Table& table, std::uint64_t fingerprint);

// How often its specializations have served a call, but for the first of each.
std::uint64_t hits_of(const Table& table);

// Adds a specialization with its compiled function; what no longer fits goes. May run
// Python.
void insert(Table* table, Specialization* specialization, PyObject* compiled);

// After a call of a compiled function: keeps its specialization for good, or drops it
// if none has worked and no other is under way. May run Python.
void settle(Specialization* specialization, bool worked);

// Drops a specialization, if it is in a table. May run Python.
void drop(Specialization* specialization);
// Takes it out of its table, which is then whole, and gives the table's reference.
Owned take_out(Specialization* specialization);
// Drops all. May run Python.
void clear(Table* table);

// Notes that a specialization is used.
extern std::uint64_t uses;  // of all specializations
inline void use(Specialization* specialization) {
  specialization->used = ++uses;
  specialization->table->newest = specialization;
}

}  // namespace autojit
