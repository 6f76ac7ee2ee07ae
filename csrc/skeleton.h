// A skeleton: what is left of an object when its leaves are taken out.
//
// It is a flat program in pre-order. Each node says what kind of object stands here;
// the nodes of its parts follow it. Four verbs read it (match, rebuild, hash, describe)
// and one writes it (flatten).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python_api.h"

namespace autojit {

struct TypePlan;

enum class Op : std::uint8_t {
  // Constants: one node, `object` is the value, immutable and shared with the caller.
  Identity,  // None, bool, class, module, enum member, …: the very object
  Int,
  Float,
  Complex,
  Str,
  Bytes,
  NumpyScalar,  // numpy.generic of fixed size, without padding
  Function,     // a Python function, number `size` of the program; see `closures_of`.
                // Among closures: slot; size is 1 if it is equal to itself only, and
                // 2 if to none
  // The rest. "slot" is `extra` of an object that can be shared: see `Ref`.
  Leaf,
  Forward,     // in a result: what came back untouched; extra is a Forwarded
  Opaque,      // slot; handed through whole; compares with == if it can be hashed
  Owner,       // slot; handed through whole, equal to itself as long as what it holds
               // is equal too: number `size` of the program's `contents`
  Stateless,   // slot; an instance without state, handed through whole; size is 1 if
               // nobody but the call holds it: then it equals others of its class, and
               // the trace gets another
  Unset,       // a `__slots__` entry without a value
  Ref,         // the object of slot `size`, met before
  Extent,      // follows Set, FrozenSet, Reduce, an Instance with declared fields and,
               // among closures, Function: how much belongs to them
  Tuple,       // slot; size parts; if all are constants: object is the tuple, and extra
               // is no slot but how many nodes there are
  NamedTuple,  // slot; size parts; object is the class
  List,        // slot; size parts
  Dict,        // slot; size pairs of key and value
  Set,         // slot; Extent; size parts in an order that depends on their values only
  FrozenSet,   // like Set; if all parts are constants: object and extra as for Tuple
  Range,       // 3 parts: start, stop, step
  Slice,       // slot; 3 parts: start, stop, step
  Bytearray,   // slot; object is a bytes copy
  NumpyArray,  // slot; object is a copy
  Method,      // slot; 2 parts: __func__, __self__
  Partial,     // slot; 4 parts: func, args, keywords, __dict__
  Instance,    // slot; plan; Extent if the class declares its fields; size pairs of
               // `__dict__`, then one part a `__slots__` entry
  Reduce,      // slot; object is the class; size is a set of ReducePart; Extent
  Call,        // extra is 1 if the callable is a part; size positional parts; object
               // is the tuple of keyword names; then one part a keyword
};

inline constexpr bool is_constant(Op op) { return op <= Op::Function; }
enum Forwarded : std::uint32_t {
  kLeaf,      // leaf `size` of the call
  kFunction,  // function `size` of the call
  kWhole,     // what was handed through whole at node `size` of the call
};

// The parts of a reduction that are there, in this order after `func` and `args`.
enum ReducePart : std::uint32_t {
  kState = 1,
  kListItems = 2,
  kDictItems = 4,
  kStateSetter = 8,
};

struct Node {
  Op op;
  std::uint32_t extra : 24;
  std::uint32_t size;
  union {
    PyObject* object;      // owned by the program
    const TypePlan* plan;  // Instance: the program is one of its owners
    // Extent: of a Reduce its leaves (`extra` is 0 or the number, plus 1, of what its
    // reduction may leave out in `contents`); of a set its first PartEntry, and of an
    // instance as well, or kInOrder.
    std::size_t number;
  };
};
static_assert(sizeof(Node) == 16);

inline constexpr std::uint32_t kMaxExtra = (1U << 24) - 1;
inline constexpr std::size_t kInOrder = SIZE_MAX;

// Whether `extra` is a slot.
inline bool has_slot(const Node& node) {
  switch (node.op) {
    case Op::Tuple:
    case Op::FrozenSet:
      return node.object == nullptr;
    case Op::Extent:
    case Op::Forward:
    case Op::Call:
      return false;
    default:
      return true;
  }
}

// Whether an object is handed through whole that equals others.
inline bool is_handed_through(const Node& node) {
  return node.op == Op::Opaque || node.op == Op::Owner || node.op == Op::Stateless;
}

// Where the parts of a set stand, one entry an element in the order in which the set
// was iterated when it was flattened: a set built the same way iterates the same way.
// Likewise the attributes of an instance whose class has an order of its own for them.
// One more entry says where they end.
struct PartEntry {
  std::uint32_t node;  // from the node after the Extent
  std::uint32_t leaf;  // from the first leaf of the whole
};

class Program {
 public:
  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  Program(Program&& other) noexcept { swap(other); }
  Program& operator=(Program&& other) noexcept {
    swap(other);
    return *this;
  }
  // May run Python.
  ~Program() { clear(); }

