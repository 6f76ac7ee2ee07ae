// What the core needs of Python, and names that it looks up often.
#pragma once

#include <utility>

#include "python/owned.h"

namespace autojit {

// What the Python side hands over once, at import.
struct Config {
  PyObject* leaf_types = nullptr;  // tuple of classes: JAX's arrays
  PyObject* is_leaf = nullptr;     // object -> whether JAX takes it for another value
  PyObject* is_inexact = nullptr;  // array -> whether its numbers are inexact
  PyObject* identity_types = nullptr;  // tuple of classes compared by identity
  PyObject* state_of = nullptr;        // object -> (attributes, make), True or None
  PyObject* reduce = nullptr;          // (object, value, may_lose) -> reduction or
                                       // None
  PyObject* set_state = nullptr;       // (object, state, list, dict, setter)
  PyObject* arrays_differ = nullptr;   // (array, array) -> whether they do
  PyObject* to_array = nullptr;        // numpy array -> a new one of JAX
  PyObject* settings = nullptr;        // () -> those of JAX that a trace depends on
  PyObject* specialize = nullptr;      // (fun, in_tree, specialization, options)
                                       // -> compiled
  PyObject* stage = nullptr;           // (name, dispatcher, specialization, compiled,
                                       // skeleton, leaves) -> what JAX makes of it
  PyObject* explain = nullptr;         // (compiled or None, skeleton, leaves, why,
                                       // skeletons traced, by value) -> str or None
  PyObject* stand_ins = nullptr;       // the class of what stands for an array there
  PyObject* is_tracing = nullptr;      // () -> whether JAX traces in this thread
  PyObject* value_needed = nullptr;    // the exception of a trace that needs the values
                                       // of leaves, with their numbers
  PyObject* say_where = nullptr;       // (error, skeleton, compiled, leaves)
  PyObject* replay = nullptr;          // (warnings, leaves, seen)
  PyObject* mark_seen = nullptr;       // (warnings, leaves, seen)
  PyObject* lazy_types = nullptr;      // frozenset: iterators that run code when asked
  PyObject* cache_info = nullptr;      // the class of `cache_info()`
  PyObject* specialization_info = nullptr;  // of each in `specializations()`
  PyObject* eager = nullptr;                // what a compiled function returns under
                                            // `jax.disable_jit`
  PyObject* copyreg_table = nullptr;        // copyreg.dispatch_table
  PyObject* traceback_type = nullptr;       // what stands for an exception's traceback
  PyObject* library_paths = nullptr;        // tuple of str: where installed code lies
};
extern Config config;

// The members by the names that Python knows them by.
inline constexpr std::pair<const char*, PyObject * Config::*> kConfig[] = {
    {"leaf_types", &Config::leaf_types},
    {"is_leaf", &Config::is_leaf},
    {"is_inexact", &Config::is_inexact},
    {"identity_types", &Config::identity_types},
    {"state_of", &Config::state_of},
    {"reduce", &Config::reduce},
    {"set_state", &Config::set_state},
    {"arrays_differ", &Config::arrays_differ},
    {"specialize", &Config::specialize},
    {"to_array", &Config::to_array},
    {"settings", &Config::settings},
    {"stage", &Config::stage},
    {"explain", &Config::explain},
    {"stand_ins", &Config::stand_ins},
    {"is_tracing", &Config::is_tracing},
    {"value_needed", &Config::value_needed},
    {"say_where", &Config::say_where},
    {"replay", &Config::replay},
    {"mark_seen", &Config::mark_seen},
    {"lazy_types", &Config::lazy_types},
    {"cache_info", &Config::cache_info},
    {"specialization_info", &Config::specialization_info},
    {"eager", &Config::eager},
    {"copyreg_table", &Config::copyreg_table},
    {"traceback_type", &Config::traceback_type},
    {"library_paths", &Config::library_paths},
};

// Interned once, for as long as the process lives.
struct Names {
  PyObject* reduce_ex;
  PyObject* share;
  PyObject* traced;
  PyObject* reduce;
  PyObject* getstate;
  PyObject* setstate;
  PyObject* getnewargs;
  PyObject* getnewargs_ex;
  PyObject* getattribute;
  PyObject* dict;
  PyObject* fields;
  PyObject* dataclass_fields;
  PyObject* attrs_fields;
  PyObject* attr_name;
  PyObject* del;
  PyObject* module;
  PyObject* name;
  PyObject* modules;
  PyObject* obj;
};
extern Names names;
// False with an exception set on failure.
bool init_names();

}  // namespace autojit
