#include "hydrofoil/comm/group.h"

#include <cstdint>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/detail/channel.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/shared_slices.h"

namespace hydrofoil::comm {
namespace {

void check_buffer(const char* function, const char* name, const at::Tensor& tensor, const Backend& backend) {
  HYDROFOIL_CHECK_ARG(tensor.defined(), function, name, " is undefined");
  HYDROFOIL_CHECK_ARG(tensor.layout() == at::kStrided && tensor.dim() == 1, function, name, " has ", tensor.dim(),
                      " dimensions, expected a strided tensor of 1");
  HYDROFOIL_CHECK_ARG(tensor.is_contiguous(), function, name, " is not contiguous");
  HYDROFOIL_CHECK_ARG(detail::is_supported(tensor.scalar_type()), function, name, " has dtype ",
                      c10::toString(tensor.scalar_type()),
                      ", expected float32, bfloat16, float16, int8, int32 or int64");
  HYDROFOIL_CHECK_ARG(backend.supports(tensor.device().type()), function, name, " is on ",
                      c10::DeviceTypeName(tensor.device().type(), true), ", which backend ", backend.name(),
                      " does not serve");
}

void check_reduce(const char* function, const at::Tensor& tensor, ReduceOp op) {
  HYDROFOIL_CHECK_ARG(op != ReduceOp::kAvg || detail::is_floating(tensor.scalar_type()), function, "avg of dtype ",
                      detail::dtype_name(tensor.scalar_type()), ", expected a floating dtype");
}

void check_rank(const char* function, const char* name, int rank, int size) {
  HYDROFOIL_CHECK_ARG(rank >= 0 && rank < size, function, name, " is ", rank, ", expected 0 to ", size - 1);
}

// Overlap other than one buffer being exactly slice `allowed` of the other would be read after it was written.
void check_overlap(const char* function, const at::Tensor& whole, const at::Tensor& part, int allowed) {
  if (whole.numel() == 0 || part.numel() == 0) return;
  const auto* whole_begin = static_cast<const char*>(whole.const_data_ptr());
  const auto* part_begin = static_cast<const char*>(part.const_data_ptr());
  if (reinterpret_cast<uintptr_t>(part_begin) >= reinterpret_cast<uintptr_t>(whole_begin) + whole.nbytes()) return;
  if (reinterpret_cast<uintptr_t>(whole_begin) >= reinterpret_cast<uintptr_t>(part_begin) + part.nbytes()) return;
  HYDROFOIL_CHECK_ARG(allowed >= 0 && part_begin - whole_begin == allowed * static_cast<int64_t>(part.nbytes()),
                      function, "input and output overlap other than by this rank's slice");
}

void check_pair(const char* function, const at::Tensor& input, const at::Tensor& output) {
  HYDROFOIL_CHECK_ARG(input.scalar_type() == output.scalar_type(), function, "output has dtype ",
                      detail::dtype_name(output.scalar_type()), ", expected that of the input, ",
                      detail::dtype_name(input.scalar_type()));
  HYDROFOIL_CHECK_ARG(input.device() == output.device(), function, "output is on ", output.device().str(),
                      ", expected the device of the input, ", input.device().str());
}

// Whole == size * part, without the overflow of the product.
void check_slices(const char* function, const char* name, int64_t whole, int64_t part, int size) {
  HYDROFOIL_CHECK_ARG(whole % size == 0 && whole / size == part, function, name, " has numel ", whole, ", expected ",
                      size, " x ", part);
}

detail::Channel& checked(const std::shared_ptr<detail::Channel>& channel, const char* function) {
  HYDROFOIL_CHECK_ARG(channel != nullptr, function, "the group is undefined");
  return *channel;
}

}  // namespace

void Work::wait() {
  if (state_) state_->wait();
}

bool Work::wait_for(std::chrono::milliseconds limit) const {
  if (!state_) return true;
  std::unique_lock lock(state_->mutex);
  return state_->finished.wait_for(lock, limit, [this] { return state_->done; });
}

bool Work::done() const {
  if (!state_) return true;
  const std::lock_guard lock(state_->mutex);
  return state_->done;
}

Group::Group(std::unique_ptr<Backend> backend, GroupOptions options)
    : channel_(std::make_shared<detail::Channel>(std::move(backend), std::move(options))) {}

int Group::rank() const { return checked(channel_, "Group::rank").backend().rank(); }
int Group::size() const { return checked(channel_, "Group::size").backend().size(); }
const std::string& Group::name() const { return checked(channel_, "Group::name").options().name; }
std::string Group::backend_name() const { return checked(channel_, "Group::backend_name").backend().name(); }

bool Group::widens_sums() const { return checked(channel_, "Group::widens_sums").backend().widens_sums(); }

std::shared_ptr<memory::Arena> Group::shared_arena(SharedUse use) const {
  return checked(channel_, "Group::shared_arena").backend().shared_arena(use);
}

std::shared_ptr<SharedSlices> Group::share_slices(const at::Tensor& slice) const {
  return SharedSlices::map(*this, checked(channel_, "Group::share_slices").backend(), slice);
}

Work Group::all_reduce(at::Tensor buffer, ReduceOp op, OpInfo info) const {
  detail::Channel& channel = checked(channel_, "Group::all_reduce");
  check_buffer("Group::all_reduce", "buffer", buffer, channel.backend());
  check_reduce("Group::all_reduce", buffer, op);
  return channel.submit(
      {.kind = OpKind::kAllReduce, .reduce = op, .input = buffer, .output = buffer, .info = std::move(info)});
}

Work Group::reduce_scatter(at::Tensor input, at::Tensor output, ReduceOp op, OpInfo info) const {
  constexpr const char* kFunction = "Group::reduce_scatter";
  detail::Channel& channel = checked(channel_, kFunction);
  check_buffer(kFunction, "input", input, channel.backend());
  check_buffer(kFunction, "output", output, channel.backend());
  const bool widens = channel.backend().widens_sums() && output.scalar_type() == at::kFloat;
  if (!widens || !detail::is_floating(input.scalar_type())) check_pair(kFunction, input, output);
  check_slices(kFunction, "input", input.numel(), output.numel(), channel.backend().size());
  check_reduce(kFunction, input, op);
  const bool same_dtype = input.scalar_type() == output.scalar_type();
  check_overlap(kFunction, input, output, same_dtype ? channel.backend().rank() : -1);
  return channel.submit({.kind = OpKind::kReduceScatter,
                         .reduce = op,
                         .input = std::move(input),
                         .output = std::move(output),
                         .info = std::move(info)});
}

Work Group::all_gather(at::Tensor input, at::Tensor output, OpInfo info) const {
  constexpr const char* kFunction = "Group::all_gather";
  detail::Channel& channel = checked(channel_, kFunction);
  check_buffer(kFunction, "input", input, channel.backend());
  check_buffer(kFunction, "output", output, channel.backend());
  check_pair(kFunction, input, output);
  check_slices(kFunction, "output", output.numel(), input.numel(), channel.backend().size());
  check_overlap(kFunction, output, input, channel.backend().rank());
  return channel.submit(
      {.kind = OpKind::kAllGather, .input = std::move(input), .output = std::move(output), .info = std::move(info)});
}

Work Group::broadcast(at::Tensor buffer, int root, OpInfo info) const {
  detail::Channel& channel = checked(channel_, "Group::broadcast");
  check_buffer("Group::broadcast", "buffer", buffer, channel.backend());
  check_rank("Group::broadcast", "root", root, channel.backend().size());
  return channel.submit(
      {.kind = OpKind::kBroadcast, .peer = root, .input = buffer, .output = buffer, .info = std::move(info)});
}

Work Group::all_to_all(at::Tensor input, at::Tensor output, OpInfo info) const {
  constexpr const char* kFunction = "Group::all_to_all";
  detail::Channel& channel = checked(channel_, kFunction);
  check_buffer(kFunction, "input", input, channel.backend());
  check_buffer(kFunction, "output", output, channel.backend());
  check_pair(kFunction, input, output);
  const int size = channel.backend().size();
  HYDROFOIL_CHECK_ARG(input.numel() == output.numel(), kFunction, "output has numel ", output.numel(),
                      ", expected that of the input, ", input.numel());
  HYDROFOIL_CHECK_ARG(input.numel() % size == 0, kFunction, "input has numel ", input.numel(),
                      ", expected a multiple of the group's size ", size);
  check_overlap(kFunction, output, input, -1);
  return channel.submit(
      {.kind = OpKind::kAllToAll, .input = std::move(input), .output = std::move(output), .info = std::move(info)});
}

Work Group::send(at::Tensor buffer, int peer, OpInfo info) const {
  detail::Channel& channel = checked(channel_, "Group::send");
  check_buffer("Group::send", "buffer", buffer, channel.backend());
  check_rank("Group::send", "peer", peer, channel.backend().size());
  HYDROFOIL_CHECK_ARG(peer != channel.backend().rank(), "Group::send", "peer is this rank itself, ", peer);
  return channel.submit({.kind = OpKind::kSend, .peer = peer, .input = std::move(buffer), .info = std::move(info)});
}

Work Group::recv(at::Tensor buffer, int peer, OpInfo info) const {
  detail::Channel& channel = checked(channel_, "Group::recv");
  check_buffer("Group::recv", "buffer", buffer, channel.backend());
  check_rank("Group::recv", "peer", peer, channel.backend().size());
  HYDROFOIL_CHECK_ARG(peer != channel.backend().rank(), "Group::recv", "peer is this rank itself, ", peer);
  return channel.submit({.kind = OpKind::kRecv, .peer = peer, .output = std::move(buffer), .info = std::move(info)});
}

void Group::barrier(OpInfo info) const {
  info.caller_waits = true;
  start_barrier(std::move(info)).wait();
}

Work Group::start_barrier(OpInfo info) const {
  return checked(channel_, "Group::barrier").submit({.kind = OpKind::kBarrier, .info = std::move(info)});
}

void Group::observe(std::shared_ptr<OperationObserver> observer) const {
  HYDROFOIL_CHECK_ARG(observer != nullptr, "Group::observe", "the observer is null");
  checked(channel_, "Group::observe").observe(std::move(observer));
}

void Group::close() const { checked(channel_, "Group::close").close(); }

}  // namespace hydrofoil::comm
