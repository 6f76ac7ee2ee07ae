#include "skeleton/skeleton.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "objects/function_state.h"
#include "python/errors.h"
#include "skeleton/compare.h"
#include "skeleton/describe.h"
#include "skeleton/difference.h"
#include "skeleton/places.h"
#include "skeleton/rebuild.h"

namespace autojit {

std::size_t static_bytes(const Skeleton* skeleton) {
  if (skeleton == nullptr) {
    return 0;
  }
  const Program& program = skeleton->program;
  std::size_t bytes = sizeof(Skeleton) + program.nodes.size() * sizeof(Node) +
                      program.part_entries.size() * sizeof(PartEntry);
  for (const Node& node : program.nodes) {
    bytes += payload_bytes(node);
  }
  for (PyObject* content : program.contents) {
    bytes += static_bytes(as_skeleton(content));
  }
  return skeleton->closures == nullptr || skeleton->closures == Py_None
             ? bytes
             : bytes + static_bytes(as_skeleton(skeleton->closures));
}

namespace {

int skeleton_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(as_skeleton(self)->closures);
  return as_skeleton(self)->program.traverse(visit, arg);
}

// No tp_clear: a skeleton is immutable, so that a cycle through it goes through
// something else that can be cleared.
void skeleton_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  Py_CLEAR(as_skeleton(self)->closures);
  as_skeleton(self)->program.~Program();
  PyObject_GC_Del(self);
}

Py_hash_t skeleton_hash(PyObject* self) {
  Skeleton* skeleton = as_skeleton(self);
  if (skeleton->hash == -1) {
    skeleton->hash = hash(skeleton->program);
  }
  return skeleton->hash;
}

PyObject* skeleton_compare(PyObject* self, PyObject* other, int op) {
  if (!Py_IS_TYPE(other, &SkeletonType) || (op != Py_EQ && op != Py_NE)) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  int same = self == other ? 1 : equal(as_skeleton(self), as_skeleton(other));
  if (same < 0) {
    return nullptr;
  }
  return PyBool_FromLong((same != 0) == (op == Py_EQ) ? 1 : 0);
}

PyObject* skeleton_repr(PyObject* self) {
  return describe(as_skeleton(self)->program).release();
}

bool is_call(const Program& program) {
  return !program.nodes.empty() && program.nodes.front().kind == Kind::Call;
}

PyObject* skeleton_unflatten(PyObject* self, PyObject* leaves) {
  Skeleton* skeleton = as_skeleton(self);
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
  PyObject* const* items = PySequence_Fast_ITEMS(sequence.get());
  return (is_call(skeleton->program)
              ? rebuild_call(skeleton->program, items)
              : rebuild(skeleton->program, skeleton->root, items))
      .release();
}

PyObject* skeleton_num_leaves(PyObject* self, void* /*closure*/) {
  return PyLong_FromUnsignedLong(as_skeleton(self)->program.leaves);
}

// A number that is less than `end`, or `end` with an exception set.
std::size_t as_number(PyObject* number, std::size_t end, const char* message) {
  std::size_t value = PyLong_AsSize_t(number);
  if (value == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) {
    return end;
  }
  if (value >= end) {
    PyErr_Format(PyExc_IndexError, message, static_cast<Py_ssize_t>(end));
    return end;
  }
  return value;
}

PyObject* skeleton_leaf_path(PyObject* self, PyObject* number) {
  Skeleton* skeleton = as_skeleton(self);
  std::size_t end = skeleton->program.leaves;
  std::size_t leaf = as_number(number, end, "this skeleton has %zd leaves");
  return leaf == end ? nullptr
                     : leaf_path(skeleton->program, skeleton->root,
                                 static_cast<std::uint32_t>(leaf))
                           .release();
}

