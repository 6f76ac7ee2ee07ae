// The specializations of one function.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <unordered_set>

#include "dispatch/specialization.h"
#include "python/owned.h"

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
  Specialization* newest;  // the one used last, or nullptr if that has gone
  std::uint64_t removals;  // how often one has gone
  std::uint64_t hits;
  std::uint64_t misses;
  std::uint64_t traces;
  Bounds bounds;
  std::size_t bytes;  // of all specializations
  PyObject* options;  // owned
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

// Sets `found` to the specialization that serves a call, whose skeleton has its hash,
// or to nothing if there is none. Lets it match and trace by `skeleton` from now on,
// whose hints and functions are those of this call. `same_omitted` tells whether what
// its reductions leave out are the very arrays of that call. False with an exception
// set on failure. May run Python.
bool find(Table* table, Skeleton* skeleton, Owned& found, bool& same_arrays);

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
