// The table of kinds: what there is to know of each kind of object, written once.
//
// A kind says how an object is taken apart. Each node of a skeleton is of one kind, and
// each class has a plan that names the kind of its instances. All that can be derived
// from a row of the table is derived from it: who owns the node's object, how many
// parts follow, what they are called, whether the object can be shared, when two nodes
// are equal, their hash, the repr. What a kind does besides stands in the verbs
// (flatten, match, rebuild), whose switches name every kind: the compiler says what is
// missing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace autojit {

enum class Kind : std::uint8_t {
  // Values: one node, no parts.
  Identity,  // None, bool, class, module, enum member, …: the very object
  Int,
  Float,
  Complex,
  Str,
  Bytes,
  NumpyScalar,
  Function,  // a Python function, which the trace gets as it is
  // The rest.
  Leaf,       // an array: a hole in the skeleton
  Traced,     // a hole for an array or a number, where the user wants these traced
  Forward,    // in a result: what came back from the call untouched
  Opaque,     // handed through whole; compares with `==` if it can be hashed
  Owner,      // handed through whole; equal to itself while its content is
  Stateless,  // an instance without state, handed through whole
  Constant,   // an instance that never changes, compared by its reduction
  Fresh,      // an instance that says nothing, made anew where it is needed
  Unset,      // a slot without a value
  Ref,        // an object that has occurred before
  Extent,     // follows a node: how much belongs to it
  Tuple,
  NamedTuple,
  List,
  Dict,
  DefaultDict,
  Set,
  FrozenSet,
  Range,
  Slice,
  Bytearray,
  NumpyArray,
  Method,
  Partial,
  Closure,   // among closures: a function with all that it holds
  Cell,      // among closures: a variable that functions share
  Instance,  // of a class whose state is its `__dict__` and `__slots__`
  Reduce,    // what only its own reduction can take apart
  Call,      // the root of a call
};
inline constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::Call) + 1;

// What a node's object is. The program owns a reference to it.
enum class Payload : std::uint8_t {
  None,
  Value,     // the value itself, immutable and shared with the caller
  Whole,     // the caller's own object
  Class,     // the class of the object
  Plan,      // no object: the plan of the class, of which the node is an owner
  Copy,      // the content, as bytes or as a numpy array
  Folded,    // the object itself if all that is in it is values, else nullptr
  Keywords,  // a tuple of the names of keyword arguments, or nullptr
  Number,    // no object but a number, see `Node`
  Memo,      // no object but what is known of the one that was matched last
};

// What the number `extra` of a node says.
enum class Extra : std::uint8_t {
  None,
  Slot,          // the number of an object that occurs again, 0 for others
  SlotOrLength,  // the same; or of what is folded, how many nodes it has
  Source,        // of a Forward: where it comes from, see `Source`
  Callable,      // of a Call: 1 if the callable is a part
  Content,       // of an Extent: see `Node`
};

// What the number `size` of a node says, and so how many parts follow.
enum class Size : std::uint8_t {
  None,        // nothing; there are only the parts that the row names
  Items,       // parts
  Pairs,       // pairs of a key and a value
  Attributes,  // pairs of `__dict__`; then there is one part a slot of the class
  Reduction,   // which of the parts of a reduction there are, see `ReducePart`
  Arguments,   // positional arguments; then there is one part a keyword
  Index,       // no parts: the number of something
  Alone,       // no parts: 1 if nobody but the call holds the object
  Nodes,       // no parts: how many nodes belong to the node before
  Bits,        // no parts: how many bits an int may have; 0: as many as it likes
};

// Whether an Extent follows.
enum class HasExtent : std::uint8_t {
  Never,
  Always,
  IfDict,  // if the instances of the class have a `__dict__`
};

// What the parts that `size` counts are called in a path.
enum class Step : std::uint8_t {
  None,
  Index,      // [0]
  Field,      // .name of a namedtuple
  Key,        // ['key']
  Attribute,  // .name of an instance
  Element,    // .elements[0]
  Reduction,  // .__reduce_ex__()[0]
  Argument,   // args[0], kwargs['name']
};

struct KindRow {
  Kind kind;
  Payload payload = Payload::None;
  Extra extra = Extra::None;
  Size size = Size::None;
  Step step = Step::None;
  // What stands around the parts in a repr, if there is no more to say.
  const char* open = nullptr;
  const char* close = nullptr;
  // Parts that there always are. They come first, and have these names in a path.
  std::array<const char*, 4> names{};
  HasExtent extent = HasExtent::Never;
};

