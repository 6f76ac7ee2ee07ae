// Hashes of bytes and addresses. Those of bytes are the same in all processes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace autojit {

inline constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;  // 2 ** 64 / golden ratio

inline std::uint64_t mix(std::uint64_t mixed, std::uint64_t value) {
  mixed = (mixed ^ value) * kGolden;
  return mixed ^ (mixed >> 29U);
}

inline std::uint64_t hash_address(const void* pointer) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer) >> 4U);
}

inline std::uint64_t hash_bytes(const char* data, std::size_t size) {
  std::array<std::uint64_t, 4> lanes{size, 1, 2, 3};
  std::size_t i = 0;
  for (; i + 32 <= size; i += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), data + i, 32);
    for (std::size_t lane = 0; lane < 4; ++lane) {
      lanes[lane] = mix(lanes[lane], words[lane]);
    }
  }
  for (; i < size; ++i) {
    lanes[i % 4] = mix(lanes[i % 4], static_cast<unsigned char>(data[i]));
  }
  std::uint64_t mixed = 0;
  for (std::uint64_t lane : lanes) {
    mixed = mix(mixed, lane);
  }
  return mixed;
}

// The hash of some of many bytes, from the first to the last of them.
inline std::uint64_t hash_sample(const char* data, std::size_t size) {
  constexpr std::size_t kPieces = 16;
  constexpr std::size_t kPiece = 32;
  if (size <= kPieces * kPiece) {
    return hash_bytes(data, size);
  }
  std::uint64_t mixed = size;
  for (std::size_t i = 0; i < kPieces; ++i) {
    std::size_t begin = (size - kPiece) / (kPieces - 1) * i;
    begin = i + 1 == kPieces ? size - kPiece : begin;
    mixed = mix(mixed, hash_bytes(data + begin, kPiece));
  }
  return mixed;
}

}  // namespace autojit
