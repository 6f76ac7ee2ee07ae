// The callable that `autojit.jit` returns.
#pragma once

#include "python_api.h"
#include "specializations.h"

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
  PyObject* seen;  // owned dict, may be nullptr: which warnings it has shown
  bool fun_in_tree;
  bool keyword_order_matters;
};

extern PyTypeObject DispatcherType;

// What a compiled function returns: a pytree node, registered with JAX, whose children
// are the leaves of the result and whose static part is its skeleton. So JAX keeps the
// right skeleton with each variant that it compiles, and the dispatcher rebuilds.
struct Result {
  PyObject_HEAD
  Skeleton* skeleton;  // owned
  PyObject* leaves;    // owned tuple
};

extern PyTypeObject ResultType;

// nullptr with an exception set on failure. `leaves` must be a tuple.
PyObject* new_result(Skeleton* skeleton, PyObject* leaves);

}  // namespace autojit
