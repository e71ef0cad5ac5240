#include "hydrofoil/comm/fake/fake_group.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <thread>
#include <utility>

#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/reduce.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;

void copy_bytes(void* to, const void* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

}  // namespace

std::vector<FakeRecord> FakeLog::records() const {
  const std::lock_guard lock(mutex_);
  return records_;
}

void FakeLog::clear() {
  const std::lock_guard lock(mutex_);
  records_.clear();
}

void FakeLog::set_delay(std::function<std::chrono::milliseconds(const FakeRecord&)> delay) {
  const std::lock_guard lock(mutex_);
  delay_ = std::move(delay);
}

void FakeLog::set_failure(std::function<std::string(const FakeRecord&)> failure) {
  const std::lock_guard lock(mutex_);
  failure_ = std::move(failure);
}

void FakeBackend::misbehave(const Operation& operation, const CallControl& control) const {
  if (!options_.log) return;
  const FakeRecord record{.kind = operation.kind,
                          .reduce = operation.reduce,
                          .peer = operation.peer,
                          .dtype = operation.dtype(),
                          .numel = operation.numel(),
                          .unit = operation.info.unit,
                          .channel = options_.channel};
  std::function<std::chrono::milliseconds(const FakeRecord&)> delay;
  std::function<std::string(const FakeRecord&)> failure;
  {
    const std::lock_guard lock(options_.log->mutex_);
    options_.log->records_.push_back(record);
    delay = options_.log->delay_;
    failure = options_.log->failure_;
  }
  const auto end = std::chrono::steady_clock::now() + (delay ? delay(record) : std::chrono::milliseconds(0));
  while (std::chrono::steady_clock::now() < end) {
    control.throw_if_aborted();
    if (control.expired()) {
      throw CommError(concat("[comm] ", describe(operation), " in group ", options_.group.name, ": deadline of ",
                             control.timeout().count(), " ms passed in a fake delay"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::string text = failure ? failure(record) : std::string();
  if (!text.empty()) throw CommError(concat("[comm] ", describe(operation), ": ", text));
}

void FakeBackend::reduce(const Operation& operation, const void* input, at::Tensor output) const {
  const std::vector<const void*> sources(static_cast<size_t>(options_.size), input);
  const bool average = operation.reduce == ReduceOp::kAvg;
  detail::reduce_buffers(
      {.type = detail::element_type(operation.dtype()),
       .reduction = operation.reduce == ReduceOp::kMax ? detail::Reduction::kMax : detail::Reduction::kSum,
       .sources = sources.data(),
       .num_sources = options_.size,
       .out = output.data_ptr(),
       .numel = output.numel(),
       .scale = average ? 1.0F / static_cast<float>(options_.size) : 1.0F});
}

void FakeBackend::receive(const Operation& operation) {
  std::deque<at::Tensor>& queue = sent_[operation.peer];
  if (queue.empty()) {
    throw CommError(concat("[comm] ", describe(operation), ": nothing was sent to the fake rank ", operation.peer));
  }
  const at::Tensor message = std::move(queue.front());
  queue.pop_front();
  if (message.nbytes() != operation.output.nbytes() || message.scalar_type() != operation.output.scalar_type()) {
    throw CommError(concat("[comm] ", describe(operation), ": numel ", message.numel(), " of ",
                           detail::dtype_name(message.scalar_type()), " was sent"));
  }
  copy_bytes(operation.output.data_ptr(), message.const_data_ptr(), message.nbytes());
}

void FakeBackend::run(const Operation& operation, const CallControl& control) {
  misbehave(operation, control);
  const at::Tensor& input = operation.input;
  const at::Tensor& output = operation.output;
  const auto bytes_at = [](const at::Tensor& tensor, size_t offset) {
    return static_cast<char*>(tensor.data_ptr()) + offset;
  };
  switch (operation.kind) {
    case OpKind::kAllReduce:
      return reduce(operation, input.const_data_ptr(), output);
    case OpKind::kReduceScatter:
      return reduce(operation, bytes_at(input, static_cast<size_t>(options_.rank) * output.nbytes()), output);
    case OpKind::kAllGather:
      for (int peer = 0; peer < options_.size; ++peer) {
        copy_bytes(bytes_at(output, static_cast<size_t>(peer) * input.nbytes()), input.const_data_ptr(),
                   input.nbytes());
      }
      return;
    case OpKind::kAllToAll: {
      const size_t slice = input.nbytes() / static_cast<size_t>(options_.size);
      for (int peer = 0; peer < options_.size; ++peer) {
        copy_bytes(bytes_at(output, static_cast<size_t>(peer) * slice),
                   bytes_at(input, static_cast<size_t>(options_.rank) * slice), slice);
      }
      return;
    }
    case OpKind::kSend: {
      at::Tensor message = at::empty({input.numel()}, input.options());
      copy_bytes(message.data_ptr(), input.const_data_ptr(), input.nbytes());
      sent_[operation.peer].push_back(std::move(message));
      return;
    }
    case OpKind::kRecv:
      return receive(operation);
    case OpKind::kBroadcast:
    case OpKind::kBarrier:
      return;
  }
}

Group make_fake_group(FakeOptions options) {
  HYDROFOIL_CHECK_ARG(options.size >= 1, "comm::make_fake_group", "size is ", options.size, ", expected at least 1");
  HYDROFOIL_CHECK_ARG(options.rank >= 0 && options.rank < options.size, "comm::make_fake_group", "rank is ",
                      options.rank, ", expected 0 to ", options.size - 1);
  GroupOptions group = options.group;
  return Group(std::make_unique<FakeBackend>(std::move(options)), std::move(group));
}

}  // namespace hydrofoil::comm