PyObject* skeleton_node_path(PyObject* self, PyObject* number) {
  Skeleton* skeleton = as_skeleton(self);
  std::size_t end = skeleton->program.nodes.size();
  std::size_t index = as_number(number, end, "this skeleton has %zd nodes");
  return index == end ? nullptr
                      : path(skeleton->program, skeleton->root, index).release();
}

// The leaves of one part of a program, those of what it shares with others included.
void leaves_of(const Program& program, std::size_t part, std::vector<bool>& leaves) {
  std::vector<std::size_t> number(program.nodes.size() + 1);  // of the next leaf
  std::vector<std::size_t> place(program.slots + 1);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    number[i + 1] = number[i] + (is_leaf(node.kind) ? 1U : 0U);
    if (!is_value(node.kind) && has_slot(node)) {
      place[node.extra] = i;
    }
  }
  std::vector<std::size_t> parts{part};
  std::vector<bool> seen(program.slots + 1);
  while (!parts.empty()) {
    std::size_t begin = parts.back();
    std::size_t end = end_of(program, begin);
    parts.pop_back();
    for (std::size_t i = begin; i < end; ++i) {
      const Node& node = program.nodes[i];
      if (is_leaf(node.kind)) {
        leaves[number[i]] = true;
      } else if (node.kind == Kind::Ref && !seen[node.size]) {
        seen[node.size] = true;
        parts.push_back(place[node.size]);
      }
    }
  }
}

// The node of an argument of a call, "self" for the callable; 0 if there is none.
std::size_t node_of_argument(const Program& program, PyObject* argument) {
  const Node& call = program.nodes.front();
  std::size_t part = call.extra;
  if (PyLong_Check(argument)) {
    std::size_t place = PyLong_AsSize_t(argument);
    if (place >= call.size) {
      return 0;
    }
    part += place;
  } else {
    Py_ssize_t place = 0;
    Py_ssize_t count = call.object != nullptr ? PyTuple_GET_SIZE(call.object) : 0;
    while (place < count &&
           PyUnicode_Compare(PyTuple_GET_ITEM(call.object, place), argument) != 0) {
      ++place;
    }
    if (place == count) {
      bool is_callable = PyUnicode_CompareWithASCIIString(argument, "self") == 0;
      return is_callable && call.extra != 0 ? 1 : 0;
    }
    part += call.size + static_cast<std::size_t>(place);
  }
  std::size_t index = 1;
  for (; part != 0; --part) {
    index = end_of(program, index);
  }
  return index;
}

// The numbers of the leaves of one part: a new list, or nullptr with an exception set.
PyObject* list_leaves(const Program& program, std::size_t part) {
  std::vector<bool> leaves(program.leaves);
  if (part != 0) {
    leaves_of(program, part, leaves);
  }
  Owned list = Owned::steal(PyList_New(0));
  for (std::size_t i = 0; list && i < leaves.size(); ++i) {
    Owned number = Owned::steal(leaves[i] ? PyLong_FromSize_t(i) : Py_NewRef(Py_None));
    if (!number || (leaves[i] && PyList_Append(list.get(), number.get()) < 0)) {
      return nullptr;
    }
  }
  return list.release();
}

