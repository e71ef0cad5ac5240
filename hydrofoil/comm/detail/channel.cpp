#include "hydrofoil/comm/detail/channel.h"

#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr std::chrono::milliseconds kSlice{250};
constexpr std::chrono::milliseconds kPublishAfter{1000};

// Clears what this rank said that it waits for, however the wait ends. A failed rank leaves it: the peers explain
// their own hang with it.
class BlockedScope {
 public:
  explicit BlockedScope(StatusBoard* board) : board_(board) {}
  ~BlockedScope() {
    if (board_ != nullptr && published_ && !keep_) board_->unblock();
  }
  BlockedScope(const BlockedScope&) = delete;
  BlockedScope& operator=(const BlockedScope&) = delete;

  void publish(const RankStatus::Wait& wait) {
    if (!published_) board_->block(wait);
    published_ = true;
  }
  void keep() { keep_ = true; }
  [[nodiscard]] bool published() const { return published_; }

 private:
  StatusBoard* board_;
  bool published_ = false;
  bool keep_ = false;
};

// The executor has streams of its own; what the caller has queued so far must come first.
void record_inputs_ready(Operation& operation) {
  const at::Tensor& buffer = operation.input.defined() ? operation.input : operation.output;
  if (!buffer.defined() || buffer.is_cpu()) return;
  operation.inputs_ready = std::make_shared<c10::Event>(buffer.device().type());
  operation.inputs_ready->record(c10::impl::VirtualGuardImpl(buffer.device().type()).getStream(buffer.device()));
}

uint64_t mix(uint64_t signature, uint64_t sequence) {
  return (signature * 1099511628211ULL ^ sequence) * 1099511628211ULL | 1;
}

// Measured from the call, so that the time in the queue counts too.
void log_end(const WorkState& state, const std::exception_ptr& error) {
  const auto took = std::chrono::steady_clock::now() - state.called;
  log_info("comm: group ", state.group, ", channel ", state.channel, ", operation ", state.operation.sequence, ": ",
           describe(state.operation), error ? " failed after " : " took ",
           std::chrono::duration_cast<std::chrono::microseconds>(took).count(), " us");
}

}  // namespace

void WorkState::finish(std::exception_ptr the_error) {
  // A Work that the caller keeps must not hold the buffers; they are freed outside the lock.
  at::Tensor input, output;
  {
    const std::lock_guard lock(mutex);
    done = true;
    error = std::move(the_error);
    input = std::move(operation.input);
    output = std::move(operation.output);
  }
  finished.notify_all();
}

void WorkState::wait() {
  std::unique_lock lock(mutex);
  const auto start = std::chrono::steady_clock::now();
  BlockedScope blocked(board.get());
  std::string what;
  bool suspected = false;
  while (!done) {
    finished.wait_for(lock, kSlice);
    if (done || !board || is_point_to_point(operation.kind)) continue;
    if (std::chrono::steady_clock::now() - start < kPublishAfter) continue;
    if (what.empty()) what = describe(operation);
    lock.unlock();  // the board may take a round trip to a store
    blocked.publish({channel, operation.sequence, what});
    // Statuses are not read all at one instant: believe what two looks say.
    const std::optional<std::string> cross = find_cross_wait(*board);
    if (cross && suspected) control.abort(detail::concat("[comm] group ", group, ": ", *cross));
    suspected = cross.has_value();
    lock.lock();
  }
  if (error) {
    blocked.keep();
    std::rethrow_exception(error);
  }
}

Channel::Channel(std::unique_ptr<Backend> backend, GroupOptions options)
    : backend_(std::move(backend)), options_(std::move(options)) {
  HYDROFOIL_CHECK_ARG(backend_ != nullptr, "comm::Group", "the backend is null");
  HYDROFOIL_CHECK_ARG(options_.timeout.count() > 0, "comm::Group", "the timeout of group ", options_.name, " is ",
                      options_.timeout.count(), " ms, expected more than 0");
}

Channel::~Channel() {
  {
    std::unique_lock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
    const auto idle = [this] { return queue_.empty() && !running_; };
    if (!changed_.wait_for(lock, kDrainTime, idle)) {
      const std::string reason = concat("[comm] group ", options_.name, " was destroyed before its operations ended");
      if (failure_.empty()) failure_ = reason;
      if (running_) running_->control.abort(reason);
    }
  }
  if (thread_.joinable()) thread_.join();
  backend_->leave("");
}

Work Channel::submit(Operation operation) {
  if (!backend_->runs_inline()) record_inputs_ready(operation);
  auto state = std::make_shared<WorkState>(std::move(operation), options_.timeout);
  state->group = options_.name;
  state->board = backend_->board();
  state->channel = backend_->channel();
  if (options_.debug) state->called = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    if (!is_point_to_point(state->operation.kind)) {
      state->operation.sequence = ++sequence_;
      // Not 0, so that every backend compares the operation across ranks; the same on all that agree.
      if (options_.debug) state->operation.info.signature = mix(state->operation.info.signature, sequence_);
      if (state->board) state->board->issue(state->channel, sequence_);
    }
    if (!backend_->runs_inline()) {
      queue_.push_back(state);
      if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
      changed_.notify_all();
      return Work(state);
    }
  }
  execute(*state);
  return Work(state);
}

void Channel::loop() {
  const c10::AutoGradMode no_grad(false);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    running_ = std::move(queue_.front());
    queue_.pop_front();
    const std::shared_ptr<WorkState> state = running_;
    lock.unlock();
    execute(*state);
    lock.lock();
    running_.reset();
    changed_.notify_all();
  }
}

void Channel::execute(WorkState& state) {
  std::string failure;
  {
    const std::lock_guard lock(mutex_);
    failure = failure_;
  }
  std::exception_ptr error;
  if (!failure.empty()) {
    error = std::make_exception_ptr(CommError(concat("[comm] ", describe(state.operation), " cannot run: group ",
                                                     options_.name, " has failed before: ", failure)));
  } else {
    try {
      state.control.start();
      backend_->run(state.operation, state.control);
    } catch (const std::exception& exception) {
      error = std::current_exception();
      failure = exception.what();
    }
  }
  if (error) {
    {
      const std::lock_guard lock(mutex_);
      if (failure_.empty()) failure_ = failure;
    }
    backend_->leave(failure);
  }
  if (options_.debug) log_end(state, error);
  if (state.operation.info.on_end) std::exchange(state.operation.info.on_end, nullptr)(error);
  state.finish(error);
}

}  // namespace hydrofoil::comm::detail
