// The table of a function's specializations: last hit first, then hash; bounded, the
// least recently used goes. Which table belongs to which function. And the bounds of
// all tables together.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "python_api.h"
#include "skeleton.h"

namespace autojit {

// Counts how often a function body was traced.
struct TraceCount {
  PyObject_HEAD
  std::uint64_t count;
};

// What a specialization and its compiled function both know.
struct Trace {
  PyObject_HEAD
  TraceCount* traces;  // owned
  // Owned: of the last call that was found by its hash, whose functions a trace runs.
  Skeleton* skeleton;
  PyObject* warnings;  // owned dict: what tracing has warned of, see `_warnings.py`
  // How often the function was traced for it: each time JAX makes a program.
  std::size_t programs;
  // A result hands through what belongs to the functions or opaque objects of the call:
  // those of another call can't stand for them, even if they are equal.
  bool by_identity;
  struct Specialization* entry;  // borrowed; nullptr if it is in no table
  std::uint32_t in_flight;       // calls of it that began before one had returned
};

// One skeleton and the compiled function of flat leaves that serves it.
struct Specialization {
  Trace* trace;        // owned
  Skeleton* skeleton;  // borrowed: the trace's
  PyObject* compiled;  // owned
  Py_hash_t hash;
  bool proven;         // a call of it has returned
  bool warns;          // there are warnings
  std::uint64_t used;  // the number of its last use, of all uses of all tables
  std::size_t bytes;   // what it keeps that is static
};

// Tables that no dispatcher holds, each with the reference that keeps it: a function
// that is wrapped again finds what it had.
struct Parked {
  std::size_t maxsize;
  struct Table* last = nullptr;
  struct Table* first = nullptr;
  std::size_t count = 0;
};

// How much a table may keep; 0: as much as comes.
struct Bounds {
  std::size_t size;   // specializations
  std::size_t bytes;  // of static data, but for the specialization used last

  bool operator==(const Bounds&) const = default;
};

// The bounds of all tables together, and what there is. The programs of JAX hold memory
// maps, of which Linux allows a process so many and no more.
struct ProcessLimits {
  std::size_t programs = 0;
  std::size_t max_programs = 4096;  // 0: unbounded, as `max_maps`
  std::size_t max_maps = 0;
  std::size_t programs_until_count = 0;  // before the maps are counted again
};
extern ProcessLimits process_limits;
// Half of what the kernel allows; 0 if it sets no bound.
std::size_t default_max_maps();
// How many memory maps this process has; 0 if that can't be told.
std::size_t count_maps();
// A function was traced: drops what was used least recently if there is too much in all
// tables. May run Python.
void keep_within_limits();

// The Python object that a dispatcher holds.
struct Table {
  PyObject_HEAD
  std::unordered_multimap<Py_hash_t, Specialization*>* by_hash;
  Specialization* newest;  // the one used last, or nullptr if that has gone
  std::uint64_t removals;  // how often one has gone
  TraceCount* traces;      // owned
  std::uint64_t hits;
  std::uint64_t misses;
  Bounds bounds;
  std::size_t bytes;  // of all specializations
  PyObject* options;  // owned
  // What it is filed under: a function, borrowed, or the skeleton of a callable object,
  // owned. Both are nullptr if it is not, or no longer.
  PyObject* key;
  Skeleton* like;
  // Among the tables that no dispatcher holds, or nullptr: from the last to the first
  // put there.
  Parked* parked;
  Table* parked_later;
  Table* parked_earlier;
};

// What is called, held.
struct Compiled {
  Owned function;
  Owned trace;
  // Whether what reductions leave out are the arrays of the last call.
  bool same_omitted = true;

  PyObject* warnings() const { return reinterpret_cast<Trace*>(trace.get())->warnings; }
};

extern PyTypeObject TableType;
extern PyTypeObject TraceCountType;
extern PyTypeObject TraceType;

// The table of all dispatchers of one function with equal options: a new reference.
// `key` stands for the function; without weak references to it, the table is not
// shared. May run Python. nullptr with an exception set on failure.
Table* table_for(PyObject* key, PyObject* options, const Bounds& bounds);
// The same for a callable object: that of another that is equal but for its arrays.
Table* table_for_object(PyObject* object, PyObject* options, const Bounds& bounds);

// Drops the reference of a dispatcher that goes, and keeps the table for the next one
// of the same function if it is the last. May run Python.
void park(Table* table);

// nullptr with an exception set on failure.
Trace* new_trace(Table* table, Skeleton* skeleton);

// Whether two skeletons that are equal have the very same functions and opaque objects.
bool same_identities(const Skeleton* a, const Skeleton* b);

// The compiled function for a skeleton (its program and hash): sets `compiled`, or
// leaves it empty if there is none. Moves it to the front, and lets it match and trace
// by `skeleton` from now on, whose hints and functions are those of this call. False
// with an exception set on failure. May run Python.
bool find(Table* table, Skeleton* skeleton, Py_hash_t hash, Compiled& compiled);

// Adds a specialization in front; what no longer fits goes. May run Python. False with
// an exception set on failure, and the table as it was.
bool insert(Table* table, Py_hash_t hash, const Compiled& compiled);

// After a call of a compiled function: keeps its specialization for good, or drops it
// if none has worked and no other is under way. May run Python.
void settle(Table* table, Py_hash_t hash, const Compiled& compiled, bool worked);

// The specialization was traced: the dict of its warnings, borrowed, if there are any.
PyObject* traced_warnings(Table* table, Py_hash_t hash, PyObject* compiled);

extern std::uint64_t uses;  // of all specializations
inline void use(Table* table, Specialization* entry) {
  entry->used = ++uses;
  table->newest = entry;
}

// Drops all. May run Python.
void clear(Table* table);

}  // namespace autojit
