#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace hydrofoil::memory {
class Arena;
}

namespace hydrofoil::comm {

class Backend;
class OperationObserver;
class SharedSlices;
namespace detail {
struct WorkState;
class Channel;
}  // namespace detail

enum class ReduceOp { kSum, kAvg, kMax };

// The units that a rank has run since its last optimizer step, in order. Thread-safe.
class RunHistory {
 public:
  struct Part {
    int64_t first = 1;               // number of the first of them, counted from 1
    std::vector<std::string> units;  // names, oldest first
  };
  virtual ~RunHistory() = default;
  [[nodiscard]] virtual Part recent() const = 0;
};

// On a joining group (comm/joining_group.h): a collective that not every rank calls.
struct Joinable {
  static constexpr int64_t kPause = -1;
  int64_t id = kPause;  // what moves; kPause: nothing, the rank only joins what others call until all are at rest
  int64_t place = 0;    // of several that wait, the least goes first; never decides what is computed
};

// What errors, the record of comm/fake and the agreement check say of one collective.
struct OpInfo {
  std::string unit;        // name of the unit or purpose that moves, e.g. "layers.3"
  uint64_t signature = 0;  // not 0: must be equal on all ranks, else every rank throws CommError with each rank's unit
  // Called with the operation's error, or null, before the Work is done and before the next operation of the Group
  // starts; on the thread that ran it. Must not throw, nor wait for the Group.
  std::function<void(std::exception_ptr)> on_end;
  // Not null: where the ranks disagree, the error names the first unit in which their histories differ, on each rank.
  std::shared_ptr<const RunHistory> history;
  std::optional<Joinable> joinable;
  // The caller waits for the Work before it does anything else: where nothing else of the Group is queued, shared
  // memory then runs the operation on the calling thread, without the 40 us of waking another one. Changes no result,
  // order or error.
  bool caller_waits = false;
};

// What memory of shared_arena() is for: each has an arena of its own. kSlices: of share_slices(), never trimmed, since
// peers read it for as long as they map it.
enum class SharedUse { kPermanent, kTransient, kSlices };

// Handle of one asynchronous collective. A default-constructed Work is done.
class Work {
 public:
  Work() = default;
  explicit Work(std::shared_ptr<detail::WorkState> state) : state_(std::move(state)) {}

  // Returns when the buffers may be used again; re-throws the collective's error (at every call). Does not hold the
  // CPU.
  void wait();
  // Waits at most `limit`; whether it is done. Throws nothing.
  [[nodiscard]] bool wait_for(std::chrono::milliseconds limit) const;
  [[nodiscard]] bool done() const;

 private:
  std::shared_ptr<detail::WorkState> state_;
};

struct GroupOptions {
  std::string name = "world";
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};  // deadline of each collective
  bool debug = false;  // log every operation, and compare number, size and dtype of each collective across ranks
};

// Ranks that communicate: a value-like handle over one channel of a backend.
//
// Collectives of one Group run in the order of the calls, on a thread of the Group (OpInfo::caller_waits: of the
// caller); two Groups over the same ranks are independent channels. Every rank calls the same collectives in the same
// order. Buffers are contiguous, 1-D, of fp32, bf16, fp16, int8, int32, int64, of any numel (0 too), and must not be
// touched until the Work is done. 16-bit sums are taken in fp32. kAvg is for floating types. All calls throw
// InvalidArgument for wrong dtypes, sizes or ranks at once, and CommError from wait() for what goes wrong between ranks
// (deadline, lost rank, disagreement).
class Group {
 public:
  Group() = default;
  Group(std::unique_ptr<Backend> backend, GroupOptions options);

  [[nodiscard]] bool defined() const { return channel_ != nullptr; }
  [[nodiscard]] int rank() const;
  [[nodiscard]] int size() const;
  [[nodiscard]] const std::string& name() const;
  [[nodiscard]] std::string backend_name() const;  // local, shm, c10d:gloo, fake

  // Memory that the peers can read: all_reduce of a buffer, reduce_scatter and all_gather of an input that lie in it on
  // every rank need no copy on the way. Null where the backend has none. All Groups over the same connection share it,
  // and it keeps the connection's memory mapped.
  [[nodiscard]] std::shared_ptr<memory::Arena> shared_arena(SharedUse use) const;
  // All ranks' `slice` (of one size, in the arena kSlices, at a page and of whole pages) one after the other in this
  // process's addresses, without a copy. Null on every rank where one of them cannot map the others. Collective,
  // blocking.
  [[nodiscard]] std::shared_ptr<SharedSlices> share_slices(const at::Tensor& slice) const;

  // Reduces `buffer` in place; the result is the same bits on every rank.
  Work all_reduce(at::Tensor buffer, ReduceOp op, OpInfo info = {}) const;
  // output = this rank's slice of the reduced `input`; input.numel() == size() * output.numel(). `output` may be
  // exactly that slice of `input`; the other slices of `input` are unspecified afterwards. Where widens_sums(), the
  // output of a 16-bit input may be fp32: the sum as it was taken.
  Work reduce_scatter(at::Tensor input, at::Tensor output, ReduceOp op, OpInfo info = {}) const;
  [[nodiscard]] bool widens_sums() const;
  // output = all ranks' `input` in rank order; output.numel() == size() * input.numel(). `input` may be this rank's
  // slice of `output`.
  Work all_gather(at::Tensor input, at::Tensor output, OpInfo info = {}) const;
  Work broadcast(at::Tensor buffer, int root, OpInfo info = {}) const;
  // Slice i of `input` goes to rank i; slice j of `output` comes from rank j. Equal numels, divisible by size().
  Work all_to_all(at::Tensor input, at::Tensor output, OpInfo info = {}) const;
  Work send(at::Tensor buffer, int peer, OpInfo info = {}) const;
  Work recv(at::Tensor buffer, int peer, OpInfo info = {}) const;
  void barrier(OpInfo info = {}) const;  // blocking
  [[nodiscard]] Work start_barrier(OpInfo info = {}) const;

  // Tells `observer` of each operation that ends well from now on, beside those who hear already. Called while nothing
  // is under way.
  void observe(std::shared_ptr<OperationObserver> observer) const;

  // What the end of the last handle does, while others have one: lets what is under way end for a second, then aborts
  // it. Later operations fail.
  void close() const;

 private:
  std::shared_ptr<detail::Channel> channel_;
};

}  // namespace hydrofoil::comm
