// skeleton -> hash, and when two skeletons are equal
#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "skeleton.h"
#include "type_plan.h"

namespace autojit {

namespace {

std::uint64_t mix(std::uint64_t mixed, std::uint64_t value) {
  mixed = (mixed ^ value) * 0x9E3779B97F4A7C15U;
  return mixed ^ (mixed >> 29U);
}

std::uint64_t address(const void* pointer) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer) >> 4U);
}

std::uint64_t hash_constant(const Program& program, const Node& node) {
  switch (node.op) {
    case Op::Float: {
      double value = PyFloat_AS_DOUBLE(node.object);
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Op::Complex: {
      const Py_complex& value = reinterpret_cast<PyComplexObject*>(node.object)->cval;
      return hash_bytes(reinterpret_cast<const char*>(&value), sizeof value);
    }
    case Op::NumpyScalar: {
      Bytes bytes = numpy_scalar_bytes(node.object);
      return mix(address(Py_TYPE(node.object)), hash_bytes(bytes.data, bytes.size));
    }
    case Op::Identity: {
      if (!PyCFunction_Check(node.object)) {
        return address(node.object);
      }
      auto* builtin = reinterpret_cast<PyCFunctionObject*>(node.object);
      return mix(address(builtin->m_ml), address(builtin->m_self));
    }
    case Op::Function:  // not what it holds: calling it may change that
      return mix(mix(address(program.codes[node.size].get()), node.size),
                 address(PyFunction_GET_GLOBALS(node.object)));
    default:  // exact int, str, bytes: can't fail, runs no Python
      return static_cast<std::uint64_t>(PyObject_Hash(node.object));
  }
}

}  // namespace

Py_hash_t hash(const Program& program) {
  std::uint64_t mixed = program.nodes.size();
  python::Signals signals;
  for (const Node& node : program.nodes) {
    if (!signals.look()) {
      return -1;
    }
    mixed = mix(mixed, static_cast<std::uint64_t>(node.op));
    if (is_constant(node.op)) {
      mixed = mix(mixed, hash_constant(program, node));
      continue;
    }
    switch (node.op) {
      case Op::Opaque: {
        Py_hash_t hashed = 0;
        if (!hash_opaque(node.object, hashed)) {
          return -1;
        }
        mixed = mix(mixed, static_cast<std::uint64_t>(hashed));
        break;
      }
      case Op::Owner: {
        Py_hash_t content = PyObject_Hash(program.contents[node.size].get());
        if (content == -1) {
          return -1;
        }
        mixed =
            mix(mix(mixed, static_cast<std::uint64_t>(content)), address(node.object));
        break;
      }
      case Op::Stateless:
        mixed = mix(mixed, node.size != 0 ? address(Py_TYPE(node.object))
                                          : address(node.object));
        break;
      case Op::Bytearray:
        mixed = mix(mixed, static_cast<std::uint64_t>(PyObject_Hash(node.object)));
        break;
      case Op::NumpyArray:
        mixed = mix(mixed, numpy_hash(node.object));
        break;
      case Op::Instance:
        mixed = mix(mix(mixed, node.size), address(node.plan->type));
        break;
      case Op::NamedTuple:
      case Op::Reduce:
        mixed = mix(mix(mixed, node.size), address(node.object));
        break;
      case Op::Call:
        mixed = mix(mixed, node.size);
        if (node.object != nullptr) {  // a tuple of str
          mixed = mix(mixed, static_cast<std::uint64_t>(PyObject_Hash(node.object)));
        }
        break;
      case Op::Extent:  // of a Reduce
        if (node.extra != 0) {
          Py_hash_t content = PyObject_Hash(program.contents[node.extra - 1].get());
          if (content == -1) {
            return -1;
          }
          mixed = mix(mixed, static_cast<std::uint64_t>(content));
        }
        break;
      case Op::Leaf:
      case Op::Unset:
        break;
      default:
        mixed = mix(mixed, node.size);
        break;
    }
  }
  auto result = static_cast<Py_hash_t>(mixed);
  return result == -1 ? -2 : result;
}

