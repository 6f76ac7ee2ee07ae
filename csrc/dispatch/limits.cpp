#include "dispatch/limits.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <vector>

#include "dispatch/table.h"

namespace autojit {

ProcessLimits process_limits;

void keep_within_limits() {
  ProcessLimits& limits = process_limits;
  std::size_t keep = limits.programs;
  if (limits.max_programs != 0 && keep > limits.max_programs) {
    // Some more, so that it need not be done each time.
    keep = limits.max_programs - limits.max_programs / 8;
  }
  if (limits.max_maps != 0 && limits.programs_until_count-- == 0) {
    // A program holds three maps for each of its kernels, few have more than this.
    constexpr std::size_t kMapsOfProgram = 256;
    constexpr std::size_t kFewestPrograms = 16;
    std::size_t maps = count_maps();
    std::size_t left = limits.max_maps - std::min(maps, limits.max_maps);
    limits.programs_until_count = std::max(left / kMapsOfProgram, kFewestPrograms);
    if (left == 0) {
      keep = std::min(keep, limits.programs / 2);
    }
  }
  if (keep == limits.programs) {
    return;
  }
  std::vector<Specialization*> all;
  for (Table* table : tables()) {
    for (auto [hash, specialization] : *table->by_hash) {
      all.push_back(specialization);
    }
  }
  std::sort(all.begin(), all.end(),
            [](const auto* a, const auto* b) { return a->used < b->used; });
  // They all leave before the first goes: that may run Python.
  std::vector<Owned> taken;
  taken.reserve(all.size());
  for (auto* one = all.data(); limits.programs > keep && taken.size() < all.size();
       ++one) {
    taken.push_back(take_out(*one));
  }
  for (const Owned& one : taken) {
    Py_CLEAR(as_specialization(one.get())->compiled);
    Py_CLEAR(as_specialization(one.get())->dependencies);
  }
}

std::size_t default_max_maps() {
  std::size_t allowed = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> allowed;
  return allowed / 2;
}

std::size_t count_maps() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(maps),
                                             std::istreambuf_iterator<char>(), '\n'));
}

}  // namespace autojit
