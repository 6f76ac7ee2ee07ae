// The pieces of a call.
#pragma once

#include <array>
#include <cstdint>

#include "python/owned.h"

namespace autojit {

class Places;

// Borrowed from the caller until Python runs: a partial lends its arguments and may let
// them go. Then they have to be held.
struct CallView {
  PyObject* callable;  // nullptr if the callable is not part of the call tree
  PyObject* const* args;
  std::uint32_t positional;
  PyObject* kwnames;  // nullptr if there are no keywords
  bool keyword_order_matters;
  // The arguments lie on the caller's stack, and in nothing that others know.
  bool on_stack;
  // Instances of this class are leaves too: stand-ins for arrays. nullptr for none.
  PyObject* stand_ins = nullptr;
  // Set by flattening: there was one that was no leaf.
  bool has_stand_ins = false;
  // Where numbers are leaves too; nullptr for nowhere.
  const Places* places = nullptr;
  // 0 before anyone has asked for it.
  std::uint64_t fingerprint = 0;
  // How many of the arguments are held, in one of the two.
  std::size_t held = 0;
  std::array<PyObject*, 8> few = {};
  std::vector<PyObject*> many;

  std::size_t keywords() const {
    return kwnames != nullptr ? static_cast<std::size_t>(PyTuple_GET_SIZE(kwnames)) : 0;
  }
  // Before Python runs. Inlined: each hit goes through it.
  [[gnu::always_inline]] void hold() {
    std::size_t count = positional + keywords();
    if (held != 0 || count == 0) {
      return;
    }
    PyObject** place = few.data();
    if (count > few.size()) {
      many.resize(count);
      place = many.data();
    }
    for (std::size_t i = 0; i < count; ++i) {
      place[i] = Py_NewRef(args[i]);
    }
    Py_XINCREF(kwnames);
    args = place;
    held = count;
  }
  // Letting go may run Python.
  ~CallView() {
    if (held != 0) {
      for (std::size_t i = 0; i < held; ++i) {
        Py_DECREF(args[i]);
      }
      Py_XDECREF(kwnames);
    }
  }
};

}  // namespace autojit