  int traverse(visitproc visit, void* arg) const;
  // May run Python.
  void clear();
  void swap(Program& other) noexcept;

  std::vector<Node> nodes;
  std::vector<PartEntry> part_entries;
  // The functions by their number, and the code that each had.
  std::vector<Owned> functions;
  std::vector<Owned> codes;
  // Whether nobody but the call holds it.
  std::vector<bool> lone_functions;
  // Among closures: the objects of the slots, which are all that could be shared; and
  // the opaque objects of the call that was made with them.
  std::vector<Owned> originals;
  std::vector<Owned> call_opaque;
  // Skeletons of what is compared and not put together: see `Owner` and `Extent`.
  std::vector<Owned> contents;
  // By the number of such a skeleton of an Extent, the arrays that were taken out of
  // it. Others make no other skeleton: what was put together has been found to be
  // equal.
  std::unordered_map<std::size_t, std::vector<Owned>> omitted;
  std::uint32_t leaves = 0;
  // How many nodes the call has that a Forward counts on; 0 if there is none.
  std::size_t inputs = 0;
  // Of a result: the leaves of the call that must not come back.
  std::vector<std::uint32_t> withheld;
  std::uint32_t slots = 0;
  std::uint32_t depth = 0;
  // There is a Reduce or an Owner: matching runs Python, after the walk.
  bool reduces = false;
  // Matching may allocate: there is an instance or a set.
  bool allocates = false;
  // A function has state of its own: a closure, defaults, attributes.
  bool has_closures = false;
  // A call's keyword names as they were passed, and for each keyword part of the
  // program its place among them.
  Owned call_kwnames;
  std::vector<std::uint32_t> keyword_places;
};

// How many references programs have to instances without state, which are not those of
// others that could tell them by `is`.
std::unordered_map<PyObject*, std::size_t>& stateless_references();

// How many nodes of the next level belong to this one.
std::size_t parts_of(const Program& program, const Node& node);
// The node after all that belongs to this one.
std::size_t end_of(const Program& program, std::size_t index);
// The node whose object is in a slot, which there must be.
std::size_t node_of_slot(const Program& program, std::uint32_t slot);

// The Python object `autojit.Skeleton`.
struct Skeleton {
  PyObject_HEAD
  Program program;
  // What stands for the root in a path: "obj", "result" or, for a call, nothing.
  const char* root;
  Py_hash_t hash;  // -1: not yet computed
  // Owned: a Skeleton of what the functions hold, None if they go by identity, or
  // nullptr for not yet known.
  PyObject* closures;
};

extern PyTypeObject SkeletonType;

// A new Skeleton that takes over `program`; nullptr with an exception set on failure.
Skeleton* new_skeleton(Program&& program, const char* root);

// Objects, and the nodes that stand for them.
using NodeObjects = std::vector<std::pair<std::size_t, Owned>>;

// --- the verbs ---

// The pieces of a call, borrowed from the caller until Python runs: a partial lends its
// arguments and may let them go. Then they have to be held.
struct CallView {
  PyObject* callable;  // nullptr if the callable is not part of the call tree
  PyObject* const* args;
  std::uint32_t positional;
  PyObject* kwnames;  // nullptr if there are no keywords
  bool keyword_order_matters;
  // The arguments lie on the caller's stack, and in nothing that others know.
  bool on_stack;
  // How many of the arguments are held, in one of the two.
  std::size_t held = 0;
  std::array<PyObject*, 8> few = {};
  std::vector<PyObject*> many;

