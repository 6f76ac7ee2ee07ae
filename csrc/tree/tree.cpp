#include "tree/tree.h"

#include <structmember.h>

#include <cstddef>
#include <utility>

#include "objects/config.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "skeleton/closures.h"
#include "skeleton/flatten.h"
#include "skeleton/match.h"
#include "skeleton/rebuild.h"
#include "tree/structure.h"

namespace autojit {

namespace {

// What JAX has put in for the leaves of a tree.
struct Leaves {
  PyObject_HEAD
  PyObject* items;      // owned: a tuple
  PyObject* structure;  // owned: that of the tree, or nullptr while it is in none
};

// A tree that JAX has made is put together when somebody asks for its object. From then
// on that may be changed, so that it is taken apart again each time, and the leaves are
// not kept.
struct Tree {
  PyObject_HEAD
  PyObject* object;     // owned, or nullptr if it is not put together
  PyObject* child;      // owned, or nullptr: Leaves, or what JAX has put in their place
  PyObject* structure;  // owned: that of the leaves, or nullptr if it is not known
  PyObject* weakrefs;
  bool inexact;  // whether only inexact arrays are leaves
  // Whether the leaves are not what the object would be taken apart into, such as
  // numbers: then they are kept.
  bool is_as_made;

  PyObject* as_object() { return reinterpret_cast<PyObject*>(this); }
};

Leaves* as_leaves(PyObject* object) { return reinterpret_cast<Leaves*>(object); }
Tree* as_tree(PyObject* object) { return reinterpret_cast<Tree*>(object); }

bool is_leaves(PyObject* object) { return Py_IS_TYPE(object, &LeavesType); }

// --- leaves ---

int leaves_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_leaves(self)->items);
  Py_VISIT(as_leaves(self)->structure);
  return 0;
}

// No tp_clear: it is immutable.
void leaves_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_DECREF(as_leaves(self)->items);
  Py_XDECREF(as_leaves(self)->structure);
  PyObject_GC_Del(self);
}

// Takes over `items`, a tuple or nullptr with an exception set.
Owned new_leaves(Owned items, PyObject* structure) {
  auto* leaves = items ? PyObject_GC_New(Leaves, &LeavesType) : nullptr;
  if (leaves == nullptr) {
    return {};
  }
  leaves->items = items.release();
  leaves->structure = Py_XNewRef(structure);
  Owned owned = Owned::steal(reinterpret_cast<PyObject*>(leaves));
  PyObject_GC_Track(owned.get());
  return owned;
}

PyObject* leaves_paths(PyObject* self, void* /*closure*/) {
  Owned structure = Owned::borrow(as_leaves(self)->structure);
  return structure ? leaf_paths(as_structure(structure.get())).release()
                   : PyTuple_New(0);
}

