// skeleton -> text: the repr, and the path to a node for error messages
#include <cstring>
#include <string>

#include "skeleton.h"
#include "type_plan.h"

namespace autojit {

namespace {

// Text of `object`, or of what went wrong: messages must not fail because of a repr.
std::string text_of(PyObject* object, PyObject* (*how)(PyObject*)) {
  Owned text = Owned::steal(how(object));
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (utf8 == nullptr) {
    clear_refusal();
    return std::string("<") + Py_TYPE(object)->tp_name + ">";
  }
  return utf8;
}

std::string class_name(const PyTypeObject* type) {
  const char* dot = std::strrchr(type->tp_name, '.');
  return dot != nullptr ? dot + 1 : type->tp_name;
}

std::string key_text(const Node& key) {
  return is_constant(key.op) ? text_of(key.object, PyObject_Repr) : "...";
}

std::string attribute(const Node& key) {
  return key.op == Op::Str ? std::string(".") + text_of(key.object, PyObject_Str)
                           : std::string(".__dict__[") + key_text(key) + "]";
}

std::string index_text(std::size_t index) { return "[" + std::to_string(index) + "]"; }

// A node on the way, and which of its parts the way goes on with.
struct Step {
  std::size_t node;
  std::size_t part;
  std::size_t key;  // the last key node, if the parts are pairs
};

// Which part of a reduction the `part`th one that is there is.
std::size_t reduce_part(const Node& node, std::size_t part) {
  std::size_t index = 2;
  if (part < index) {
    return part;
  }
  for (std::size_t left = part - 1; index < 6; ++index) {
    if ((node.size & (1U << (index - 2))) != 0 && --left == 0) {
      break;
    }
  }
  return index;
}

std::string step_text(const Program& program, const Step& step, bool state) {
  static const char* const kRange[] = {".start", ".stop", ".step"};
  static const char* const kPartial[] = {".func", ".args", ".keywords", ".__dict__"};
  const Node& node = program.nodes[step.node];
  switch (node.op) {
    case Op::NamedTuple: {
      Owned fields = Owned::steal(PyObject_GetAttrString(node.object, "_fields"));
      auto part = static_cast<Py_ssize_t>(step.part);
      if (fields && PyTuple_CheckExact(fields.get()) &&
          part < PyTuple_GET_SIZE(fields.get())) {
        return "." + text_of(PyTuple_GET_ITEM(fields.get(), part), PyObject_Str);
      }
      PyErr_Clear();
      return index_text(step.part);
    }
    case Op::Dict:
      if (step.part % 2 == 0) {
        return ".keys()" + index_text(step.part / 2);
      }
      return state ? attribute(program.nodes[step.key])
                   : std::string("[") + key_text(program.nodes[step.key]) + "]";
    case Op::Instance:
      if (step.part < std::size_t{2} * node.size) {
        return step.part % 2 == 0
                   ? std::string(".__dict__.keys()") + index_text(step.part / 2)
                   : attribute(program.nodes[step.key]);
      }
      return "." +
             text_of(node.plan->slots[step.part - std::size_t{2} * node.size].name,
                     PyObject_Str);
    case Op::Range:
    case Op::Slice:
      return kRange[step.part];
    case Op::Partial:
      return kPartial[step.part];
    case Op::Method:
      return step.part == 0 ? ".__func__" : ".__self__";
    case Op::Reduce: {
      std::size_t part = reduce_part(node, step.part);
      return part < 2 || part == 5 ? std::string(".__reduce_ex__()") + index_text(part)
                                   : "";
    }
    case Op::Call: {
      std::size_t part = step.part;
      if (node.extra != 0 && part-- == 0) {
        return "fun";
      }
      if (part < node.size) {
        return "args" + index_text(part);
      }
      part -= node.size;
      return "kwargs[" +
             text_of(PyTuple_GET_ITEM(node.object, static_cast<Py_ssize_t>(part)),
                     PyObject_Repr) +
             "]";
    }
    case Op::Set:
    case Op::FrozenSet:
      return ".elements" + index_text(step.part);
    default:
      return index_text(step.part);
  }
}

class Describer {
 public:
  explicit Describer(const Program& program) : program_(program) {}

  bool part();
  std::string text;

 private:
  bool inner();
  bool list(const char* open, std::size_t count, const char* close);
  bool pairs(const char* open, std::size_t count, const char* colon, const char* close);
  bool instance(const Node& node);
  bool reduce(const Node& node);
  bool call(const Node& node);