namespace {

// Whether two nodes of two programs are the same but for the slots they have, as far as
// their parts don't tell. 1, 0, or -1 with an exception set. May run Python.
int same_node(const Program& a, const Node& x, const Program& b, const Node& y) {
  if (x.op != y.op) {
    return 0;
  }
  if (is_constant(x.op)) {
    return same_constant(x.op, x.object, y.object) ? 1 : 0;
  }
  if (x.op == Op::Extent && (x.extra != 0 || y.extra != 0)) {
    return x.extra == 0 || y.extra == 0
               ? 0
               : equal(reinterpret_cast<Skeleton*>(a.contents[x.extra - 1].get()),
                       reinterpret_cast<Skeleton*>(b.contents[y.extra - 1].get()));
  }
  if (x.op == Op::Owner) {
    return x.object != y.object
               ? 0
               : equal(reinterpret_cast<Skeleton*>(a.contents[x.size].get()),
                       reinterpret_cast<Skeleton*>(b.contents[y.size].get()));
  }
  if (x.size != y.size) {
    return 0;
  }
  switch (x.op) {
    case Op::Instance:
      return x.plan->type == y.plan->type ? 1 : 0;
    case Op::NamedTuple:
    case Op::Reduce:
      return x.object == y.object ? 1 : 0;
    case Op::Bytearray:
      return same_constant(Op::Bytes, x.object, y.object) ? 1 : 0;
    case Op::NumpyArray: {
      int same = numpy_same(x.object, y.object);
      return same < 0 ? numpy_same_slowly(x.object, y.object) : same;
    }
    case Op::Opaque:
      return same_opaque(x.object, y.object);
    case Op::Stateless:
      return x.object == y.object ||
                     (x.size != 0 && Py_TYPE(x.object) == Py_TYPE(y.object))
                 ? 1
                 : 0;
    case Op::Call:
      return x.object == y.object ||
                     (x.object != nullptr && y.object != nullptr &&
                      PyObject_RichCompareBool(x.object, y.object, Py_EQ) == 1)
                 ? 1
                 : 0;
    default:
      return 1;
  }
}

// Compares what functions hold: all goes by value, and what is shared in one has to be
// shared in the other.
class ClosureComparison {
 public:
  ClosureComparison(Program& a, const Program& b)
      : a_(a), b_(b), slots_(a.originals.size()), taken_(b.originals.size()) {}

  // 1, 0, or -1 with an exception set. A function that is in both is equal to itself,
  // whatever it holds by now.
  int equal();
  // Marks the functions of `a` that hold something else than those of `b` in their
  // place. False if that can't be said of single functions, or with an exception set.
  bool mark_changed();

 private:
  // A function whose parts are being compared, and where these end.
  struct Frame {
    std::size_t function;
    std::size_t b_function;
    std::size_t a_end;
    std::size_t b_end;
  };

  int same(const Node& x, const Node& y);
  int ref(const Node& x, const Node& y);
  int walk(std::size_t i, std::size_t i_end, std::size_t j, std::size_t j_end);
  bool bind(std::uint32_t x, std::uint32_t y);
  std::size_t skip(const Program& program, std::size_t function);
  bool apart() const;

