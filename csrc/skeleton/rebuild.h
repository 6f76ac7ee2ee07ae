// skeleton + leaves -> object
//
// Each gives a new reference, or nothing with an exception set on failure. May run
// Python
// (`__new__`, reductions, `__hash__` of keys): the caller must hold the program's
// owner.
#pragma once

#include "python/owned.h"
#include "skeleton/program.h"

namespace autojit {

// Where the result of a call gets from what is forwarded.
struct Inputs {
  const Program& call;
  PyObject* const* leaves;
  const NodeObjects& opaque;  // see `match_call`
};

Owned rebuild(const Program& program, const char* root, PyObject* const* leaves);
// For a call: a tuple (callable or None, args, kwargs). `rebuilt` gets what reductions
// have made.
Owned rebuild_call(const Program& program, PyObject* const* leaves,
                   NodeObjects* rebuilt = nullptr);
Owned rebuild_result(const Program& program, PyObject* const* leaves,
                     const Inputs& inputs, NodeObjects* rebuilt = nullptr);

}  // namespace autojit
