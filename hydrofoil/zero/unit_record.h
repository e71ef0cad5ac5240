#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::zero {

// The units that this rank has gathered since the last optimizer step, in the order in which it ran them: what ranks
// compare, and what errors name where they differ.
class UnitRecord : public comm::RunHistory {
 public:
  explicit UnitRecord(std::vector<std::string> names) : names_(std::move(names)) {}

  void add(int u);
  void restart();
  // Of everything since the restart.
  [[nodiscard]] uint64_t hash() const { return hash_; }
  // All of them, or the last kKept at least. Thread-safe against add().
  [[nodiscard]] Part recent() const override;

 private:
  static constexpr size_t kKept = size_t{1} << 14;           // a program that never steps must not fill the memory
  static constexpr uint64_t kSeed = 1469598103934665603ULL;  // FNV-1a

  const std::vector<std::string> names_;
  mutable std::mutex mutex_;
  std::vector<int> units_;  // the last ones
  int64_t num_dropped_ = 0;
  uint64_t hash_ = kSeed;
};

}  // namespace hydrofoil::zero