  Program& a_;
  const Program& b_;
  std::vector<std::uint32_t> slots_;      // of `a` -> of `b`, 0 for none yet
  std::vector<bool> taken_;               // slots of `b`
  std::unordered_set<PyObject*> inside_;  // borrowed: what the same functions hold
};

std::size_t function_end(const Program& program, std::size_t function) {
  return function + 2 + program.nodes[function + 1].size;
}

bool ClosureComparison::bind(std::uint32_t x, std::uint32_t y) {
  if (slots_[x] != 0 || taken_[y]) {
    return slots_[x] == y;
  }
  slots_[x] = y;
  taken_[y] = true;
  return true;
}

int ClosureComparison::ref(const Node& x, const Node& y) {
  if (slots_[x.size] != 0 || taken_[y.size]) {
    return slots_[x.size] == y.size ? 1 : 0;
  }
  // Met inside a function that is in both: the same object, but it may have changed.
  if (a_.originals[x.size].get() != b_.originals[y.size].get()) {
    return 0;
  }
  std::size_t i = node_of_slot(a_, x.size);
  std::size_t j = node_of_slot(b_, y.size);
  const python::Level level;
  if (!level.entered()) {
    PyErr_Clear();  // to say no is always right
    return 0;
  }
  return walk(i, end_of(a_, i), j, end_of(b_, j));
}

// Two nodes that are not both functions.
int ClosureComparison::same(const Node& x, const Node& y) {
  if (x.op == Op::Ref && y.op == Op::Ref) {
    return ref(x, y);
  }
  if (x.op == Op::Extent && y.op == Op::Extent && x.extra == 0 && y.extra == 0) {
    return 1;
  }
  if (is_handed_through(x) && x.op == y.op) {
    // The trace can tell whether it is one of those that it was given.
    for (std::size_t i = 0; i < a_.call_opaque.size(); ++i) {
      if ((x.object == a_.call_opaque[i].get()) !=
          (y.object == b_.call_opaque[i].get())) {
        return 0;
      }
    }
  }
  int same = same_node(a_, x, b_, y);
  if (same != 1 || !has_slot(x) || !has_slot(y)) {
    return same;
  }
  return (x.extra != 0) == (y.extra != 0) && (x.extra == 0 || bind(x.extra, y.extra))
             ? 1
             : 0;
}

// Past what a function holds, which is noted.
std::size_t ClosureComparison::skip(const Program& program, std::size_t function) {
  std::size_t end = function_end(program, function);
  for (std::size_t i = function; i < end; ++i) {
    const Node& node = program.nodes[i];
    std::uint32_t slot = has_slot(node) ? node.extra : 0U;
    inside_.insert(program.originals[node.op == Op::Ref ? node.size : slot].get());
  }
  return end;
}

// Whether no object that went by value is held by a function that is in both as well:
// that would not be known of the other's.
bool ClosureComparison::apart() const {
  if (inside_.empty()) {
    return true;
  }
  for (std::size_t x = 1; x < slots_.size(); ++x) {
    PyObject* a = a_.originals[x].get();
    PyObject* b = slots_[x] != 0 ? b_.originals[slots_[x]].get() : a;
    if (a != b && (inside_.contains(a) || inside_.contains(b))) {
      return false;
    }
  }
  return true;
}

int ClosureComparison::walk(std::size_t i, std::size_t i_end, std::size_t j,
                            std::size_t j_end) {
  while (i < i_end && j < j_end) {
    const Node& x = a_.nodes[i];
    const Node& y = b_.nodes[j];
    if (x.op != Op::Function || y.op != Op::Function) {
      int same_parts = same(x, y);
      if (same_parts != 1) {
        return same_parts;
      }
      ++i;
      ++j;
      continue;
    }
    bool identical = x.object == y.object;
    if (!bind(x.extra, y.extra) || std::max(x.size, y.size) > (identical ? 1U : 0U)) {
      return 0;
    }
    i = identical ? skip(a_, i) : i + 1;
    j = identical ? skip(b_, j) : j + 1;
  }
  return i == i_end && j == j_end ? 1 : 0;
}

int ClosureComparison::equal() {
  int same_parts = walk(0, a_.nodes.size(), 0, b_.nodes.size());
  return same_parts == 1 && !apart() ? 0 : same_parts;
}

bool ClosureComparison::mark_changed() {
  std::vector<Frame> frames;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a_.nodes.size() || j < b_.nodes.size()) {
    bool at_end = !frames.empty() && i == frames.back().a_end;
    if (at_end && j == frames.back().b_end) {
      frames.pop_back();
      continue;
    }
    int same_parts = 0;
    if (!at_end && i < a_.nodes.size() && j < b_.nodes.size()) {
      const Node& x = a_.nodes[i];
      const Node& y = b_.nodes[j];
      if (x.op == Op::Function && y.op == Op::Function) {
        frames.push_back({i, j, function_end(a_, i), function_end(b_, j)});
        same_parts = bind(x.extra, y.extra) ? 1 : 0;
      } else {
        same_parts = same(x, y);
      }
    }
    if (same_parts < 0 || (same_parts == 0 && frames.empty())) {
      return false;
    }
    ++i;
    ++j;
    if (same_parts == 0) {
      Frame changed = frames.back();
      frames.pop_back();
      Node& function = a_.nodes[changed.function];
      bool itself = function.object == b_.nodes[changed.b_function].object;
      function.size = itself && function.size != 2 ? 1 : 2;
      i = changed.a_end;
      j = changed.b_end;
    }
  }
  return true;
}

