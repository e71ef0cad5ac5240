#include "hydrofoil/comm/c10d/shm_steps.h"

#include <algorithm>
#include <optional>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/c10d/flat_tensor.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm::detail {
namespace {

using at::Tensor;

constexpr int64_t kPieceNumel = 32768;  // bounds the scratch buffer of an all-reduce that Group has not

// The operation where Group has it for this dtype.
std::optional<ReduceOp> native_op(PlainOp op, at::ScalarType dtype) {
  if (!is_supported(dtype)) return std::nullopt;
  if (op == PlainOp::kSum) return ReduceOp::kSum;
  if (op == PlainOp::kMax) return ReduceOp::kMax;
  if (op == PlainOp::kAvg && is_floating(dtype)) return ReduceOp::kAvg;
  return std::nullopt;
}

}  // namespace

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

void check_reduction(PlainOp op, at::ScalarType dtype, const char* function) {
  HYDROFOIL_CHECK_ARG(reduces_plainly(op, dtype), function, "got ", plain_op_name(op), " of dtype ",
                      c10::toString(dtype),
                      ", which has no meaning or no arithmetic here: convert the tensor (avg needs a floating dtype, "
                      "band, bor and bxor an integer one), or use gloo");
}

void add_reduction(std::vector<ShmStep>& steps, const Tensor& flat, PlainOp op, int size, std::function<void()> after) {
  if (const auto native = native_op(op, flat.scalar_type())) {
    steps.push_back(
        {[flat, native](const Group& group, OpInfo info) { return group.all_reduce(flat, *native, std::move(info)); },
         std::move(after)});
    return;
  }
  // Steps run one after the other, so one buffer serves all pieces.
  const Tensor scratch = scratch_of(flat, std::min(kPieceNumel, flat.numel()) * size);
  int64_t begin = 0;
  do {
    const Tensor piece = flat.narrow(0, begin, std::min(kPieceNumel, flat.numel() - begin));
    const Tensor all = scratch.narrow(0, 0, piece.numel() * size);
    begin += piece.numel();
    std::function<void()> last = begin >= flat.numel() ? std::move(after) : nullptr;
    steps.push_back({[piece, all](const Group& group, OpInfo info) {
                       info.unit = "a reduction";
                       return group.all_gather(as_bytes(piece), as_bytes(all), std::move(info));
                     },
                     [piece, all, op, size, last = std::move(last)] {
                       reduce_plainly(all, size, op, piece);
                       if (last) last();
                     }});
  } while (begin < flat.numel());
}

ShmStep broadcast_step(const Tensor& flat, int root, std::function<void()> after) {
  return {
      [flat, root](const Group& group, OpInfo info) { return group.broadcast(as_bytes(flat), root, std::move(info)); },
      std::move(after)};
}

ShmStep gather_step(const Tensor& output, const Tensor& input, int size, const char* function) {
  check_tensor(output, function);
  check_tensor(input, function);
  check_same_dtype(output, input, function);
  check_numel(output, input.numel() * size, function);
  const Tensor in = elements_of(input);
  const Tensor out = flat_output(output);
  return {[in, out](const Group& group, OpInfo info) {
            return group.all_gather(as_bytes(in), as_bytes(out), std::move(info));
          },
          [out, output] { place(out, output); }};
}

ShmStep gather_list_step(const TensorList& outputs, const Tensor& input, int size, const char* function) {
  check_tensor(input, function);
  HYDROFOIL_CHECK_ARG(outputs.empty() || outputs.size() == static_cast<size_t>(size), function, "got ", outputs.size(),
                      " output tensors, expected ", size);
  for (const auto& output : outputs) {
    check_tensor(output, function);
    check_same_dtype(output, input, function);
    check_numel(output, input.numel(), function);
  }
  const Tensor in = elements_of(input);
  const Tensor all = scratch_of(in, in.numel() * size);
  return {[in, all](const Group& group, OpInfo info) {
            return group.all_gather(as_bytes(in), as_bytes(all), std::move(info));
          },
          [all, outputs] {
            for (size_t i = 0; i < outputs.size(); ++i) {
              const int64_t numel = outputs[i].numel();
              place(all.narrow(0, static_cast<int64_t>(i) * numel, numel), outputs[i]);
            }
          }};
}

ShmStep reduce_scatter_step(const Tensor& output, const Tensor& input, const c10d::ReduceOp& op, int size,
                            const char* function) {
  check_tensor(output, function);
  check_tensor(input, function);
  check_same_dtype(output, input, function);
  check_numel(input, output.numel() * size, function);
  const PlainOp plain = plain_op(op, function);
  check_reduction(plain, input.scalar_type(), function);
  const Tensor in = elements_of(input);
  const Tensor out = flat_output(output);
  if (const auto native = native_op(plain, in.scalar_type())) {
    // Exchange and SelfBackend leave the input as it is, which c10d promises.
    return {[in, out, native](const Group& group, OpInfo info) {
              return group.reduce_scatter(in, out, *native, std::move(info));
            },
            [out, output] { place(out, output); }};
  }
  const Tensor slices = scratch_of(in, in.numel());
  return {[in, slices](const Group& group, OpInfo info) {
            info.unit = "a reduction";
            return group.all_to_all(as_bytes(in), as_bytes(slices), std::move(info));
          },
          [slices, plain, size, out, output] {
            reduce_plainly(slices, size, plain, out);
            place(out, output);
          }};
}

ShmStep message_step(ShmLane lane, bool sends, const Tensor& tensor, int peer, int tag) {
  const Tensor flat = sends ? elements_of(tensor) : flat_output(tensor);
  return {[sends, flat, peer, tag](const Group& group, OpInfo info) {
            if (tag != 0) info.unit = concat("tag ", tag);
            info.signature = static_cast<uint64_t>(static_cast<int64_t>(tag)) + 1;
            return sends ? group.send(as_bytes(flat), peer, std::move(info))
                         : group.recv(as_bytes(flat), peer, std::move(info));
          },
          [sends, flat, tensor] {
            if (!sends) place(flat, tensor);
          },
          lane, peer, sends};
}

}  // namespace hydrofoil::comm::detail
