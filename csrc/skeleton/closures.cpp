#include "skeleton/closures.h"

#include <utility>

#include "python/errors.h"
#include "skeleton/compare.h"
#include "skeleton/flatten.h"
#include "skeleton/match.h"

namespace autojit {

namespace {

// What a call hands through whole, but for its functions.
OwnedVector handed_through(const Program& call) {
  OwnedVector objects;
  for (const Node& node : call.nodes) {
    if (is_handed_through(node)) {
      objects.borrow(node.object);
    }
  }
  return objects;
}

// The closures as they are now: a Skeleton, None if they can't be told, or nothing with
// an exception set.
Owned closures_now(Skeleton* skeleton) {
  Program program;
  if (flatten_closures(skeleton->program, program)) {
    program.handed_through = handed_through(skeleton->program);
    for (const Node& node : skeleton->program.nodes) {
      if (node.kind == Kind::Stateless) {
        ++stateless_references()[node.object];
      }
    }
    return new_skeleton(std::move(program), "function");
  }
  if (PyErr_ExceptionMatches(PyExc_RecursionError) != 0 || clear_refusal()) {
    PyErr_Clear();
    return Owned::borrow(Py_None);
  }
  return {};
}

int as_int(Match match) {
  if (match == Match::Error) {
    return -1;
  }
  return match == Match::Yes ? 1 : 0;
}

}  // namespace

PyObject* closures_of(Skeleton* skeleton) {
  if (skeleton->closures == nullptr) {
    Owned holder = Owned::borrow(skeleton->object());
    Owned made = closures_now(skeleton);
    if (skeleton->closures == nullptr) {  // what ran may have been here too
      skeleton->closures = made.release();
    }
  }
  return skeleton->closures;
}

int same_closures(Skeleton* first, Skeleton* second) {
  Owned x = Owned::borrow(closures_of(first));
  Owned y = Owned::borrow(x ? closures_of(second) : nullptr);
  if (!x || !y) {
    return -1;
  }
  return x.get() == Py_None || y.get() == Py_None
             ? 0
             : equal(as_skeleton(x.get()), as_skeleton(y.get()));
}

int same_functions(Skeleton* first, Skeleton* call) {
  Owned before = Owned::borrow(closures_of(first));
  if (!before) {
    return -1;
  }
  if (before.get() == Py_None) {
    return 0;
  }
  int same = as_int(match_closures(as_skeleton(before.get())->program, call->program,
                                   handed_through(call->program), false));
  return same == 0 ? same_closures(first, call) : same;
}

bool note_changed_functions(Skeleton* skeleton) {
  Program& program = skeleton->program;
  for (std::size_t i = 0; i < program.functions.size(); ++i) {
    if (PyFunction_GET_CODE(program.functions[i]) != program.codes[i]) {
      program.codes.replace(i, Py_NewRef(Py_None));
    }
  }
  if (skeleton->closures == nullptr || skeleton->closures == Py_None) {
    return true;
  }
  Owned before = Owned::borrow(skeleton->closures);
  Match same = match_closures(as_skeleton(before.get())->program, program,
                              handed_through(program), true);
  if (same == Match::No) {
    Owned old = Owned::steal(std::exchange(skeleton->closures, Py_NewRef(Py_None)));
  }
  return same != Match::Error;
}

}  // namespace autojit
