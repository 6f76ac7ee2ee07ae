#include "dispatch/call.h"

#include <memory>
#include <utility>
#include <vector>

#include "dispatch/limits.h"
#include "dispatch/result.h"
#include "dispatch/statistics.h"
#include "dispatch/table.h"
#include "objects/config.h"
#include "python/errors.h"
#include "skeleton/check.h"
#include "skeleton/closures.h"
#include "skeleton/dependencies.h"
#include "skeleton/fingerprint.h"
#include "skeleton/flatten.h"
#include "skeleton/match.h"
#include "skeleton/places.h"

namespace autojit {

namespace {

// A call and the specialization that serves it. All of it is held by whoever has it.
struct Served {
  Specialization* specialization;
  PyObject* compiled;
  Skeleton* skeleton;  // of the call
  PyObject* const* leaves;
  std::size_t count;
  const NodeObjects& opaque;
  bool is_new;  // no call has been served before
};

Caller caller_of(const Dispatcher* self) {
  return {self->fun_in_tree ? nullptr : self->fun, *self->admissions};
}

// --- warnings ---

// Whether this dispatcher has shown all warnings of a specialization, for arrays of
// whatever kind, so that there is nothing to see to.
bool has_shown(Dispatcher* self, PyObject* warnings) {
  Owned key =
      Owned::steal(self->seen != nullptr ? PyLong_FromVoidPtr(warnings) : nullptr);
  PyObject* shown = key ? PyDict_GetItemWithError(self->seen, key.get()) : nullptr;
  if (shown == nullptr) {
    PyErr_Clear();
    return false;
  }
  return PySet_GET_SIZE(PyTuple_GET_ITEM(shown, 1)) == PyDict_GET_SIZE(warnings);
}

// Calls one of the functions that see to warnings, if there are any. False with an
// exception set on failure. Runs Python.
bool see_to_warnings(PyObject* function, Dispatcher* self, const Served& served) {
  Owned warnings = Owned::borrow(served.specialization->warnings);
  if (self->seen == nullptr) {
    self->seen = PyDict_New();
  }
  Owned leaves = tuple_of(served.leaves, served.count);
  if (self->seen == nullptr || !leaves) {
    return false;
  }
  Owned seen = Owned::borrow(self->seen);
  Owned done = Owned::steal(PyObject_CallFunctionObjArgs(
      function, warnings.get(), leaves.get(), seen.get(), nullptr));
  return static_cast<bool>(done);
}

bool has_warnings(const Served& served) {
  return PyDict_GET_SIZE(served.specialization->warnings) != 0;
}

// Raises again what a trace has warned of, unless this dispatcher has shown it. False
// with an exception set on failure. Runs Python if there is something to raise.
[[gnu::always_inline]] inline bool replay(Dispatcher* self, const Served& served) {
  return served.is_new || !has_warnings(served) ||
         has_shown(self, served.specialization->warnings) ||
         see_to_warnings(config.replay, self, served);
}

// --- the call ---

// What a trace has changed, another dispatcher's own trace would change too: then it is
// this one's alone. False with an exception set on failure. May run Python.
bool note_side_effects(Dispatcher* self, const Served& served) {
  Specialization* one = served.specialization;
  Owned before = Owned::borrow(one->dependencies);
  if (!before || before.get() == Py_None) {
    return true;
  }
  int same = same_dependencies(as_skeleton(before.get()), caller_of(self).fun,
                               served.skeleton);
  if (same == 0) {
    Py_XSETREF(one->dependencies, Py_NewRef(Py_None));
  }
  return same >= 0;
}

// The function was traced in a call that returned: what it has warned of, this
// dispatcher has shown. False with an exception set on failure. May run Python.
bool after_trace(Dispatcher* self, const Served& served) {
  Specialization* one = served.specialization;
  one->calling += clock_now() - one->began;
  if (std::exchange(one->is_of_one, false)) {
    one->id = new_id();
    ++self->table->removals;
    self->admissions->add(one, *self->table);
  }
  if (!note_side_effects(self, served)) {
    return false;
  }
  keep_within_limits();
  return !has_warnings(served) || see_to_warnings(config.mark_seen, self, served);
}

// A compiled function has raised: that is its error still, with a note of which leaves
// it speaks. Runs Python.
void say_where(const Served& served) {
  if (PyErr_ExceptionMatches(PyExc_Exception) == 0) {
    return;
  }
  Owned error = take_exception();
  Owned done;
  if (Owned leaves = tuple_of(served.leaves, served.count)) {
    done = Owned::steal(PyObject_CallFunctionObjArgs(
        config.say_where, error.get(), served.skeleton->object(), served.compiled,
        leaves.get(), nullptr));
  }
  // An interrupt goes on; what else goes wrong with a note is no one's concern.
  if (done || PyErr_ExceptionMatches(PyExc_Exception) != 0) {
    set_exception(std::move(error));
  }
}

Owned dispatch_by_hash(Dispatcher* self, CallView& call, bool& is_eager);

// A trace has raised that it needs the values of some leaves, which are at places that
// were learned: takes that exception, and gives the steps to them. Runs Python.
std::vector<Steps> take_values_needed(const Served& served) {
  Owned error = take_exception();
  Owned numbers = Owned::steal(PyObject_GetAttrString(error.get(), "args"));
  std::vector<bool> leaves(served.count);
  for (Py_ssize_t i = 0; numbers && i < PyTuple_GET_SIZE(numbers.get()); ++i) {
    leaves[PyLong_AsSize_t(PyTuple_GET_ITEM(numbers.get(), i))] = true;
  }
  settle(served.specialization, false);
  return numbers ? steps_to(served.skeleton->program, leaves) : std::vector<Steps>();
}

// Does once more what has failed since the values of some leaves are needed, with these
// as static values. If it fails again, that was not the reason. Runs Python.
template <typename Again>
Owned again_by_value(Dispatcher* self, const Served& served, Again again) {
  std::vector<Steps> needed = take_values_needed(served);
  if (PyErr_Occurred() != nullptr) {
    return {};
  }
  Places& places = *self->table->places;
  for (const Steps& steps : needed) {
    places.at(steps).status = Places::Status::ByValue;
  }
  Owned result = again();
  if (!result && PyErr_Occurred() != nullptr) {
    for (const Steps& steps : needed) {
      places.at(steps).status = Places::Status::Traced;
    }
  }
  return result;
}

[[gnu::noinline]] Owned dispatch_by_value(Dispatcher* self, CallView& call,
                                          const Served& served, bool& is_eager) {
  return again_by_value(self, served,
                        [&] { return dispatch_by_hash(self, call, is_eager); });
}

// Calls the compiled function, once a specialization has been found. Inlined: a hit
// goes through it, and would else put what is served in memory.
[[gnu::always_inline]] inline Owned run(Dispatcher* self, CallView& call,
                                        const Served& served, bool& is_eager) {
  Table* table = self->table;
  Specialization* specialization = served.specialization;
  if (!replay(self, served)) {
    return {};
  }
  std::uint64_t traces = table->traces;
  ++specialization->in_flight;
  Owned result = Owned::steal(
      PyObject_Vectorcall(served.compiled, served.leaves, served.count, nullptr));
  --specialization->in_flight;
  is_eager = result.get() == config.eager;
  if (!result || is_eager) {
    if (!result && PyErr_ExceptionMatches(config.value_needed) != 0) {
      return dispatch_by_value(self, call, served, is_eager);
    }
    if (!result) {
      say_where(served);
    }
    const SavedError error;
    settle(specialization, false);
    return {};
  }
  if (!serves_identities(specialization, served.skeleton)) {
    result = Owned();  // it has turned out to be another caller's
    return dispatch_by_hash(self, call, is_eager);
  }
  if (served.is_new) {
    ++table->misses;
  } else {
    ++(specialization->table != nullptr ? specialization->hits : table->hits);
  }
  settle(specialization, true);
  if (table->traces != traces && !after_trace(self, served)) {
    return {};
  }
  return unwrap(std::move(result),
                {served.skeleton->program, served.leaves, served.opaque});
}

// --- the ways to a specialization ---

// Takes a call apart, and sets `found`, unless it is nullptr, if there is a
// specialization for it. The skeleton, with its hash if that was asked for, or nothing
// with an exception set on failure. Runs Python.
Owned look_up(Dispatcher* self, CallView& call, OwnedVector& leaves, Found* found) {
  call.places = self->table->places;
  for (;;) {
    Program program;
    NodeObjects reduced;
    if (!flatten_call(call, program, leaves, reduced)) {
      return {};
    }
    if (call.has_stand_ins) {  // JAX takes them for arrays while it traces
      Owned is_tracing = Owned::steal(PyObject_CallNoArgs(config.is_tracing));
      if (!is_tracing) {
        return {};
      }
      if (is_tracing.get() == Py_True) {
        call.stand_ins = config.stand_ins;
        leaves.clear();
        continue;
      }
    }
    Owned skeleton = new_skeleton(std::move(program), "");
    Skeleton* key = as_skeleton(skeleton.get());
    if (!skeleton ||
        (found != nullptr && (PyObject_Hash(skeleton.get()) == -1 ||
                              !find(self->table, caller_of(self), key, *found)))) {
      return {};
    }
    // Other arrays than those which were found to be equal may not be.
    bool is_found = found != nullptr && found->specialization;
    bool is_known = (is_found && found->same_arrays) || reduced.empty();
    int faithful =
        is_known ? 1 : check_call(key->program, leaves.data(), reduced, is_found);
    if (faithful == 1) {
      return skeleton;
    }
    key->program.omitted.clear();  // they are not known
    if (faithful < 0) {
      return {};
    }
    // What was taken apart in vain is now known.
    leaves.clear();
    if (found != nullptr) {
      *found = Found();
    }
  }
}

// How many specializations of one skeleton are kept that a new dispatcher may not use:
// what has changed may be changed back, but a function that changes what it reads would
// add one for each dispatcher.
constexpr std::size_t kMostStale = 8;

// A new specialization in the table, or one that another thread has made meanwhile;
// nothing with an exception set on failure. Runs Python.
Owned specialize(Dispatcher* self, Skeleton* skeleton) {
  if (!skeleton->program.functions.empty() && closures_of(skeleton) == nullptr) {
    return {};
  }
  Owned made = new_specialization(skeleton);
  Owned compiled = Owned::steal(
      made ? PyObject_CallFunctionObjArgs(config.specialize, self->fun,
                                          self->fun_in_tree ? Py_True : Py_False,
                                          made.get(), self->options, nullptr)
           : nullptr);
  Found found;
  if (!compiled || !find(self->table, caller_of(self), skeleton, found)) {
    return {};
  }
  if (found.specialization) {
    return std::move(found.specialization);
  }
  Specialization* one = as_specialization(made.get());
  one->why = why_traced(found.stale, caller_of(self).fun, skeleton).release();
  if (one->why == nullptr) {
    return {};
  }
  for (std::size_t i = kMostStale - 1; i < found.stale.size(); ++i) {
    drop(as_specialization(found.stale[i]));
  }
  self->admissions->add(one, *self->table);
  insert(self->table, one, compiled.get());
  return made;
}

// A call that was taken apart, and the specialization that was found for it by its
// hash, or made.
struct ByHash {
  OwnedVector leaves;
  Owned skeleton;
  Owned specialization;
  Owned compiled;
  bool is_new = false;
  NodeObjects no_others;

