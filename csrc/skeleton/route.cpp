#include "skeleton/route.h"

#include <iterator>

#include "objects/function_state.h"
#include "objects/reduction.h"
#include "objects/type_plan.h"
#include "python/errors.h"

namespace autojit {

std::uint32_t reduce_part(const Node& node, std::size_t part) {
  std::uint32_t number = 0;
  while (!has_part(node.size, number) || part-- != 0) {
    ++number;
  }
  return number;
}

void Route::advance() {
  std::size_t index = node_++;
  const Node& node = program_.nodes[index];
  if (node.kind == Kind::Extent) {
    return;
  }
  if (!ways_.empty()) {
    Way& last = ways_.back();
    std::size_t named = named_parts(row_of(program_.nodes[last.node].kind));
    last.key = (last.part + named) % 2 == 0 ? index : last.key;
  }
  if (parts_of(program_, node) != 0) {
    ways_.push_back({index, 0, index});
    return;
  }
  while (!ways_.empty() &&
         ++ways_.back().part == parts_of(program_, program_.nodes[ways_.back().node])) {
    ways_.pop_back();
  }
}

std::string text_of(PyObject* object, PyObject* (*how)(PyObject*)) {
  Owned text = Owned::steal(how(object));
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (utf8 == nullptr) {
    clear_refusal();
    return std::string("<") + Py_TYPE(object)->tp_name + ">";
  }
  return utf8;
}

namespace {

// Whether a way goes on into the pairs of a reduction.
bool is_into_pairs(const Program& program, const Way& way) {
  const Node& node = program.nodes[way.node];
  return node.kind == Kind::Reduce && reduce_part(node, way.part) == kDictItems;
}

}  // namespace

bool is_pair(const Program& program, const std::vector<Way>& ways, std::size_t step) {
  return step > 1 && is_into_pairs(program, ways[step - 2]) &&
         program.nodes[ways[step].node].kind == Kind::Tuple;
}

namespace {

std::string index_text(std::size_t index) { return "[" + std::to_string(index) + "]"; }

std::string key_text(const Node& key) {
  bool has_value = is_value(key.kind) || (row_of(key.kind).payload == Payload::Folded &&
                                          key.object != nullptr);
  return has_value ? text_of(key.object, PyObject_Repr) : "...";
}

std::string attribute(const Node& key) {
  return key.kind == Kind::Str ? std::string(".") + text_of(key.object, PyObject_Str)
                               : std::string(".__dict__[") + key_text(key) + "]";
}

// The name of a namedtuple's field, or its number.
std::string field(const Node& node, std::size_t part) {
  Owned fields = Owned::steal(PyObject_GetAttrString(node.object, "_fields"));
  auto place = static_cast<Py_ssize_t>(part);
  if (fields && PyTuple_CheckExact(fields.get()) &&
      place < PyTuple_GET_SIZE(fields.get())) {
    return "." + text_of(PyTuple_GET_ITEM(fields.get(), place), PyObject_Str);
  }
  PyErr_Clear();
  return index_text(part);
}

std::string argument(const Node& call, std::size_t part) {
  if (call.extra != 0 && part-- == 0) {
    return "fun";
  }
  if (part < call.size) {
    return "args" + index_text(part);
  }
  PyObject* name =
      PyTuple_GET_ITEM(call.object, static_cast<Py_ssize_t>(part - call.size));
  return "kwargs[" + text_of(name, PyObject_Repr) + "]";
}

// A function's code is the first of what it holds.
std::string part_of_function(const Program& program, const Way& way) {
  static const char* const kParts[] = {
      ".__code__", ".__globals__",    ".__defaults__", ".__kwdefaults__",
      ".__dict__", ".__name__",       ".__qualname__", ".__module__",
      ".__doc__",  ".__annotations__"};
  static_assert(std::size(kParts) == kStateParts);
  if (way.part < kStateParts) {
    return kParts[way.part];
  }
  std::size_t cell = way.part - kStateParts;
  PyObject* code = program.nodes[way.node + 2].object;
  Owned names = Owned::steal(
      PyCode_Check(code) ? PyCode_GetFreevars(reinterpret_cast<PyCodeObject*>(code))
                         : nullptr);
  PyErr_Clear();
  auto place = static_cast<Py_ssize_t>(cell);
  return ".__closure__[" +
         (names && place < PyTuple_GET_SIZE(names.get())
              ? text_of(PyTuple_GET_ITEM(names.get(), place), PyObject_Repr)
              : std::to_string(cell)) +
         "]";
}

}  // namespace

std::string step_text(const Program& program, const std::vector<Way>& ways,
                      std::size_t step) {
  const Way& way = ways[step];
  // The keys of the state of a reduction are attributes.
  bool is_state = step > 0 && program.nodes[ways[step - 1].node].kind == Kind::Reduce;
  const Node& node = program.nodes[way.node];
  const KindRow& row = row_of(node.kind);
  std::size_t named = named_parts(row);
  if (way.part < named) {
    return row.names[way.part];
  }
  std::size_t part = way.part - named;
  switch (row.step) {
    case Step::None:
      break;
    case Step::Index:
      if (node.kind == Kind::Closure) {
        return part_of_function(program, way);
      }
      if (is_pair(program, ways, step)) {
        return part == 0 ? ".keys()"
                         : "[" + key_text(program.nodes[way.node + 1]) + "]";
      }
      return node.kind == Kind::Cell ||
                     (step > 0 && is_into_pairs(program, ways[step - 1]))
                 ? ""
                 : index_text(part);
    case Step::Element:
      return ".elements" + index_text(part);
    case Step::Field:
      return field(node, part);
    case Step::Key:
      if (part % 2 == 0) {
        return ".keys()" + index_text(part / 2);
      }
      return is_state ? attribute(program.nodes[way.key])
                      : std::string("[") + key_text(program.nodes[way.key]) + "]";
    case Step::Attribute: {
      std::size_t pairs = std::size_t{2} * node.size;
      if (part >= pairs) {
        return "." + text_of(node.plan->slots[part - pairs].name.get(), PyObject_Str);
      }
      return part % 2 == 0 ? std::string(".__dict__.keys()") + index_text(part / 2)
                           : attribute(program.nodes[way.key]);
    }
    case Step::Reduction: {
      std::uint32_t number = reduce_part(node, part);
      return number <= kArgs || number == kStateSetter
                 ? std::string(".__reduce_ex__()") + index_text(number)
                 : "";
    }
    case Step::Argument:
      return argument(node, part);
  }
  return index_text(part);
}

}  // namespace autojit
