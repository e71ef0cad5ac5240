#include "hydrofoil/comm/c10d/shm_process_group.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/c10d/flat_tensor.h"
#include "hydrofoil/comm/c10d/plain_reduce.h"
#include "hydrofoil/comm/detail/ballot.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/local/self_backend.h"
#include "hydrofoil/comm/shm/shm_meeting.h"

namespace hydrofoil::comm {
namespace {

using at::Tensor;
using detail::as_bytes;
using detail::check_numel;
using detail::check_same_dtype;
using detail::check_tensor;
using detail::concat;
using detail::elements_of;
using detail::flat_output;
using detail::place;
using detail::PlainOp;
using detail::scratch_of;
using detail::split_rows;
using TensorList = std::vector<Tensor>;

// Channels of the shared memory.
enum Lane : int { kCollectives, kMessages, kAllToAll, kNumLanes };

constexpr int64_t kPieceNumel = 32768;  // bounds the scratch buffer of an all-reduce that Group has not

// One operation of a Group, and what is left to do once it has succeeded.
struct Step {
  std::function<Work(OpInfo)> start;
  std::function<void()> after;
};

// Several steps that end together.
class ShmWork : public c10d::Work {
 public:
  ShmWork(int rank, c10d::OpType type, TensorList outputs, size_t num_steps)
      : c10d::Work(rank, type),
        outputs_(std::move(outputs)),
        missing_(num_steps),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {
    if (num_steps == 0) future_->markCompleted(c10::IValue(outputs_));
  }

  bool isCompleted() override { return future_->completed(); }
  bool isSuccess() const override { return future_->completed() && !future_->hasError(); }
  std::exception_ptr exception() const override { return future_->hasError() ? future_->exception_ptr() : nullptr; }
  TensorList result() override { return outputs_; }
  void synchronize() override { wait(kNoTimeout); }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

