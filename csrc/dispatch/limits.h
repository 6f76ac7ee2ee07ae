// What all tables of the process may keep together.
#pragma once

#include <cstddef>

namespace autojit {

// The programs of JAX hold memory maps, of which Linux allows a process so many and no
// more.
struct ProcessLimits {
  std::size_t programs = 0;         // what there is
  std::size_t max_programs = 4096;  // 0: unbounded, as `max_maps`
  std::size_t max_maps = 0;
  std::size_t programs_until_count = 0;  // before the maps are counted again
};
extern ProcessLimits process_limits;

// Half of what the kernel allows; 0 if it sets no bound.
std::size_t default_max_maps();
// How many memory maps this process has; 0 if that can't be told.
std::size_t count_maps();

// A function was traced: drops what was used least recently if there is too much in all
// tables. May run Python.
void keep_within_limits();

}  // namespace autojit
