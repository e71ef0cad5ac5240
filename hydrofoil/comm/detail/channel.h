#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/group.h"
#include "hydrofoil/comm/observer.h"
#include "hydrofoil/comm/status_board.h"

namespace hydrofoil::comm::detail {

// One operation between the call and its end; shared by the Work and the executor.
struct WorkState {
  WorkState(Operation the_operation, std::chrono::milliseconds timeout)
      : operation(std::move(the_operation)), control(timeout) {}

  Operation operation;
  CallControl control;
  std::shared_ptr<StatusBoard> board;  // null where there is nobody to wait for
  int channel = 0;
  std::string group;
  std::chrono::steady_clock::time_point called;  // with GroupOptions::debug

  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  std::exception_ptr error;

  void finish(std::exception_ptr the_error);
  void wait();
};

// A backend with the thread that runs its operations in the order of the calls. The thread starts at the first
// operation that needs it. After an operation has failed, all later ones fail with the same reason.
//
// NOTE [Running on the caller]: an operation whose caller waits runs on the caller's thread where none is queued or
// under way: it then is what `running_` says, and what other threads call meanwhile queues up behind it, so the order
// is that of the calls in any case. It takes part in what waiting callers do: after a second it says on the status
// board what it waits for, and ends where the ranks wait for each other in a circle.
class Channel {
 public:
  Channel(std::unique_ptr<Backend> backend, GroupOptions options);
  ~Channel();  // close()
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  [[nodiscard]] Backend& backend() const { return *backend_; }
  [[nodiscard]] const GroupOptions& options() const { return options_; }
  Work submit(Operation operation);
  void observe(std::shared_ptr<OperationObserver> observer);
  // Lets what is under way end for kDrainTime, then aborts it; what is submitted later fails.
  void close();

 private:
  using Observers = std::vector<std::shared_ptr<OperationObserver>>;
  static constexpr std::chrono::milliseconds kDrainTime{1000};

  void loop();
  void execute(WorkState& state);
  void end(WorkState& state, const std::exception_ptr& error) const;
  void execute_on_caller(WorkState& state);

  std::unique_ptr<Backend> backend_;
  GroupOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<WorkState>> queue_;
  std::shared_ptr<WorkState> running_;  // by the thread of the channel or a caller
  uint64_t sequence_ = 0;
  std::string failure_;
  std::shared_ptr<const Observers> observers_;  // null: nobody listens, and no clock is read
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace hydrofoil::comm::detail