int equal_closures(Skeleton* a, Skeleton* b) {
  Owned x = Owned::borrow(closures_of(a));
  Owned y = Owned::borrow(x ? closures_of(b) : nullptr);
  if (!x || !y) {
    return -1;
  }
  if (x.get() == Py_None || y.get() == Py_None) {
    return 0;
  }
  return ClosureComparison(reinterpret_cast<Skeleton*>(x.get())->program,
                           reinterpret_cast<Skeleton*>(y.get())->program)
      .equal();
}

}  // namespace

int equal(Skeleton* first, Skeleton* second) {
  const Program& a = first->program;
  const Program& b = second->program;
  if (a.nodes.size() != b.nodes.size() || a.leaves != b.leaves || a.slots != b.slots) {
    return 0;
  }
  bool compare_closures = false;
  python::Signals signals;
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    if (!signals.look()) {
      return -1;
    }
    const Node& x = a.nodes[i];
    const Node& y = b.nodes[i];
    if (x.op == Op::Function && y.op == Op::Function) {
      if (x.size != y.size || a.codes[x.size].get() != b.codes[y.size].get()) {
        return 0;
      }
      if (x.object == y.object) {
        continue;
      }
      if (PyFunction_GET_GLOBALS(x.object) != PyFunction_GET_GLOBALS(y.object) ||
          x.extra != y.extra) {
        return 0;
      }
      compare_closures = compare_closures || x.extra != 0;
      continue;
    }
    int same = same_node(a, x, b, y);
    if (same != 1) {
      return same;
    }
    bool counts = (has_slot(x) && has_slot(y)) || x.op == Op::Call;
    if (counts && x.extra != y.extra) {
      return 0;
    }
  }
  return compare_closures ? equal_closures(first, second) : 1;
}

bool note_changed_functions(Skeleton* skeleton) {
  Program& program = skeleton->program;
  for (std::size_t k = 0; k < program.functions.size(); ++k) {
    if (PyFunction_GET_CODE(program.functions[k].get()) != program.codes[k].get()) {
      program.codes[k] = Owned::borrow(Py_None);
    }
  }
  if (!program.has_closures || skeleton->closures == nullptr ||
      skeleton->closures == Py_None) {
    return true;
  }
  Owned before = Owned::borrow(skeleton->closures);
  Owned now = Owned::steal(closures_now(skeleton));
  if (!now) {
    return false;
  }
  if (now.get() == Py_None ||
      !ClosureComparison(reinterpret_cast<Skeleton*>(before.get())->program,
                         reinterpret_cast<Skeleton*>(now.get())->program)
           .mark_changed()) {
    if (PyErr_Occurred() != nullptr) {
      return false;
    }
    Owned old = Owned::steal(std::exchange(skeleton->closures, Py_NewRef(Py_None)));
  }
  return true;
}

}  // namespace autojit