  const Program& program_;
  std::size_t pc_ = 0;
  python::Signals signals_;
};

bool Describer::part() {
  const python::Level level;
  // A repr may have raised what is no refusal: nothing is to run after that.
  return level.entered() && signals_.look() && inner() && PyErr_Occurred() == nullptr;
}

bool Describer::list(const char* open, std::size_t count, const char* close) {
  text += open;
  for (std::size_t i = 0; i < count; ++i) {
    text += i == 0 ? "" : ", ";
    if (!part()) {
      return false;
    }
  }
  text += close;
  return true;
}

bool Describer::pairs(const char* open, std::size_t count, const char* colon,
                      const char* close) {
  text += open;
  for (std::size_t i = 0; i < count; ++i) {
    text += i == 0 ? "" : ", ";
    if (!part()) {
      return false;
    }
    text += colon;
    if (!part()) {
      return false;
    }
  }
  text += close;
  return true;
}

bool Describer::instance(const Node& node) {
  text += class_name(node.plan->type) + "(";
  const char* comma = "";
  pc_ += node.plan->fields.empty() ? 0U : 1U;  // Extent
  for (std::uint32_t i = 0; i < node.size; ++i) {
    text += comma;
    comma = ", ";
    const Node& key = program_.nodes[pc_];
    if (key.op == Op::Str) {
      text += text_of(key.object, PyObject_Str);
      ++pc_;
    } else if (!part()) {
      return false;
    }
    text += "=";
    if (!part()) {
      return false;
    }
  }
  for (const TypePlan::Slot& slot : node.plan->slots) {
    if (program_.nodes[pc_].op == Op::Unset) {
      ++pc_;
      continue;
    }
    text += std::string(comma) + text_of(slot.name, PyObject_Str) + "=";
    comma = ", ";
    if (!part()) {
      return false;
    }
  }
  text += ")";
  return true;
}

bool Describer::reduce(const Node& node) {
  static const char* const kNames[] = {"state=", "items=", "pairs=", "setter="};
  ++pc_;  // Extent
  text += std::string("<") + class_name(reinterpret_cast<PyTypeObject*>(node.object)) +
          ": ";
  if (!part()) {
    return false;
  }
  text += " of ";
  if (!part()) {
    return false;
  }
  for (std::uint32_t i = 0; i < 4; ++i) {
    if ((node.size & (1U << i)) != 0) {
      text += std::string(", ") + kNames[i];
      if (!part()) {
        return false;
      }
    }
  }
  text += ">";
  return true;
}

bool Describer::call(const Node& node) {
  if (node.extra != 0) {
    if (!part()) {
      return false;
    }
  }
  text += "(";
  const char* comma = "";
  for (std::uint32_t i = 0; i < node.size; ++i) {
    text += comma;
    comma = ", ";
    if (!part()) {
      return false;
    }
  }
  for (std::size_t i = 0; i < program_.keyword_places.size(); ++i) {
    text += comma;
    comma = ", ";
    text += text_of(PyTuple_GET_ITEM(node.object, static_cast<Py_ssize_t>(i)),
                    PyObject_Str) +
            "=";
    if (!part()) {
      return false;
    }
  }
  text += ")";
  return true;
}

bool Describer::inner() {
  const Node& node = program_.nodes[pc_++];
  if (node.op != Op::Ref && !is_constant(node.op) && has_slot(node) &&
      node.extra != 0) {
    text += std::string("#") + std::to_string(node.extra) + "=";
  }
  switch (node.op) {
    case Op::Leaf:
    case Op::Forward:
      text += "*";
      return true;
    case Op::Ref:
      text += std::string("#") + std::to_string(node.size);
      return true;
    case Op::Tuple:
      return list("(", node.size, node.size == 1 ? ",)" : ")");
    case Op::NamedTuple:
      text += class_name(reinterpret_cast<PyTypeObject*>(node.object));
      return list("(", node.size, ")");
    case Op::List:
      return list("[", node.size, "]");
    case Op::Dict:
      return pairs("{", node.size, ": ", "}");
    case Op::Set:
      ++pc_;  // Extent
      return node.size == 0 ? (text += "set()", true) : list("{", node.size, "}");
    case Op::FrozenSet:
      ++pc_;
      return list("frozenset({", node.size, "})");
    case Op::Range:
      return list("range(", 3, ")");
    case Op::Slice:
      return list("slice(", 3, ")");
    case Op::Method:
      return list("<method ", 2, ">");
    case Op::Partial:
      return list("partial(", 4, ")");
    case Op::Bytearray:
      text += std::string("bytearray(") + text_of(node.object, PyObject_Repr) + ")";
      return true;
    case Op::Instance:
      return instance(node);
    case Op::Reduce:
      return reduce(node);
    case Op::Call:
      return call(node);
    default:
      text += text_of(node.object, PyObject_Repr);
      return true;
  }
}

}  // namespace

namespace {

// The way from the root to node `index`.
std::vector<Step> steps_to(const Program& program, std::size_t index) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < index; ++i) {
    const Node& node = program.nodes[i];
    if (node.op == Op::Extent) {
      continue;
    }
    if (!steps.empty()) {
      steps.back().key = steps.back().part % 2 == 0 ? i : steps.back().key;
    }
    if (parts_of(program, node) != 0) {
      steps.push_back({i, 0, i});
      continue;
    }
    while (!steps.empty() &&
           ++steps.back().part == parts_of(program, program.nodes[steps.back().node])) {
      steps.pop_back();
    }
  }
  return steps;
}

std::size_t node_of_leaf(const Program& program, std::uint32_t leaf) {
  std::size_t index = 0;
  for (; program.nodes[index].op != Op::Leaf || leaf != 0; ++index) {
    leaf -= program.nodes[index].op == Op::Leaf ? 1U : 0U;
  }
  return index;
}

}  // namespace

PyObject* path(const Program& program, const char* root, std::size_t index) {
  std::vector<Step> steps = steps_to(program, index);
  constexpr std::size_t kFirst = 16;
  constexpr std::size_t kLast = 4;
  std::string text = root;
  // Until a repr has raised what is no refusal.
  for (std::size_t i = 0; i < steps.size() && PyErr_Occurred() == nullptr; ++i) {
    if (i == kFirst && steps.size() > kFirst + kLast) {
      text += " ... ";
      i = steps.size() - kLast;
    }
    bool state = i > 0 && program.nodes[steps[i - 1].node].op == Op::Reduce;
    text += step_text(program, steps[i], state);
  }
  return PyErr_Occurred() != nullptr
             ? nullptr
             : PyUnicode_FromStringAndSize(text.data(),
                                           static_cast<Py_ssize_t>(text.size()));
}

PyObject* leaf_path(const Program& program, const char* root, std::uint32_t leaf) {
  return path(program, root, node_of_leaf(program, leaf));
}

PyObject* describe(const Program& program) {
  Describer describer(program);
  if (!describer.part()) {
    return nullptr;
  }
  std::string text = std::string("Skeleton(") + describer.text + ")";
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}

}  // namespace autojit
