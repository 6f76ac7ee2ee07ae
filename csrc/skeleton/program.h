// A program: the nodes of a skeleton, in pre-order.
//
// A node says what kind of object stands here; the nodes of its parts follow it. What
// the fields of a node mean is in the table of kinds.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "objects/kinds.h"
#include "objects/type_plan.h"
#include "python/owned.h"

namespace autojit {

// What a match has found out about a dict: as long as nobody has changed it, its keys
// and values are the same objects. Those that never change need not be looked at again.
struct KnownDict {
  struct Part {
    std::uint32_t node;   // from that of the dict
    bool is_key;          // of its pair
    Py_ssize_t position;  // for `PyDict_Next`
    PyObject* object;     // borrowed from the dict, or nullptr: it is to be asked
  };
  std::uint64_t version;
  std::uint32_t nodes;      // of the dict
  std::vector<Part> parts;  // that may have changed, and arrays
};

// What is kept of a dict beside its parts: nothing, the version of the one that was
// matched last, or what is known of it, once it has been seen twice. Or that its pairs
// come in an order that is not that of their nodes.
class DictMemo {
 public:
  static DictMemo in_order() { return DictMemo(0); }
  static DictMemo in_order_of(std::size_t first_entry) {
    return DictMemo((first_entry << 2U) | 2U);
  }
  bool is_in_order() const { return (bits_ & 3U) != 2; }
  // The first PartEntry, if it is not.
  std::size_t first_entry() const { return bits_ >> 2U; }

  const KnownDict* known() const {
    return (bits_ & 3U) == 0 ? std::bit_cast<KnownDict*>(bits_) : nullptr;
  }
  bool has_seen(std::uint64_t version) const { return bits_ == mark(version); }
  void see(std::uint64_t version) {
    delete known();
    bits_ = mark(version);
  }
  void learn(KnownDict* known) {
    delete this->known();
    bits_ = std::bit_cast<std::uintptr_t>(known);
  }
  void clear() { learn(nullptr); }

 private:
  explicit DictMemo(std::uintptr_t bits) : bits_(bits) {}
  static std::uintptr_t mark(std::uint64_t version) { return (version << 1U) | 1U; }

  std::uintptr_t bits_;
};

struct Node {
  Kind kind;
  std::uint32_t extra : 24;
  std::uint32_t size;
  union {
    PyObject* object;      // owned by the program, or nullptr
    const TypePlan* plan;  // Instance: the program is one of its owners
    // Extent. Of a Reduce: how many leaves belong to it; `extra` is 0 or one more than
    // the number of what its reduction may leave out, in `Program::contents`. Of a set:
    // its first PartEntry.
    std::size_t number;
    // Dict, and the Extent of an instance. It says nothing of the skeleton.
    mutable DictMemo memo;
  };
};
static_assert(sizeof(Node) == 16);

inline constexpr std::uint32_t kMaxExtra = (1U << 24) - 1;

// Where a Forward comes from.
enum Source : std::uint32_t {
  kLeaf,      // leaf `size` of the call
  kTraced,    // the same, which may be a number or a numpy array
  kFunction,  // function `size` of the call
  kWhole,     // what was handed through whole at node `size` of the call
};

// Whether `extra` is a slot: the number of an object that occurs again.
inline bool has_slot(const Node& node) {
  Extra extra = row_of(node.kind).extra;
  return extra == Extra::Slot ||
         (extra == Extra::SlotOrLength && node.object == nullptr);
}

// Whether the trace gets the caller's own object, which equals others.
inline bool is_handed_through(const Node& node) {
  return node.kind == Kind::Opaque || node.kind == Kind::Owner ||
         node.kind == Kind::Stateless;
}

// Whether an Extent follows.
inline bool has_extent(const Node& node) {
  HasExtent extent = row_of(node.kind).extent;
  return extent == HasExtent::Always ||
         (extent == HasExtent::IfDict && node.plan->has_dict);
}

// The object that the program owns for a node, borrowed, or nullptr.
inline PyObject* owned_object(const Node& node) {
  switch (row_of(node.kind).payload) {
    case Payload::Number:
    case Payload::Memo:
      return nullptr;
    case Payload::Plan:
      return node.plan != nullptr ? reinterpret_cast<PyObject*>(node.plan->type)
                                  : nullptr;
    default:
      return node.object;
  }
}

// Where the parts of a set stand, one entry an element in the order in which the set
// was iterated when it was flattened: a set built the same way iterates the same way.
// Likewise the attributes of an instance whose class has an order of its own for them.
// One more entry says where they end.
struct PartEntry {
  std::uint32_t node;  // from the node after the Extent
  std::uint32_t leaf;  // from the first leaf of the whole
};

// Something that functions read, and its first node.
struct ReadAt {
  std::uint32_t read;  // in `Program::holders`
  std::uint32_t node;
};

// What is read from one dict and is compared by itself, so that it is the same as long
// as nobody has changed the dict.
struct SettledReads {
  PyObject* dict;                 // borrowed from `Program::held`
  mutable std::uint64_t version;  // when all were the same the last time, or 0
  std::vector<ReadAt> reads;
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
  ~Program() {
    if (!nodes.empty()) {
      clear();
    }
  }

