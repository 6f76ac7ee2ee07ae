// A map from addresses to small numbers, for telling which objects were met before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace autojit {

class PointerMap {
 public:
  // The number that belongs to `key`; if there is none yet, `value` now does.
  // `inserted` tells which.
  std::uint32_t get_or_insert(const void* key, std::uint32_t value, bool& inserted) {
    if ((count_ + 1) * 4 > table_.size() * 3) {
      grow();
    }
    Entry& entry = table_[place(key)];
    inserted = entry.key == nullptr;
    if (inserted) {
      entry = {key, value};
      ++count_;
    }
    return entry.value;
  }

  // The number that belongs to `key`, or nullptr.
  const std::uint32_t* find(const void* key) const {
    if (count_ == 0) {
      return nullptr;
    }
    const Entry& entry = table_[place(key)];
    return entry.key != nullptr ? &entry.value : nullptr;
  }

  void reserve(std::size_t count) {
    while (count * 4 > table_.size() * 3) {
      grow();
    }
  }

 private:
  struct Entry {
    const void* key = nullptr;
    std::uint32_t value = 0;
  };

  std::size_t place(const void* key) const {
    std::size_t mask = table_.size() - 1;
    auto bits = reinterpret_cast<std::uintptr_t>(key);
    std::size_t i = (bits * 0x9E3779B97F4A7C15U) >> 32U;
    while (table_[i & mask].key != nullptr && table_[i & mask].key != key) {
      ++i;
    }
    return i & mask;
  }

  void grow() {
    std::vector<Entry> old(table_.empty() ? 32 : table_.size() * 2);
    old.swap(table_);
    for (const Entry& entry : old) {
      if (entry.key != nullptr) {
        table_[place(entry.key)] = entry;
      }
    }
  }

  std::vector<Entry> table_;
  std::size_t count_ = 0;
};

}  // namespace autojit
