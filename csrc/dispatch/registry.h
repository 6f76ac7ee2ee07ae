// Which table belongs to which function.
//
// All dispatchers of one function with equal options share a table; those of callable
// objects do if the objects are equal but for their arrays. A table that no dispatcher
// holds is parked, with the one reference that keeps it: a function that is wrapped
// again finds what it had.
#pragma once

#include <cstddef>

#include "dispatch/table.h"
#include "python/owned.h"

namespace autojit {

// The table for a function, by what stands for it: the function itself, or that of a
// bound method. Without weak references to it, the table is not shared. Nothing with an
// exception set on failure. May run Python.
Owned table_for(PyObject* key, PyObject* options, const Bounds& bounds);
// The same for a callable object. Runs Python.
Owned table_for_object(PyObject* object, PyObject* options, const Bounds& bounds);

// Parks a table if this is the last dispatcher of it, or lets it go. May run Python.
void park(Owned owned);

// Parked tables, in the order in which they were put there.
struct Parked {
  std::size_t maxsize;
  Table* last = nullptr;
  Table* first = nullptr;
  std::size_t count = 0;
};

// A table that goes leaves the registry.
void unfile(Table* table);

}  // namespace autojit
