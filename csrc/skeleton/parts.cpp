#include "skeleton/parts.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>

#include "objects/values.h"
#include "python/recursion.h"
#include "skeleton/compare.h"

namespace autojit {

namespace {

// How many leaves stand before each node, and before the end.
std::vector<std::uint32_t> leaves_before(const Program& program) {
  std::vector<std::uint32_t> before;
  before.reserve(program.nodes.size() + 1);
  std::uint32_t count = 0;
  for (const Node& node : program.nodes) {
    before.push_back(count);
    count += is_leaf(node.kind) ? 1U : 0U;
  }
  before.push_back(count);
  return before;
}

// Parts of one program in a row.
struct Range {
  std::size_t at;
  std::size_t end;
};

class Comparison {
 public:
  Comparison(const Program& a, const Program& b, const Returned* returned,
             std::size_t most, std::vector<Differing>& found)
      : a_(a),
        b_(b),
        returned_(returned),
        most_(most),
        found_(found),
        slot_in_b_(a.slots + 1) {
    if (returned == nullptr) {
      return;
    }
    leaf_in_a_ = leaves_before(a);
    leaf_in_b_ = leaves_before(b);
    definers_.resize(b.slots + 1);
    for (std::size_t i = 0; i < b.nodes.size(); ++i) {
      const Node& node = b.nodes[i];
      if (has_slot(node)) {
        definers_[node.extra] = i;
      }
      if (i < returned->end && is_leaf(node.kind)) {
        returned_leaves_.insert(returned->leaves_now[leaf_in_b_[i]]);
      } else if (i != 0 && i < returned->end && is_attribute(b, i)) {
        returned_values_.emplace(hash_value(node.kind, node.object), i);
      }
    }
  }

  // False with an exception set on failure.
  bool run() {
    return parts({0, a_.nodes.size()},
                 {returned_ != nullptr ? returned_->end : 0, b_.nodes.size()});
  }

 private:
  // Whether a node is a number, text or the like under a name.
  static bool is_attribute(const Program& program, std::size_t i) {
    const Node& node = program.nodes[i];
    return is_value(node.kind) && node.kind != Kind::Identity &&
           node.kind != Kind::Function && program.nodes[i - 1].kind == Kind::Str;
  }

  bool parts(Range x, Range y) {
    const python::Level level;
    if (!level.entered()) {
      return false;
    }
    while (x.at < x.end && y.at < y.end && found_.size() < most_) {
      int same = pass_if_same(x, y);
      if (same < 0) {
        return false;
      }
      if (same == 0) {
        found_.push_back({x.at, y.at});
        x.at = end_of(a_, x.at);
        y.at = end_of(b_, y.at);
      }
    }
    return true;
  }

  // Past the first node of each if these are the same, and past all of it if it need
  // not be looked at, or was. 1, 0 if they differ, or -1 with an exception set.
  int pass_if_same(Range& x, Range& y) {
    const Node& a = a_.nodes[x.at];
    const Node& b = b_.nodes[y.at];
    if (returned_ != nullptr && is_kept(a, y.at)) {
      x.at = end_of(a_, x.at);
      y.at = end_of(b_, y.at);
      return 1;
    }
    if (a.kind == b.kind && has_pairs(a) && has_slot(a)) {
      slot_in_b_[a.extra] = b.extra;
    }
    if (a.kind == b.kind && has_pairs(a) && !is_in_order(x.at, y.at)) {
      return by_key(x, y);
    }
    int same = is_same(x.at, y.at);
    if (same == 1) {
      if (has_slot(a)) {
        slot_in_b_[a.extra] = b.extra;
      }
      ++x.at;
      ++y.at;
    }
    return same;
  }

  // Whether what stands in the second program is not lost: it is what was returned, or
  // the caller's own. What can't be taken apart any more may not have changed, and a
  // sentinel in its place says that it is not to be used.
  bool is_kept(const Node& a, std::size_t y) const {
    const Node& b = b_.nodes[y];
    return (b.kind == Kind::Ref && definers_[b.size] < returned_->end) ||
           is_handed_through(a) || is_handed_through(b) ||
           (a.kind == Kind::Ref && b.kind != Kind::Ref) ||
           (is_attribute(b_, y) && is_returned_attribute(y)) ||
           ((b.kind == Kind::Tuple || b.kind == Kind::NamedTuple) &&
            is_returned_whole(y));
  }

  // Whether the result has the same under the same name, as a copy of an object has.
  bool is_returned_attribute(std::size_t y) const {
    const Node& value = b_.nodes[y];
    auto [begin, end] =
        returned_values_.equal_range(hash_value(value.kind, value.object));
    return std::any_of(begin, end, [&](const auto& entry) {
      return is_key(b_, entry.second, y) && is_key(b_, entry.second - 1, y - 1);
    });
  }

  // Whether all arrays of a tuple were returned.
  bool is_returned_whole(std::size_t y) const {
    std::size_t end = end_of(b_, y);
    for (std::uint32_t leaf = leaf_in_b_[y]; leaf < leaf_in_b_[end]; ++leaf) {
      if (!returned_leaves_.contains(returned_->leaves_now[leaf])) {
        return false;
      }
    }
    return leaf_in_b_[y] != leaf_in_b_[end];
  }

