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
  Table* table;  // owned
  bool fun_in_tree;
  bool keyword_order_matters;
};

extern PyTypeObject DispatcherType;

}  // namespace autojit
