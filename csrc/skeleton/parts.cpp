#include "skeleton/parts.h"

#include <unordered_set>

#include "skeleton/compare.h"

namespace autojit {

namespace {

// Goes through both programs.
class Comparison {
 public:
  Comparison(const Program& a, const Program& b, const Returned* returned)
      : a_(a), b_(b), returned_(returned), slot_in_b_(a.slots + 1) {
    if (returned == nullptr) {
      return;
    }
    definers_.resize(b.slots + 1);
    for (std::size_t i = 0; i < b.nodes.size(); ++i) {
      if (has_slot(b.nodes[i])) {
        definers_[b.nodes[i].extra] = i;
      }
      if (i < returned->end && is_leaf(b.nodes[i].kind)) {
        returned_leaves_.insert(returned->leaves_now[leaf_of_b_++]);
      }
    }
    j_ = returned->end;
  }

  bool is_done() const { return i_ == a_.nodes.size() || j_ == b_.nodes.size(); }
  // 1 if the next parts differ, which are then passed over, 0, or -1 with an exception
  // set.
  int differ(Differing& parts) {
    parts = {i_, j_};
    int same = pass_if_same();
    if (same == 0) {
      skip_in_a();
      skip_in_b();
    }
    return same < 0 ? -1 : 1 - same;
  }

 private:
  // Past the first node of each if these are the same, or need not be looked at.
  int pass_if_same() {
    const Node& x = a_.nodes[i_];
    const Node& y = b_.nodes[j_];
    if (returned_ != nullptr) {
      if (y.kind == Kind::Ref && definers_[y.size] < returned_->end) {
        skip_in_a();
        ++j_;
        return 1;
      }
      // What can't be taken apart any more may not have changed.
      if (is_handed_through(x) || y.kind == Kind::Opaque ||
          (x.kind == Kind::Ref && y.kind != Kind::Ref)) {
        skip_in_a();
        skip_in_b();
        return 1;
      }
    }
    int same = is_same(x, y);
    if (same == 1) {
      if (has_slot(x)) {
        slot_in_b_[x.extra] = y.extra;
      }
      leaf_of_a_ += is_leaf(x.kind) ? 1U : 0U;
      leaf_of_b_ += is_leaf(y.kind) ? 1U : 0U;
      ++i_;
      ++j_;
    }
    return same;
  }

  int is_same(const Node& x, const Node& y) const {
    if (is_leaf(x.kind) && is_leaf(y.kind)) {
      return returned_ == nullptr || is_same_leaf() ? 1 : 0;
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

  bool is_same_leaf() const {
    PyObject* now = returned_->leaves_now[leaf_of_b_];
    return now == returned_->leaves_before[leaf_of_a_] ||
           returned_leaves_.contains(now);
  }

  static void skip(const Program& program, std::size_t& at, std::size_t& leaf) {
    for (std::size_t end = end_of(program, at); at < end; ++at) {
      leaf += is_leaf(program.nodes[at].kind) ? 1U : 0U;
    }
  }
  void skip_in_a() { skip(a_, i_, leaf_of_a_); }
  void skip_in_b() { skip(b_, j_, leaf_of_b_); }

  const Program& a_;
  const Program& b_;
  const Returned* returned_;
  std::vector<std::uint32_t> slot_in_b_;  // by that in `a_`
  std::vector<std::size_t> definers_;     // by the slot in `b_`
  std::unordered_set<PyObject*> returned_leaves_;
  std::size_t i_ = 0;
  std::size_t j_ = 0;
  std::size_t leaf_of_a_ = 0;
  std::size_t leaf_of_b_ = 0;
};

}  // namespace

bool differing_parts(const Program& before, const Program& now,
                     const Returned* returned, std::size_t most,
                     std::vector<Differing>& found) {
  Comparison comparison(before, now, returned);
  while (!comparison.is_done() && found.size() < most) {
    Differing parts{};
    int differ = comparison.differ(parts);
    if (differ < 0) {
      return false;
    }
    if (differ == 1) {
      found.push_back(parts);
    }
  }
  return true;
}

}  // namespace autojit
