#include "hydrofoil/comm/c10d/shm_lanes.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/local/self_backend.h"

namespace hydrofoil::comm::detail {
namespace {

// A c10d::Work of several operations of Groups that end together. Its future holds the output tensors, or the first
// error.
class ShmWork : public c10d::Work {
 public:
  using TensorList = std::vector<at::Tensor>;

  ShmWork(int rank, c10d::OpType type, TensorList outputs, size_t num_steps);

  bool isCompleted() override { return future_->completed(); }
  bool isSuccess() const override { return future_->completed() && !future_->hasError(); }
  std::exception_ptr exception() const override { return future_->hasError() ? future_->exception_ptr() : nullptr; }
  TensorList result() override { return outputs_; }
  void synchronize() override { wait(kNoTimeout); }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  bool wait(std::chrono::milliseconds timeout) override;

  // Before anybody else has this Work.
  void add(comm::Work part) { parts_.push_back(std::move(part)); }
  // Each step calls it once, with its error or null; `after` is what is left to do where it has succeeded.
  void step_ended(const std::exception_ptr& error, const std::function<void()>& after);

 private:
  TensorList outputs_;
  std::vector<comm::Work> parts_;
  std::atomic<size_t> missing_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

ShmWork::ShmWork(int rank, c10d::OpType type, TensorList outputs, size_t num_steps)
    : c10d::Work(rank, type),
      outputs_(std::move(outputs)),
      missing_(num_steps),
      future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {
  if (num_steps == 0) future_->markCompleted(c10::IValue(outputs_));
}

bool ShmWork::wait(std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  for (auto& part : parts_) {
    if (timeout != kNoTimeout) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (!part.wait_for(std::max(left, std::chrono::milliseconds(0)))) {
        throw CommError(concat("[hydrofoil_shm] ", c10d::opTypeToString(opType_), " on rank ", rank_,
                               " has not ended after the ", timeout.count(), " ms that wait() was given"));
      }
    }
    part.wait();
  }
  future_->waitAndThrow();
  return true;
}

void ShmWork::step_ended(const std::exception_ptr& error, const std::function<void()>& after) {
  std::exception_ptr failure = error;
  if (!failure && after) {
    try {
      after();
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (failure && !exception_) exception_ = failure;
  }
  if (missing_.fetch_sub(1) != 1) return;
  if (exception_) {
    future_->setError(exception_);
  } else {
    future_->markCompleted(c10::IValue(outputs_));
  }
}

}  // namespace

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

c10::intrusive_ptr<c10d::Work> ShmLanes::run(c10d::OpType type, std::vector<at::Tensor> outputs,
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
