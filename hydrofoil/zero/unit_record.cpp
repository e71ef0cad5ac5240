#include "hydrofoil/zero/unit_record.h"

namespace hydrofoil::zero {

void UnitRecord::add(int u) {
  const std::lock_guard lock(mutex_);
  hash_ = (hash_ ^ static_cast<uint64_t>(u + 1)) * 1099511628211ULL;
  if (units_.size() == 2 * kKept) {
    units_.erase(units_.begin(), units_.begin() + kKept);
    num_dropped_ += kKept;
  }
  units_.push_back(u);
}

void UnitRecord::restart() {
  const std::lock_guard lock(mutex_);
  units_.clear();
  num_dropped_ = 0;
  hash_ = kSeed;
}

comm::RunHistory::Part UnitRecord::recent() const {
  const std::lock_guard lock(mutex_);
  Part part{.first = num_dropped_ + 1, .units = {}};
  for (const int u : units_) part.units.push_back(names_.at(static_cast<size_t>(u)));
  return part;
}

}  // namespace hydrofoil::zero
