#pragma once

#include <cstdint>
#include <string_view>

#include "hydrofoil/comm/backend.h"

namespace hydrofoil::comm {

// One operation that a Group has run without an error.
struct EndedOperation {
  OpKind kind = OpKind::kBarrier;
  std::string_view unit;      // OpInfo::unit
  int64_t message_bytes = 0;  // of the larger of input and output; 0 for a barrier
  int64_t begin_ns = 0;       // monotonic_ns(): from the start on this rank, the wait for slower ranks included
  int64_t end_ns = 0;
  int group_size = 1;
};

// Hears of the operations of the Groups that it was given to (Group::observe).
class OperationObserver {
 public:
  virtual ~OperationObserver() = default;
  // Called before the Work is done, on the thread that ran the operation; by the threads of several Groups at a time.
  // Must not throw, nor wait for the Group.
  virtual void on_operation(const EndedOperation& operation) = 0;
};

}  // namespace hydrofoil::comm
