#include "skeleton/check.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "objects/config.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/interpreter.h"
#include "skeleton/compare.h"
#include "skeleton/flatten.h"
#include "skeleton/skeleton.h"

namespace autojit {

namespace {

// Whether instances of a class are iterators: a class statement gives one that is none
// a function that says so.
bool iterates(PyTypeObject* type) {
  static const iternextfunc none =
      reinterpret_cast<PyTypeObject*>(config.cache_info)->tp_iternext;
  return type->tp_iternext != nullptr && type->tp_iternext != none;
}

// Whether a node stands for what has a value of its own: not for what is told by its
// identity, nor for what is used up when it is looked at.
bool is_plain(const Node& node) {
  switch (node.kind) {
    case Kind::Identity:
      return !Py_IS_TYPE(node.object, &PyBaseObject_Type) &&
             (PyType_Check(node.object) || PyCallable_Check(node.object) == 0);
    case Kind::Function:
      return false;
    case Kind::Reduce:
      return !iterates(reinterpret_cast<PyTypeObject*>(node.object));
    default:
      return !is_handed_through(node);
  }
}

// What an object holds, if all of it has a value: a Skeleton, None if not, or nothing
// with an exception set. The arrays in it are appended to `arrays`. Runs Python.
Owned plain_content(PyObject* object, OwnedVector& arrays) {
  Program program;
  if (!flatten(object, nullptr, "obj", program, arrays)) {
    return {};
  }
  const std::vector<Node>& nodes = program.nodes;
  if (!std::all_of(nodes.begin(), nodes.end(), is_plain)) {
    return Owned::borrow(Py_None);
  }
  return new_skeleton(std::move(program), "obj");
}

// Whether two plain values differ: 1, 0, or -1 with an exception set. Runs Python.
int differ(PyObject* one, PyObject* other) {
  if (one == other) {
    return 0;
  }
  OwnedVector our_arrays;
  OwnedVector their_arrays;
  Owned first = plain_content(one, our_arrays);
  Owned second = first ? plain_content(other, their_arrays) : Owned();
  if (!second) {
    return -1;
  }
  if (first.get() == Py_None || second.get() == Py_None) {
    return 0;
  }
  int same = equal(as_skeleton(first.get()), as_skeleton(second.get()));
  for (std::size_t i = 0; same == 1 && i < our_arrays.size(); ++i) {
    Owned differs = Owned::steal(PyObject_CallFunctionObjArgs(
        config.arrays_differ, our_arrays[i], their_arrays[i], nullptr));
    if (!differs) {
      return -1;
    }
    same = differs.get() == Py_True ? 0 : 1;
  }
  return same < 0 ? -1 : 1 - same;
}

// Whether an attribute that two instances have differs. What the rebuilt one has not,
// or has None for, such as a cache, a class has its reasons for; and one that says what
// its state is knows what else to do with it. 1, 0, or -1 with an exception set. Runs
// Python.
int attributes_differ(PyObject* one, PyObject* other) {
  if (has_own_state(Py_TYPE(one))) {
    return 0;
  }
  Owned ours = Owned::borrow(python::instance_dict(one));
  Owned theirs = Owned::borrow(python::instance_dict(other));
  bool have_dicts = ours && theirs && PyDict_CheckExact(ours.get()) &&
                    PyDict_CheckExact(theirs.get());
  // They may change.
  Owned items = Owned::steal(have_dicts ? PyDict_Items(ours.get()) : PyList_New(0));
  for (Py_ssize_t i = 0; items && i < PyList_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyList_GET_ITEM(items.get(), i);
    Owned value =
        Owned::borrow(PyDict_GetItemWithError(theirs.get(), PyTuple_GET_ITEM(item, 0)));
    bool is_kept = value && value.get() != Py_None;
    int different = is_kept ? differ(PyTuple_GET_ITEM(item, 1), value.get()) : 0;
    if (different != 0) {
      return different;
    }
  }
  const TypePlan* plan = find_plan(Py_TYPE(one));
  std::vector<std::pair<Owned, Owned>> in_slots;
  if (plan != nullptr && plan->shows_state) {
    for (const TypePlan::Slot& slot : plan->slots) {
      in_slots.emplace_back(Owned::borrow(slot.value(one)),
                            Owned::borrow(slot.value(other)));
    }
  }
  for (const auto& [first, second] : in_slots) {
    bool is_kept = first && second && second.get() != Py_None;
    int different = is_kept ? differ(first.get(), second.get()) : 0;
    if (different != 0) {
      return different;
    }
  }
  return items && PyErr_Occurred() == nullptr ? 0 : -1;
}

// Whether a copy has fewer attributes than its object since the class leaves some out
// of its state. Such a `__getstate__` may not stand being asked for that of the copy.
bool lacks_attributes(PyObject* rebuilt, PyObject* object) {
  PyObject* ours = python::instance_dict(object);
  PyObject* theirs = python::instance_dict(rebuilt);
  return has_own_state(Py_TYPE(object)) && ours != nullptr && theirs != nullptr &&
         PyDict_GET_SIZE(theirs) < PyDict_GET_SIZE(ours);
}

// Whether a reduction has reproduced an object: 1, 0, or -1 with an exception set. Runs
// Python.
int reproduces(PyObject* object, PyObject* rebuilt) {
  if (object == rebuilt) {
    return 1;
  }
  if (Py_TYPE(object) != Py_TYPE(rebuilt)) {
    // Those of dicts become iterators over lists.
    return iterates(Py_TYPE(object)) ? 1 : 0;
  }
  Owned again = Owned::steal(reduce(rebuilt));
  if (!again) {
    return -1;
  }
  if (again.get() == Py_None && !lacks_attributes(rebuilt, object)) {
    return 0;
  }
  int different = attributes_differ(object, rebuilt);
  const TypePlan* plan = find_plan(Py_TYPE(object));
  if (different == 0 && plan != nullptr && !plan->shows_state) {
    different = differ(object, rebuilt);
  }
  return different < 0 ? -1 : 1 - different;
}

// Compares what was reduced with what was made of it. Inner objects come first.
int check(const NodeObjects& reduced, NodeObjects& rebuilt) {
  int faithful = 1;
  std::sort(rebuilt.begin(), rebuilt.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = reduced.size(); i-- > 0;) {
    const auto& [node, object] = reduced[i];
    const TypePlan* plan = find_plan(Py_TYPE(object.get()));
    if (plan == nullptr || !plan->is_users || is_unfaithful(*plan, object.get())) {
      continue;
    }
    auto found = std::lower_bound(
        rebuilt.begin(), rebuilt.end(), node,
        [](const auto& made, std::size_t at) { return made.first < at; });
    if (found == rebuilt.end() || found->first != node) {
      continue;
    }
    int same = reproduces(object.get(), found->second.get());
    if (same < 0) {
      return clear_refusal() ? 1 : -1;
    }
    plan = find_plan(Py_TYPE(object.get()));  // what ran may have renewed it
    if (same == 1 || plan == nullptr) {
      continue;
    }
    faithful = 0;
    if (!note_unfaithful(object.get())) {
      if (PyErr_Occurred() != nullptr) {
        return -1;
      }
      plan->unfaithful = true;
    }
  }
  return faithful;
}

// Whether a node makes an instance that owns a resource.
bool is_of_owner(const Node& node) {
  const TypePlan* plan = nullptr;
  if (node.kind == Kind::Instance) {
    plan = node.plan;
  } else if (node.kind == Kind::Reduce) {
    plan = find_plan(reinterpret_cast<PyTypeObject*>(node.object));
  }
  return plan != nullptr && plan->owns;
}

}  // namespace

int check_call(const Program& program, PyObject* const* leaves,
               const NodeObjects& reduced, bool is_traced) {
  NodeObjects rebuilt;
  Owned call = rebuild_call(program, leaves, &rebuilt);
  if (!call) {
    // A trace will say so.
    return !is_traced && clear_refusal() ? 1 : -1;
  }
  return check(reduced, rebuilt);
}

int check_result(const Program& program, PyObject* const* leaves, const Inputs& inputs,
                 const NodeObjects& reduced) {
  // A copy of an owner is not made for this alone.
  if (std::any_of(program.nodes.begin(), program.nodes.end(), is_of_owner)) {
    return 1;
  }
  NodeObjects rebuilt;
  Owned result = rebuild_result(program, leaves, inputs, &rebuilt);
  if (!result) {
    return clear_refusal() ? 1 : -1;  // the caller will be told
  }
  // Arrays can't be carried out in what is handed through.
  std::erase_if(rebuilt, [&program](const auto& made) {
    return program.nodes[made.first + 1].number != 0;
  });
  return check(reduced, rebuilt);
}

}  // namespace autojit