PyObject* skeleton_argument_leaves(PyObject* self, PyObject* argument) {
  const Program& program = as_skeleton(self)->program;
  if (!is_call(program) || !(PyLong_Check(argument) || PyUnicode_Check(argument))) {
    PyErr_SetString(PyExc_TypeError, "the number or name of an argument of a call");
    return nullptr;
  }
  std::size_t index = node_of_argument(program, argument);
  if (PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  return list_leaves(program, index);
}

// What a node hands through whole and that may hold arrays, borrowed, or nullptr. The
// class of an instance may if a function has made it.
PyObject* handed_through(const Node& node) {
  PyObject* object = node.object;
  switch (node.kind) {
    case Kind::Opaque:
    case Kind::Stateless:
    case Kind::Function:
      return object;
    case Kind::Identity:
      return object == Py_None || PyBool_Check(object) || PyModule_Check(object) ||
                     (PyType_Check(object) &&
                      (reinterpret_cast<PyTypeObject*>(object)->tp_flags &
                       Py_TPFLAGS_HEAPTYPE) == 0)
                 ? nullptr
                 : object;
    case Kind::Instance:
      object = reinterpret_cast<PyObject*>(node.plan->type);
      return is_local_class(object) ? object : nullptr;
    case Kind::NamedTuple:
    case Kind::Fresh:
    case Kind::Reduce:
      return is_local_class(object) ? object : nullptr;
    default:
      return nullptr;
  }
}

PyObject* skeleton_handed_through(PyObject* self, PyObject* call) {
  if (!Py_IS_TYPE(call, &SkeletonType) ||
      (as_skeleton(self)->program.inputs != 0 &&
       as_skeleton(self)->program.inputs != as_skeleton(call)->program.nodes.size())) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of the call is needed");
    return nullptr;
  }
  const Program& program = as_skeleton(self)->program;
  const Program& inputs = as_skeleton(call)->program;
  Owned list = Owned::steal(PyList_New(0));
  for (std::size_t i = 0; list && i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    PyObject* object = handed_through(node);
    if (node.kind == Kind::Forward && node.extra == kFunction) {
      object = inputs.functions[node.size];
    } else if (node.kind == Kind::Forward && node.extra == kWhole) {
      object = inputs.nodes[node.size].object;
    }
    if (object == nullptr) {
      continue;
    }
    PyObject* is_calls = node.kind == Kind::Forward ? Py_True : Py_False;
    PyObject* is_same = node.kind == Kind::Identity ? Py_True : Py_False;
    // An instance without state has no more to look into than its class.
    auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
    bool has_class = node.kind == Kind::Stateless && is_local_class(type);
    for (PyObject* handed : {object, has_class ? type : nullptr}) {
      Owned item =
          Owned::steal(handed == nullptr
                           ? Py_NewRef(Py_None)
                           : Py_BuildValue("(OnOO)", handed, static_cast<Py_ssize_t>(i),
                                           is_calls, is_same));
      if (!item || (handed != nullptr && PyList_Append(list.get(), item.get()) < 0)) {
        return nullptr;
      }
    }
  }
  return list.release();
}

// What a call hands through whole, and what its functions hold now; None if that is too
// much.
PyObject* skeleton_captured(PyObject* self, PyObject* /*args*/) {
  const Program& program = as_skeleton(self)->program;
  std::vector<PyObject*> objects;
  for (PyObject* function : program.functions) {
    std::vector<PyObject*> held;
    if (!held_by(function, held)) {
      Py_RETURN_NONE;
    }
    objects.push_back(function);
    // Values have no identity, and constants are in many places.
    std::copy_if(
        held.begin(), held.end(), std::back_inserter(objects), [](PyObject* object) {
          return !PyTuple_CheckExact(object) && !PyFrozenSet_CheckExact(object);
        });
  }
  for (const Node& node : program.nodes) {
    if (is_handed_through(node)) {
      objects.push_back(node.object);
    }
  }
  return tuple_of(objects.data(), objects.size()).release();
}

// The leaves of a call at places that were learned.
PyObject* skeleton_learned(PyObject* self, PyObject* /*args*/) {
  Owned list = Owned::steal(PyList_New(0));
  std::size_t leaf = 0;
  for (const Node& node : as_skeleton(self)->program.nodes) {
    if (list && node.kind == Kind::Traced && node.size != 0) {
      Owned number = Owned::steal(PyLong_FromSize_t(leaf));
      if (!number || PyList_Append(list.get(), number.get()) < 0) {
        return nullptr;
      }
    }
    leaf += is_leaf(node.kind) ? 1U : 0U;
  }
  return list.release();
}

