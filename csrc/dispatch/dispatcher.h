// The callable that `autojit.jit` returns.
#pragma once

#include <cstdint>

#include "dispatch/table.h"
#include "python/owned.h"

namespace autojit {

struct Dispatcher {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* fun;      // owned
  PyObject* options;  // owned, passed through to Python
  PyObject* dict;     // owned, may be nullptr
  PyObject* weakrefs;
  Table* table;  // owned, shared with others of the same function
  // Of the table, if it has had so many removals: what this dispatcher called last.
  Specialization* last;
  std::uint64_t removals;
  Admissions* admissions;  // owned
  PyObject* seen;          // owned dict, may be nullptr: which warnings it has shown
  bool fun_in_tree;
  bool keyword_order_matters;
};

extern PyTypeObject DispatcherType;

// Before all else. False with an exception set on failure.
bool init_dispatcher();

}  // namespace autojit
