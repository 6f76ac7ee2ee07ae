// The order in which the elements of a set are taken apart.
#pragma once

#include <cstddef>
#include <vector>

#include "python/owned.h"

namespace autojit {

// The places of the elements of a list in an order that depends on what they are only:
// neither on addresses nor on the hashes of strings, so that all processes of a
// computation have the same. Elements that differ deep inside, or by the values of
// their arrays, may keep the order of the list. False with an exception set on failure.
// May run Python.
bool set_order(PyObject* list, PyObject* leaf_type, std::vector<std::size_t>& order);

}  // namespace autojit
