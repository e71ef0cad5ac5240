#include "hydrofoil/data/permutation.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::data {
namespace {

constexpr uint64_t kNumTurns = 4;

// Output of splitmix64 in the state `x` (https://prng.di.unimi.it/splitmix64.c).
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

int64_t permuted(int64_t index, int64_t size, int64_t seed, int64_t epoch) {
  HYDROFOIL_CHECK_ARG(0 <= index && index < size, "permuted", "index: got ", index, ", expected one from 0 to ",
                      size - 1);
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1))));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const uint64_t key = mix(mix(static_cast<uint64_t>(seed)) + static_cast<uint64_t>(epoch));
  uint64_t at = static_cast<uint64_t>(index);
  // The network permutes the next power of four; what falls outside is sent on until it falls inside.
  do {
    uint64_t left = at >> half;
    uint64_t right = at & mask;
    for (uint64_t turn = 0; turn < kNumTurns; ++turn) {
      left ^= mix(mix(key + turn) ^ right) & mask;
      std::swap(left, right);
    }
    at = left << half | right;
  } while (at >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(at);
}

}  // namespace hydrofoil::data
