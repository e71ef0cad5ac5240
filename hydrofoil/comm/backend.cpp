#include "hydrofoil/comm/backend.h"

#include <algorithm>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {

const char* op_kind_name(OpKind kind) {
  switch (kind) {
    case OpKind::kAllReduce:
      return "all_reduce";
    case OpKind::kReduceScatter:
      return "reduce_scatter";
    case OpKind::kAllGather:
      return "all_gather";
    case OpKind::kBroadcast:
      return "broadcast";
    case OpKind::kAllToAll:
      return "all_to_all";
    case OpKind::kSend:
      return "send";
    case OpKind::kRecv:
      return "recv";
    case OpKind::kBarrier:
      return "barrier";
  }
  HYDROFOIL_ASSERT(false, "operation kind ", static_cast<int>(kind));
}

const char* reduce_op_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kAvg:
      return "avg";
    case ReduceOp::kMax:
      return "max";
  }
  HYDROFOIL_ASSERT(false, "reduce operation ", static_cast<int>(op));
}

int64_t Operation::numel() const {
  const int64_t in = input.defined() ? input.numel() : 0;
  const int64_t out = output.defined() ? output.numel() : 0;
  return std::max(in, out);
}

at::ScalarType Operation::dtype() const {
  if (input.defined()) return input.scalar_type();
  return output.defined() ? output.scalar_type() : at::ScalarType::Undefined;
}

std::string describe(const Operation& operation) { return describe(operation, operation.numel(), operation.dtype()); }

std::string describe(const Operation& operation, int64_t numel, at::ScalarType dtype) {
  std::string text = op_kind_name(operation.kind);
  if (operation.kind == OpKind::kBroadcast) text += detail::concat(" from ", operation.peer);
  if (operation.kind == OpKind::kSend) text += detail::concat(" to ", operation.peer);
  if (operation.kind == OpKind::kRecv) text += detail::concat(" from ", operation.peer);
  if (!operation.info.unit.empty()) text += " of unit " + operation.info.unit;
  if (operation.kind == OpKind::kBarrier) return text;
  text += detail::concat(" (numel ", numel, ", ", detail::dtype_name(dtype));
  if (operation.kind == OpKind::kAllReduce || operation.kind == OpKind::kReduceScatter) {
    text += detail::concat(", ", reduce_op_name(operation.reduce));
  }
  return text + ")";
}

void CallControl::start() {
  const int64_t length = std::chrono::duration_cast<std::chrono::nanoseconds>(timeout_).count();
  deadline_ns_.store(monotonic_ns() + length, std::memory_order_relaxed);
}

bool CallControl::expired() const { return monotonic_ns() >= deadline_ns_.load(std::memory_order_relaxed); }

void CallControl::abort(std::string reason) {
  const std::lock_guard lock(mutex_);
  if (aborted_.load(std::memory_order_relaxed)) return;
  reason_ = std::move(reason);
  aborted_.store(true, std::memory_order_release);
}

void CallControl::throw_if_aborted() const {
  if (watch_) watch_();
  if (!aborted_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  throw CommError(reason_);
}

}  // namespace hydrofoil::comm
