#include "hydrofoil/comm/c10d/shm_process_group.h"

#include <functional>
#include <memory>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/c10d/flat_tensor.h"
#include "hydrofoil/comm/c10d/shm_lanes.h"
#include "hydrofoil/comm/c10d/shm_steps.h"
#include "hydrofoil/comm/detail/ballot.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/shm/shm_meeting.h"

namespace hydrofoil::comm {
namespace {

using at::Tensor;
using detail::add_reduction;
using detail::broadcast_step;
using detail::check_numel;
using detail::check_reduction;
using detail::check_same_dtype;
using detail::check_tensor;
using detail::concat;
using detail::elements_of;
using detail::flat_output;
using detail::gather_list_step;
using detail::gather_step;
using detail::message_step;
using detail::place;
using detail::plain_op;
using detail::PlainOp;
using detail::reduce_scatter_step;
using detail::scratch_of;
using detail::ShmLane;
using detail::ShmStep;
using detail::split_rows;
using detail::TensorList;

const Tensor& only(const TensorList& tensors, const char* function) {
  HYDROFOIL_CHECK_ARG(tensors.size() == 1, function, "got ", tensors.size(), " tensors, expected 1");
  return tensors[0];
}

class ShmProcessGroup : public c10d::Backend {
 public:
  ShmProcessGroup(std::shared_ptr<detail::SegmentSet> segments, int rank, int size, GroupOptions options)
      : c10d::Backend(rank, size), lanes_(std::move(segments), rank, size, std::move(options)) {}

  const std::string getBackendName() const override { return kShmProcessGroupName; }
  c10::intrusive_ptr<Options> getBackendOptions() override {
    return c10::make_intrusive<Options>(kShmProcessGroupName, lanes_.options().timeout);
  }
  void shutdown() override { lanes_.end(); }
  void abort() override { lanes_.end(); }
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return lanes_.num_calls(); }

