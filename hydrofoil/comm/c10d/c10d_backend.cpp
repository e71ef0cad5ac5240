#include "hydrofoil/comm/c10d/c10d_backend.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <utility>
#include <vector>

#include "hydrofoil/comm/c10d/store_board.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/explain.h"
#include "hydrofoil/comm/detail/reduce.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;

constexpr std::chrono::milliseconds kSlice{250};
constexpr std::chrono::milliseconds kLookAfter{1000};  // before that nothing goes to the store
constexpr std::chrono::milliseconds kSlack{10'000};    // so that this file's deadline, which names the ranks, is first
constexpr int64_t kPieceNumel = int64_t{4} << 20;      // bounds the temporary buffers of a 16-bit all_reduce

c10d::ReduceOp::RedOpType native_op(ReduceOp op, bool native_avg) {
  if (op == ReduceOp::kMax) return c10d::ReduceOp::MAX;
  return op == ReduceOp::kAvg && native_avg ? c10d::ReduceOp::AVG : c10d::ReduceOp::SUM;
}

// memcpy for host memory: a tensor operation would start a second OpenMP team on the executor's thread.
void copy_data(const at::Tensor& to, const at::Tensor& from) {
  if (to.numel() == 0 || to.data_ptr() == from.const_data_ptr()) return;
  if (to.is_cpu()) {
    std::memcpy(to.data_ptr(), from.const_data_ptr(), to.nbytes());
  } else {
    to.copy_(from);
  }
}

void clear_data(const at::Tensor& tensor) {
  if (tensor.is_cpu()) {
    std::memset(tensor.data_ptr(), 0, tensor.nbytes());
  } else {
    tensor.zero_();
  }
}

void scale_data(const at::Tensor& tensor, float factor) {
  if (!tensor.is_cpu()) {
    tensor.mul_(factor);
    return;
  }
  const void* source = tensor.data_ptr();
  detail::reduce_buffers({.type = detail::element_type(tensor.scalar_type()),
                          .sources = &source,
                          .num_sources = 1,
                          .out = tensor.data_ptr(),
                          .numel = tensor.numel(),
                          .scale = factor});
}

// What only moves goes as bytes: no backend has to know the dtype.
at::Tensor as_bytes(const at::Tensor& tensor) { return tensor.view(at::kChar); }

at::Tensor new_like(const at::Tensor& tensor, int64_t numel) { return at::empty({numel}, tensor.options()); }

std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace

C10dBackend::C10dBackend(c10::intrusive_ptr<c10d::ProcessGroup> process_group, C10dOptions options)
    : process_group_(std::move(process_group)),
      options_(std::move(options)),
      rank_(process_group_->getRank()),
      size_(process_group_->getSize()) {}

C10dBackend::~C10dBackend() = default;

std::string C10dBackend::name() const {
  const auto devices = process_group_->getDeviceTypes();
  if (devices.empty()) return "c10d:" + process_group_->getBackendName();
  const bool cpu = supports(c10::DeviceType::CPU);
  return "c10d:" + backend_of(cpu ? c10::DeviceType::CPU : devices.front().type()).getBackendName();
}

bool C10dBackend::supports(c10::DeviceType device) const {
  const auto devices = process_group_->getDeviceTypes();
  return std::any_of(devices.begin(), devices.end(), [&](const c10::Device& d) { return d.type() == device; });
}

std::shared_ptr<StatusBoard> C10dBackend::board() const { return options_.board; }

void C10dBackend::leave(const std::string& reason) {
  if (options_.board && !reason.empty()) options_.board->fail(reason);
}

c10d::Backend& C10dBackend::backend_of(c10::DeviceType device) const { return *process_group_->getBackend(device); }

void C10dBackend::run(const Operation& operation, const CallControl& control) {
  const at::Tensor& buffer = operation.output.defined() ? operation.output : operation.input;
  c10::Device device(c10::DeviceType::CPU);
  if (buffer.defined()) {
    device = buffer.device();
  } else if (!supports(c10::DeviceType::CPU) && !process_group_->getDeviceTypes().empty()) {
    device = process_group_->getDeviceTypes().front();
  }
  c10d::Backend& backend = backend_of(device.type());
  const Call call{operation, control, backend, backend.getBackendName() == "nccl"};
  c10::OptionalDeviceGuard guard;
  if (buffer.defined() && !device.is_cpu()) {
    guard.reset_device(device);
    const c10::impl::VirtualGuardImpl streams(device.type());
    if (operation.inputs_ready) operation.inputs_ready->block(streams.getStream(device));
  }
  try {
    dispatch(call);
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    std::string missing;
    if (options_.board && operation.sequence != 0) {
      missing = missing_ranks(*options_.board, options_.channel, operation.sequence);
    }
    throw CommError(concat(detail::context(whereabouts(call)), ": ", first_line(error),
                           missing.empty() ? "" : "; did not arrive, as far as is known: ", missing));
  }
  if (buffer.defined() && !device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
  }
}

void C10dBackend::dispatch(const Call& call) {
  if (call.operation.info.signature != 0 && !is_point_to_point(call.operation.kind)) check_agreement(call);
  if (call.operation.kind != OpKind::kBarrier && call.operation.numel() == 0) return;
  switch (call.operation.kind) {
    case OpKind::kAllReduce:
      return all_reduce(call);
    case OpKind::kReduceScatter:
      return reduce_scatter(call);
    case OpKind::kAllGather:
      return gather(call, call.operation.input, call.operation.output);
    case OpKind::kAllToAll:
      return exchange(call, call.operation.input, call.operation.output);
    default:
      return move(call);
  }
}

bool C10dBackend::reduces_natively(const Call& call) const {
  if (call.nccl) return true;
  const at::ScalarType dtype = call.operation.dtype();
  if (detail::is_16_bit_float(dtype)) return options_.native_16_bit_sums;
  return dtype != at::ScalarType::Char;
}

void C10dBackend::all_reduce(const Call& call) {
  if (reduces_natively(call)) return all_reduce_native(call);
  const at::Tensor& buffer = call.operation.output;
  for (int64_t begin = 0; begin < buffer.numel(); begin += kPieceNumel) {
    all_reduce_locally(call, buffer.narrow(0, begin, std::min(kPieceNumel, buffer.numel() - begin)));
  }
}

void C10dBackend::all_reduce_native(const Call& call) {
  std::vector<at::Tensor> tensors = {call.operation.output};
  c10d::AllreduceOptions options;
  options.reduceOp = native_op(call.operation.reduce, call.nccl);
  options.timeout = backend_timeout(call);
  finish(call, call.backend.allreduce(tensors, options));
  if (call.operation.reduce == ReduceOp::kAvg && !call.nccl) scale_data(tensors[0], 1.0F / static_cast<float>(size_));
}

// Rank r reduces slice r of all ranks; then all gather the slices.
void C10dBackend::all_reduce_locally(const Call& call, at::Tensor buffer) {
  const int64_t numel = buffer.numel();
  const int64_t slice = (numel + size_ - 1) / size_;
  at::Tensor padded = buffer;
  if (slice * size_ != numel) {
    padded = new_like(buffer, slice * size_);
    copy_data(padded.narrow(0, 0, numel), buffer);
    clear_data(padded.narrow(0, numel, slice * size_ - numel));
  }
  const at::Tensor slices = new_like(buffer, slice * size_);
  const at::Tensor result = new_like(buffer, slice);
  exchange(call, padded, slices);
  reduce_slices(call, slices, result);
  gather(call, result, padded);
  copy_data(buffer, padded.narrow(0, 0, numel));
}

void C10dBackend::reduce_scatter(const Call& call) {
  const at::Tensor& input = call.operation.input;
  at::Tensor output = call.operation.output;
  if (!call.nccl) {
    // Backends make a reduce-scatter of a whole all-reduce (Gloo) or have none; this moves half as much, and adds in
    // rank order.
    const at::Tensor slices = new_like(input, input.numel());
    exchange(call, input, slices);
    return reduce_slices(call, slices, output);
  }
  at::Tensor whole = input;
  c10d::ReduceScatterOptions options;
  options.reduceOp = native_op(call.operation.reduce, true);
  options.timeout = backend_timeout(call);
  finish(call, call.backend._reduce_scatter_base(output, whole, options));
}

// What has one native call on every backend.
void C10dBackend::move(const Call& call) {
  const Operation& operation = call.operation;
  if (operation.kind == OpKind::kBarrier) {
    c10d::BarrierOptions options;
    options.timeout = backend_timeout(call);
    return finish(call, call.backend.barrier(options));
  }
  std::vector<at::Tensor> tensors = {as_bytes(operation.kind == OpKind::kSend ? operation.input : operation.output)};
  if (operation.kind == OpKind::kSend) return finish(call, call.backend.send(tensors, operation.peer, 0));
  if (operation.kind == OpKind::kRecv) return finish(call, call.backend.recv(tensors, operation.peer, 0));
  c10d::BroadcastOptions options;
  options.rootRank = operation.peer;
  options.timeout = backend_timeout(call);
  finish(call, call.backend.broadcast(tensors, options));
}

void C10dBackend::gather(const Call& call, const at::Tensor& input, const at::Tensor& output) {
  at::Tensor in = as_bytes(input);
  at::Tensor out = as_bytes(output);
  // Where the input is a slice of the output: not every backend allows that.
  const at::Tensor own = out.narrow(0, rank_ * in.numel(), in.numel());
  if (!call.nccl && own.const_data_ptr() == in.const_data_ptr()) {
    in = new_like(own, own.numel());
    copy_data(in, own);
  }
  c10d::AllgatherOptions options;
  options.timeout = backend_timeout(call);
  finish(call, call.backend._allgather_base(out, in, options));
}

void C10dBackend::exchange(const Call& call, const at::Tensor& input, const at::Tensor& output) {
  at::Tensor in = as_bytes(input);
  at::Tensor out = as_bytes(output);
  std::vector<int64_t> equal_splits;
  c10d::AllToAllOptions options;
  options.timeout = backend_timeout(call);
  finish(call, call.backend.alltoall_base(out, in, equal_splits, equal_splits, options));
}

void C10dBackend::reduce_slices(const Call& call, const at::Tensor& slices, const at::Tensor& output) const {
  const ReduceOp op = call.operation.reduce;
  const int64_t numel = output.numel();
  const float factor = op == ReduceOp::kAvg ? 1.0F / static_cast<float>(size_) : 1.0F;
  if (output.is_cpu()) {
    std::vector<const void*> sources;
    for (int peer = 0; peer < size_; ++peer) sources.push_back(slices.narrow(0, peer * numel, numel).const_data_ptr());
    return detail::reduce_buffers(
        {.type = detail::element_type(output.scalar_type()),
         .reduction = op == ReduceOp::kMax ? detail::Reduction::kMax : detail::Reduction::kSum,
         .sources = sources.data(),
         .num_sources = size_,
         .out = output.data_ptr(),
         .numel = numel,
         .scale = factor});
  }
  const bool widen = detail::is_16_bit_float(output.scalar_type());
  const auto slice = [&](int peer) {
    const at::Tensor part = slices.narrow(0, peer * numel, numel);
    return widen ? part.to(at::kFloat) : part;
  };
  at::Tensor sum = slice(0);
  for (int peer = 1; peer < size_; ++peer) {
    sum = op == ReduceOp::kMax ? at::maximum(sum, slice(peer)) : sum.add(slice(peer));
  }
  output.copy_(op == ReduceOp::kAvg ? sum.mul(factor) : sum);
}

// A small all_gather of what each rank is about to do; a second one of the texts where they differ.
void C10dBackend::check_agreement(const Call& call) {
  const Operation& operation = call.operation;
  const at::Device device = operation.output.defined() ? operation.output.device() : at::Device(at::kCPU);
  detail::compare_operations(whereabouts(call), [&](const at::Tensor& mine) {
    const at::Tensor all = at::empty({mine.numel() * size_}, mine.options().device(device));
    gather(call, mine.to(device), all);
    return all.cpu();
  });
}

// NOTE [Waiting for c10d]: Work::wait(timeout) throws both when the time is over and when the work has failed;
// isCompleted() tells them apart. On the host it runs in slices, to see aborts, failed peers and the deadline. Gloo's
// sends and receives break their connections at a time-out, so they wait in one piece. On devices wait() orders streams
// only.
void C10dBackend::finish(const Call& call, const c10::intrusive_ptr<c10d::Work>& work) {
  const at::Tensor& buffer = call.operation.output.defined() ? call.operation.output : call.operation.input;
  if (buffer.defined() && !buffer.is_cpu()) {
    work->wait();
    return;
  }
  if (is_point_to_point(call.operation.kind)) {
    work->wait(call.control.timeout());
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    try {
      work->wait(kSlice);
      return;
    } catch (const std::exception&) {
      // It may have ended just after the slice: only a second wait tells success from failure.
      if (work->isCompleted()) {
        work->wait();
        return;
      }
    }
    call.control.throw_if_aborted();
    if (std::chrono::steady_clock::now() - start >= kLookAfter || call.control.expired()) {
      detail::throw_if_in_trouble(whereabouts(call));
    }
  }
}

detail::Whereabouts C10dBackend::whereabouts(const Call& call) const {
  return {.operation = call.operation,
          .control = call.control,
          .group = options_.group.name,
          .backend = name(),
          .rank = rank_,
          .size = size_,
          .channel = options_.channel,
          .board = options_.board.get()};
}

std::chrono::milliseconds C10dBackend::backend_timeout(const Call& call) const {
  return call.control.timeout() + kSlack;
}

Group make_c10d_group(c10::intrusive_ptr<c10d::ProcessGroup> process_group, C10dOptions options) {
  HYDROFOIL_CHECK_ARG(process_group.defined(), "comm::make_c10d_group", "the process group is null");
  HYDROFOIL_CHECK_ARG(
      !options.board ||
          (options.board->rank() == process_group->getRank() && options.board->size() == process_group->getSize()),
      "comm::make_c10d_group", "the board is of rank ", options.board->rank(), " of ", options.board->size(),
      ", expected that of the process group, ", process_group->getRank(), " of ", process_group->getSize());
  GroupOptions group = options.group;
  return Group(std::make_unique<C10dBackend>(std::move(process_group), std::move(options)), std::move(group));
}

Group make_c10d_group(const std::string& process_group_name, C10dOptions options) {
  c10::intrusive_ptr<c10d::ProcessGroup> process_group;
  try {
    process_group = c10d::resolve_process_group(process_group_name);
  } catch (const std::exception& error) {
    HYDROFOIL_CHECK_ARG(false, "comm::make_c10d_group", "process group ", process_group_name,
                        " is not known: ", first_line(error));
  }
  return make_c10d_group(std::move(process_group), std::move(options));
}

}  // namespace hydrofoil::comm