PyMemberDef leaves_members[] = {
    {"items", T_OBJECT, offsetof(Leaves, items), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef leaves_getset[] = {
    {"paths", guarded<leaves_paths>, nullptr,
     "Where they stand in the object of their tree; empty if they are in none.",
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

// --- taking apart ---

// Whether an array is inexact: 1, 0, or -1 with an exception set. Runs Python.
int is_inexact(PyObject* array) {
  Owned answer = Owned::steal(PyObject_CallOneArg(config.is_inexact, array));
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

// Parts the leaves of a tree from the arrays that are none: those that are not inexact,
// or, in a tree that stays as it was made, those that stand where `before` has some. In
// `kept`, these are in their places, and None in those of the leaves. False with an
// exception set on failure. Runs Python.
bool part_leaves(Owned& arrays, PyObject* before, Owned& kept) {
  OwnedVector leaves;
  OwnedVector others;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(arrays.get()); ++i) {
    PyObject* array = PyTuple_GET_ITEM(arrays.get(), i);
    int is_leaf =
        before != nullptr ? PyTuple_GET_ITEM(before, i) == Py_None : is_inexact(array);
    if (is_leaf < 0) {
      return false;
    }
    others.borrow(is_leaf == 1 ? Py_None : array);
    if (is_leaf == 1) {
      leaves.borrow(array);
    }
  }
  kept = tuple_of(others.data(), others.size());
  arrays = kept ? tuple_of(leaves.data(), leaves.size()) : Owned();
  return static_cast<bool>(arrays);
}

// Takes an object apart into a skeleton and a tuple of its arrays. False with an
// exception set on failure. Runs Python.
bool take_apart(PyObject* object, Owned& skeleton, Owned& arrays) {
  OwnedVector leaves;
  Program program;
  if (!flatten(object, nullptr, "obj", program, leaves)) {
    return false;
  }
  skeleton = new_skeleton(std::move(program), "obj");
  Skeleton* made = as_skeleton(skeleton.get());
  // Now: what the functions hold may change.
  if (!skeleton || (!made->program.functions.empty() && closures_of(made) == nullptr)) {
    return false;
  }
  arrays = tuple_of(leaves.data(), leaves.size());
  return static_cast<bool>(arrays);
}

// Takes an object apart that has most often the skeleton that it had before: then
// `arrays` is a new tuple of its arrays. Runs Python.
Match take_apart_again(PyObject* object, const Program& program, bool is_as_made,
                       Owned& arrays) {
  Owned tuple = Owned::steal(PyTuple_New(static_cast<Py_ssize_t>(program.leaves)));
  if (!tuple) {
    return Match::Error;
  }
  if (program.leaves != 0) {  // until it is filled, nobody is to see it
    PyObject_GC_UnTrack(tuple.get());
  }
  NodeObjects opaque;
  Match match = match_object(program, object, PySequence_Fast_ITEMS(tuple.get()),
                             is_as_made, opaque);
  if (match == Match::Yes && opaque.empty()) {
    if (program.leaves != 0) {
      PyObject_GC_Track(tuple.get());
    }
    arrays = std::move(tuple);
    return Match::Yes;
  }
  // One that is equal and not the same would be lost.
  return match == Match::Error ? match : Match::No;
}

// The leaves and the structure of a tree as its object is now. False with an exception
// set on failure. Runs Python.
bool take_apart_now(Tree* self, Owned& child, Owned& structure) {
  const Owned object = Owned::borrow(self->object);
  Structure* known = self->structure != nullptr
                         ? as_structure(self->structure)
                         : last_structure(Py_TYPE(object.get()), self->inexact);
  const Owned before = Owned::borrow(known != nullptr ? known->object() : nullptr);
  Owned skeleton;
  Owned arrays;
  if (known != nullptr) {
    Match match =
        take_apart_again(object.get(), known->program(), self->is_as_made, arrays);
    if (match == Match::Error) {
      return false;
    }
    skeleton = Owned::borrow(match == Match::Yes ? known->skeleton : nullptr);
  }
  if (!skeleton && self->is_as_made) {  // its leaves can't be found in anything else
    structure = Owned::borrow(self->structure);
    child = Owned::borrow(self->child);
    return true;
  }
  if (!skeleton && !take_apart(object.get(), skeleton, arrays)) {
    return false;
  }
  Owned kept;
  PyObject* kept_before = self->is_as_made ? known->kept : nullptr;
  if (self->inexact && !part_leaves(arrays, kept_before, kept)) {
    return false;
  }
  bool is_known = known != nullptr && skeleton.get() == known->skeleton &&
                  have_same_arrays(known->kept, kept.get());
  structure = is_known ? Owned::borrow(before.get())
                       : new_structure(skeleton.get(), kept.get(), self->inexact);
  child = structure ? new_leaves(std::move(arrays), structure.get()) : Owned();
  if (!child) {
    return false;
  }
  if (!is_known && !self->is_as_made) {
    note_last_structure(Py_TYPE(object.get()), as_structure(structure.get()));
  }
  Owned old = Owned::steal(std::exchange(self->structure, Py_NewRef(structure.get())));
  return true;
}

// --- putting together ---

// What the skeleton of a tree is put together around: a new tuple, or nothing with an
// exception set on failure.
Owned all_arrays(const Structure* structure, PyObject* child) {
  if (!is_leaves(child)) {
    PyErr_Format(PyExc_TypeError,
                 "this autojit.Tree has an instance of %s in the place of its leaves, "
                 "and so no object",
                 Py_TYPE(child)->tp_name);
    return {};
  }
  PyObject* items = as_leaves(child)->items;
  if (PyTuple_GET_SIZE(items) != static_cast<Py_ssize_t>(structure->leaves)) {
    PyErr_Format(PyExc_ValueError, "this autojit.Tree has %u leaves, got %zd",
                 structure->leaves, PyTuple_GET_SIZE(items));
    return {};
  }
  if (structure->kept == nullptr) {
    return Owned::borrow(items);
  }
  OwnedVector arrays;
  Py_ssize_t next = 0;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(structure->kept); ++i) {
    PyObject* kept = PyTuple_GET_ITEM(structure->kept, i);
    arrays.borrow(kept != Py_None ? kept : PyTuple_GET_ITEM(items, next++));
  }
  return tuple_of(arrays.data(), arrays.size());
}

// Whether all leaves are what an object would be taken apart into: 1, 0, or -1 with an
// exception set. Runs Python.
int are_arrays(PyObject* child, bool inexact) {
  PyObject* items = as_leaves(child)->items;
  int are = 1;
  for (Py_ssize_t i = 0; are == 1 && i < PyTuple_GET_SIZE(items); ++i) {
    PyObject* item = PyTuple_GET_ITEM(items, i);
    const TypePlan* plan = plan_for(item);
    if (plan == nullptr) {
      return -1;
    }
    are = plan->is_leaf ? 1 : 0;
    if (are == 1 && inexact) {
      are = is_inexact(item);
    }
  }
  return are;
}

// The object of a tree, borrowed from it. nullptr with an exception set on failure.
// Runs Python. The caller must hold the tree.
PyObject* object_of(Tree* self) {
  if (self->object != nullptr) {
    return self->object;
  }
  if (self->child == nullptr) {
    PyErr_SetString(PyExc_ReferenceError, "this autojit.Tree has no object yet");
    return nullptr;
  }
  const Owned child = Owned::borrow(self->child);
  const Owned held = Owned::borrow(self->structure);
  Structure* structure = as_structure(held.get());
  const Owned arrays = all_arrays(structure, child.get());
  int are = arrays ? are_arrays(child.get(), self->inexact) : -1;
  Owned made = are >= 0 ? rebuild(structure->program(), "obj",
                                  PySequence_Fast_ITEMS(arrays.get()))
                        : Owned();
  if (!made) {
    return nullptr;
  }
  if (self->object == nullptr) {  // what ran may have asked too
    self->object = made.release();
    self->is_as_made = are == 0;
    const Owned old =
        Owned::steal(are == 1 ? std::exchange(self->child, nullptr) : nullptr);
  }
  return self->object;
}

// --- the tree ---

int tree_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_tree(self)->object);
  Py_VISIT(as_tree(self)->child);
  Py_VISIT(as_tree(self)->structure);
  return 0;
}

int tree_clear(PyObject* self) {
  Py_CLEAR(as_tree(self)->object);
  Py_CLEAR(as_tree(self)->child);
  return 0;
}

void tree_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, tree_dealloc) if (as_tree(self)->weakrefs != nullptr) {
    PyObject_ClearWeakRefs(self);
  }
  tree_clear(self);
  Py_CLEAR(as_tree(self)->structure);
  PyObject_GC_Del(self);
  Py_TRASHCAN_END
}