  bool wait(std::chrono::milliseconds timeout) override {
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

  // Before anybody else has this Work.
  void add(comm::Work part) { parts_.push_back(std::move(part)); }

  void step_ended(const std::exception_ptr& error, const std::function<void()>& after) {
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

 private:
  TensorList outputs_;
  std::vector<comm::Work> parts_;
  std::atomic<size_t> missing_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

const Tensor& only(const TensorList& tensors, const char* function) {
  HYDROFOIL_CHECK_ARG(tensors.size() == 1, function, "got ", tensors.size(), " tensors, expected 1");
  return tensors[0];
}

PlainOp plain_op(const c10d::ReduceOp& op, const char* function) {
  switch (static_cast<c10d::ReduceOp::RedOpType>(op)) {
    case c10d::ReduceOp::SUM:
      return PlainOp::kSum;
    case c10d::ReduceOp::AVG:
      return PlainOp::kAvg;
    case c10d::ReduceOp::PRODUCT:
      return PlainOp::kProduct;
    case c10d::ReduceOp::MIN:
      return PlainOp::kMin;
    case c10d::ReduceOp::MAX:
      return PlainOp::kMax;
    case c10d::ReduceOp::BAND:
      return PlainOp::kBitAnd;
    case c10d::ReduceOp::BOR:
      return PlainOp::kBitOr;
    case c10d::ReduceOp::BXOR:
      return PlainOp::kBitXor;
    default:
      HYDROFOIL_CHECK_ARG(false, function,
                          "got the reduce operation premul_sum, expected sum, avg, product, min, max, band, bor or "
                          "bxor: multiply the tensor first");
  }
}

// The operation where Group has it for this dtype.
std::optional<ReduceOp> native_op(PlainOp op, at::ScalarType dtype) {
  if (!detail::is_supported(dtype)) return std::nullopt;
  if (op == PlainOp::kSum) return ReduceOp::kSum;
  if (op == PlainOp::kMax) return ReduceOp::kMax;
  if (op == PlainOp::kAvg && detail::is_floating(dtype)) return ReduceOp::kAvg;
  return std::nullopt;
}

void check_reduction(PlainOp op, at::ScalarType dtype, const char* function) {
  HYDROFOIL_CHECK_ARG(detail::reduces_plainly(op, dtype), function, "got ", detail::plain_op_name(op), " of dtype ",
                      c10::toString(dtype),
                      ", which has no meaning or no arithmetic here: convert the tensor (avg needs a floating dtype, "
                      "band, bor and bxor an integer one), or use gloo");
}

class ShmProcessGroup : public c10d::Backend {
 public:
  ShmProcessGroup(std::shared_ptr<detail::SegmentSet> segments, int rank, int size, GroupOptions options)
      : c10d::Backend(rank, size),
        options_(std::move(options)),
        segments_(std::move(segments)),
        board_(segments_ ? detail::make_segment_board(segments_, rank) : nullptr),
        collectives_(segments_ ? make_group(kCollectives) : Group(std::make_unique<SelfBackend>(), options_)) {}
  ~ShmProcessGroup() override { end(); }

  const std::string getBackendName() const override { return kShmProcessGroupName; }
  c10::intrusive_ptr<Options> getBackendOptions() override {
    return c10::make_intrusive<Options>(kShmProcessGroupName, options_.timeout);
  }
  void shutdown() override { end(); }
  void abort() override { end(); }
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return num_calls_.load(); }

  c10::intrusive_ptr<c10d::Work> allreduce(TensorList& tensors, const c10d::AllreduceOptions& options) override {
    only(tensors, "hydrofoil_shm.allreduce");
    return reduce_all(c10d::OpType::ALLREDUCE, tensors, options.reduceOp, "hydrofoil_shm.allreduce");
  }
  c10::intrusive_ptr<c10d::Work> allreduce_coalesced(TensorList& tensors,
                                                     const c10d::AllreduceCoalescedOptions& options) override {
    return reduce_all(c10d::OpType::ALLREDUCE_COALESCED, tensors, options.reduceOp,
                      "hydrofoil_shm.allreduce_coalesced");
  }
  c10::intrusive_ptr<c10d::Work> allreduce_sparse(TensorList&, const c10d::AllreduceOptions&) override {
    HYDROFOIL_CHECK_ARG(false, "hydrofoil_shm.allreduce_sparse",
                        "got a sparse tensor, expected a strided one: make it dense, or use gloo");
  }
  c10::intrusive_ptr<c10d::Work> reduce(TensorList& tensors, const c10d::ReduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(TensorList& tensors, const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    return run(c10d::OpType::BARRIER, {},
               {{[this](OpInfo info) { return collectives_.start_barrier(std::move(info)); }, {}}});
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<TensorList>& outputs, TensorList& inputs,
                                           const c10d::AllgatherOptions&) override;
  c10::intrusive_ptr<c10d::Work> _allgather_base(Tensor& output, Tensor& input,
                                                 const c10d::AllgatherOptions&) override {
    return run(c10d::OpType::_ALLGATHER_BASE, {output}, {gather_step(output, input, "hydrofoil_shm._allgather_base")});
  }
  c10::intrusive_ptr<c10d::Work> allgather_into_tensor_coalesced(TensorList& outputs, TensorList& inputs,
                                                                 const c10d::AllgatherOptions&) override;
  c10::intrusive_ptr<c10d::Work> gather(std::vector<TensorList>& outputs, TensorList& inputs,
                                        const c10d::GatherOptions& options) override;
  c10::intrusive_ptr<c10d::Work> scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                         const c10d::ScatterOptions& options) override;

  c10::intrusive_ptr<c10d::Work> reduce_scatter(TensorList& outputs, std::vector<TensorList>& inputs,
                                                const c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(Tensor& output, Tensor& input,
                                                      const c10d::ReduceScatterOptions& options) override {
    return run(c10d::OpType::_REDUCE_SCATTER_BASE, {output},
               {reduce_scatter_step(output, input, options.reduceOp, "hydrofoil_shm._reduce_scatter_base")});
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
  // NOTE [Messages beside collectives]: c10d lets a rank post its sends and receives in any order. Each peer and
  // direction therefore has a Group, and with it a thread, of its own; all of one lane share a channel of the memory,
  // whose mailboxes belong to a pair of ranks and so to two of these Groups.
  Group make_group(Lane lane) const {
    detail::ExchangeOptions exchange{
        .backend_name = "shm", .group = options_.name, .rank = rank_, .channel = static_cast<int>(lane)};
    return Group(std::make_unique<detail::Exchange>(segments_, board_, std::move(exchange)), options_);
  }
  const Group& peer_group(Lane lane, int peer, bool sends);

  c10::intrusive_ptr<c10d::Work> run(c10d::OpType type, TensorList outputs, std::vector<Step> steps);
  c10::intrusive_ptr<c10d::Work> reduce_all(c10d::OpType type, const TensorList& tensors, const c10d::ReduceOp& op,
                                            const char* function);
  void add_reduction(std::vector<Step>& steps, const Tensor& flat, PlainOp op, std::function<void()> after);
  Step gather_step(const Tensor& output, const Tensor& input, const char* function);
  Step gather_list_step(const TensorList& outputs, const Tensor& input, const char* function);
  Step reduce_scatter_step(const Tensor& output, const Tensor& input, const c10d::ReduceOp& op, const char* function);
  Step message_step(Lane lane, bool sends, const Tensor& tensor, int peer, int tag);
  c10::intrusive_ptr<c10d::Work> exchange(c10d::OpType type, const TensorList& results, const TensorList& outputs,
                                          const TensorList& inputs, std::function<void()> after);
  void check_root(int64_t root, const char* function) const {
    HYDROFOIL_CHECK_ARG(root >= 0 && root < size_, function, "the root is rank ", root, ", expected 0 to ", size_ - 1);
  }
  void end();

  GroupOptions options_;
  std::shared_ptr<detail::SegmentSet> segments_;  // null: a group of one
  std::shared_ptr<StatusBoard> board_;
  std::atomic<uint64_t> num_calls_{0};
  std::mutex mutex_;  // of what follows
  Group collectives_;
  std::vector<Group> peers_[kNumLanes][2];  // by lane and direction; made when they are first used
};

void ShmProcessGroup::end() {
  std::vector<Group> groups;  // outlive the lock: their ends wait for threads that may run callbacks of the user's
  const std::lock_guard lock(mutex_);
  groups.push_back(std::exchange(collectives_, Group()));
  for (auto& lane : peers_) {
    for (auto& direction : lane) {
      for (auto& group : direction) groups.push_back(std::move(group));
      direction.clear();
    }
  }
  segments_.reset();
  board_.reset();
}

const Group& ShmProcessGroup::peer_group(Lane lane, int peer, bool sends) {
  auto& groups = peers_[lane][sends ? 1 : 0];
  groups.resize(static_cast<size_t>(size_));
  Group& group = groups[static_cast<size_t>(peer)];
  if (!group.defined()) group = make_group(lane);
  return group;
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::run(c10d::OpType type, TensorList outputs, std::vector<Step> steps) {
  auto work = c10::make_intrusive<ShmWork>(rank_, type, std::move(outputs), steps.size());
  ++num_calls_;
  // The steps of one operation stay together, whatever other threads call.
  const std::lock_guard lock(mutex_);
  HYDROFOIL_CHECK_ARG(collectives_.defined(), "hydrofoil_shm", "group ", options_.name,
                      " was destroyed, so it cannot run ", c10d::opTypeToString(type));
  for (auto& step : steps) {
    OpInfo info;
    info.on_end = [work, after = std::move(step.after)](const std::exception_ptr& error) {
      work->step_ended(error, after);
    };
    work->add(step.start(std::move(info)));
  }
  return work;
}

// Adds what reduces `flat` in place on all ranks; `after` follows the last step.
void ShmProcessGroup::add_reduction(std::vector<Step>& steps, const Tensor& flat, PlainOp op,
                                    std::function<void()> after) {
  if (const auto native = native_op(op, flat.scalar_type())) {
    steps.push_back(
        {[this, flat, native](OpInfo info) { return collectives_.all_reduce(flat, *native, std::move(info)); },
         std::move(after)});
    return;
  }
  // Steps run one after the other, so one buffer serves all pieces.
  const Tensor scratch = scratch_of(flat, std::min(kPieceNumel, flat.numel()) * size_);
  int64_t begin = 0;
  do {
    const Tensor piece = flat.narrow(0, begin, std::min(kPieceNumel, flat.numel() - begin));
    const Tensor all = scratch.narrow(0, 0, piece.numel() * size_);
    begin += piece.numel();
    std::function<void()> last = begin >= flat.numel() ? std::move(after) : nullptr;
    steps.push_back({[this, piece, all](OpInfo info) {
                       info.unit = "a reduction";
                       return collectives_.all_gather(as_bytes(piece), as_bytes(all), std::move(info));
                     },
                     [this, piece, all, op, last = std::move(last)] {
                       detail::reduce_plainly(all, size_, op, piece);
                       if (last) last();
                     }});
  } while (begin < flat.numel());
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce_all(c10d::OpType type, const TensorList& tensors,
                                                           const c10d::ReduceOp& op, const char* function) {
  std::vector<Step> steps;
  const PlainOp plain = plain_op(op, function);
  for (const auto& tensor : tensors) {
    check_tensor(tensor, function);
    check_reduction(plain, tensor.scalar_type(), function);
  }
  for (const auto& tensor : tensors) {
    const Tensor flat = elements_of(tensor);
    add_reduction(steps, flat, plain, [flat, tensor] { place(flat, tensor); });
  }
  return run(type, tensors, std::move(steps));
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce(TensorList& tensors, const c10d::ReduceOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.reduce";
  const Tensor& tensor = only(tensors, kFunction);
  check_tensor(tensor, kFunction);
  check_root(options.rootRank, kFunction);
  const PlainOp op = plain_op(options.reduceOp, kFunction);
  check_reduction(op, tensor.scalar_type(), kFunction);
  std::vector<Step> steps;
  const Tensor flat = options.rootRank == rank_ ? elements_of(tensor) : elements_of(tensor).clone();
  add_reduction(steps, flat, op, [flat, tensor, is_root = options.rootRank == rank_] {
    if (is_root) place(flat, tensor);
  });
  return run(c10d::OpType::REDUCE, tensors, std::move(steps));
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::broadcast(TensorList& tensors, const c10d::BroadcastOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.broadcast";
  const Tensor tensor = only(tensors, kFunction);
  check_tensor(tensor, kFunction);
  check_root(options.rootRank, kFunction);
  const Tensor flat = elements_of(tensor);
  return run(c10d::OpType::BROADCAST, tensors,
             {{[this, flat, root = static_cast<int>(options.rootRank)](OpInfo info) {
                 return collectives_.broadcast(as_bytes(flat), root, std::move(info));
               },
               [flat, tensor] { place(flat, tensor); }}});
}

Step ShmProcessGroup::gather_step(const Tensor& output, const Tensor& input, const char* function) {
  check_tensor(output, function);
  check_tensor(input, function);
  check_same_dtype(output, input, function);
  check_numel(output, input.numel() * size_, function);
  const Tensor in = elements_of(input);
  const Tensor out = flat_output(output);
  return {
      [this, in, out](OpInfo info) { return collectives_.all_gather(as_bytes(in), as_bytes(out), std::move(info)); },
      [out, output] { place(out, output); }};
}

Step ShmProcessGroup::gather_list_step(const TensorList& outputs, const Tensor& input, const char* function) {
  check_tensor(input, function);
  HYDROFOIL_CHECK_ARG(outputs.empty() || outputs.size() == static_cast<size_t>(size_), function, "got ", outputs.size(),
                      " output tensors, expected ", size_);
  for (const auto& output : outputs) {
    check_tensor(output, function);
    check_same_dtype(output, input, function);
    check_numel(output, input.numel(), function);
  }
  const Tensor in = elements_of(input);
  const Tensor all = scratch_of(in, in.numel() * size_);
  return {
      [this, in, all](OpInfo info) { return collectives_.all_gather(as_bytes(in), as_bytes(all), std::move(info)); },
      [all, outputs] {
        for (size_t i = 0; i < outputs.size(); ++i) {
          const int64_t numel = outputs[i].numel();
          place(all.narrow(0, static_cast<int64_t>(i) * numel, numel), outputs[i]);
        }
      }};
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::allgather(std::vector<TensorList>& outputs, TensorList& inputs,
                                                          const c10d::AllgatherOptions&) {
  constexpr const char* kFunction = "hydrofoil_shm.allgather";
  const Tensor& input = only(inputs, kFunction);
  HYDROFOIL_CHECK_ARG(outputs.size() == 1 && outputs[0].size() == static_cast<size_t>(size_), kFunction, "got ",
                      outputs.size(), " output lists, expected 1 of ", size_, " tensors");
  return run(c10d::OpType::ALLGATHER, outputs[0], {gather_list_step(outputs[0], input, kFunction)});
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::allgather_into_tensor_coalesced(TensorList& outputs, TensorList& inputs,
                                                                                const c10d::AllgatherOptions&) {
  constexpr const char* kFunction = "hydrofoil_shm.allgather_into_tensor_coalesced";
  HYDROFOIL_CHECK_ARG(outputs.size() == inputs.size(), kFunction, "got ", outputs.size(), " outputs, expected ",
                      inputs.size());
  std::vector<Step> steps;
  for (size_t i = 0; i < inputs.size(); ++i) steps.push_back(gather_step(outputs[i], inputs[i], kFunction));
  return run(c10d::OpType::COALESCED, outputs, std::move(steps));
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
  return run(c10d::OpType::GATHER, kept, {gather_list_step(kept, input, kFunction)});
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
  return run(c10d::OpType::SCATTER, outputs,
             {{[this, all, root = static_cast<int>(options.rootRank)](OpInfo info) {
                 return collectives_.broadcast(as_bytes(all), root, std::move(info));
               },
               [all, output, begin = rank_ * numel] { place(all.narrow(0, begin, output.numel()), output); }}});
}

Step ShmProcessGroup::reduce_scatter_step(const Tensor& output, const Tensor& input, const c10d::ReduceOp& op,
                                          const char* function) {
  check_tensor(output, function);
  check_tensor(input, function);
  check_same_dtype(output, input, function);
  check_numel(input, output.numel() * size_, function);
  const PlainOp plain = plain_op(op, function);
  check_reduction(plain, input.scalar_type(), function);
  const Tensor in = elements_of(input);
  const Tensor out = flat_output(output);
  if (const auto native = native_op(plain, in.scalar_type())) {
    // Exchange and SelfBackend leave the input as it is, which c10d promises.
    return {
        [this, in, out, native](OpInfo info) { return collectives_.reduce_scatter(in, out, *native, std::move(info)); },
        [out, output] { place(out, output); }};
  }
  const Tensor slices = scratch_of(in, in.numel());
  return {[this, in, slices](OpInfo info) {
            info.unit = "a reduction";
            return collectives_.all_to_all(as_bytes(in), as_bytes(slices), std::move(info));
          },
          [this, slices, plain, out, output] {
            detail::reduce_plainly(slices, size_, plain, out);
            place(out, output);
          }};
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
  return run(c10d::OpType::REDUCE_SCATTER, outputs, {reduce_scatter_step(output, all, options.reduceOp, kFunction)});
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::reduce_scatter_tensor_coalesced(
    TensorList& outputs, TensorList& inputs, const c10d::ReduceScatterOptions& options) {
  constexpr const char* kFunction = "hydrofoil_shm.reduce_scatter_tensor_coalesced";
  HYDROFOIL_CHECK_ARG(outputs.size() == inputs.size(), kFunction, "got ", outputs.size(), " outputs, expected ",
                      inputs.size());
  std::vector<Step> steps;
  for (size_t i = 0; i < inputs.size(); ++i) {
    steps.push_back(reduce_scatter_step(outputs[i], inputs[i], options.reduceOp, kFunction));
  }
  return run(c10d::OpType::_REDUCE_SCATTER_BASE, outputs, std::move(steps));
}

Step ShmProcessGroup::message_step(Lane lane, bool sends, const Tensor& tensor, int peer, int tag) {
  const Tensor flat = sends ? elements_of(tensor) : flat_output(tensor);
  return {[this, lane, sends, flat, peer, tag](OpInfo info) {
            if (tag != 0) info.unit = concat("tag ", tag);
            info.signature = static_cast<uint64_t>(static_cast<int64_t>(tag)) + 1;
            const Group& group = peer_group(lane, peer, sends);
            return sends ? group.send(as_bytes(flat), peer, std::move(info))
                         : group.recv(as_bytes(flat), peer, std::move(info));
          },
          [sends, flat, tensor] {
            if (!sends) place(flat, tensor);
          }};
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::send(TensorList& tensors, int peer, int tag) {
  constexpr const char* kFunction = "hydrofoil_shm.send";
  check_tensor(only(tensors, kFunction), kFunction);
  check_root(peer, kFunction);
  HYDROFOIL_CHECK_ARG(peer != rank_, kFunction, "the destination is this rank itself, ", peer);
  return run(c10d::OpType::SEND, tensors, {message_step(kMessages, true, tensors[0], peer, tag)});
}

c10::intrusive_ptr<c10d::Work> ShmProcessGroup::recv(TensorList& tensors, int peer, int tag) {
  constexpr const char* kFunction = "hydrofoil_shm.recv";
  check_tensor(only(tensors, kFunction), kFunction);
  check_root(peer, kFunction);
  HYDROFOIL_CHECK_ARG(peer != rank_, kFunction, "the source is this rank itself, ", peer);
  return run(c10d::OpType::RECV, tensors, {message_step(kMessages, false, tensors[0], peer, tag)});
}

// The parts differ in size, which no rank knows of the others, so they go as messages.
c10::intrusive_ptr<c10d::Work> ShmProcessGroup::exchange(c10d::OpType type, const TensorList& results,
                                                         const TensorList& outputs, const TensorList& inputs,
                                                         std::function<void()> after) {
  const auto own = static_cast<size_t>(rank_);
  check_numel(outputs[own], inputs[own].numel(), "hydrofoil_shm.alltoall");
  place(elements_of(inputs[own]), outputs[own]);
  std::vector<Step> steps;
  // `after` follows the step that ends last, which may be any.
  const auto missing = std::make_shared<std::atomic<int>>(2 * (size_ - 1));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    for (const bool sends : {true, false}) {
      const Tensor& tensor = (sends ? inputs : outputs)[static_cast<size_t>(peer)];
      Step step = message_step(kAllToAll, sends, tensor, peer, 0);
      step.after = [first = std::move(step.after), missing, after] {
        first();
        if (missing->fetch_sub(1) == 1 && after) after();
      };
      steps.push_back(std::move(step));
    }
  }
  if (steps.empty() && after) after();
  return run(type, results, std::move(steps));
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
  auto meeting = detail::meet_in_shared_memory(ballot, kNumLanes);
  if (!meeting.segments) {
    throw CommError(concat("[hydrofoil_shm] group ", group.name, " is not possible, because the ranks cannot share ",
                           "memory: ", meeting.reasons, "; init_process_group(\"gloo\") serves several hosts"));
  }
  return c10::make_intrusive<ShmProcessGroup>(std::move(meeting.segments), rank, size, group);
}

}  // namespace hydrofoil::comm
