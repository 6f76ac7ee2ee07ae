#include "skeleton.h"

#include <algorithm>
#include <new>
#include <utility>

#include "type_plan.h"

namespace autojit {

namespace {

// The object that a node owns, or nullptr.
PyObject* owned_object(const Node& node) {
  switch (node.op) {
    case Op::Extent:
      return nullptr;
    case Op::Instance:
      return node.plan != nullptr ? reinterpret_cast<PyObject*>(node.plan->type)
                                  : nullptr;
    default:
      return node.object;
  }
}

}  // namespace

int Program::traverse(visitproc visit, void* arg) const {
  for (const Node& node : nodes) {
    Py_VISIT(owned_object(node));
  }
  for (const std::vector<Owned>* owned : {&functions, &codes, &originals}) {
    for (const Owned& object : *owned) {
      Py_VISIT(object.get());
    }
  }
  return 0;
}

void Program::clear() {
  // Empty before the first reference goes: what then runs must not see the rest.
  std::vector<Node> old;
  old.swap(nodes);
  std::vector<Owned> old_functions;
  old_functions.swap(functions);
  std::vector<Owned> old_codes;
  old_codes.swap(codes);
  std::vector<Owned> old_originals;
  old_originals.swap(originals);
  call_kwnames = Owned();
  for (const Node& node : old) {
    PyObject* object = owned_object(node);
    if (node.op == Op::Instance && node.plan != nullptr) {
      node.plan->release();
    }
    Py_XDECREF(object);
  }
}

void Program::swap(Program& other) noexcept {
  nodes.swap(other.nodes);
  set_entries.swap(other.set_entries);
  functions.swap(other.functions);
  codes.swap(other.codes);
  originals.swap(other.originals);
  keyword_places.swap(other.keyword_places);
  std::swap(leaves, other.leaves);
  std::swap(inputs, other.inputs);
  std::swap(input_functions, other.input_functions);
  std::swap(slots, other.slots);
  std::swap(depth, other.depth);
  std::swap(reduces, other.reduces);
  std::swap(allocates, other.allocates);
  std::swap(has_closures, other.has_closures);
  Owned mine = std::move(call_kwnames);
  call_kwnames = std::move(other.call_kwnames);
  other.call_kwnames = std::move(mine);
}

namespace {

Skeleton* cast(PyObject* self) { return reinterpret_cast<Skeleton*>(self); }

int skeleton_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(cast(self)->closures);
  return cast(self)->program.traverse(visit, arg);
}

// No tp_clear: a skeleton is immutable, so that a cycle through it goes through
// something else that can be cleared.
void skeleton_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_CLEAR(cast(self)->closures);
  cast(self)->program.~Program();
  PyObject_GC_Del(self);
}

Py_hash_t skeleton_hash(PyObject* self) {
  Skeleton* skeleton = cast(self);
  if (skeleton->hash == -1) {
    skeleton->hash = hash(skeleton->program);
  }
  return skeleton->hash;
}

