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

namespace {

std::uint32_t popcount(std::uint32_t bits) {
  std::uint32_t count = 0;
  for (; bits != 0; bits &= bits - 1) {
    ++count;
  }
  return count;
}

}  // namespace

std::size_t parts_of(const Program& program, const Node& node) {
  switch (node.op) {
    case Op::Tuple:
    case Op::NamedTuple:
    case Op::List:
    case Op::Set:
    case Op::FrozenSet:
      return node.size;
    case Op::Dict:
      return std::size_t{2} * node.size;
    case Op::Range:
    case Op::Slice:
      return 3;
    case Op::Method:
      return 2;
    case Op::Partial:
      return 4;
    case Op::Instance:
      return std::size_t{2} * node.size + node.plan->slots.size();
    case Op::Reduce:
      return 2 + popcount(node.size);
    case Op::Call:
      return node.extra + node.size + program.keyword_places.size();
    default:
      return 0;
  }
}

std::size_t end_of(const Program& program, std::size_t index) {
  std::size_t left = 1;
  while (left != 0) {
    const Node& node = program.nodes[index];
    bool has_extent =
        index + 1 < program.nodes.size() && program.nodes[index + 1].op == Op::Extent;
    if (node.op == Op::Function && has_extent) {  // among closures
      index += 2 + program.nodes[index + 1].size;
      --left;
      continue;
    }
    index += has_extent ? 2 : 1;
    left += parts_of(program, node);
    --left;
  }
  return index;
}

std::size_t node_of_slot(const Program& program, std::uint32_t slot) {
  std::size_t index = 0;
  while (!has_slot(program.nodes[index]) || program.nodes[index].extra != slot ||
         // Only among closures, a function has a slot.
         (program.nodes[index].op == Op::Function &&
          program.nodes[index + 1].op != Op::Extent)) {
    ++index;
  }
  return index;
}

namespace {

// How many bytes a node keeps alive, beside itself.
std::size_t payload_bytes(const Node& node) {
  switch (node.op) {
    case Op::Bytes:
    case Op::Bytearray:
      return static_cast<std::size_t>(PyBytes_GET_SIZE(node.object));
    case Op::Str:
      return static_cast<std::size_t>(PyUnicode_GET_LENGTH(node.object)) *
             PyUnicode_KIND(node.object);
    case Op::NumpyArray:
      return numpy_size(node.object);
    default:
      return 0;
  }
}

}  // namespace

// As all that holds Python objects here, it outlives the interpreter.
std::unordered_map<PyObject*, std::size_t>& stateless_references() {
  static auto* map = new std::unordered_map<PyObject*, std::size_t>();
  return *map;
}

namespace {

// One that was counted goes.
void forget_reference(PyObject* object) {
  auto found = stateless_references().find(object);
  if (found != stateless_references().end() && --found->second == 0) {
    stateless_references().erase(found);
  }
}

}  // namespace

