#include "hydrofoil/comm/c10d/shm_work.h"

#include <algorithm>
#include <chrono>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {

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

}  // namespace hydrofoil::comm::detail