PyObject* skeleton_leads(PyObject* self, PyObject* steps) {
  if (!PyTuple_Check(steps)) {
    PyErr_SetString(PyExc_TypeError, "a tuple of steps is needed");
    return nullptr;
  }
  bool leads = lead_anywhere(as_skeleton(self)->program, steps_of(steps));
  return PyErr_Occurred() == nullptr ? PyBool_FromLong(static_cast<long>(leads))
                                     : nullptr;
}

// The instances without state that the trace of a call gets as themselves.
PyObject* skeleton_sentinels(PyObject* self, PyObject* /*args*/) {
  Owned list = Owned::steal(PyList_New(0));
  for (const Node& node : as_skeleton(self)->program.nodes) {
    if (list && node.kind == Kind::Stateless && node.size == 0 &&
        PyList_Append(list.get(), node.object) < 0) {
      return nullptr;
    }
  }
  return list.release();
}

PyObject* skeleton_diff(PyObject* self, PyObject* other) {
  if (!Py_IS_TYPE(other, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "diff needs another skeleton");
    return nullptr;
  }
  return difference(as_skeleton(self), as_skeleton(other)).release();
}

// More are as good as any number.
constexpr std::size_t kMostDifferences = 5;

PyObject* skeleton_differences(PyObject* self, PyObject* other) {
  if (!Py_IS_TYPE(other, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "another skeleton is needed");
    return nullptr;
  }
  return differences(as_skeleton(self), as_skeleton(other), kMostDifferences).release();
}

// What a function has changed in its arguments, which are now those of `args`.
PyObject* skeleton_lost(PyObject* self, PyObject* args) {
  PyObject* leaves = nullptr;
  PyObject* result = nullptr;
  PyObject* callable = nullptr;
  PyObject* given = nullptr;
  PyObject* kwargs = nullptr;
  Skeleton* skeleton = as_skeleton(self);
  if (PyArg_ParseTuple(args, "O!OOO!O!:_lost", &PyTuple_Type, &leaves, &result,
                       &callable, &PyTuple_Type, &given, &PyDict_Type, &kwargs) == 0) {
    return nullptr;
  }
  const Program& program = skeleton->program;
  Owned names = Owned::steal(PySequence_Tuple(kwargs));
  std::vector<PyObject*> all(PySequence_Fast_ITEMS(given),
                             PySequence_Fast_ITEMS(given) + PyTuple_GET_SIZE(given));
  for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names.get()); ++i) {
    all.push_back(PyDict_GetItemWithError(kwargs, PyTuple_GET_ITEM(names.get(), i)));
    if (all.back() == nullptr) {
      return nullptr;
    }
  }
  if (!names || !is_call(program) ||
      PyTuple_GET_SIZE(leaves) != static_cast<Py_ssize_t>(program.leaves)) {
    return names ? PyErr_Format(PyExc_ValueError, "these are not of the call")
                 : nullptr;
  }
  // In the order of the skeleton, in which the keywords were given.
  CallView call{callable != Py_None ? callable : nullptr,
                all.data(),
                static_cast<std::uint32_t>(PyTuple_GET_SIZE(given)),
                PyTuple_GET_SIZE(names.get()) != 0 ? names.get() : nullptr,
                true,
                false};
  return lost_changes(skeleton, PySequence_Fast_ITEMS(leaves), result, call).release();
}

PyObject* skeleton_distance(PyObject* self, PyObject* other) {
  if (!Py_IS_TYPE(other, &SkeletonType)) {
    PyErr_SetString(PyExc_TypeError, "another skeleton is needed");
    return nullptr;
  }
  return PyLong_FromSize_t(distance(as_skeleton(self), as_skeleton(other)));
}

