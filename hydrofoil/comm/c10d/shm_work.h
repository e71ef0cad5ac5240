#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm::detail {

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

}  // namespace hydrofoil::comm::detail
