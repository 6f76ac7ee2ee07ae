// skeleton x objects -> leaves, or no
#pragma once

#include <cstddef>
#include <vector>

#include "python/owned.h"
#include "skeleton/call_view.h"
#include "skeleton/program.h"
#include "skeleton/skeleton.h"

namespace autojit {

enum class Match { No, Yes, Error };

// Owned references, or nullptr, to the leaves of a call: on the C stack unless there
// are many. `match_call` fills them all.
class MatchedLeaves {
 public:
  explicit MatchedLeaves(std::size_t size) : size_(size) {
    if (size > kInline) {
      heap_.resize(size);
      data_ = heap_.data();
    }
  }
  MatchedLeaves(const MatchedLeaves&) = delete;
  MatchedLeaves& operator=(const MatchedLeaves&) = delete;
  [[gnu::always_inline]] ~MatchedLeaves() {
    for (std::size_t i = 0; i < size_; ++i) {
      Py_XDECREF(data_[i]);
    }
  }
  PyObject** data() { return data_; }

 private:
  static constexpr std::size_t kInline = 64;
  PyObject* inline_[kInline];
  PyObject** data_ = inline_;
  std::size_t size_;
  std::vector<PyObject*> heap_;
};

// Whether flattening `call` would give `program`. The `program.leaves` places of
// `leaves` then hold owned references, or nullptr unless the answer is Yes. No for
// functions that are equal and not the same: a skeleton has those it was made with.
// `opaque` gets the opaque objects that are equal and not the same, and their nodes.
// May run Python: the caller must hold the program's owner.
Match match_call(const Program& program, CallView& call, PyObject** leaves,
                 NodeObjects& opaque);

// The same where speed is not all, so that the one above has one caller, which it is
// compiled into. The arguments are held.
Match match_held_call(const Program& program, const CallView& call, PyObject** leaves,
                      NodeObjects& opaque);

// The same for a single object, which the caller must hold too. If `any_leaf`, whatever
// stands where the program has a leaf is one.
Match match_object(const Program& program, PyObject* object, PyObject** leaves,
                   bool any_leaf, NodeObjects& opaque);

// Whether the functions of a call hold and read what `closures` says. A No may be
// wrong: sets in another order and the like are not looked into. A function that is in
// both may have changed, unless `strictly`. `handed_through` are the objects that this
// call hands through whole. May run Python: the caller must hold both owners.
Match match_closures(const Program& closures, const Program& call,
                     const OwnedVector& handed_through, bool strictly);

// Whether a call depends on what `dependencies` says, see `flatten_dependencies`. A No
// may be wrong. May run Python: the caller must hold all.
Match match_dependencies(const Program& dependencies, PyObject* settings,
                         const std::vector<PyObject*>& functions,
                         const std::vector<PyObject*>& arguments);
// What is not as it was: the number of the first such read, or else how many there are
// and what a reader would call it.
const char* first_changed(const Program& dependencies, PyObject* settings,
                          const std::vector<PyObject*>& functions,
                          const std::vector<PyObject*>& arguments, std::size_t& read);

}  // namespace autojit