Tree* alloc_tree(bool inexact) {
  auto* tree = PyObject_GC_New(Tree, &TreeType);
  if (tree == nullptr) {
    return nullptr;
  }
  tree->object = nullptr;
  tree->child = nullptr;
  tree->structure = nullptr;
  tree->weakrefs = nullptr;
  tree->inexact = inexact;
  tree->is_as_made = false;
  PyObject_GC_Track(tree->as_object());
  return tree;
}

PyObject* tree_obj(PyObject* self, void* /*closure*/) {
  return Py_XNewRef(object_of(as_tree(self)));
}

PyObject* tree_repr(PyObject* self) {
  Tree* tree = as_tree(self);
  if (tree->object != nullptr) {
    return PyUnicode_FromFormat("<autojit.Tree of %s>", Py_TYPE(tree->object)->tp_name);
  }
  const Owned structure = Owned::borrow(tree->structure);
  const Owned text = structure ? describe_structure(as_structure(structure.get()))
                               : Owned::steal(PyUnicode_FromString("nothing yet"));
  return text ? PyUnicode_FromFormat("<autojit.Tree of %U>", text.get()) : nullptr;
}

// For its reduction: what JAX has made of it, if the object does not say it all.
PyObject* tree_parts(PyObject* self, PyObject* /*args*/) {
  Tree* tree = as_tree(self);
  Owned child = Owned::borrow(tree->child);
  Owned structure = Owned::borrow(tree->structure);
  int are = 1;
  if (tree->object != nullptr) {
    are = tree->is_as_made && take_apart_now(tree, child, structure) ? 0 : 1;
  } else if (child) {
    are = is_leaves(child.get()) ? are_arrays(child.get(), tree->inexact) : 0;
  }
  if (are < 0 || PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  return are == 1 ? Py_NewRef(Py_None)
                  : Py_BuildValue("(O(O))", structure.get(), child.get());
}

PyObject* tree_setstate(PyObject* self, PyObject* state) {
  Tree* tree = as_tree(self);
  PyObject* object =
      PyDict_Check(state) ? PyDict_GetItemWithError(state, names.obj) : nullptr;
  if (object == nullptr || tree->object != nullptr || tree->child != nullptr) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_TypeError,
                      "this is not the state of an empty autojit.Tree");
    }
    return nullptr;
  }
  tree->object = Py_NewRef(object);
  Py_RETURN_NONE;
}

