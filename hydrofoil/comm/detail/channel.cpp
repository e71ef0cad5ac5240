#include "hydrofoil/comm/detail/channel.h"

#include <c10/core/Event.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr std::chrono::milliseconds kSlice{250};
constexpr std::chrono::milliseconds kPublishAfter{1000};

// What a caller does while its operation does not end: says on the board what it waits for, and aborts the operation
// where the ranks wait for each other.
class WaitWatch {
 public:
  explicit WaitWatch(WorkState& state) : state_(state) {}
  // Clears what this rank said, however the wait ends.
  ~WaitWatch() {
    if (published_ && !keep_) state_.board->unblock();
  }
  WaitWatch(const WaitWatch&) = delete;
  WaitWatch& operator=(const WaitWatch&) = delete;

  // Whether it is time for a look().
  [[nodiscard]] bool due() const {
    return state_.board && !is_point_to_point(state_.operation.kind) && std::chrono::steady_clock::now() >= next_look_;
  }

  // `what`: the operation's describe(). May take a round trip to a store.
  void look(const std::string& what) {
    next_look_ = std::chrono::steady_clock::now() + kSlice;
    if (!published_) state_.board->block({state_.channel, state_.operation.sequence, what});
    published_ = true;
    // Statuses are not read all at one instant: believe what two looks say.
    const std::optional<std::string> cross = find_cross_wait(*state_.board);
    if (cross && suspected_) state_.control.abort(concat("[comm] group ", state_.group, ": ", *cross));
    suspected_ = cross.has_value();
  }

  // A failed rank leaves what it said: the peers explain their own hang with it.
  void keep() { keep_ = true; }

 private:
  WorkState& state_;
  std::chrono::steady_clock::time_point next_look_ = std::chrono::steady_clock::now() + kPublishAfter;
  bool published_ = false;
  bool keep_ = false;
  bool suspected_ = false;
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
  log_info_of_rank("comm: group ", state.group, ", channel ", state.channel, ", operation ", state.operation.sequence,
                   ": ", describe(state.operation), error ? " failed after " : " took ",
                   std::chrono::duration_cast<std::chrono::microseconds>(took).count(), " us");
}

EndedOperation ended_operation(const Operation& operation, int64_t begin_ns, int group_size) {
  const auto bytes = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : size_t{0}; };
  return {.kind = operation.kind,
          .unit = operation.info.unit,
          .message_bytes = static_cast<int64_t>(std::max(bytes(operation.input), bytes(operation.output))),
          .begin_ns = begin_ns,
          .end_ns = monotonic_ns(),
          .group_size = group_size};
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
  WaitWatch watch(*this);
  while (!done) {
    finished.wait_for(lock, kSlice);
    if (done || !watch.due()) continue;
    const std::string what = describe(operation);
    lock.unlock();
    watch.look(what);
    lock.lock();
  }
  if (error) {
    watch.keep();
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
  close();
  if (thread_.joinable()) thread_.join();
  backend_->leave("");
}

void Channel::close() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  changed_.notify_all();
  const auto idle = [this] { return queue_.empty() && !running_; };
  const bool ended = changed_.wait_for(lock, kDrainTime, idle);
  const std::string reason =
      concat("[comm] group ", options_.name, ended ? " was closed" : " was destroyed before its operations ended");
  if (failure_.empty()) failure_ = reason;
  if (running_) running_->control.abort(reason);
}

Work Channel::submit(Operation operation) {
  if (!backend_->runs_inline()) record_inputs_ready(operation);
  auto state = std::make_shared<WorkState>(std::move(operation), options_.timeout);
  state->group = options_.name;
  state->board = backend_->board();
  state->channel = backend_->channel();
  if (options_.debug) state->called = std::chrono::steady_clock::now();
  bool closed = false, here = false;
  {
    const std::lock_guard lock(mutex_);
    if (!is_point_to_point(state->operation.kind)) {
      state->operation.sequence = ++sequence_;
      // Not 0, so that every backend compares the operation across ranks; the same on all that agree.
      if (options_.debug) state->operation.info.signature = mix(state->operation.info.signature, sequence_);
      if (state->board) state->board->issue(state->channel, sequence_);
    }
    closed = closing_;
    here = state->operation.info.caller_waits && backend_->runs_on_callers() && queue_.empty() && !running_;
    if (closed || backend_->runs_inline()) {
      here = false;
    } else if (here) {
      running_ = state;
    } else {
      queue_.push_back(state);
      if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
      changed_.notify_all();
      return Work(state);
    }
  }
  if (closed) {
    end(*state, std::make_exception_ptr(CommError(concat("[comm] ", describe(state->operation), " cannot run: group ",
                                                         options_.name, " was closed"))));
  } else if (here) {
    execute_on_caller(*state);
  } else {
    execute(*state);
  }
  return Work(state);
}

void Channel::observe(std::shared_ptr<OperationObserver> observer) {
  const std::lock_guard lock(mutex_);
  Observers observers = observers_ ? *observers_ : Observers{};
  observers.push_back(std::move(observer));
  observers_ = std::make_shared<const Observers>(std::move(observers));
}

void Channel::execute_on_caller(WorkState& state) {
  {
    const c10::AutoGradMode no_grad(false);
    WaitWatch watch(state);
    state.control.set_watch([&] {
      if (watch.due()) watch.look(describe(state.operation));
    });
    execute(state);
    state.control.set_watch(nullptr);
    if (state.error) watch.keep();
  }
  const std::lock_guard lock(mutex_);
  running_.reset();
  if (closing_ || !queue_.empty()) changed_.notify_all();  // an idle thread stays asleep
}

void Channel::loop() {
  const c10::AutoGradMode no_grad(false);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return queue_.empty() ? closing_ : !running_; });
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
  std::shared_ptr<const Observers> observers;
  {
    const std::lock_guard lock(mutex_);
    failure = failure_;
    observers = observers_;
  }
  std::exception_ptr error;
  if (!failure.empty()) {
    error = std::make_exception_ptr(CommError(concat("[comm] ", describe(state.operation), " cannot run: group ",
                                                     options_.name, " has failed before: ", failure)));
  } else {
    try {
      state.control.start();
      const int64_t begin_ns = observers ? monotonic_ns() : 0;
      backend_->run(state.operation, state.control);
      if (observers) {
        const EndedOperation ended = ended_operation(state.operation, begin_ns, backend_->size());
        for (const auto& observer : *observers) observer->on_operation(ended);
      }
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
  end(state, error);
}

void Channel::end(WorkState& state, const std::exception_ptr& error) const {
  if (options_.debug) log_end(state, error);
  if (state.operation.info.on_end) std::exchange(state.operation.info.on_end, nullptr)(error);
  state.finish(error);
}

}  // namespace hydrofoil::comm::detail
