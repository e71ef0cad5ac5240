#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/group.h"

namespace hydrofoil::comm {

// One operation that a fake group was asked for.
struct FakeRecord {
  OpKind kind = OpKind::kBarrier;
  ReduceOp reduce = ReduceOp::kSum;
  int peer = 0;
  at::ScalarType dtype = at::ScalarType::Undefined;
  int64_t numel = 0;  // of the larger buffer
  std::string unit;
  int channel = 0;
};

// What fake groups have been asked for, in the order of the execution, and what they shall do wrong. Thread-safe; may
// be shared by several groups, which tell themselves apart by their channel.
class FakeLog {
 public:
  [[nodiscard]] std::vector<FakeRecord> records() const;
  void clear();

  // Asked before every operation: how long it takes.
  void set_delay(std::function<std::chrono::milliseconds(const FakeRecord&)> delay);
  // Asked before every operation: the text of the CommError with which it fails; empty for success.
  void set_failure(std::function<std::string(const FakeRecord&)> failure);

 private:
  friend class FakeBackend;
  mutable std::mutex mutex_;
  std::vector<FakeRecord> records_;
  std::function<std::chrono::milliseconds(const FakeRecord&)> delay_;
  std::function<std::string(const FakeRecord&)> failure_;
};

struct FakeOptions {
  int rank = 0;
  int size = 2;
  int channel = 0;
  std::shared_ptr<FakeLog> log;  // null: nothing is recorded
  GroupOptions group;
};

// A Group of one thread that behaves as if all `size` ranks gave the same data as this one: a sum is size times the
// buffer, an all_gather repeats the input. recv returns what was sent to that peer, in order, and throws CommError
// where nothing was. CPU tensors. Throws InvalidArgument for a size below 1 and a rank outside of it.
[[nodiscard]] Group make_fake_group(FakeOptions options = {});

// See make_fake_group.
class FakeBackend : public Backend {
 public:
  explicit FakeBackend(FakeOptions options) : options_(std::move(options)) {}

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  std::string name() const override { return "fake"; }
  void run(const Operation& operation, const CallControl& control) override;
  void leave(const std::string& /*reason*/) override {}

 private:
  void misbehave(const Operation& operation, const CallControl& control) const;
  void reduce(const Operation& operation, const void* input, at::Tensor output) const;
  void receive(const Operation& operation);

  FakeOptions options_;
  std::map<int, std::deque<at::Tensor>> sent_;
};

}  // namespace hydrofoil::comm
