#include "skeleton/describe.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "python/errors.h"
#include "python/recursion.h"
#include "skeleton/route.h"

namespace autojit {

namespace {

std::string class_name(const PyTypeObject* type) {
  const char* dot = std::strrchr(type->tp_name, '.');
  return dot != nullptr ? dot + 1 : type->tp_name;
}

// A str, unless a repr has raised what is no refusal.
Owned as_str(const std::string& text) {
  return PyErr_Occurred() != nullptr
             ? Owned()
             : Owned::steal(PyUnicode_FromStringAndSize(
                   text.data(), static_cast<Py_ssize_t>(text.size())));
}

// What is in the middle of a long one is left out, unless it is to be told from others.
Owned path_of(const Program& program, const char* root, const std::vector<Way>& ways,
              bool is_whole) {
  constexpr std::size_t kFirst = 16;
  constexpr std::size_t kLast = 4;
  std::string text = root;
  // Until a repr has raised what is no refusal.
  for (std::size_t i = 0; i < ways.size() && PyErr_Occurred() == nullptr; ++i) {
    if (i == kFirst && ways.size() > kFirst + kLast && !is_whole) {
      text += " ... ";
      i = ways.size() - kLast;
    }
    text += step_text(program, ways, i);
  }
  return as_str(text);
}

std::size_t node_of_leaf(const Program& program, std::uint32_t leaf) {
  std::size_t index = 0;
  for (; !is_leaf(program.nodes[index].kind) || leaf != 0; ++index) {
    leaf -= is_leaf(program.nodes[index].kind) ? 1U : 0U;
  }
  return index;
}

// --- the repr ---

class Describer {
 public:
  explicit Describer(const Program& program, std::size_t begin = 0)
      : program_(program), pc_(begin) {}

  // False with an exception set on failure, as all that follows.
  bool part();
  std::string text;

 private:
  bool node(const Node& node);
  bool parts(std::size_t count, bool are_pairs);
  bool labelled(const std::string& label);
  bool instance(const Node& node);
  bool reduce(const Node& node);
  bool call(const Node& node);
  void comma() {
    text += comma_;
    comma_ = ", ";
  }
  // Begins a list of parts, and gives what to go on with after it.
  const char* begin() { return std::exchange(comma_, ""); }

