#include "skeleton/places.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "objects/reduction.h"
#include "objects/values.h"
#include "python/numpy.h"
#include "skeleton/closures.h"
#include "skeleton/parts.h"
#include "skeleton/route.h"

namespace autojit {

Places::Place& Places::at(const Steps& steps) {
  Place* place = &root_;
  for (const std::string& step : steps) {
    std::unique_ptr<Place>& next = place->next[step];
    if (next == nullptr) {
      next = std::make_unique<Place>();
    }
    place = next.get();
  }
  return *place;
}

std::vector<std::string> Places::paths(Status status) const {
  std::vector<std::string> found;
  std::vector<std::pair<const Place*, std::string>> left{{&root_, ""}};
  while (!left.empty()) {
    auto [place, path] = std::move(left.back());
    left.pop_back();
    if (place->status == status) {
      found.push_back(path);
    }
    for (const auto& [step, next] : place->next) {
      left.emplace_back(next.get(), path + step);
    }
  }
  return found;
}

namespace {

using Place = Places::Place;
using Status = Places::Status;

bool is_state(const Program& program, const Way& way) {
  const Node& node = program.nodes[way.node];
  return node.kind == Kind::Reduce && reduce_part(node, way.part) == kState;
}

// Whether another value can stand where a way leads, for all that its holder knows: a
// key, an element of a set and what an object is made from are what they are, and so is
// the state of a reduction that is no dict of attributes.
bool is_open(const Program& program, const std::vector<Way>& ways, const Node& part) {
  const Way& way = ways.back();
  const Node& node = program.nodes[way.node];
  const KindRow& row = row_of(node.kind);
  std::size_t named = named_parts(row);
  bool is_key = way.part >= named && (way.part - named) % 2 == 0;
  switch (row.step) {
    case Step::Key:
      return !is_key;
    case Step::Attribute:
      return !is_key || way.part >= std::size_t{2} * node.size;
    case Step::Element:
      return false;
    case Step::Reduction:
      if (numpy::is_array_type(reinterpret_cast<PyTypeObject*>(node.object))) {
        return false;
      }
      if (is_state(program, way)) {  // for slots, a tuple of dicts
        return part.kind == Kind::Dict || part.kind == Kind::Tuple;
      }
      return reduce_part(node, way.part) == kListItems ||
             reduce_part(node, way.part) == kDictItems;
    case Step::Index:
      if (is_pair(program, ways, ways.size() - 1)) {
        return way.part == 1;
      }
      return ways.size() < 2 || !is_state(program, ways[ways.size() - 2]) ||
             part.kind == Kind::Dict;
    default:
      return node.kind != Kind::Range && node.kind != Kind::Slice;
  }
}

// Goes through a call and tells of each node at which place it is.
class Survey {
 public:
  struct Level {
    const Place* place;  // nullptr if nothing is known of it
    bool is_below;       // all in it is traced
    bool is_open;
  };

  Survey(const Program& program, const Place& root)
      : program_(program),
        route_(program),
        level_{&root, root.status == Status::Below, true} {}
  std::size_t node() const { return route_.node(); }
  bool is_done() const { return node() == program_.nodes.size(); }
  const Level& level() const { return level_; }
  bool is_traced() const {
    return level_.is_open &&
           (level_.is_below ||
            (level_.place != nullptr && level_.place->status == Status::Traced));
  }
  Steps steps() const {
    Steps steps;
    for (std::size_t i = 0; i < route_.ways().size(); ++i) {
      if (std::string step = step_text(program_, route_.ways(), i); !step.empty()) {
        steps.push_back(std::move(step));
      }
    }
    return steps;
  }
  void advance() {
    const Level last = level_;
    route_.advance();
    std::size_t depth = route_.ways().size();
    if (depth > holders_.size()) {
      holders_.push_back(last);
    }
    holders_.resize(depth);
    if (!is_done() && depth != 0) {
      level_ = level_in(holders_.back());
    }
  }