int Program::traverse(visitproc visit, void* arg) const {
  for (const Node& node : nodes) {
    Py_VISIT(owned_object(node));
  }
  for (const std::vector<Owned>* owned :
       {&functions, &codes, &originals, &call_opaque, &contents}) {
    for (const Owned& object : *owned) {
      Py_VISIT(object.get());
    }
  }
  for (const auto& [number, arrays] : omitted) {
    for (const Owned& array : arrays) {
      Py_VISIT(array.get());
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
  std::vector<Owned> old_call_opaque;
  old_call_opaque.swap(call_opaque);
  std::vector<Owned> old_contents;
  old_contents.swap(contents);
  std::unordered_map<std::size_t, std::vector<Owned>> old_omitted;
  old_omitted.swap(omitted);
  call_kwnames = Owned();
  for (const std::vector<Owned>* owned : {&old_originals, &old_call_opaque}) {
    for (const Owned& object : *owned) {
      forget_reference(object.get());
    }
  }
  for (const Node& node : old) {
    if (node.op == Op::Stateless) {
      forget_reference(node.object);
    }
  }
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
  part_entries.swap(other.part_entries);
  functions.swap(other.functions);
  codes.swap(other.codes);
  lone_functions.swap(other.lone_functions);
  withheld.swap(other.withheld);
  originals.swap(other.originals);
  call_opaque.swap(other.call_opaque);
  contents.swap(other.contents);
  omitted.swap(other.omitted);
  keyword_places.swap(other.keyword_places);
  std::swap(leaves, other.leaves);
  std::swap(inputs, other.inputs);
  std::swap(slots, other.slots);
  std::swap(depth, other.depth);
  std::swap(reduces, other.reduces);
  std::swap(allocates, other.allocates);
  std::swap(has_closures, other.has_closures);
  Owned mine = std::move(call_kwnames);
  call_kwnames = std::move(other.call_kwnames);
  other.call_kwnames = std::move(mine);
}

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
  for (const Owned& content : program.contents) {
    bytes += static_bytes(reinterpret_cast<Skeleton*>(content.get()));
  }
  return skeleton->closures == nullptr || skeleton->closures == Py_None
             ? bytes
             : bytes + static_bytes(reinterpret_cast<Skeleton*>(skeleton->closures));
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
  int same = -1;
  try {
    same = self == other ? 1 : equal(cast(self), cast(other));
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
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

// The leaves of one part of a program, those of what it shares with others included.
void leaves_of(const Program& program, std::size_t part, std::vector<bool>& leaves) {
  std::vector<std::size_t> number(program.nodes.size() + 1);  // of the next leaf
  std::vector<std::size_t> place(program.slots + 1);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    number[i + 1] = number[i] + (node.op == Op::Leaf ? 1U : 0U);
    if (!is_constant(node.op) && has_slot(node)) {
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
      if (node.op == Op::Leaf) {
        leaves[number[i]] = true;
      } else if (node.op == Op::Ref && !seen[node.size]) {
        seen[node.size] = true;
        parts.push_back(place[node.size]);
      }
    }
  }
}

// The node of an argument of a call; 0 if there is none.
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
      return 0;
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
  const Program& program = cast(self)->program;
  if (program.nodes.empty() || program.nodes.front().op != Op::Call ||
      !(PyLong_Check(argument) || PyUnicode_Check(argument))) {
    PyErr_SetString(PyExc_TypeError, "the number or name of an argument of a call");
    return nullptr;
  }
  std::size_t index = node_of_argument(program, argument);
  if (PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  try {
    return list_leaves(program, index);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

// What a node hands through whole and that may hold arrays, borrowed, or nullptr. The
// class of an instance may if a function has made it.
PyObject* handed_through(const Node& node) {
  PyObject* object = node.object;
  switch (node.op) {
    case Op::Opaque:
    case Op::Stateless:
    case Op::Function:
      return object;
    case Op::Identity:
      return object == Py_None || PyBool_Check(object) || PyModule_Check(object) ||
                     (PyType_Check(object) &&
                      (reinterpret_cast<PyTypeObject*>(object)->tp_flags &
                       Py_TPFLAGS_HEAPTYPE) == 0)
                 ? nullptr
                 : object;
    case Op::Instance:
      object = reinterpret_cast<PyObject*>(node.plan->type);
      return is_local_class(object) ? object : nullptr;
    case Op::NamedTuple:
    case Op::Reduce:
      return is_local_class(object) ? object : nullptr;
    default:
      return nullptr;
  }
}

PyObject* skeleton_handed_through(PyObject* self, PyObject* call) {
  if (!Py_IS_TYPE(call, &SkeletonType) ||
      (cast(self)->program.inputs != 0 &&
       cast(self)->program.inputs != cast(call)->program.nodes.size())) {
    PyErr_SetString(PyExc_TypeError, "the skeleton of the call is needed");
    return nullptr;
  }
  const Program& program = cast(self)->program;
  const Program& inputs = cast(call)->program;
  Owned list = Owned::steal(PyList_New(0));
  for (std::size_t i = 0; list && i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    PyObject* object = handed_through(node);
    if (node.op == Op::Forward && node.extra == kFunction) {
      object = inputs.functions[node.size].get();
    } else if (node.op == Op::Forward && node.extra == kWhole) {
      object = inputs.nodes[node.size].object;
    }
    if (object == nullptr) {
      continue;
    }
    PyObject* is_calls = node.op == Op::Forward ? Py_True : Py_False;
    // An instance without state has no more to look into than its class.
    auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
    bool has_class = node.op == Op::Stateless && is_local_class(type);
    for (PyObject* handed : {object, has_class ? type : nullptr}) {
      Owned item = Owned::steal(
          handed == nullptr
              ? Py_NewRef(Py_None)
              : Py_BuildValue("(OnO)", handed, static_cast<Py_ssize_t>(i), is_calls));
      if (!item || (handed != nullptr && PyList_Append(list.get(), item.get()) < 0)) {
        return nullptr;
      }
    }
  }
  return list.release();
}

// The functions and opaque objects of a call, and what these functions hold now, as far
// as it has an identity.
PyObject* skeleton_captured(PyObject* self, PyObject* /*args*/) {
  const Program& program = cast(self)->program;
  Owned list = Owned::steal(PyList_New(0));
  auto append = [&list](const std::vector<Owned>& objects) {
    return std::all_of(objects.begin(), objects.end(), [&list](const Owned& object) {
      return !object || PyList_Append(list.get(), object.get()) == 0;
    });
  };
  Owned closures = Owned::steal(list && program.has_closures ? closures_now(cast(self))
                                                             : Py_NewRef(Py_None));
  if (!list || !closures || !append(program.functions) ||
      (closures.get() != Py_None && !append(cast(closures.get())->program.originals))) {
    return nullptr;
  }
  for (const Node& node : program.nodes) {
    if (is_handed_through(node) && PyList_Append(list.get(), node.object) < 0) {
      return nullptr;
    }
  }
  return list.release();
}

// The instances without state that the trace of a call gets as themselves.
PyObject* skeleton_sentinels(PyObject* self, PyObject* /*args*/) {
  Owned list = Owned::steal(PyList_New(0));
  for (const Node& node : cast(self)->program.nodes) {
    if (list && node.op == Op::Stateless && node.size == 0 &&
        PyList_Append(list.get(), node.object) < 0) {
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
     "not looked into, each with the number of its node, and whether it is one of the "
     "call's."},
    {"_captured", skeleton_captured, METH_NOARGS,
     "_captured($self, /)\n--\n\nList what a call hands through that is compared by "
     "value, and what it holds."},
    {"_sentinels", skeleton_sentinels, METH_NOARGS,
     "_sentinels($self, /)\n--\n\nList the instances without state that a trace gets "
     "as themselves."},
    {"_node_path", skeleton_node_path, METH_O,
     "_node_path($self, number, /)\n--\n\nSay where a node stands."},
    {"_leaf_path", skeleton_leaf_path, METH_O,
     "_leaf_path($self, leaf, /)\n--\n\nSay where a leaf stands, like "
     "``args[0]['x']``."},
    {"_argument_leaves", skeleton_argument_leaves, METH_O,
     "_argument_leaves($self, argument, /)\n--\n\nList the leaves in an argument of a "
     "call, which is given by its number or its keyword."},
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
