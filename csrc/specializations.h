// The table of a function's specializations: last hit first, then hash; bounded, the
// least recently used goes.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "python_api.h"
#include "skeleton.h"

namespace autojit {

// One skeleton and the compiled function of flat leaves that serves it.
struct Specialization {
  Skeleton* skeleton;  // owned
  PyObject* compiled;  // owned
  Py_hash_t hash;
  bool proven;  // a call of it has returned
  // From the most to the least recently used.
  Specialization* newer;
  Specialization* older;
};

// Counts how often a function body was traced; shared with the compiled functions.
struct TraceCount {
  PyObject_HEAD
  std::uint64_t count;
};

// The Python object that a dispatcher holds.
struct Table {
  PyObject_HEAD
  std::unordered_multimap<Py_hash_t, Specialization*>* by_hash;
  Specialization* newest;
  Specialization* oldest;
  TraceCount* traces;  // owned
  std::uint64_t hits;
  std::uint64_t misses;
  std::size_t maxsize;  // 0: unbounded
};

extern PyTypeObject TableType;
extern PyTypeObject TraceCountType;

// nullptr with an exception set on failure.
Table* new_table(std::size_t maxsize);

// The compiled function for a skeleton (its program and hash): sets `compiled` to a new
// reference, or to nullptr if there is none. Moves it to the front, and lets it match
// by `skeleton` from now on, whose hints are fresh. False with an exception set on
// failure. May run Python.
bool find(Table* table, Skeleton* skeleton, Py_hash_t hash, Owned& compiled);

// Adds a specialization in front; what no longer fits goes. May run Python. False with
// an exception set on failure, and the table as it was.
bool insert(Table* table, Skeleton* skeleton, Py_hash_t hash, PyObject* compiled);

// After the first call of a compiled function: keeps its specialization for good, or
// drops it if it has never worked. May run Python.
void settle(Table* table, Py_hash_t hash, PyObject* compiled, bool worked);

// Drops all. May run Python.
void clear(Table* table);

}  // namespace autojit
