// What a Python function is made of, beside what it holds itself: what it reads by
// name.
//
// A function that is made anew for each call equals the one before if its code and all
// that it holds are equal, and if what it reads is. That is
//
// - the names of its module that are in its code, and the builtins behind them;
// - what a module has under the name that follows it in the code. If code does anything
//   else with the module, it is not known what it is asked for: then what it has under
//   any name that is in the code, and if there are names that are computed, all that it
//   has;
// - what the classes have that the code can reach, under special names, under any name
//   that is in the code, and what a library's class that one is derived from has too;
// - the same of the functions that it calls, with what they hold.
//
// What the code can reach is what is found so, and what that holds. Installed libraries
// are taken as fixed: their functions are not followed, nor their classes looked into.
//
// The same says whether a trace still holds for a function that is wrapped again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "objects/kinds.h"
#include "python/owned.h"

namespace autojit {

// Before all else. False with an exception set on failure.
bool init_function_state();

// Whether a Python function is one that an imported module defines: never made anew, it
// goes by identity. Runs no Python.
bool is_named_function(PyObject* object);

// The function whose code runs when `fun` is called, as far as that can be told without
// running Python. Borrowed from `fun`, or nullptr.
PyObject* function_of(PyObject* fun);
// The same of an instance of a class that is called.
PyObject* call_of(PyTypeObject* type);

// Whether an object is a class that was made inside a function.
bool is_local_class(PyObject* object);

// The code and the globals of a function, and then what it holds beside its closure;
// nullptr where there is nothing. Borrowed. `annotations` are those of
// `PyFunction_GetAnnotations`.
inline constexpr std::size_t kStateParts = 10;
std::array<PyObject*, kStateParts> state_of(PyObject* object, PyObject* annotations);

// A part of a builtin object that has this name in a path, such as `.func`: a new
// reference, or nullptr with an exception set. Runs no Python.
PyObject* part_of_builtin(PyObject* object, const char* name);
// Hands those parts that its kind names to `use`, borrowed, until that says no. Whether
// all were wanted; if there is an exception, one could not be had.
template <typename Use>
bool use_named_parts(PyObject* object, Kind kind, Use use) {
  for (std::size_t i = 0; i < named_parts(row_of(kind)); ++i) {
    Owned part = Owned::steal(part_of_builtin(object, row_of(kind).names[i]));
    if (!part || !use(part.get())) {
      return false;
    }
  }
  return true;
}

// Whether an object is a class method, a static method or a property.
bool is_descriptor(PyObject* object);

// All that a function holds now, borrowed: what can be reached from its closure,
// defaults and attributes, but for classes, modules and what cannot refer to anything.
// False if that is too much. Runs no Python.
bool held_by(PyObject* function, std::vector<PyObject*>& objects);

// What functions read.
struct Read {
  enum class As : std::uint8_t {
    Content,   // by all that is in it
    Librarys,  // the same, but for instances
    Identity,  // by itself, if it is no value
  };
  PyObject* holder;
  PyObject* name;  // or nullptr
  As as;
  bool is_lenient;  // it may well not be read: what can't be known is no refusal
};

// What stands under a name in a dict, what is the same of all dispatchers if it is one
// of a function: they are made anew, as for each test. Of a function, its code. Without
// a name: how many a dict has, the bases of a class, or what a function or descriptor
// holds, as a tuple. Nothing if there is nothing, or with an exception set on failure.
// Runs no Python.
Owned read(PyObject* holder, PyObject* name);

// Tells of most names that a dict has not got them, without looking there: many names
// are looked up in many dicts that have few of them. Holds as long as the dict is as it
// was.
class Sieve {
 public:
  explicit Sieve(PyObject* dict);
  // Whether it may have a str of this hash.
  bool may_have(Py_hash_t hash) const {
    std::size_t place = place_of(hash);
    return ((bits_[place / kBits] >> (place % kBits)) & 1U) != 0;
  }

 private:
  static constexpr std::size_t kBits = 64;

