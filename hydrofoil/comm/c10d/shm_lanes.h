#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "hydrofoil/comm/detail/segment.h"
#include "hydrofoil/comm/group.h"

namespace c10d {
enum class OpType : std::uint8_t;
class Work;
}  // namespace c10d

namespace hydrofoil::comm::detail {

// Channels of the shared memory.
enum class ShmLane : int { kCollectives, kMessages, kAllToAll };
inline constexpr int kNumShmLanes = 3;

// One operation of a Group, and what is left to do once it has succeeded.
struct ShmStep {
  std::function<Work(const Group&, OpInfo)> start;
  std::function<void()> after;
  // Which Group. Of a message: with whom, and in which direction.
  ShmLane lane = ShmLane::kCollectives;
  int peer = 0;
  bool sends = false;
};

// NOTE [Messages beside collectives]: c10d lets a rank post its sends and receives in any order. Each peer and
// direction therefore has a Group, and with it a thread, of its own; all of one lane share a channel of the memory,
// whose mailboxes belong to a pair of ranks and so to two of these Groups.
class ShmLanes {
 public:
  // `segments`: null for a group of one rank.
  ShmLanes(std::shared_ptr<SegmentSet> segments, int rank, int size, GroupOptions options);
  ~ShmLanes() { end(); }
  ShmLanes(const ShmLanes&) = delete;
  ShmLanes& operator=(const ShmLanes&) = delete;

  // Starts the steps in their order; those of one call stay together, whatever other threads call. With `caller_waits`
  // a single collective may run on the calling thread (OpInfo::caller_waits).
  c10::intrusive_ptr<c10d::Work> run(c10d::OpType type, std::vector<at::Tensor> outputs, std::vector<ShmStep> steps,
                                     bool caller_waits);
  // Lets what is under way end for a second, then aborts it. Later calls throw InvalidArgument.
  void end();

  [[nodiscard]] uint64_t num_calls() const { return num_calls_.load(); }
  [[nodiscard]] const GroupOptions& options() const { return options_; }

 private:
  [[nodiscard]] Group make_group(ShmLane lane) const;
  const Group& group_of(const ShmStep& step);

  int rank_;
  int size_;
  GroupOptions options_;
  std::atomic<uint64_t> num_calls_{0};
  std::mutex mutex_;  // of what follows
  std::shared_ptr<SegmentSet> segments_;
  std::shared_ptr<StatusBoard> board_;
  Group collectives_;
  std::vector<Group> peers_[kNumShmLanes][2];  // by lane and direction; made when they are first used
};

}  // namespace hydrofoil::comm::detail
