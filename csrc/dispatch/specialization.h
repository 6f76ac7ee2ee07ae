// What serves the calls of one skeleton.
#pragma once

#include <cstdint>

#include "python/owned.h"
#include "skeleton/compare.h"
#include "skeleton/skeleton.h"

namespace autojit {

struct Table;

// A Python object, since the compiled function has it too: each trace of that asks it
// for the objects of the call. While it is in a table, it keeps the compiled function.
struct Specialization {
  PyObject_HEAD
  // Owned: of the last call that was found by its hash, whose functions a trace runs.
  Skeleton* skeleton;
  // Owned: the function of the flat leaves; nullptr if it is in no table.
  PyObject* compiled;
  // Owned: what its traces depended on beside the call, None if that is not known, or
  // nullptr before the first. See `dependencies_now`.
  PyObject* dependencies;
  PyObject* why;         // owned str, or nullptr: why it was traced, see `statistics.h`
  PyObject* warnings;    // owned dict: what tracing has warned of, see `_warnings.py`
  Table* table;          // borrowed; nullptr if it is in none
  Py_hash_t hash;        // of the skeleton
  std::size_t bytes;     // what it keeps that is static
  std::size_t programs;  // how often it was traced: each time JAX makes a program
  std::uint64_t hits;    // how often it has served a call, but for the first
  // Of its traces, in nanoseconds: when the last began, how long they took, and how
  // long the calls took in which they were made, from there on.
  std::uint64_t began;
  std::uint64_t tracing;
  std::uint64_t calling;
  std::uint64_t id;           // by which dispatchers know it, see `Admissions`
  std::uint64_t used;         // the number of its last use, of all uses of all tables
  std::uint64_t fingerprint;  // of the last call that was looked up, see `Table`
  // The other one that a dispatcher called after it the last time, borrowed. Holds as
  // long as its table has had so many removals.
  Specialization* follower;
  std::uint64_t removals;
  bool is_sure;      // so it was the time before
  bool is_followed;  // by the follower, the last time, and not by itself once more
  std::uint32_t in_flight;  // calls of it that began before one had returned
  bool is_fingerprinted;    // its table has it by its fingerprint
  bool proven;              // a call of it has returned
  // A result hands through what belongs to the functions or opaque objects of the call:
  // those of another call can't stand for them, even if they are equal.
  bool by_identity;
  // It was traced once more after something had changed: to other dispatchers than the
  // one that did so it has gone, see `after_trace`.
  bool is_of_one;

  PyObject* object() { return reinterpret_cast<PyObject*>(this); }
};

extern PyTypeObject SpecializationType;

inline Specialization* as_specialization(PyObject* object) {
  return reinterpret_cast<Specialization*>(object);
}

// One for a skeleton and its hash, in no table yet; nothing with an exception set on
// failure.
Owned new_specialization(Skeleton* skeleton);

// A number that no other has had.
std::uint64_t new_id();

// Whether it can serve a call of this skeleton, which is equal to its own.
inline bool serves_identities(const Specialization* specialization,
                              const Skeleton* call) {
  return !specialization->by_identity ||
         same_identities(specialization->skeleton, call);
}

}  // namespace autojit