PyMethodDef tree_methods[] = {
    {"_parts", guarded<tree_parts>, METH_NOARGS,
     "_parts($self, /)\n--\n\nTell what `unflatten_tree` would make it of, or None if "
     "its object says it all."},
    {"__setstate__", tree_setstate, METH_O,
     "__setstate__($self, state, /)\n--\n\nGive an empty one its object."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     "See `typing.Generic`: the class of the object."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef tree_members[] = {
    {"_inexact", T_BOOL, offsetof(Tree, inexact), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef tree_getset[] = {
    {"obj", guarded<tree_obj>, nullptr,
     "The object: the one that the tree was made of, or what JAX has made of it, put\n"
     "together when it is first asked for.",
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

bool has_type(PyObject* object, PyTypeObject* type) {
  if (!Py_IS_TYPE(object, type)) {
    PyErr_Format(PyExc_TypeError, "an instance of %s is needed, got one of %s",
                 type->tp_name, Py_TYPE(object)->tp_name);
    return false;
  }
  return true;
}

}  // namespace

PyTypeObject LeavesType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Leaves",
    .tp_basicsize = sizeof(Leaves),
    .tp_dealloc = leaves_dealloc,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "The leaves of a `Tree`, its only child.",
    .tp_traverse = leaves_traverse,
    .tp_members = leaves_members,
    .tp_getset = leaves_getset,
};

PyTypeObject TreeType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Tree",
    .tp_basicsize = sizeof(Tree),
    .tp_dealloc = tree_dealloc,
    .tp_repr = guarded<tree_repr>,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc =
        "Any object as a pytree, whose leaves are its arrays.\n\n"
        "Made by ``autojit.tree``.",
    .tp_traverse = tree_traverse,
    .tp_clear = tree_clear,
    .tp_weaklistoffset = offsetof(Tree, weakrefs),
    .tp_methods = tree_methods,
    .tp_members = tree_members,
    .tp_getset = tree_getset,
};

PyObject* new_tree(PyObject* object, bool inexact) {
  Tree* tree = alloc_tree(inexact);
  if (tree != nullptr) {
    tree->object = Py_XNewRef(object);
  }
  return tree != nullptr ? tree->as_object() : nullptr;
}

PyObject* flatten_tree(PyObject* /*module*/, PyObject* tree) {
  if (!has_type(tree, &TreeType)) {
    return nullptr;
  }
  Tree* self = as_tree(tree);
  Owned child;
  Owned structure;
  if (self->object == nullptr && self->child == nullptr) {
    return Py_XNewRef(object_of(self));  // an exception: it is empty
  }
  if (self->object == nullptr) {
    child = Owned::borrow(self->child);
    structure = Owned::borrow(self->structure);
  } else if (!take_apart_now(self, child, structure)) {
    return nullptr;
  }
  Owned children = Owned::steal(PyTuple_Pack(1, child.get()));
  return children ? PyTuple_Pack(2, children.get(), structure.get()) : nullptr;
}

PyObject* flatten_leaves(PyObject* /*module*/, PyObject* leaves) {
  return has_type(leaves, &LeavesType)
             ? PyTuple_Pack(2, as_leaves(leaves)->items, Py_None)
             : nullptr;
}

PyObject* unflatten_leaves(PyObject* /*module*/, PyObject* const* args,
                           Py_ssize_t nargs) {
  if (nargs != 2) {
    PyErr_SetString(PyExc_TypeError, "unflatten_leaves(static, children)");
    return nullptr;
  }
  return new_leaves(Owned::steal(PySequence_Tuple(args[1])), nullptr).release();
}

PyObject* unflatten_tree(PyObject* /*module*/, PyObject* const* args,
                         Py_ssize_t nargs) {
  if (nargs != 2) {
    PyErr_SetString(PyExc_TypeError, "unflatten_tree(static, children)");
    return nullptr;
  }
  if (!has_type(args[0], &StructureType)) {
    return nullptr;
  }
  Owned children = Owned::steal(PySequence_Tuple(args[1]));
  if (!children) {
    return nullptr;
  }
  if (PyTuple_GET_SIZE(children.get()) != 1) {
    return PyErr_Format(PyExc_ValueError, "an autojit.Tree has one child, got %zd",
                        PyTuple_GET_SIZE(children.get()));
  }
  Tree* tree = alloc_tree(as_structure(args[0])->inexact);
  if (tree == nullptr) {
    return nullptr;
  }
  tree->structure = Py_NewRef(args[0]);
  tree->child = Py_NewRef(PyTuple_GET_ITEM(children.get(), 0));
  if (is_leaves(tree->child) && as_leaves(tree->child)->structure == nullptr) {
    as_leaves(tree->child)->structure = Py_NewRef(args[0]);
  }
  return tree->as_object();
}

}  // namespace autojit
