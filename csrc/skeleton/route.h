// The way from the root of a program to each of its nodes.
#pragma once

#include <string>
#include <vector>

#include "skeleton/program.h"

namespace autojit {

// A node on the way, and which of its parts the way goes on with.
struct Way {
  std::size_t node;
  std::size_t part;
  std::size_t key;  // the last key node, if the parts are pairs
};

// Goes through a program, node by node.
class Route {
 public:
  explicit Route(const Program& program) : program_(program) {}
  std::size_t node() const { return node_; }
  // To that node, from the root.
  const std::vector<Way>& ways() const { return ways_; }
  void advance();
  void advance_to(std::size_t node) {
    while (node_ < node) {
      advance();
    }
  }

 private:
  const Program& program_;
  std::size_t node_ = 0;
  std::vector<Way> ways_;
};

// What a reader writes for one step of a way; "" if it is none to a reader. May run
// Python (the repr of a key). An exception that is no refusal stays set.
std::string step_text(const Program& program, const std::vector<Way>& ways,
                      std::size_t step);

// Text of `object`, or of what went wrong: messages must not fail because of a repr. An
// exception that is no refusal stays set.
std::string text_of(PyObject* object, PyObject* (*how)(PyObject*));

// Whether a step of a way is one into a pair of a key and a value that a reduction has.
bool is_pair(const Program& program, const std::vector<Way>& ways, std::size_t step);

// The number of the part of a reduction that is there as number `part`.
std::uint32_t reduce_part(const Node& node, std::size_t part);

}  // namespace autojit