 private:
  Level level_in(const Level& holder) const {
    if (!holder.is_open || !is_open(program_, route_.ways(), program_.nodes[node()])) {
      return {nullptr, false, false};
    }
    const Place* place = holder.place;
    if (place != nullptr) {
      std::string step = step_text(program_, route_.ways(), route_.ways().size() - 1);
      if (!step.empty()) {
        auto next = place->next.find(step);
        place = next != place->next.end() ? next->second.get() : nullptr;
      }
    }
    if (place != nullptr && place->status == Status::Static) {
      return {nullptr, false, false};
    }
    bool is_below =
        holder.is_below || (place != nullptr && place->status == Status::Below);
    return {place, is_below, true};
  }

  const Program& program_;
  Route route_;
  Level level_;
  std::vector<Level> holders_;
};

bool is_number(const Node& node, std::uint32_t bits) {
  switch (node.kind) {
    case Kind::Int:
    case Kind::Float:
    case Kind::Complex:
    case Kind::NumpyScalar:
    case Kind::NumpyArray:
      return can_be_traced(node.object, bits);
    default:
      return false;
  }
}

// The nodes that are to be leaves. An array that occurs more than once is traced
// everywhere, since it is nothing that has an identity then.
std::vector<bool> traced_nodes(const Places& places, const Program& program) {
  const std::vector<Node>& nodes = program.nodes;
  std::vector<bool> traced(nodes.size());
  std::vector<bool> slots(program.slots + 1);
  for (Survey survey(program, places.root()); !survey.is_done(); survey.advance()) {
    const Node& node = nodes[survey.node()];
    if (!survey.is_traced()) {
      continue;
    }
    if (node.kind == Kind::Ref) {
      slots[node.size] = true;
    } else if (node.kind == Kind::Leaf || is_number(node, places.bits())) {
      traced[survey.node()] = true;
      if (node.kind == Kind::NumpyArray) {
        slots[node.extra] = true;
      }
    }
  }
  std::vector<bool> is_traced_array(program.slots + 1);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    if (node.kind == Kind::NumpyArray && node.extra != 0 && slots[node.extra]) {
      traced[i] = is_traced_array[node.extra] = is_number(node, places.bits());
    } else if (node.kind == Kind::Ref && is_traced_array[node.size]) {
      traced[i] = true;
    }
  }
  return traced;
}

// After some nodes have become leaves: `before[i]` is how many leaves there are before
// node i.
void count_again(Program& program, const std::vector<std::uint32_t>& before) {
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    Node& node = program.nodes[i];
    if (row_of(node.kind).payload == Payload::Folded && node.object != nullptr &&
        before[i + node.extra] != before[i]) {
      Py_CLEAR(node.object);
      node.extra = 0;
    }
    if (!has_extent(node)) {
      continue;
    }
    Node& extent = program.nodes[i + 1];
    std::size_t first = i + 2;
    if (node.kind == Kind::Reduce) {
      extent.number = before[first + extent.size] - before[first];
    } else if (is_set(node) || !extent.memo.is_in_order()) {
      std::size_t first_entry =
          is_set(node) ? extent.number : extent.memo.first_entry();
      PartEntry* entry = program.part_entries.data() + first_entry;
      for (std::size_t k = 0; k <= node.size; ++k, ++entry) {
        entry->leaf = before[first + entry->node] - before[first];
      }
    }
  }
}

}  // namespace

Steps steps_of(PyObject* steps) {
  Steps found;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(steps); ++i) {
    const char* step = PyUnicode_AsUTF8(PyTuple_GET_ITEM(steps, i));
    if (step == nullptr) {
      return {};
    }
    found.emplace_back(step);
  }
  return found;
}

std::unique_ptr<Places> places_of(PyObject* traced) {
  if (traced == nullptr || traced == Py_None) {
    return nullptr;
  }
  auto places = std::make_unique<Places>(PyTuple_GET_ITEM(traced, 0) == Py_True);
  PyObject* known = PyTuple_GET_ITEM(traced, 1);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(known); ++i) {
    PyObject* one = PyTuple_GET_ITEM(known, i);
    PyObject* leads_to = PyTuple_GET_ITEM(one, 1);
    bool is_traced = PyTuple_GET_ITEM(one, 2) == Py_True;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(leads_to); ++k) {
      Steps steps = steps_of(PyTuple_GET_ITEM(leads_to, k));
      if (PyErr_Occurred() != nullptr) {
        return nullptr;
      }
      places->at(steps).status = is_traced ? Status::Below : Status::Static;
    }
  }
  return places;
}

