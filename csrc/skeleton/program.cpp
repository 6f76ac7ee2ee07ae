#include "skeleton/program.h"

#include <bit>

#include "objects/reduction.h"
#include "python/numpy.h"

namespace autojit {

std::size_t parts_of(const Program& program, const Node& node) {
  const KindRow& row = row_of(node.kind);
  std::size_t named = named_parts(row);
  switch (row.size) {
    case Size::None:
    case Size::Index:
    case Size::Alone:
    case Size::Nodes:
    case Size::Bits:
      return named;
    case Size::Items:
      return named + node.size;
    case Size::Pairs:
      return named + std::size_t{2} * node.size;
    case Size::Attributes:
      return std::size_t{2} * node.size + node.plan->slots.size();
    case Size::Reduction:
      return static_cast<std::size_t>(std::popcount(node.size));
    case Size::Arguments:
      return node.extra + node.size + program.keyword_places.size();
  }
  return 0;
}

std::size_t end_of(const Program& program, std::size_t index) {
  std::size_t left = 1;
  while (left != 0) {
    const Node& node = program.nodes[index];
    index += has_extent(node) ? 2U : 1U;
    left += parts_of(program, node);
    --left;
  }
  return index;
}

std::vector<std::size_t> keys_of(const Program& program, std::size_t index) {
  const Node& node = program.nodes[index];
  std::size_t at = index + (has_extent(node) ? 2U : 1U);
  for (std::size_t named = named_parts(row_of(node.kind)); named != 0; --named) {
    at = end_of(program, at);
  }
  std::vector<std::size_t> keys;
  for (std::uint32_t i = 0; i < node.size; ++i) {
    keys.push_back(at);
    at = end_of(program, at);
    at = is_set(node) ? at : end_of(program, at);
  }
  return keys;
}

std::size_t payload_bytes(const Node& node) {
  switch (node.kind) {
    case Kind::Bytes:
    case Kind::Bytearray:
      return static_cast<std::size_t>(PyBytes_GET_SIZE(node.object));
    case Kind::Str:
      return static_cast<std::size_t>(PyUnicode_GET_LENGTH(node.object)) *
             PyUnicode_KIND(node.object);
    case Kind::NumpyArray:
      return numpy::size_in_bytes(node.object);
    default:
      return 0;
  }
}

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
  // There may be tens of thousands of nodes and names. Numbers and strings are in no
  // cycle.
  for (const Node& node : nodes) {
    if (!is_value(node.kind) || node.kind == Kind::Identity ||
        node.kind == Kind::Function) {
      Py_VISIT(owned_object(node));
    }
  }
  for (const OwnedVector* owned :
       {&functions, &codes, &contents, &held, &handed_through}) {
    if (int result = owned->traverse(visit, arg); result != 0) {
      return result;
    }
  }
  for (const auto& [number, arrays] : omitted) {
    if (int result = arrays.traverse(visit, arg); result != 0) {
      return result;
    }
  }
  return 0;
}

void Program::clear() {
  // All of it leaves before the first reference goes: what then runs sees it empty.
  Program old;
  old.swap(*this);
  for (PyObject* object : old.handed_through) {
    forget_reference(object);
  }
  for (const Node& node : old.nodes) {
    if (node.kind == Kind::Stateless) {
      forget_reference(node.object);
    }
  }
  bool is_instance = false;
  for (const Node& node : std::exchange(old.nodes, {})) {
    PyObject* object = owned_object(node);
    if (node.kind == Kind::Dict || (node.kind == Kind::Extent && is_instance)) {
      node.memo.clear();
    }
    is_instance = node.kind == Kind::Instance;
    if (node.kind == Kind::Instance && node.plan != nullptr) {
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
  contents.swap(other.contents);
  omitted.swap(other.omitted);
  std::swap(leaves, other.leaves);
  std::swap(inputs, other.inputs);
  withheld.swap(other.withheld);
  std::swap(slots, other.slots);
  std::swap(depth, other.depth);
  std::swap(reduces, other.reduces);
  std::swap(allocates, other.allocates);
  holders.swap(other.holders);
  names_read.swap(other.names_read);
  held.swap(other.held);
  settled.swap(other.settled);
  unsettled.swap(other.unsettled);
  handed_through.swap(other.handed_through);
  std::swap(call_kwnames, other.call_kwnames);
  keyword_places.swap(other.keyword_places);
}

}  // namespace autojit