PyObject* skeleton_compare(PyObject* self, PyObject* other, int op) {
  if (!Py_IS_TYPE(other, &SkeletonType) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  int same = self == other ? 1 : equal(cast(self), cast(other));
  if (same < 0) {
    return nullptr;
  }
  return PyBool_FromLong((same != 0) == (op == Py_EQ) ? 1 : 0);
}

PyObject* skeleton_repr(PyObject* self) {
  try {
    return describe(cast(self)->program);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* with_leaves(PyObject* self, PyObject* leaves,
                      PyObject* (*put_together)(Skeleton*, PyObject* const*)) {
  Skeleton* skeleton = cast(self);
  Owned sequence =
      Owned::steal(PySequence_Tuple(leaves));  // a copy: no one can change it
  if (!sequence) {
    return nullptr;
  }
  Py_ssize_t given = PyTuple_GET_SIZE(sequence.get());
  if (std::cmp_not_equal(given, skeleton->program.leaves)) {
    return PyErr_Format(PyExc_ValueError, "this skeleton has %u leaves, got %zd",
                        skeleton->program.leaves, given);
  }
  try {
    return put_together(skeleton, PySequence_Fast_ITEMS(sequence.get()));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* skeleton_unflatten(PyObject* self, PyObject* leaves) {
  if (!cast(self)->program.nodes.empty() &&
      cast(self)->program.nodes.front().op == Op::Call) {
    return with_leaves(self, leaves, [](Skeleton* skeleton, PyObject* const* items) {
      return rebuild_call(skeleton->program, items);
    });
  }
  return with_leaves(self, leaves, [](Skeleton* skeleton, PyObject* const* items) {
    return rebuild(skeleton->program, skeleton->root, items);
  });
}

PyObject* skeleton_num_leaves(PyObject* self, void* /*closure*/) {
  return PyLong_FromUnsignedLong(cast(self)->program.leaves);
}

// What is to be said of the leaf of that number.
PyObject* of_leaf(PyObject* self, PyObject* number,
                  PyObject* (*say)(Skeleton*, std::uint32_t)) {
  const Program& program = cast(self)->program;
  std::size_t leaf = PyLong_AsSize_t(number);
  if (leaf == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  if (leaf >= program.leaves) {
    return PyErr_Format(PyExc_IndexError, "this skeleton has %u leaves",
                        program.leaves);
  }
  try {
    return say(cast(self), static_cast<std::uint32_t>(leaf));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* skeleton_leaf_path(PyObject* self, PyObject* number) {
  return of_leaf(self, number, [](Skeleton* skeleton, std::uint32_t leaf) {
    return leaf_path(skeleton->program, skeleton->root, leaf);
  });
}

PyObject* skeleton_leaf_argument(PyObject* self, PyObject* number) {
  return of_leaf(self, number, [](Skeleton* skeleton, std::uint32_t leaf) {
    return leaf_argument(skeleton->program, leaf);
  });
}

bool may_hold_arrays(const Node& node) {
  PyObject* object = node.object;
  return node.op == Op::Opaque || node.op == Op::Function ||
         (node.op == Op::Identity && object != Py_None && !PyBool_Check(object) &&
          !PyModule_Check(object) &&
          // A class that a function has made may hold what it likes.
          (!PyType_Check(object) || (reinterpret_cast<PyTypeObject*>(object)->tp_flags &
                                     Py_TPFLAGS_HEAPTYPE) != 0));
}

PyObject* skeleton_handed_through(PyObject* self, PyObject* call) {
  if (!Py_IS_TYPE(call, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of the call is needed");
    return nullptr;
  }
  const Program& program = cast(self)->program;
  const std::vector<Owned>& functions = cast(call)->program.functions;
  Owned list = Owned::steal(PyList_New(0));
  for (std::size_t i = 0; list && i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    bool is_function = node.op == Op::Forward && node.extra != 0;
    if (is_function ? node.size >= functions.size() : !may_hold_arrays(node)) {
      continue;
    }
    Owned pair = Owned::steal(
        Py_BuildValue("(On)", is_function ? functions[node.size].get() : node.object,
                      static_cast<Py_ssize_t>(i)));
    if (!pair || PyList_Append(list.get(), pair.get()) < 0) {
      return nullptr;
    }
  }
  return list.release();
}

PyObject* skeleton_node_path(PyObject* self, PyObject* number) {
  const Program& program = cast(self)->program;
  std::size_t index = PyLong_AsSize_t(number);
  if (index == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  try {
    return path(program, cast(self)->root, std::min(index, program.nodes.size()));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyMethodDef skeleton_methods[] = {
    {"_handed_through", skeleton_handed_through, METH_O,
     "_handed_through($self, call, /)\n--\n\nList the objects of a result that are "
     "not looked into, each with the number of its node."},
    {"_node_path", skeleton_node_path, METH_O,
     "_node_path($self, number, /)\n--\n\nSay where a node stands."},
    {"_leaf_path", skeleton_leaf_path, METH_O,
     "_leaf_path($self, leaf, /)\n--\n\nSay where a leaf stands, like "
     "``args[0]['x']``."},
    {"_leaf_argument", skeleton_leaf_argument, METH_O,
     "_leaf_argument($self, leaf, /)\n--\n\nSay which argument of a call a leaf "
     "belongs to: its number, its keyword, or None for the callable."},
    {"unflatten", skeleton_unflatten, METH_O,
     "unflatten($self, leaves, /)\n--\n\n"
     "Put the object together again around other leaves.\n\n"
     "Parameters\n----------\n"
     "leaves : iterable\n"
     "    As many objects as `num_leaves`, in the order in which ``flatten`` returned\n"
     "    them. They need not be arrays.\n\n"
     "Returns\n-------\n"
     "object\n"
     "    A new object.\n\n"
     "Raises\n------\n"
     "ValueError\n"
     "    If the number of leaves is wrong.\n"
     "TypeError\n"
     "    If an object's own reduction does not rebuild it. The message names the "
     "path\n"
     "    to the object.\n"},
    {nullptr, nullptr, 0, nullptr},
};

PyObject* skeleton_num_positional(PyObject* self, void* /*closure*/) {
  const Program& program = cast(self)->program;
  bool is_call = !program.nodes.empty() && program.nodes.front().op == Op::Call;
  return PyLong_FromUnsignedLong(is_call ? program.nodes.front().size : 0);
}

PyGetSetDef skeleton_getset[] = {
    {"num_leaves", skeleton_num_leaves, nullptr, "How many leaves the object has.",
     nullptr},
    {"_num_positional", skeleton_num_positional, nullptr,
     "How many positional arguments the call has.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyTypeObject SkeletonType = {
    .ob_base = PyVarObject_HEAD_INIT(nullptr, 0).tp_name = "autojit._core.Skeleton",
    .tp_basicsize = sizeof(Skeleton),
    .tp_dealloc = skeleton_dealloc,
    .tp_repr = skeleton_repr,
    .tp_hash = skeleton_hash,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc =
        "What is left of an object when its leaves are taken out.\n\n"
        "Made by ``autojit.flatten``. Two skeletons are equal if the objects have\n"
        "the same structure, the same sharing and equal static parts; they can be\n"
        "hashed, and pickled if what they hold can be.",
    .tp_traverse = skeleton_traverse,
    .tp_richcompare = skeleton_compare,
    .tp_methods = skeleton_methods,
    .tp_getset = skeleton_getset,
};

Skeleton* new_skeleton(Program&& program, const char* root) {
  auto* skeleton = PyObject_GC_New(Skeleton, &SkeletonType);
  if (skeleton == nullptr) {
    return nullptr;
  }
  new (&skeleton->program) Program(std::move(program));
  skeleton->root = root;
  skeleton->hash = -1;
  skeleton->closures = nullptr;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(skeleton));
  return skeleton;
}

}  // namespace autojit
