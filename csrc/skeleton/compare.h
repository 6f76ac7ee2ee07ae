// When two skeletons are equal, and their hash.
#pragma once

#include "python/owned.h"
#include "skeleton/program.h"
#include "skeleton/skeleton.h"

namespace autojit {

// 1, 0, or -1 with an exception set. May run Python (`__eq__` of an opaque object): the
// caller must hold both.
int equal(Skeleton* first, Skeleton* second);
// Whether a specialization of `first` serves a call, whose skeleton has just been made:
// the same, but that functions which are in both may have changed since.
int serves(Skeleton* first, Skeleton* call);
// The first node that tells two programs apart, if not what functions hold; the number
// of nodes of the shorter one if there is none. False with an exception set on failure.
// May run Python.
bool first_difference(const Program& a, const Program& b, std::size_t& index);
// Whether two nodes are the same, as far as their parts and slots don't tell.
int same_but_for_slots(const Program& a, const Node& x, const Program& b,
                       const Node& y);
// -1 with an exception set on failure. May run Python (`__hash__` of an opaque object).
// What functions hold is not part of it.
Py_hash_t hash(const Program& program);

// Whether two skeletons that are equal have the very same functions and objects that
// are handed through.
bool same_identities(const Skeleton* first, const Skeleton* second);
// Whether the arrays that reductions leave out are the very same.
bool same_omitted(const Program& first, const Program& second);

}  // namespace autojit
