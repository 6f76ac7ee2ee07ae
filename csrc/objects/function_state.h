// What a Python function is made of, beside what it holds itself: what it reads by
// name.
//
// A function that is made anew for each call equals the one before if its code and all
// that it holds are equal, and if what it reads is: names of its module, attributes of
// the modules and classes that it reaches by name, and the same of the functions that
// it calls. It is not known which attribute is of what, so that each name in the code
// counts as an attribute of each module and class that the code reaches. What installed
// libraries do is taken as fixed: their functions are not followed into other modules.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "python/owned.h"

namespace autojit {

// Before all else. False with an exception set on failure.
bool init_function_state();

// Whether a Python function is one that an imported module defines: never made anew, it
// goes by identity. Runs no Python.
bool is_named_function(PyObject* object);

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

// All that a function holds now, borrowed: what can be reached from its closure,
// defaults and attributes, but for classes, modules and what cannot refer to anything.
// False if that is too much. Runs no Python.
bool held_by(PyObject* function, std::vector<PyObject*>& objects);

// What stands under a name in the dict of a module or in a class, as it is there: no
// descriptor is asked. Nothing if there is nothing, or with an exception set on
// failure. Runs no Python.
Owned read(PyObject* holder, PyObject* name);

// What functions read, one after the other. Runs no Python.
class Reads {
 public:
  // Notes what a function reads, and what functions that it holds do. `by_value`: it is
  // one that may be made anew. False with an exception set on failure; it is a refusal
  // if that can't be known (`eval`, `globals`), or is too much.
  bool add(PyObject* function, bool by_value);
  // The next read that has not been looked at: its holder and name, borrowed. False if
  // there is none. Then `found` is to be told what stands there, or nullptr.
  bool next(PyObject*& holder, PyObject*& name);
  bool found(PyObject* value);
  // Whether what a holder holds is a library's, so that its instances don't change.
  bool is_fixed(PyObject* holder) const;
  // Whether one of the references to a function is held here.
  bool holds(PyObject* function) const { return functions_.contains(function); }

 private:
  // The names in a function's code and in that of the functions inside it, borrowed.
  struct Name {
    PyObject* name;
    bool is_global;  // looked up in the module
    bool is_bare;    // what stands there is not only asked for an attribute
  };
  using Names = std::vector<Name>;
  struct Read {
    PyObject* holder;
    PyObject* name;
    std::size_t reader;  // the place of its names in `names_`
    bool is_bare;
  };

  bool add_code(PyObject* code, PyObject* globals, std::size_t reader);
  bool add_import(PyObject* name, PyObject* globals, std::size_t reader);
  bool reach(PyObject* value, std::size_t reader, bool is_bare);
  bool reach_function(PyObject* value, PyObject* holder);
  void reach_attributes(PyObject* holder, std::size_t reader);
  void reach_data(PyTypeObject* type, std::size_t reader);
  void note(PyObject* holder, PyObject* name, std::size_t reader, bool is_bare);

  bool follow(PyObject* function);

  OwnedVector held_;  // functions, their code, and holders
  std::vector<Names> names_;
  std::vector<Read> reads_;
  std::size_t next_ = 0;
  std::map<PyObject*, std::size_t> functions_;  // -> the place of their names
  std::set<PyObject*> homes_;  // the modules of functions that go by value
  std::set<std::pair<PyObject*, PyObject*>> noted_;      // holder and name
  std::set<std::pair<PyObject*, std::size_t>> reached_;  // holder and reader
};

}  // namespace autojit