  // Whether two nodes with pairs have the same keys in one order, as far as these are
  // values.
  bool is_in_order(std::size_t x, std::size_t y) const {
    if (a_.nodes[x].size != b_.nodes[y].size) {
      return false;
    }
    std::vector<std::size_t> ours = keys_of(a_, x);
    std::vector<std::size_t> theirs = keys_of(b_, y);
    return std::equal(
        ours.begin(), ours.end(), theirs.begin(),
        [this](std::size_t i, std::size_t j) { return is_key(a_, i, j); });
  }

  // Whether a node of a program is the value that one of `b_` is, or no value at all.
  bool is_key(const Program& program, std::size_t i, std::size_t j) const {
    const Node& a = program.nodes[i];
    const Node& b = b_.nodes[j];
    return a.kind == b.kind &&
           (!is_value(a.kind) || same_value(a.kind, a.object, b.object));
  }

  // Two nodes whose keys differ or stand in another order: what is in both is compared.
  int by_key(Range& x, Range& y) {
    int same = same_but_for_slots_and_size(x.at, y.at);
    if (same != 1) {
      return same;
    }
    const Differing heads{x.at, y.at};
    std::vector<std::size_t> ours = keys_of(a_, x.at);
    std::vector<std::size_t> theirs = keys_of(b_, y.at);
    std::unordered_multimap<std::uint64_t, std::size_t> by_hash;
    for (std::size_t key : theirs) {
      by_hash.emplace(hash_of_key(b_.nodes[key]), key);
    }
    std::size_t shared = 0;
    std::vector<Differing> values;
    for (std::size_t key : ours) {
      auto [begin, end] = by_hash.equal_range(hash_of_key(a_.nodes[key]));
      auto found = std::find_if(
          begin, end, [&](const auto& entry) { return is_key(a_, key, entry.second); });
      if (found != end) {
        values.push_back({end_of(a_, key), end_of(b_, found->second)});
        by_hash.erase(found);
        ++shared;
      }
    }
    // Without `returned` one place is enough to say that there are other keys.
    bool has_other_keys = shared != ours.size() || shared != theirs.size();
    if (has_other_keys) {
      found_.push_back(heads);
    }
    if (!has_other_keys || returned_ != nullptr) {
      for (const Differing& value : values) {
        if (!parts({value.before, end_of(a_, value.before)},
                   {value.now, end_of(b_, value.now)})) {
          return -1;
        }
      }
    }
    x.at = end_of(a_, heads.before);
    y.at = end_of(b_, heads.now);
    return 1;
  }

  static std::uint64_t hash_of_key(const Node& key) {
    return is_value(key.kind) && key.kind != Kind::Function
               ? hash_value(key.kind, key.object)
               : static_cast<std::uint64_t>(key.kind);
  }

  int same_but_for_slots_and_size(std::size_t x, std::size_t y) const {
    Node a = a_.nodes[x];  // a copy that owns nothing
    a.size = b_.nodes[y].size;
    return same_but_for_slots(a_, a, b_, b_.nodes[y]);
  }

  int is_same(std::size_t i, std::size_t j) const {
    const Node& x = a_.nodes[i];
    const Node& y = b_.nodes[j];
    if (is_leaf(x.kind) && is_leaf(y.kind)) {
      return returned_ == nullptr || is_same_leaf(i, j) ? 1 : 0;
    }
    if (x.kind != y.kind) {
      return 0;
    }
    switch (x.kind) {
      case Kind::Extent:
        return 1;      // its parts say it
      case Kind::Ref:  // 0: what it refers to was passed over
        return slot_in_b_[x.size] == 0 || slot_in_b_[x.size] == y.size ? 1 : 0;
      case Kind::Function:
        return x.object == y.object ||
                       (returned_ == nullptr && a_.codes[x.size] == b_.codes[y.size])
                   ? 1
                   : 0;
      default:
        return same_but_for_slots(a_, x, b_, y);
    }
  }

  bool is_same_leaf(std::size_t i, std::size_t j) const {
    PyObject* now = returned_->leaves_now[leaf_in_b_[j]];
    return now == returned_->leaves_before[leaf_in_a_[i]] ||
           returned_leaves_.contains(now);
  }

  const Program& a_;
  const Program& b_;
  const Returned* returned_;
  std::size_t most_;
  std::vector<Differing>& found_;
  std::vector<std::uint32_t> slot_in_b_;  // by that in `a_`
  // The rest is there if something was returned.
  std::vector<std::uint32_t> leaf_in_a_;
  std::vector<std::uint32_t> leaf_in_b_;
  std::vector<std::size_t> definers_;  // by the slot in `b_`
  std::unordered_set<PyObject*> returned_leaves_;
  std::unordered_multimap<std::uint64_t, std::size_t> returned_values_;
};

}  // namespace

bool differing_parts(const Program& before, const Program& now,
                     const Returned* returned, std::size_t most,
                     std::vector<Differing>& found) {
  return Comparison(before, now, returned, most, found).run();
}

}  // namespace autojit