  Served served() const {
    return {as_specialization(specialization.get()),
            compiled.get(),
            as_skeleton(skeleton.get()),
            leaves.data(),
            leaves.size(),
            no_others,
            is_new};
  }
};

// How often one call may teach where numbers are traced: a place whose path is another
// one each time is never traced.
constexpr std::size_t kMostLessons = 8;

// False with an exception set on failure. Runs Python.
bool find_or_make(Dispatcher* self, CallView& call, ByHash& by_hash) {
  for (std::size_t lessons = 0;;) {
    by_hash.leaves.clear();
    Found found;
    by_hash.skeleton = look_up(self, call, by_hash.leaves, &found);
    if (!by_hash.skeleton) {
      return false;
    }
    by_hash.specialization = std::move(found.specialization);
    by_hash.is_new = !by_hash.specialization;
    if (by_hash.is_new) {
      int learned = lessons++ < kMostLessons
                        ? learn_from(self->table, as_skeleton(by_hash.skeleton.get()))
                        : 0;
      if (learned != 0) {
        if (learned < 0) {
          return false;
        }
        continue;  // other leaves are taken out now
      }
      by_hash.specialization = specialize(self, as_skeleton(by_hash.skeleton.get()));
      if (!by_hash.specialization) {
        return false;
      }
    }
    by_hash.compiled =
        Owned::borrow(as_specialization(by_hash.specialization.get())->compiled);
    if (by_hash.compiled) {  // what ran may have dropped it
      return true;
    }
  }
}

// What a dispatcher has called last, borrowed, if that is still in its table.
Specialization* last_of(const Dispatcher* self) {
  return self->removals == self->table->removals ? self->last : nullptr;
}

// What is likely to come after a specialization that is in the table, borrowed, or
// nullptr.
Specialization* follower_of(const Dispatcher* self, const Specialization* last) {
  Specialization* follower = last->follower;
  bool is_likely = last->is_sure && last->removals == self->table->removals &&
                   follower->proven && self->admissions->has(follower);
  return is_likely ? follower : nullptr;
}

[[gnu::noinline]] void note_follower(Specialization* last, Specialization* one,
                                     std::uint64_t removals) {
  last->is_followed = one != last;
  if (one != last) {
    last->is_sure = last->follower == one && last->removals == removals;
    last->follower = one;
    last->removals = removals;
  }
}

// Notes that a dispatcher calls a specialization, which is in its table, after another.
[[gnu::always_inline]] inline void note_call(Dispatcher* self, Specialization* last,
                                             Specialization* one) {
  std::uint64_t removals = self->table->removals;
  if (last != nullptr && (last != one || last->is_followed)) {
    note_follower(last, one, removals);
  }
  self->last = one;
  self->removals = removals;
}

// Takes a call apart and looks its specialization up by hash, or makes it.
Owned dispatch_by_hash(Dispatcher* self, CallView& call, bool& is_eager) {
  call.places = self->table->places;
  std::uint64_t number = fingerprint_of(call);
  ByHash by_hash;
  if (!find_or_make(self, call, by_hash)) {
    return {};
  }
  const Served served = by_hash.served();
  if (self->table->newest == served.specialization) {
    note_call(self, last_of(self), served.specialization);
    note_fingerprint(served.specialization, number);
  }
  return run(self, call, served, is_eager);
}

// Serves a call by a specialization if it matches. False, and nothing has been done, if
// it does not. Inlined: a hit goes through it.
[[gnu::always_inline]] inline bool serve(Dispatcher* self, CallView& call,
                                         Specialization* one, Owned& result,
                                         bool& is_eager) {
  std::uint64_t removals = self->table->removals;
  // Held: what matching or the call runs may drop the specialization.
  Owned held = Owned::borrow(one->object());
  Owned skeleton = Owned::borrow(one->skeleton->object());
  Owned compiled = Owned::borrow(one->compiled);
  const Program& program = as_skeleton(skeleton.get())->program;
  MatchedLeaves leaves(program.leaves);
  NodeObjects opaque;
  Match match = match_call(program, call, leaves.data(), opaque);
  if (match == Match::Error) {
    return true;
  }
  if (match == Match::No || (one->by_identity && !opaque.empty())) {
    return false;
  }
  call.hold();
  if (self->table->removals == removals) {
    use(one);
    note_call(self, last_of(self), one);
  }
  result = run(self, call,
               {one, compiled.get(), as_skeleton(skeleton.get()), leaves.data(),
                program.leaves, opaque, false},
               is_eager);
  return true;
}

// What else may serve a call that the first one tried does not: what was called last or
// follows that, and then what has served a call of its fingerprint.
class Others {
 public:
  Others(const Dispatcher* self, const Specialization* tried) : tried_(tried) {
    Specialization* last = last_of(self);
    if (last == nullptr || tried == nullptr) {
      return;
    }
    Specialization* other = last == tried ? follower_of(self, last) : last;
    if (other != nullptr) {
      likely_.borrow(other->object());
    }
  }