  int traverse(visitproc visit, void* arg) const;
  // May run Python.
  void clear();
  void swap(Program& other) noexcept;

  std::vector<Node> nodes;
  std::vector<PartEntry> part_entries;
  // The functions by their number, the code that each had, and whether nobody but the
  // call holds it.
  OwnedVector functions;
  OwnedVector codes;
  std::vector<bool> lone_functions;
  // Skeletons of what is compared and not put together: see Owner and Extent.
  OwnedVector contents;
  // By the number of such a skeleton of an Extent, the arrays that were taken out of
  // it. Others make no other skeleton: what was put together has been found to be
  // equal.
  std::unordered_map<std::size_t, OwnedVector> omitted;
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
  // Among closures: what the functions read from outside, holders (the dict of a module
  // or a class) and names. The nodes of what stands there come last. And the objects
  // that the call, which was made with these functions, hands through whole.
  std::vector<PyObject*> holders;  // borrowed from `held`
  OwnedVector names_read;          // strings and bytes, and nullptr
  OwnedVector held;                // each holder once
  // All of them once, as they are compared.
  std::vector<SettledReads> settled;
  std::vector<ReadAt> unsettled;
  OwnedVector handed_through;
  // A call's keyword names as they were passed, and for each keyword part of the
  // program its place among them.
  Owned call_kwnames;
  std::vector<std::uint32_t> keyword_places;
};

// How many parts a node has: nodes of the next level that belong to it.
std::size_t parts_of(const Program& program, const Node& node);
// The node after all that belongs to this one.
std::size_t end_of(const Program& program, std::size_t index);
// Whether the parts of a node are pairs of a key and a value, at least the first ones.
inline bool has_pairs(const Node& node) {
  Size size = row_of(node.kind).size;
  return size == Size::Pairs || size == Size::Attributes;
}
inline bool is_set(const Node& node) {
  return node.kind == Kind::Set || node.kind == Kind::FrozenSet;
}
// The nodes of the keys of a dict, of the names of an instance's attributes, or of the
// elements of a set.
std::vector<std::size_t> keys_of(const Program& program, std::size_t index);
// How many bytes of static data a node keeps, beside itself.
std::size_t payload_bytes(const Node& node);

// How many references programs have to instances without state, which are not those of
// others that could tell them by `is`.
std::unordered_map<PyObject*, std::size_t>& stateless_references();

// Objects, and the nodes that stand for them.
using NodeObjects = std::vector<std::pair<std::size_t, Owned>>;

}  // namespace autojit