bool trace_at(const Places& places, Program& program, OwnedVector& leaves) {
  std::vector<bool> traced = traced_nodes(places, program);
  if (PyErr_Occurred() != nullptr) {
    return false;
  }
  std::vector<Node>& nodes = program.nodes;
  std::vector<std::uint32_t> before(nodes.size() + 1);
  std::vector<PyObject*> arrays(program.slots + 1);  // borrowed from `leaves`
  OwnedVector old;
  old.swap(leaves);
  std::size_t next = 0;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    Node& node = nodes[i];
    before[i] = static_cast<std::uint32_t>(leaves.size());
    if (node.kind == Kind::Leaf) {
      leaves.borrow(old[next++]);
    } else if (traced[i]) {
      PyObject* value = node.kind == Kind::Ref ? arrays[node.size] : node.object;
      leaves.borrow(value);
      if (node.kind == Kind::NumpyArray) {
        arrays[node.extra] = value;
      }
    } else if (node.kind == Kind::NumpyArray) {
      PyObject* copy = numpy::kept_copy_of(node.object);
      if (copy == nullptr) {
        return false;
      }
      Owned original = Owned::steal(std::exchange(node.object, copy));
    }
    if (traced[i]) {
      Py_XDECREF(node.kind == Kind::Ref ? nullptr : node.object);  // a leaf now
      node = Node{};
      node.kind = Kind::Traced;
      node.size = places.bits();
    }
  }
  before[nodes.size()] = program.leaves = static_cast<std::uint32_t>(leaves.size());
  count_again(program, before);
  return true;
}

int learn(Places& places, Skeleton* before, Skeleton* now) {
  const Program& a = before->program;
  const Program& b = now->program;
  std::vector<Differing> found;
  if (!differing_parts(a, b, nullptr, SIZE_MAX, found)) {
    return -1;
  }
  std::vector<bool> changed(b.nodes.size());
  for (const Differing& parts : found) {
    const Node& x = a.nodes[parts.before];
    const Node& y = b.nodes[parts.now];
    bool is_new_number = is_number(y, places.bits());
    if (!is_number(x, places.bits()) || (y.kind != Kind::Traced && !is_new_number)) {
      return 0;
    }
    changed[parts.now] = is_new_number;
  }
  if (a.functions.size() != b.functions.size()) {
    return 0;
  }
  if (!std::equal(a.functions.begin(), a.functions.end(), b.functions.begin())) {
    if (int same = same_functions(before, now); same != 1) {
      return same;
    }
  }
  std::vector<Steps> learned;
  for (Survey survey(b, places.root()); !survey.is_done(); survey.advance()) {
    const Place* place = survey.level().place;
    if (changed[survey.node()] && survey.level().is_open &&
        (place == nullptr || place->status == Status::Unknown)) {
      learned.push_back(survey.steps());
    }
  }
  if (PyErr_Occurred() != nullptr) {
    return -1;
  }
  for (const Steps& steps : learned) {
    places.at(steps).status = Status::Traced;
  }
  return learned.empty() ? 0 : 1;
}

std::vector<Steps> steps_to(const Program& program, const std::vector<bool>& leaves) {
  std::vector<Steps> found;
  std::size_t leaf = 0;
  const Place nowhere;
  for (Survey survey(program, nowhere); !survey.is_done(); survey.advance()) {
    Kind kind = program.nodes[survey.node()].kind;
    if (is_leaf(kind) && leaves[leaf++] && kind == Kind::Traced) {
      found.push_back(survey.steps());
    }
  }
  return found;
}

bool could_be_traced(const Program& program, std::size_t node) {
  const Place nowhere;
  Survey survey(program, nowhere);
  while (survey.node() < node) {
    survey.advance();
  }
  return survey.level().is_open && is_number(program.nodes[node], 0);
}

bool lead_anywhere(const Program& program, const Steps& steps) {
  Places places(false);
  const Place* place = &places.at(steps);
  for (Survey survey(program, places.root()); !survey.is_done(); survey.advance()) {
    if (survey.level().place == place) {
      return true;
    }
  }
  return false;
}

}  // namespace autojit