  const Program& program_;
  std::size_t pc_;
  const char* comma_ = "";
  python::Signals signals_;
};

bool Describer::part() {
  const python::Level level;
  if (!level.entered() || !signals_.look()) {
    return false;
  }
  const Node& node = program_.nodes[pc_++];
  if (has_slot(node) && node.extra != 0) {
    text += std::string("#") + std::to_string(node.extra) + "=";
  }
  pc_ += has_extent(node) ? 1U : 0U;
  const char* after = begin();
  bool done = this->node(node);
  comma_ = after;
  // A repr may have raised what is no refusal: nothing is to run after that.
  return done && PyErr_Occurred() == nullptr;
}

bool Describer::parts(std::size_t count, bool are_pairs) {
  for (std::size_t i = 0; i < count; ++i) {
    if (are_pairs && i % 2 == 1) {
      text += ": ";
    } else {
      comma();
    }
    if (!part()) {
      return false;
    }
  }
  return true;
}

bool Describer::labelled(const std::string& label) {
  comma();
  text += label + "=";
  return part();
}

bool Describer::instance(const Node& node) {
  text += class_name(node.plan->type) + "(";
  for (std::uint32_t i = 0; i < node.size; ++i) {
    const Node& key = program_.nodes[pc_];
    if (key.kind == Kind::Str) {
      ++pc_;
      if (!labelled(text_of(key.object, PyObject_Str))) {
        return false;
      }
      continue;
    }
    comma();
    if (!part()) {
      return false;
    }
    text += "=";
    if (!part()) {
      return false;
    }
  }
  for (const TypePlan::Slot& slot : node.plan->slots) {
    if (program_.nodes[pc_].kind == Kind::Unset) {
      ++pc_;
    } else if (!labelled(text_of(slot.name.get(), PyObject_Str))) {
      return false;
    }
  }
  text += ")";
  return true;
}

bool Describer::reduce(const Node& node) {
  static const char* const kLabels[] = {"state", "items", "pairs", "setter"};
  text += std::string("<") + class_name(reinterpret_cast<PyTypeObject*>(node.object)) +
          ": ";
  if (!part()) {
    return false;
  }
  text += " of ";
  if (!part()) {
    return false;
  }
  comma_ = ", ";
  for (std::uint32_t number = kState; number < kReduceParts; ++number) {
    if (has_part(node.size, number) && !labelled(kLabels[number - kState])) {
      return false;
    }
  }
  text += ">";
  return true;
}

bool Describer::call(const Node& node) {
  if (node.extra != 0 && !part()) {
    return false;
  }
  text += "(";
  if (!parts(node.size, false)) {
    return false;
  }
  for (std::size_t i = 0; i < program_.keyword_places.size(); ++i) {
    PyObject* name = PyTuple_GET_ITEM(node.object, static_cast<Py_ssize_t>(i));
    if (!labelled(text_of(name, PyObject_Str))) {
      return false;
    }
  }
  text += ")";
  return true;
}

bool Describer::node(const Node& node) {
  const KindRow& row = row_of(node.kind);
  if (row.open != nullptr) {
    if (node.kind == Kind::Set && node.size == 0) {
      text += "set()";
      return true;
    }
    if (row.payload == Payload::Class) {
      text += class_name(reinterpret_cast<PyTypeObject*>(node.object));
    }
    text += row.open;
    std::size_t named = named_parts(row);
    if (!parts(named, false) ||
        !parts(parts_of(program_, node) - named, row.size == Size::Pairs)) {
      return false;
    }
    text += node.kind == Kind::Tuple && node.size == 1 ? ",)" : row.close;
    return true;
  }
  switch (node.kind) {
    case Kind::Leaf:
    case Kind::Traced:
    case Kind::Forward:
      text += "*";
      return true;
    case Kind::Ref:
      text += std::string("#") + std::to_string(node.size);
      return true;
    case Kind::Unset:
      text += "unset";
      return true;
    case Kind::Bytearray:
      text += std::string("bytearray(") + text_of(node.object, PyObject_Repr) + ")";
      return true;
    case Kind::Instance:
      return instance(node);
    case Kind::Reduce:
      return reduce(node);
    case Kind::Call:
      return call(node);
    default:
      text += text_of(node.object, PyObject_Repr);
      return true;
  }
}

}  // namespace

Owned path(const Program& program, const char* root, std::size_t index) {
  Route route(program);
  route.advance_to(index);
  return path_of(program, root, route.ways(), false);
}

Owned leaf_path(const Program& program, const char* root, std::uint32_t leaf) {
  return path(program, root, node_of_leaf(program, leaf));
}

bool all_leaf_paths(const Program& program, const char* root, OwnedVector& paths) {
  Route route(program);
  for (; route.node() < program.nodes.size(); route.advance()) {
    if (is_leaf(program.nodes[route.node()].kind)) {
      Owned path = path_of(program, root, route.ways(), true);
      if (!path) {
        return false;
      }
      paths.steal(path.release());
    }
  }
  return true;
}

Owned abridged(const Owned& text, Py_ssize_t around) {
  constexpr Py_ssize_t kMost = 80;
  constexpr Py_ssize_t kBefore = 30;
  Py_ssize_t size = PyUnicode_GET_LENGTH(text.get());
  if (size <= kMost) {
    return Owned::borrow(text.get());
  }
  Py_ssize_t begin = std::clamp<Py_ssize_t>(around - kBefore, 0, size - kMost);
  Owned part = Owned::steal(PyUnicode_Substring(text.get(), begin, begin + kMost));
  return Owned::steal(part ? PyUnicode_FromFormat("%s%U%s", begin > 0 ? "... " : "",
                                                  part.get(),
                                                  begin + kMost < size ? " ..." : "")
                           : nullptr);
}

Owned describe(const Program& program) {
  Describer describer(program);
  return describer.part() ? as_str("Skeleton(" + describer.text + ")") : Owned();
}

Owned describe_part(const Program& program, std::size_t index) {
  Describer describer(program, index);
  if (!describer.part()) {
    return {};
  }
  std::string& text = describer.text;
  for (std::size_t end = text.find('\n'); end != std::string::npos;
       end = text.find('\n', end)) {
    std::size_t next = std::min(text.find_first_not_of(" \n", end), text.size());
    text.replace(end, next - end, " ");
  }
  return as_str(text);
}

namespace {

// What has a name that is read, for a reader: a new str, or nothing.
Owned holder_name(const Program& program, PyObject* holder) {
  Owned name;
  if (PyDict_Check(holder)) {
    name = Owned::borrow(PyDict_GetItemString(holder, "__name__"));
    for (PyObject* other : program.held) {
      if (PyType_Check(other) &&
          reinterpret_cast<PyTypeObject*>(other)->tp_dict == holder) {
        holder = other;
      }
    }
  }
  if (!name) {
    name = Owned::steal(PyObject_GetAttrString(holder, "__qualname__"));
    PyErr_Clear();
  }
  return name && PyUnicode_Check(name.get()) ? std::move(name) : Owned();
}

}  // namespace

Owned describe_read(const Program& program, std::size_t read) {
  Owned holder = holder_name(program, program.holders[read]);
  PyObject* name = program.names_read[read];
  if (name == nullptr) {
    return Owned::steal(
        PyUnicode_FromFormat("which names %V has", holder.get(), "something"));
  }
  if (PyBytes_Check(name)) {
    return Owned::steal(
        PyUnicode_FromFormat("environment variable %s", PyBytes_AS_STRING(name)));
  }
  return Owned::steal(
      PyUnicode_FromFormat(holder ? "%V.%S" : "%V%S", holder.get(), "", name));
}

}  // namespace autojit