  c10::intrusive_ptr<c10d::Work> allreduce(TensorList& tensors, const c10d::AllreduceOptions& options) override {
    only(tensors, "hydrofoil_shm.allreduce");
    return reduce_all(c10d::OpType::ALLREDUCE, tensors, options.reduceOp, options.asyncOp, "hydrofoil_shm.allreduce");
  }
  c10::intrusive_ptr<c10d::Work> allreduce_coalesced(TensorList& tensors,
                                                     const c10d::AllreduceCoalescedOptions& options) override {
    return reduce_all(c10d::OpType::ALLREDUCE_COALESCED, tensors, options.reduceOp, options.asyncOp,
                      "hydrofoil_shm.allreduce_coalesced");
  }
  c10::intrusive_ptr<c10d::Work> allreduce_sparse(TensorList&, const c10d::AllreduceOptions&) override {
    HYDROFOIL_CHECK_ARG(false, "hydrofoil_shm.allreduce_sparse",
                        "got a sparse tensor, expected a strided one: make it dense, or use gloo");
  }
  c10::intrusive_ptr<c10d::Work> reduce(TensorList& tensors, const c10d::ReduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(TensorList& tensors, const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override {
    return lanes_.run(c10d::OpType::BARRIER, {},
                      {{[](const Group& group, OpInfo info) { return group.start_barrier(std::move(info)); }, {}}},
                      !options.asyncOp);
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<TensorList>& outputs, TensorList& inputs,
                                           const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(Tensor& output, Tensor& input,
                                                 const c10d::AllgatherOptions& options) override {
    return lanes_.run(c10d::OpType::_ALLGATHER_BASE, {output},
                      {gather_step(output, input, size_, "hydrofoil_shm._allgather_base")}, !options.asyncOp);
  }
  c10::intrusive_ptr<c10d::Work> allgather_into_tensor_coalesced(TensorList& outputs, TensorList& inputs,
                                                                 const c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> gather(std::vector<TensorList>& outputs, TensorList& inputs,
                                        const c10d::GatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                         const c10d::ScatterOptions& options) override;

  c10::intrusive_ptr<c10d::Work> reduce_scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                                const c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(Tensor& output, Tensor& input,
                                                      const c10d::ReduceScatterOptions& options) override {
    return lanes_.run(
        c10d::OpType::_REDUCE_SCATTER_BASE, {output},
        {reduce_scatter_step(output, input, options.reduceOp, size_, "hydrofoil_shm._reduce_scatter_base")},
        !options.asyncOp);
  }
  c10::intrusive_ptr<c10d::Work> reduce_scatter_tensor_coalesced(TensorList& outputs, TensorList& inputs,
                                                                 const c10d::ReduceScatterOptions& options) override;

  c10::intrusive_ptr<c10d::Work> alltoall(TensorList& outputs, TensorList& inputs,
                                          const c10d::AllToAllOptions&) override;
  c10::intrusive_ptr<c10d::Work> alltoall_base(Tensor& output, Tensor& input, std::vector<int64_t>& output_splits,
                                               std::vector<int64_t>& input_splits,
                                               const c10d::AllToAllOptions&) override;

  c10::intrusive_ptr<c10d::Work> send(TensorList& tensors, int peer, int tag) override;
  c10::intrusive_ptr<c10d::Work> recv(TensorList& tensors, int peer, int tag) override;
  c10::intrusive_ptr<c10d::Work> recvAnysource(TensorList&, int) override {
    HYDROFOIL_CHECK_ARG(false, "hydrofoil_shm.recvAnysource",
                        "got no source, expected the rank that sends; gloo receives from any");
  }

 private:
  c10::intrusive_ptr<c10d::Work> reduce_all(c10d::OpType type, const TensorList& tensors, const c10d::ReduceOp& op,
                                            bool async_op, const char* function);
  c10::intrusive_ptr<c10d::Work> exchange(c10d::OpType type, const TensorList& results, const TensorList& outputs,
                                          const TensorList& inputs, std::function<void()> after);
  void check_root(int64_t root, const char* function) const {
    HYDROFOIL_CHECK_ARG(root >= 0 && root < size_, function, "the root is rank ", root, ", expected 0 to ", size_ - 1);
  }

  detail::ShmLanes lanes_;
};

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce_all(c10d::OpType type, const TensorList& tensors,
                                                           const c10d::ReduceOp& op, bool async_op,
                                                           const char* function) {
  std::vector<ShmStep> steps;
  const PlainOp plain = plain_op(op, function);
  for (const auto& tensor : tensors) {
    check_tensor(tensor, function);
    check_reduction(plain, tensor.scalar_type(), function);
  }
  for (const auto& tensor : tensors) {
    const Tensor flat = elements_of(tensor);
    add_reduction(steps, flat, plain, size_, [flat, tensor] { place(flat, tensor); });
  }
  return lanes_.run(type, tensors, std::move(steps), !async_op);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce(TensorList& tensors, const c10d::ReduceOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.reduce";
  const Tensor& tensor = only(tensors, kFunction);
  check_tensor(tensor, kFunction);
  check_root(options.rootRank, kFunction);
  const PlainOp op = plain_op(options.reduceOp, kFunction);
  check_reduction(op, tensor.scalar_type(), kFunction);
  std::vector<ShmStep> steps;
  const Tensor flat = options.rootRank == rank_ ? elements_of(tensor) : elements_of(tensor).clone();
  add_reduction(steps, flat, op, size_, [flat, tensor, is_root = options.rootRank == rank_] {
    if (is_root) place(flat, tensor);
  });
  return lanes_.run(c10d::OpType::REDUCE, tensors, std::move(steps), !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::broadcast(TensorList& tensors, const c10d::BroadcastOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.broadcast";
  const Tensor tensor = only(tensors, kFunction);
  check_tensor(tensor, kFunction);
  check_root(options.rootRank, kFunction);
  const Tensor flat = elements_of(tensor);
  return lanes_.run(c10d::OpType::BROADCAST, tensors,
                    {broadcast_step(flat, static_cast<int>(options.rootRank), [flat, tensor] { place(flat, tensor); })},
                    !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::allgather(std::vector<TensorList>& outputs, TensorList& inputs,
                                                          const c10d::AllgatherOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.allgather";
  const Tensor& input = only(inputs, kFunction);
  HYDROFOIL_CHECK_ARG(outputs.size() == 1 && outputs[0].size() == static_cast<size_t>(size_), kFunction, "got ",
                      outputs.size(), " output lists, expected 1 of ", size_, " tensors");
  return lanes_.run(c10d::OpType::ALLGATHER, outputs[0], {gather_list_step(outputs[0], input, size_, kFunction)},
                    !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::allgather_into_tensor_coalesced(TensorList& outputs, TensorList& inputs,
                                                                                const c10d::AllgatherOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.allgather_into_tensor_coalesced";
  HYDROFOIL_CHECK_ARG(outputs.size() == inputs.size(), kFunction, "got ", outputs.size(), " outputs, expected ",
                      inputs.size());
  std::vector<ShmStep> steps;
  for (size_t i = 0; i < inputs.size(); ++i) steps.push_back(gather_step(outputs[i], inputs[i], size_, kFunction));
  return lanes_.run(c10d::OpType::COALESCED, outputs, std::move(steps), !options.asyncOp);
}

// Everybody gathers; only the root keeps it.
c10::intrusive_ptr<c10d::Work> ShmProcessGroup::gather(std::vector<TensorList>& outputs, TensorList& inputs,
                                                       const c10d::GatherOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.gather";
  const Tensor& input = only(inputs, kFunction);
  check_root(options.rootRank, kFunction);
  const bool is_root = options.rootRank == rank_;
  HYDROFOIL_CHECK_ARG(!is_root || (outputs.size() == 1 && !outputs[0].empty()), kFunction, "got ", outputs.size(),
                      " output lists on the root, expected 1 of ", size_, " tensors");
  const TensorList kept = is_root ? outputs[0] : TensorList();
  return lanes_.run(c10d::OpType::GATHER, kept, {gather_list_step(kept, input, size_, kFunction)}, !options.asyncOp);
}

// The root broadcasts all parts; everybody keeps its own.
c10::intrusive_ptr<c10d::Work> ShmProcessGroup::scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                                        const c10d::ScatterOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.scatter";
  const Tensor output = only(outputs, kFunction);
  check_tensor(output, kFunction);
  check_root(options.rootRank, kFunction);
  const int64_t numel = output.numel();
  const Tensor all = scratch_of(output, numel * size_);
  if (options.rootRank == rank_) {
    HYDROFOIL_CHECK_ARG(inputs.size() == 1 && inputs[0].size() == static_cast<size_t>(size_), kFunction, "got ",
                        inputs.size(), " input lists on the root, expected 1 of ", size_, " tensors");
    for (int peer = 0; peer < size_; ++peer) {
      const Tensor& input = inputs[0][static_cast<size_t>(peer)];
      check_tensor(input, kFunction);
      check_same_dtype(input, output, kFunction);
      check_numel(input, numel, kFunction);
      place(elements_of(input), all.narrow(0, peer * numel, numel));
    }
  }
  return lanes_.run(
      c10d::OpType::SCATTER, outputs,
      {broadcast_step(all, static_cast<int>(options.rootRank),
                      [all, output, begin = rank_ * numel] { place(all.narrow(0, begin, output.numel()), output); })},
      !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce_scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                                               const c10d::ReduceScatterOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.reduce_scatter";
  const Tensor& output = only(outputs, kFunction);
  HYDROFOIL_CHECK_ARG(inputs.size() == 1 && inputs[0].size() == static_cast<size_t>(size_), kFunction, "got ",
                      inputs.size(), " input lists, expected 1 of ", size_, " tensors");
  check_tensor(output, kFunction);
  const int64_t numel = output.numel();
  const Tensor all = scratch_of(output, numel * size_);
  for (int peer = 0; peer < size_; ++peer) {
    const Tensor& input = inputs[0][static_cast<size_t>(peer)];
    check_tensor(input, kFunction);
    check_same_dtype(input, output, kFunction);
    check_numel(input, numel, kFunction);
    place(elements_of(input), all.narrow(0, peer * numel, numel));
  }
  return lanes_.run(c10d::OpType::REDUCE_SCATTER, outputs,
                    {reduce_scatter_step(output, all, options.reduceOp, size_, kFunction)}, !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce_scatter_tensor_coalesced(
    TensorList& outputs, TensorList& inputs, const c10d::ReduceScatterOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.reduce_scatter_tensor_coalesced";
  HYDROFOIL_CHECK_ARG(outputs.size() == inputs.size(), kFunction, "got ", outputs.size(), " outputs, expected ",
                      inputs.size());
  std::vector<ShmStep> steps;
  for (size_t i = 0; i < inputs.size(); ++i) {
    steps.push_back(reduce_scatter_step(outputs[i], inputs[i], options.reduceOp, size_, kFunction));
  }
  return lanes_.run(c10d::OpType::_REDUCE_SCATTER_BASE, outputs, std::move(steps), !options.asyncOp);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::send(TensorList& tensors, int peer, int tag) {
  constexpr const char* kFunction = "hydrofoil_shm.send";
  check_tensor(only(tensors, kFunction), kFunction);
  check_root(peer, kFunction);
  HYDROFOIL_CHECK_ARG(peer != rank_, kFunction, "the destination is this rank itself, ", peer);
  return lanes_.run(c10d::OpType::SEND, tensors, {message_step(ShmLane::kMessages, true, tensors[0], peer, tag)},
                    false);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::recv(TensorList& tensors, int peer, int tag) {
  constexpr const char* kFunction = "hydrofoil_shm.recv";
  check_tensor(only(tensors, kFunction), kFunction);
  check_root(peer, kFunction);
  HYDROFOIL_CHECK_ARG(peer != rank_, kFunction, "the source is this rank itself, ", peer);
  return lanes_.run(c10d::OpType::RECV, tensors, {message_step(ShmLane::kMessages, false, tensors[0], peer, tag)},
                    false);
}

// The parts differ in size, which no rank knows of the others, so they go as messages.
c10::intrusive_ptr<c10d::Work> ShmProcessGroup::exchange(c10d::OpType type, const TensorList& results,
                                                         const TensorList& outputs, const TensorList& inputs,
                                                         std::function<void()> after) {
  const auto own = static_cast<size_t>(rank_);
  check_numel(outputs[own], inputs[own].numel(), "hydrofoil_shm.alltoall");
  place(elements_of(inputs[own]), outputs[own]);
  std::vector<ShmStep> steps;
  // `after` follows the step that ends last, which may be any.
  const auto missing = std::make_shared<std::atomic<int>>(2 * (size_ - 1));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    for (const bool sends : {true, false}) {
      const Tensor& tensor = (sends ? inputs : outputs)[static_cast<size_t>(peer)];
      ShmStep step = message_step(ShmLane::kAllToAll, sends, tensor, peer, 0);
      step.after = [first = std::move(step.after), missing, after] {
        first();
        if (missing->fetch_sub(1) == 1 && after) after();
      };
      steps.push_back(std::move(step));
    }
  }
  if (steps.empty() && after) after();
  return lanes_.run(type, results, std::move(steps), false);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::alltoall(TensorList& outputs, TensorList& inputs,
                                                         const c10d::AllToAllOptions&) {
  constexpr const char* kFunction = "hydrofoil_shm.alltoall";
  const auto size = static_cast<size_t>(size_);
  HYDROFOIL_CHECK_ARG(outputs.size() == size && inputs.size() == size, kFunction, "got ", outputs.size(),
                      " outputs and ", inputs.size(), " inputs, expected ", size_, " of each");
  for (const auto& tensor : outputs) check_tensor(tensor, kFunction);
  for (const auto& tensor : inputs) check_tensor(tensor, kFunction);
  return exchange(c10d::OpType::ALLTOALL, outputs, outputs, inputs, nullptr);
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::alltoall_base(Tensor& output, Tensor& input,
                                                              std::vector<int64_t>& output_splits,
                                                              std::vector<int64_t>& input_splits,
                                                              const c10d::AllToAllOptions&) {
  constexpr const char* kFunction = "hydrofoil_shm.alltoall_base";
  check_tensor(output, kFunction);
  check_tensor(input, kFunction);
  check_same_dtype(output, input, kFunction);
  const Tensor out = flat_output(output);
  return exchange(c10d::OpType::ALLTOALL_BASE, {output}, split_rows(out, output, output_splits, size_, kFunction),
                  split_rows(elements_of(input), input, input_splits, size_, kFunction),
                  [out, output] { place(out, output); });
}

std::string group_name(const ShmProcessGroupOptions& options) {
  std::string ranks;
  bool moved = false;
  for (size_t i = 0; i < options.global_ranks.size(); ++i) {
    moved = moved || options.global_ranks[i] != static_cast<int64_t>(i);
    ranks += concat(i == 0 ? "" : ", ", options.global_ranks[i]);
  }
  return moved ? concat(options.name, " (global ranks ", ranks, ")") : options.name;
}

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_shm_process_group(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                                         int size, const ShmProcessGroupOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm";
  HYDROFOIL_CHECK_ARG(size >= 1 && size <= detail::kMaxSegmentRanks, kFunction, "size is ", size, ", expected 1 to ",
                      detail::kMaxSegmentRanks);
  HYDROFOIL_CHECK_ARG(rank >= 0 && rank < size, kFunction, "rank is ", rank, ", expected 0 to ", size - 1);
  HYDROFOIL_CHECK_ARG(size == 1 || store.defined(), kFunction, "store is null");
  const GroupOptions group{.name = group_name(options), .timeout = options.timeout};
  if (size == 1) return c10::make_intrusive<ShmProcessGroup>(nullptr, rank, size, group);
  const detail::Ballot ballot({.store = store,
                               .prefix = detail::next_ballot_prefix(*store, "hydrofoil_shm", rank),
                               .group = group.name,
                               .rank = rank,
                               .size = size,
                               .timeout = options.timeout});
  auto meeting = detail::meet_in_shared_memory(ballot, detail::kNumShmLanes);
  if (!meeting.segments) {
    throw CommError(concat("[hydrofoil_shm] group ", group.name, " is not possible, because the ranks cannot share ",
                           "memory: ", meeting.reasons, "; init_process_group(\"gloo\") serves several hosts"));
  }
  return c10::make_intrusive<ShmProcessGroup>(std::move(meeting.segments), rank, size, group);
}

}  // namespace hydrofoil::comm
