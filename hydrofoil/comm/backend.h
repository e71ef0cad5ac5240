#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "hydrofoil/comm/group.h"

namespace c10 {
struct Event;
}

namespace hydrofoil::comm {

class StatusBoard;

enum class OpKind : uint8_t { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kSend, kRecv, kBarrier };

[[nodiscard]] const char* op_kind_name(OpKind kind);
[[nodiscard]] const char* reduce_op_name(ReduceOp op);

// Whether the ranks take part one with one (send, recv) instead of all together.
[[nodiscard]] constexpr bool is_point_to_point(OpKind kind) { return kind == OpKind::kSend || kind == OpKind::kRecv; }

// One call of a Group, its arguments checked.
struct Operation {
  OpKind kind = OpKind::kBarrier;
  ReduceOp reduce = ReduceOp::kSum;
  int peer = 0;       // root of a broadcast, other end of send and recv
  at::Tensor input;   // in-place operations have input and output the same; undefined for a barrier
  at::Tensor output;  // undefined for a send
  OpInfo info;
  std::shared_ptr<c10::Event> inputs_ready;  // of tensors on other devices: where the caller's stream stood
  uint64_t sequence = 0;                     // number of the collective in its channel, from 1; 0 for send and recv

  [[nodiscard]] int64_t numel() const;  // of the buffer that the caller thinks of: the larger of input and output
  [[nodiscard]] at::ScalarType dtype() const;
};

// "all_gather of unit layers.3 (numel 128, bfloat16)"
[[nodiscard]] std::string describe(const Operation& operation);
// The same for an operation without buffers.
[[nodiscard]] std::string describe(const Operation& operation, int64_t numel, at::ScalarType dtype);

// What may end an operation early: its deadline, and an abort that another thread asks for. Thread-safe.
class CallControl {
 public:
  explicit CallControl(std::chrono::milliseconds timeout) : timeout_(timeout) {}

  void start();  // the deadline counts from here
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }
  [[nodiscard]] bool expired() const;

  // The first reason stays.
  void abort(std::string reason);
  // Throws CommError with the reason where abort was called. The thread that runs the operation calls it now and then
  // while it waits for peers.
  void throw_if_aborted() const;
  // What throw_if_aborted() calls first. Set on the thread that runs the operation.
  void set_watch(std::function<void()> watch) { watch_ = std::move(watch); }

 private:
  std::chrono::milliseconds timeout_;
  std::atomic<int64_t> deadline_ns_{INT64_MAX};
  std::atomic<bool> aborted_{false};
  std::function<void()> watch_;
  mutable std::mutex mutex_;
  std::string reason_;
};

// Transport of one channel: runs one operation at a time, from one thread unless runs_on_callers().
class Backend {
 public:
  virtual ~Backend() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual bool supports(c10::DeviceType device) const { return device == c10::DeviceType::CPU; }

  // Blocks until the operation is done on this rank. Throws CommError for what goes wrong between ranks, at the latest
  // when `control` expires and soon after it is aborted.
  virtual void run(const Operation& operation, const CallControl& control) = 0;

  // Tells the peers that this rank takes no further part; `reason` is empty where it leaves in good order. May be
  // called while run() blocks. The first call counts, except that leaving after a failure is told as well.
  virtual void leave(const std::string& reason) = 0;

  // Where ranks publish what they wait for; null where there are no other ranks. `channel` is this backend's number on
  // it.
  [[nodiscard]] virtual std::shared_ptr<StatusBoard> board() const { return nullptr; }
  [[nodiscard]] virtual int channel() const { return 0; }

  // See Group::widens_sums.
  [[nodiscard]] virtual bool widens_sums() const { return false; }

  // See Group::shared_arena.
  [[nodiscard]] virtual std::shared_ptr<memory::Arena> shared_arena(SharedUse use) { return nullptr; }
  // Where memory lies in this rank's part of what all ranks can map, in bytes; -1: not in it.
  [[nodiscard]] virtual int64_t heap_offset(const void* address, int64_t num_bytes) const { return -1; }
  // Maps that part of `rank`'s memory at `address` (of whole pages, reserved), copied as it is written. Returns false
  // where that is impossible.
  [[nodiscard]] virtual bool map_private(int rank, int64_t heap_offset, int64_t num_bytes, char* address) {
    return false;
  }

  // True where operations are so short that they run on the calling thread (a group of one, fake).
  [[nodiscard]] virtual bool runs_inline() const { return false; }
  // Whether run() may be called by different threads, one after the other, and calls CallControl::throw_if_aborted at
  // least every 100 ms while it waits: then OpInfo::caller_waits has its effect.
  [[nodiscard]] virtual bool runs_on_callers() const { return false; }
};

}  // namespace hydrofoil::comm
