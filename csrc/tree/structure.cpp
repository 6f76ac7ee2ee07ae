#include "tree/structure.h"

#include <structmember.h>

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "python/errors.h"
#include "skeleton/compare.h"
#include "skeleton/describe.h"
#include "skeleton/difference.h"

namespace autojit {

namespace {

void forget_other(Structure* self) {
  if (self->other != nullptr) {
    self->other->other = nullptr;
    self->other = nullptr;
  }
}

// By class. They are borrowed: one that goes takes itself out. A class that goes may
// leave its place to another one, with whose objects its structure does not agree.
std::unordered_map<std::uintptr_t, Structure*>& last_structures() {
  static auto* const structures = new std::unordered_map<std::uintptr_t, Structure*>;
  return *structures;
}

std::uintptr_t key_of(PyTypeObject* type, bool inexact) {
  return reinterpret_cast<std::uintptr_t>(type) + (inexact ? 1U : 0U);
}

int structure_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_structure(self)->skeleton);
  Py_VISIT(as_structure(self)->kept);
  return 0;
}

// No tp_clear: it is immutable, as a skeleton is.
void structure_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  forget_other(as_structure(self));
  auto last = last_structures().find(as_structure(self)->key);
  if (last != last_structures().end() && last->second == as_structure(self)) {
    last_structures().erase(last);
  }
  Py_DECREF(as_structure(self)->skeleton);
  Py_XDECREF(as_structure(self)->kept);
  PyObject_GC_Del(self);
}

Py_hash_t structure_hash(PyObject* self) {
  return PyObject_Hash(as_structure(self)->skeleton);
}

// The first place in which what two structures of one skeleton keep is not the same; -1
// if there is none.
Py_ssize_t first_other_array(PyObject* kept, PyObject* other) {
  Py_ssize_t size = kept != nullptr ? PyTuple_GET_SIZE(kept) : 0;
  for (Py_ssize_t i = 0; i < size; ++i) {
    if (PyTuple_GET_ITEM(kept, i) != PyTuple_GET_ITEM(other, i)) {
      return i;
    }
  }
  return -1;
}

PyObject* structure_compare(PyObject* self, PyObject* other, int op) {
  if (!Py_IS_TYPE(other, &StructureType) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  Structure* a = as_structure(self);
  Structure* b = as_structure(other);
  int same = a == b ? 1 : 0;
  if (a != b && a->inexact == b->inexact) {
    Owned holders[] = {Owned::borrow(self), Owned::borrow(other)};
    same = equal(as_skeleton(a->skeleton), as_skeleton(b->skeleton));
    if (same < 0) {
      return nullptr;
    }
    same = same == 1 && have_same_arrays(a->kept, b->kept) ? 1 : 0;
  }
  if (same == 0) {
    // What JAX does next is to print both.
    forget_other(a);
    forget_other(b);
    a->other = b;
    b->other = a;
  }
  return PyBool_FromLong((same != 0) == (op == Py_EQ) ? 1 : 0);
}

// What `self` has where the other one differs; nothing if it does not, or with an
// exception set on failure. Runs Python.
Owned where_it_differs(Structure* self, Structure* other) {
  if (self->inexact != other->inexact) {
    return Owned::steal(
        PyUnicode_FromString(self->inexact ? "inexact=True: other arrays are static"
                                           : "inexact=False: all arrays are leaves"));
  }
  Owned text =
      difference_as_first(as_skeleton(self->skeleton), as_skeleton(other->skeleton));
  if (!text || text.get() != Py_None) {
    return text;
  }
  Py_ssize_t place = first_other_array(self->kept, other->kept);
  if (place < 0) {
    return {};
  }
  Owned where = leaf_path(self->program(), "obj", static_cast<std::uint32_t>(place));
  const char* is = PyTuple_GET_ITEM(self->kept, place) == Py_None
                       ? "is a leaf"
                       : "is another array, and static since inexact=True";
  return Owned::steal(where ? PyUnicode_FromFormat("%U %s", where.get(), is) : nullptr);
}

PyObject* structure_repr(PyObject* object) {
  Structure* self = as_structure(object);
  Owned other = Owned::borrow(self->other != nullptr ? self->other->object() : nullptr);
  Owned text = other ? where_it_differs(self, as_structure(other.get())) : Owned();
  if (!text && PyErr_Occurred() == nullptr) {
    text = describe_structure(self);
  }
  return text ? PyUnicode_FromFormat("<%U>", text.get()) : nullptr;
}

PyMemberDef structure_members[] = {
    {"skeleton", T_OBJECT, offsetof(Structure, skeleton), READONLY, nullptr},
    {"kept", T_OBJECT, offsetof(Structure, kept), READONLY, nullptr},
    {"inexact", T_BOOL, offsetof(Structure, inexact), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

PyTypeObject StructureType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Structure",
    .tp_basicsize = sizeof(Structure),
    .tp_dealloc = structure_dealloc,
    .tp_repr = guarded<structure_repr>,
    .tp_hash = structure_hash,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc =
        "What is static of a `Tree`.\n\n"
        "After two were found to differ, each prints as what it has there.",
    .tp_traverse = structure_traverse,
    .tp_richcompare = guarded<structure_compare>,
    .tp_members = structure_members,
};

Owned new_structure(PyObject* skeleton, PyObject* kept, bool inexact) {
  std::uint32_t leaves = as_skeleton(skeleton)->program.leaves;
  for (Py_ssize_t i = 0; kept != nullptr && i < PyTuple_GET_SIZE(kept); ++i) {
    leaves -= PyTuple_GET_ITEM(kept, i) != Py_None ? 1U : 0U;
  }
  auto* structure = PyObject_GC_New(Structure, &StructureType);
  if (structure == nullptr) {
    return {};
  }
  structure->skeleton = Py_NewRef(skeleton);
  structure->kept = Py_XNewRef(kept);
  structure->leaves = leaves;
  structure->inexact = inexact;
  structure->other = nullptr;
  structure->key = 0;
  PyObject_GC_Track(structure->object());
  return Owned::steal(structure->object());
}

Structure* last_structure(PyTypeObject* type, bool inexact) {
  auto last = last_structures().find(key_of(type, inexact));
  return last != last_structures().end() ? last->second : nullptr;
}

void note_last_structure(PyTypeObject* type, Structure* structure) {
  structure->key = key_of(type, structure->inexact);
  last_structures()[structure->key] = structure;
}

bool have_same_arrays(PyObject* kept, PyObject* other) {
  return first_other_array(kept, other) < 0;
}

Owned describe_structure(const Structure* structure) {
  Owned text = describe_part(structure->program(), 0);
  return text ? abridged(text, 0) : Owned();
}

Owned leaf_paths(const Structure* structure) {
  OwnedVector paths;
  if (!all_leaf_paths(structure->program(), "", paths)) {
    return {};
  }
  if (structure->kept == nullptr) {
    return tuple_of(paths.data(), paths.size());
  }
  std::vector<PyObject*> of_leaves;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (PyTuple_GET_ITEM(structure->kept, static_cast<Py_ssize_t>(i)) == Py_None) {
      of_leaves.push_back(paths[i]);
    }
  }
  return tuple_of(of_leaves.data(), of_leaves.size());
}

}  // namespace autojit