  // Before Python runs.
  void hold();
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

// Takes `object` apart. `leaf_type` is a class, a tuple of classes, or nullptr for
// JAX's arrays. Appends owned references to `leaves`. Runs Python. False with an
// exception set on failure: what is in `leaves` then still has to be released.
bool flatten(PyObject* object, PyObject* leaf_type, const char* root, Program& program,
             std::vector<PyObject*>& leaves);
// The same for the result of a function. `call` is the skeleton of its call and
// `inputs` a tuple of the leaves that it was given, None for one that must not come
// back, because it was donated. `reduced` gets the objects that were reduced.
bool flatten_result(PyObject* object, Skeleton* call, PyObject* inputs,
                    Program& program, std::vector<PyObject*>& leaves,
                    NodeObjects& reduced);
bool flatten_call(CallView& call, Program& program, std::vector<PyObject*>& leaves,
                  NodeObjects& reduced);

// What the functions of a skeleton hold (defaults, closure cells, attributes), as a
// Skeleton that is there to be compared: of arrays, it has the very objects. None if it
// can't be taken apart. Borrowed; nullptr with an exception set on failure. Runs Python
// the first time, which has to be before a function is called: that may change it.
PyObject* closures_of(Skeleton* skeleton);
// The same as it is now: a new reference.
PyObject* closures_now(Skeleton* skeleton);

// What an object that is handed through whole holds now, as a Skeleton that is there to
// be compared: it has the very arrays and functions. `has_leaves` is told whether there
// are arrays. A new reference; nullptr with an exception set on failure. Runs Python.
PyObject* content_now(PyObject* object, bool* has_leaves = nullptr);

// Owned references to leaves.
struct LeafVector {
  LeafVector() = default;
  LeafVector(const LeafVector&) = delete;
  LeafVector& operator=(const LeafVector&) = delete;
  ~LeafVector() { clear(); }
  void clear() {
    for (PyObject* leaf : std::exchange(leaves, {})) {
      Py_DECREF(leaf);
    }
  }
  std::vector<PyObject*> leaves;
};

// What the attributes of an instance hold that its reduction may have left out, if it
// is plain data: a new reference to a Skeleton, to None if there is nothing, or nullptr
// with an exception set. The arrays among it are appended to `arrays`, but for those
// that the reduction carries, which don't count; or they are constants. Runs Python.
PyObject* left_out(PyObject* object, PyObject* const* carried, std::size_t count,
                   bool as_constants, LeafVector& arrays);

enum class Match { No, Yes, Error };

// Whether flattening `call` would give `program`. The `program.leaves` places of
// `leaves` then hold owned references, or nullptr unless the answer is Yes. No for
// functions that are equal and not the same: a skeleton has those it was made with. May
// run Python: the caller must hold the program's owner.
// `opaque` gets the opaque objects that are equal and not the same, and their nodes.
Match match_call(const Program& program, CallView& call, PyObject** leaves,
                 NodeObjects& opaque);

// Where the result of a call gets from what is forwarded.
struct Inputs {
  const Program& call;
  PyObject* const* leaves;
  const NodeObjects& opaque;
};

// The object that `program` and `leaves` describe: a new reference, or nullptr with an
// exception set. May run Python: the caller must hold the program's owner.
PyObject* rebuild(const Program& program, const char* root, PyObject* const* leaves);
// The same for a result. `rebuilt` gets what reductions have made.
PyObject* rebuild_result(const Program& program, PyObject* const* leaves,
                         const Inputs& inputs, NodeObjects* rebuilt = nullptr);
// For a call: a tuple (callable or None, args, kwargs).
PyObject* rebuild_call(const Program& program, PyObject* const* leaves,
                       NodeObjects* rebuilt = nullptr);

// Whether the reductions of a program reproduce the objects that were reduced: a class
// of which one does not is noted, and its instances are handed through whole from then
// on, so that what was flattened has to be flattened again. 1, 0, or -1 with an
// exception set. Runs Python. What can't be put together is an error only of a call
// that has a specialization, `is_traced`: otherwise the trace will say so.
int check_call(const Program& program, PyObject* const* leaves,
               const NodeObjects& reduced, bool is_traced);
int check_result(const Program& program, PyObject* const* leaves, const Inputs& inputs,
                 const NodeObjects& reduced);

// -1 with an exception set on failure. May run Python (`__hash__` of an opaque object).
Py_hash_t hash(const Program& program);
// 1, 0, or -1 with an exception set. May run Python (`__eq__` of an opaque object): the
// caller must hold both.
int equal(Skeleton* first, Skeleton* second);

// How many bytes a skeleton keeps that are not JAX's, its functions' content included.
std::size_t static_bytes(const Skeleton* skeleton);

// The functions of `skeleton` are about to be traced once more: those that no longer
// hold what they held are from now on equal to themselves only. Runs Python. False with
// an exception set on failure.
bool note_changed_functions(Skeleton* skeleton);

// How a reader would write the way from the root to node `index`, like
// `args[1].config['act']`; "" for the root of a call. `index` may be the end of an
// unfinished program. Sets no exception and runs Python only for the repr of a key.
// nullptr with an exception set on failure.
PyObject* path(const Program& program, const char* root, std::size_t index);
// The path to leaf `leaf`, which must be one.
PyObject* leaf_path(const Program& program, const char* root, std::uint32_t leaf);
PyObject* describe(const Program& program);

}  // namespace autojit