// clang-format off
inline constexpr std::array<KindRow, kKinds> kTable = [] {
  using P = Payload;
  using E = Extra;
  using S = Size;
  constexpr auto kAlways = HasExtent::Always;
  return std::array<KindRow, kKinds>{{
      {Kind::Identity, P::Value},
      {Kind::Int, P::Value},
      {Kind::Float, P::Value},
      {Kind::Complex, P::Value},
      {Kind::Str, P::Value},
      {Kind::Bytes, P::Value},
      {Kind::NumpyScalar, P::Value},
      {Kind::Function, P::Value, E::None, S::Index},
      {Kind::Leaf},
      {Kind::Traced, P::None, E::None, S::Bits},
      {Kind::Forward, P::None, E::Source, S::Index},
      {Kind::Opaque, P::Whole, E::Slot},
      {Kind::Owner, P::Whole, E::Slot, S::Index},
      {Kind::Stateless, P::Whole, E::Slot, S::Alone},
      {Kind::Constant, P::Whole, E::None, S::Index},
      {Kind::Fresh, P::Class, E::None, S::None, Step::None, "(", ")"},
      {Kind::Unset},
      {Kind::Ref, P::None, E::None, S::Index},
      {Kind::Extent, P::Number, E::Content, S::Nodes},
      {Kind::Tuple, P::Folded, E::SlotOrLength, S::Items, Step::Index, "(", ")"},
      {Kind::NamedTuple, P::Class, E::Slot, S::Items, Step::Field, "(", ")"},
      {Kind::List, P::None, E::Slot, S::Items, Step::Index, "[", "]"},
      {Kind::Dict, P::Memo, E::Slot, S::Pairs, Step::Key, "{", "}"},
      {Kind::DefaultDict, P::None, E::Slot, S::Pairs, Step::Key, "defaultdict(", ")",
       {".default_factory"}},
      {Kind::Set, P::None, E::Slot, S::Items, Step::Element, "{", "}", {}, kAlways},
      {Kind::FrozenSet, P::Folded, E::SlotOrLength, S::Items, Step::Element,
       "frozenset({", "})", {}, kAlways},
      {Kind::Range, P::None, E::None, S::None, Step::None, "range(", ")",
       {".start", ".stop", ".step"}},
      {Kind::Slice, P::None, E::Slot, S::None, Step::None, "slice(", ")",
       {".start", ".stop", ".step"}},
      {Kind::Bytearray, P::Copy, E::Slot},
      {Kind::NumpyArray, P::Copy, E::Slot},
      {Kind::Method, P::None, E::Slot, S::None, Step::None, "<method ", ">",
       {".__func__", ".__self__"}},
      {Kind::Partial, P::None, E::Slot, S::None, Step::None, "partial(", ")",
       {".func", ".args", ".keywords", ".__dict__"}},
      {Kind::Closure, P::Whole, E::Slot, S::Items, Step::Index, nullptr, nullptr, {},
       kAlways},
      {Kind::Cell, P::None, E::Slot, S::Items, Step::Index, "cell(", ")"},
      {Kind::Instance, P::Plan, E::Slot, S::Attributes, Step::Attribute, nullptr,
       nullptr, {}, HasExtent::IfDict},
      {Kind::Reduce, P::Class, E::Slot, S::Reduction, Step::Reduction, nullptr, nullptr,
       {}, kAlways},
      {Kind::Call, P::Keywords, E::Callable, S::Arguments, Step::Argument},
  }};
}();
// clang-format on

inline constexpr const KindRow& row_of(Kind kind) {
  return kTable[static_cast<std::size_t>(kind)];
}

// Whether a kind is that of values. The hot path asks it for each node: they come
// first.
inline constexpr bool is_value(Kind kind) { return kind <= Kind::Function; }

// Whether a node of a kind is a hole for a leaf.
inline constexpr bool is_leaf(Kind kind) {
  return kind == Kind::Leaf || kind == Kind::Traced;
}

// How many parts a node of a kind always has.
inline constexpr std::size_t named_parts(const KindRow& row) {
  std::size_t count = 0;
  while (count < row.names.size() && row.names[count] != nullptr) {
    ++count;
  }
  return count;
}

namespace detail {

inline constexpr bool is_in_order() {
  for (std::size_t i = 0; i < kKinds; ++i) {
    const KindRow& row = kTable[i];
    if (static_cast<std::size_t>(row.kind) != i ||
        is_value(row.kind) != (row.payload == Payload::Value)) {
      return false;
    }
  }
  return true;
}
static_assert(is_in_order(), "a row for each kind, in the order of the kinds");

}  // namespace detail

}  // namespace autojit
