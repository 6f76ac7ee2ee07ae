// The frames of the functions that are running.
#pragma once

#include "python/owned.h"

namespace autojit::python {

// How many local variables of the functions that this thread is running refer to an
// object. Those that inner functions share are not among them. May allocate.
Py_ssize_t local_references(PyObject* object);

}  // namespace autojit::python
