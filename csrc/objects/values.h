// Values: immutable objects of builtin types and what goes by identity.
#pragma once

#include <cstdint>

#include "objects/kinds.h"
#include "python/owned.h"

namespace autojit {

// Whether `other` is the value `ours`, which is of a kind of values; never true for
// different types. Runs no Python. Other kinds: by identity only.
bool same_value(Kind kind, PyObject* ours, PyObject* other);

// Whether an object is a number, no bool, or an array that JAX can trace. An int is one
// if it has at most so many bits, or any if that is 0. Runs no Python.
bool can_be_traced(PyObject* object, std::uint32_t bits);

// The hash of a value that is no function. Runs no Python.
std::uint64_t hash_value(Kind kind, PyObject* object);

}  // namespace autojit
