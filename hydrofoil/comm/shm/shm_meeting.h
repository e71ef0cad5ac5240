#pragma once

#include <memory>
#include <string>

#include "hydrofoil/comm/detail/ballot.h"
#include "hydrofoil/comm/detail/segment.h"

namespace hydrofoil::comm::detail {

struct ShmMeeting {
  std::shared_ptr<SegmentSet> segments;  // of all ranks; null where some rank cannot map the others
  std::string reasons;                   // of every rank that cannot
};

// Every rank tries to map the memory of all others; they vote after each step, so the outcome is the same everywhere.
// Throws CommError where ranks do not come in time.
[[nodiscard]] ShmMeeting meet_in_shared_memory(const Ballot& ballot, int num_channels);

}  // namespace hydrofoil::comm::detail