  // The number of bits is a power of two.
  std::size_t place_of(Py_hash_t hash) const {
    return static_cast<std::size_t>(hash) & (bits_.size() * kBits - 1);
  }

  std::vector<std::uint64_t> bits_;
};

// What functions read, one after the other. Runs no Python. Where one of these is
// false, an exception is set: a refusal if what is read can't be known (`eval`,
// `globals`), or is too much.
class Reads {
 public:
  // What a wrapped function reads, and not one that may be made anew: what can't be
  // known is no refusal, and the package that it is of is followed, wherever it is
  // installed. nullptr: of no package. Before all else.
  void begin_wrapped(PyObject* function);
  // A function whose code may run. `by_value`: what it holds is looked at anyway.
  bool add(PyObject* function, bool by_value);
  // An object that code may get hold of.
  bool reach(PyObject* object);
  // What stands under a name, if it is no object to be taken apart: a descriptor, or a
  // library's function, in which there may be others.
  bool reach_inside(PyObject* object);
  // Whether a function is one of an installed library, and fixed.
  bool is_librarys(PyObject* function) const;
  // The next read, with borrowed objects, or nullptr.
  const Read* next();
  // Whether one of the references to a function is held here.
  bool holds(PyObject* function) const { return functions_.contains(function); }

 private:
  // A module or a class.
  struct Holder {
    PyObject* dict;
    Read::As as;
    bool is_class;
    bool is_whole;      // all that it has is noted
    std::size_t names;  // how many of `names_` have been looked up
    Sieve sieve;
  };
  struct Name {
    PyObject* object;
    Py_hash_t hash;
    bool is_lenient;
  };

  bool is_librarys_file(PyObject* file) const;
  bool is_librarys_module(PyObject* dict) const;
  bool is_librarys_class(PyTypeObject* type) const;
  bool refuse(const char* text) const;
  void reach_environment();
  bool add_code(PyObject* code, PyObject* globals, bool is_librarys);
  void add_name(PyObject* name, bool is_librarys);
  bool add_instructions(PyCodeObject* code, PyObject* globals, bool is_librarys);
  void add_global(PyObject* globals, PyObject* name, bool is_librarys);
  bool add_import(PyObject* name, PyObject* globals, long level, bool takes_names,
                  std::vector<PyObject*>& found);
  Read::As kind_of(PyObject* module) const;
  bool reach_module(PyObject* dict);
  bool reach_class(PyTypeObject* type);
  bool is_of_library(PyTypeObject* type, PyObject* name) const;
  void note(PyObject* holder, PyObject* name, Read::As as);
  bool note_and_reach(PyObject* dict, PyObject* name, Read::As as);
  bool look_up_names();

  OwnedVector held_;  // functions, their code, and holders
  std::vector<Read> reads_;
  std::size_t next_ = 0;
  // Holder, name, and whether by identity.
  struct Noted {
    PyObject* holder;
    PyObject* name;
    bool by_identity;

    bool operator==(const Noted&) const = default;
  };
  struct HashOfNoted {
    std::size_t operator()(const Noted& one) const {
      const std::hash<PyObject*> hash;
      return hash(one.holder) * 31 + hash(one.name) * 2 +
             static_cast<std::size_t>(one.by_identity);
    }
  };
  std::unordered_set<Noted, HashOfNoted> noted_;
  std::set<PyObject*> functions_;
  std::set<PyObject*> classes_;
  std::set<PyObject*> known_modules_;
  std::vector<Holder> holders_;
  // All names in the code of the functions that are followed, and constants that may be
  // names.
  std::vector<Name> names_;
  std::set<std::pair<PyObject*, bool>> known_names_;
  bool computes_names_ = false;
  bool is_wrapped_ = false;
  std::string home_;  // where the package of a wrapped function is installed
  // Of the read that is being looked at.
  bool is_lenient_ = false;
  PyObject* module_read_ = nullptr;  // the dict of a module that stands there
};

}  // namespace autojit