PyMethodDef skeleton_methods[] = {
    {"_handed_through", guarded<skeleton_handed_through>, METH_O,
     "_handed_through($self, call, /)\n--\n\nList the objects of a result that are "
     "not looked into, each with the number of its node, whether it is one of the "
     "call's, and whether it is compared by identity."},
    {"_captured", guarded<skeleton_captured>, METH_NOARGS,
     "_captured($self, /)\n--\n\nList what a call hands through that is compared by "
     "value, and what it holds."},
    {"_sentinels", guarded<skeleton_sentinels>, METH_NOARGS,
     "_sentinels($self, /)\n--\n\nList the instances without state that a trace gets "
     "as themselves."},
    {"_learned", guarded<skeleton_learned>, METH_NOARGS,
     "_learned($self, /)\n--\n\nList the leaves at places that were learned from "
     "calls."},
    {"_leads", guarded<skeleton_leads>, METH_O,
     "_leads($self, steps, /)\n--\n\nTell whether a tuple of steps, as a path writes "
     "them, leads anywhere in a call."},
    {"diff", guarded<skeleton_diff>, METH_O,
     "diff($self, other, /)\n--\n\n"
     "Say in what another skeleton differs.\n\n"
     "Parameters\n----------\n"
     "other : Skeleton\n"
     "    What has come after this one.\n\n"
     "Returns\n-------\n"
     "str or None\n"
     "    The first difference on a walk through both, with its path, on one line:\n"
     "    ``obj.config['act']: was 'tanh', now 'relu'``. None if the two are equal.\n"},
    {"_differences", guarded<skeleton_differences>, METH_O,
     "_differences($self, other, /)\n--\n\nList the parts of another skeleton that "
     "differ, each with its path, and the texts of what stood and stands there, and "
     "whether "
     "that could be traced: at most five. Functions differ in their code only."},
    {"_lost", guarded<skeleton_lost>, METH_VARARGS,
     "_lost($self, leaves, result, fun, args, kwargs, /)\n--\n\nList the paths of "
     "what a function has changed in the arguments of a call, and not returned.\n\n"
     "`leaves` are those that it was called with; `fun` is None if it is not part of "
     "the call."},
    {"_distance", skeleton_distance, METH_O,
     "_distance($self, other, /)\n--\n\nTell how far apart two skeletons are, to find "
     "the nearest of several."},
    {"_node_path", guarded<skeleton_node_path>, METH_O,
     "_node_path($self, number, /)\n--\n\nSay where a node stands."},
    {"_leaf_path", guarded<skeleton_leaf_path>, METH_O,
     "_leaf_path($self, leaf, /)\n--\n\nSay where a leaf stands, like "
     "``args[0]['x']``."},
    {"_argument_leaves", guarded<skeleton_argument_leaves>, METH_O,
     "_argument_leaves($self, argument, /)\n--\n\nList the leaves in an argument of a "
     "call, which is given by its number or its keyword."},
    {"unflatten", guarded<skeleton_unflatten>, METH_O,
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
  const Program& program = as_skeleton(self)->program;
  return PyLong_FromUnsignedLong(is_call(program) ? program.nodes.front().size : 0);
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
    .tp_repr = guarded<skeleton_repr>,
    .tp_hash = guarded<skeleton_hash>,
    .tp_flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc =
        "What is left of an object when its leaves are taken out.\n\n"
        "Made by ``autojit.flatten``. Two skeletons are equal if the objects have\n"
        "the same structure, the same sharing and equal static parts; they can be\n"
        "hashed, and pickled if what they hold can be.",
    .tp_traverse = skeleton_traverse,
    .tp_richcompare = guarded<skeleton_compare>,
    .tp_methods = skeleton_methods,
    .tp_getset = skeleton_getset,
};

Owned new_skeleton(Program&& program, const char* root) {
  auto* skeleton = PyObject_GC_New(Skeleton, &SkeletonType);
  if (skeleton == nullptr) {
    return {};
  }
  new (&skeleton->program) Program(std::move(program));
  skeleton->root = root;
  skeleton->hash = -1;
  skeleton->closures = nullptr;
  Owned owned = Owned::steal(skeleton->object());
  PyObject_GC_Track(owned.get());
  return owned;
}

}  // namespace autojit