  // Held here; nullptr if there is none left.
  Specialization* next(const Dispatcher* self, CallView& call) {
    Table* table = self->table;
    for (;;) {
      if (next_ == likely_.size()) {
        if (std::exchange(has_all_, true) || table->by_fingerprint->size() < 2) {
          return nullptr;
        }
        call.places = table->places;
        for (PyObject* one : likely_ones(*table, fingerprint_of(call))) {
          likely_.borrow(one);
        }
        continue;
      }
      Specialization* one = as_specialization(likely_[next_++]);
      bool is_new = one != tried_ && (next_ == 1 || one->object() != likely_[0]);
      if (is_new && one->table == table && one->proven && self->admissions->has(one)) {
        return one;
      }
    }
  }

 private:
  const Specialization* tried_;  // may have gone
  OwnedVector likely_;
  std::size_t next_ = 0;
  bool has_all_ = false;
};

[[gnu::noinline]] Specialization* next_of(std::unique_ptr<Others>& others,
                                          const Dispatcher* self, CallView& call,
                                          const Specialization* tried) {
  if (others == nullptr) {
    others = std::make_unique<Others>(self, tried);
  }
  return others->next(self, call);
}

// Takes the first frames of the exception that is set, those of one file of ours, out
// of its traceback: JAX takes out only what is below its own.
void hide_first_frames() {
  Owned error = take_exception();
  Owned traceback = Owned::steal(PyException_GetTraceback(error.get()));
  PyObject* file = nullptr;
  while (traceback && traceback.get() != Py_None) {
    auto* entry = reinterpret_cast<PyTracebackObject*>(traceback.get());
    Owned code =
        Owned::steal(reinterpret_cast<PyObject*>(PyFrame_GetCode(entry->tb_frame)));
    PyObject* its_file = reinterpret_cast<PyCodeObject*>(code.get())->co_filename;
    file = file == nullptr ? its_file : file;
    if (its_file != file) {
      break;
    }
    traceback = Owned::borrow(reinterpret_cast<PyObject*>(entry->tb_next));
  }
  PyException_SetTraceback(error.get(), traceback ? traceback.get() : Py_None);
  set_exception(std::move(error));
}

}  // namespace

Owned stage(Dispatcher* self, CallView& call, PyObject* name) {
  call.stand_ins = config.stand_ins;
  ByHash by_hash;
  if (!find_or_make(self, call, by_hash)) {
    return {};
  }
  const Served served = by_hash.served();
  Owned leaves = tuple_of(served.leaves, served.count);
  if (!leaves || !replay(self, served)) {
    return {};
  }
  Table* table = self->table;
  Specialization* specialization = served.specialization;
  std::uint64_t traces = table->traces;
  ++specialization->in_flight;
  Owned made = Owned::steal(PyObject_CallFunctionObjArgs(
      config.stage, name, reinterpret_cast<PyObject*>(self), specialization->object(),
      served.compiled, served.skeleton->object(), leaves.get(), nullptr));
  --specialization->in_flight;
  if (!made && PyErr_ExceptionMatches(config.value_needed) != 0) {
    return again_by_value(self, served, [&] { return stage(self, call, name); });
  }
  if (!made) {
    hide_first_frames();
    say_where(served);
    const SavedError error;
    settle(specialization, false);
    return {};
  }
  table->misses += served.is_new ? 1U : 0U;
  settle(specialization, true);
  return table->traces == traces || after_trace(self, served) ? std::move(made)
                                                              : Owned();
}

Owned explain(Dispatcher* self, CallView& call) {
  call.stand_ins = config.stand_ins;
  OwnedVector leaves;
  Found found;
  Owned skeleton = look_up(self, call, leaves, &found);
  Owned given = skeleton ? tuple_of(leaves.data(), leaves.size()) : Owned();
  if (!given) {
    return {};
  }
  Specialization* one =
      found.specialization ? as_specialization(found.specialization.get()) : nullptr;
  Owned compiled = Owned::borrow(
      one != nullptr && one->compiled != nullptr ? one->compiled : Py_None);
  Owned why = one != nullptr ? Owned::borrow(Py_None)
                             : why_traced(found.stale, caller_of(self).fun,
                                          as_skeleton(skeleton.get()));
  Owned others = why ? traced_in(*self->table, one) : Owned();
  Owned by_value = others ? by_value_in(self->table) : Owned();
  return Owned::steal(
      by_value ? PyObject_CallFunctionObjArgs(config.explain, compiled.get(),
                                              skeleton.get(), given.get(), why.get(),
                                              others.get(), by_value.get(), nullptr)
               : nullptr);
}

Owned take_apart(Dispatcher* self, CallView& call) {
  OwnedVector leaves;
  Owned skeleton = look_up(self, call, leaves, nullptr);
  Owned tuple = skeleton ? tuple_of(leaves.data(), leaves.size()) : Owned();
  return Owned::steal(tuple ? PyTuple_Pack(2, skeleton.get(), tuple.get()) : nullptr);
}

Owned dispatch(Dispatcher* self, CallView& call, bool& is_eager) {
  // Other dispatchers of the function may have been here since.
  Specialization* known = last_of(self);
  Specialization* last = known != nullptr ? known : self->table->newest;
  Specialization* first = nullptr;
  if (last != nullptr && last->proven &&
      (known != nullptr || self->admissions->has(last))) {
    Specialization* next = last->is_followed ? follower_of(self, last) : nullptr;
    first = next != nullptr ? next : last;
  }
  std::unique_ptr<Others> others;
  Specialization* one = first != nullptr ? first : next_of(others, self, call, first);
  for (; one != nullptr; one = next_of(others, self, call, first)) {
    Owned result;
    if (serve(self, call, one, result, is_eager)) {
      return result;
    }
  }
  return dispatch_by_hash(self, call, is_eager);
}

}  // namespace autojit
