#include "hydrofoil/comm/c10d/shm_lanes.h"

#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/local/self_backend.h"

namespace hydrofoil::comm::detail {

ShmLanes::ShmLanes(std::shared_ptr<SegmentSet> segments, int rank, int size, GroupOptions options)
    : rank_(rank),
      size_(size),
      options_(std::move(options)),
      segments_(std::move(segments)),
      board_(segments_ ? make_segment_board(segments_, rank) : nullptr),
      collectives_(segments_ ? make_group(ShmLane::kCollectives) : Group(std::make_unique<SelfBackend>(), options_)) {}

Group ShmLanes::make_group(ShmLane lane) const {
  ExchangeOptions exchange{
      .backend_name = "shm", .group = options_.name, .rank = rank_, .channel = static_cast<int>(lane)};
  return Group(std::make_unique<Exchange>(segments_, board_, std::move(exchange)), options_);
}

const Group& ShmLanes::group_of(const ShmStep& step) {
  if (step.lane == ShmLane::kCollectives) return collectives_;
  auto& groups = peers_[static_cast<int>(step.lane)][step.sends ? 1 : 0];
  groups.resize(static_cast<size_t>(size_));
  Group& group = groups[static_cast<size_t>(step.peer)];
  if (!group.defined()) group = make_group(step.lane);
  return group;
}

c10::intrusive_ptr<ShmWork> ShmLanes::run(c10d::OpType type, std::vector<at::Tensor> outputs,
                                          std::vector<ShmStep> steps, bool caller_waits) {
  auto work = c10::make_intrusive<ShmWork>(rank_, type, std::move(outputs), steps.size());
  ++num_calls_;
  const auto info_of = [&](ShmStep& step) {
    OpInfo info;
    info.on_end = [work, after = std::move(step.after)](const std::exception_ptr& error) {
      work->step_ended(error, after);
    };
    return info;
  };
  std::unique_lock lock(mutex_);
  HYDROFOIL_CHECK_ARG(collectives_.defined(), "hydrofoil_shm", "group ", options_.name,
                      " was destroyed, so it cannot run ", c10d::opTypeToString(type));
  if (caller_waits && steps.size() == 1) {
    // Not under the lock: it may last, and end() must be able to abort it.
    const Group group = group_of(steps[0]);
    lock.unlock();
    OpInfo info = info_of(steps[0]);
    info.caller_waits = true;
    work->add(steps[0].start(group, std::move(info)));
    return work;
  }
  for (auto& step : steps) work->add(step.start(group_of(step), info_of(step)));
  return work;
}

void ShmLanes::end() {
  std::vector<Group> groups;
  {
    const std::lock_guard lock(mutex_);
    groups.push_back(std::exchange(collectives_, Group()));
    for (auto& lane : peers_) {
      for (auto& direction : lane) {
        for (auto& group : direction) groups.push_back(std::move(group));
        direction.clear();
      }
    }
    segments_.reset();
    board_.reset();
  }
  // Without the lock: these wait for threads that may run callbacks of the user's.
  for (const auto& group : groups) {
    if (group.defined()) group.close();
  }
}

}  // namespace hydrofoil::comm::detail
