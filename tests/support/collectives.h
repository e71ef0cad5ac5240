#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "tests/support/run_ranks.h"

// Checks of every collective against a plain computation; one body for all backends.
namespace hydrofoil::testing {

using comm::Group;
using comm::ReduceOp;

inline const std::vector<at::ScalarType>& comm_dtypes() {
  static const std::vector<at::ScalarType> dtypes = {at::kFloat, at::kBFloat16, at::kHalf,
                                                     at::kChar,  at::kInt,      at::kLong};
  return dtypes;
}

// Data of a rank: a function of (rank, index, seed) alone, so that every rank knows what the others have.
inline at::Tensor rank_data(int rank, int64_t numel, at::ScalarType dtype, int seed = 0) {
  at::Tensor values = at::empty({numel}, at::kFloat);
  float* data = values.data_ptr<float>();
  for (int64_t i = 0; i < numel; ++i) {
    const uint32_t hash =
        (static_cast<uint32_t>(i) * 2654435761U + static_cast<uint32_t>(rank * 40503 + seed * 977)) * 2246822519U;
    data[i] = static_cast<float>(static_cast<int32_t>(hash >> 9) % 4001 - 2000) / 37.0F;
  }
  return values.to(dtype);
}

// The definition: fp32 sums in rank order, one rounding.
inline at::Tensor reduced(int size, int64_t numel, at::ScalarType dtype, ReduceOp op, int seed = 0) {
  const bool floating = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  const at::ScalarType wide = floating ? at::kFloat : dtype;
  at::Tensor result = rank_data(0, numel, dtype, seed).to(wide);
  for (int rank = 1; rank < size; ++rank) {
    const at::Tensor next = rank_data(rank, numel, dtype, seed).to(wide);
    result = op == ReduceOp::kMax ? at::maximum(result, next) : result.add(next);
  }
  if (op == ReduceOp::kAvg) result = result.mul(1.0F / static_cast<float>(size));
  return result.to(dtype);
}

inline std::vector<ReduceOp> reduce_ops(at::ScalarType dtype) {
  const bool floating = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  if (!floating) return {ReduceOp::kSum, ReduceOp::kMax};
  return {ReduceOp::kSum, ReduceOp::kAvg, ReduceOp::kMax};
}

inline void check_reductions(const Group& group, int64_t numel, at::ScalarType dtype) {
  const int size = group.size();
  for (const ReduceOp op : reduce_ops(dtype)) {
    at::Tensor buffer = rank_data(group.rank(), numel, dtype);
    group.all_reduce(buffer, op).wait();
    EXPECT_TRUE(at::equal(buffer, reduced(size, numel, dtype, op))) << "all_reduce " << numel << " " << dtype;

    const at::Tensor expected = reduced(size, numel * size, dtype, op).narrow(0, group.rank() * numel, numel);
    at::Tensor input = rank_data(group.rank(), numel * size, dtype);
    at::Tensor output = at::zeros({numel}, dtype);
    group.reduce_scatter(input, output, op).wait();
    EXPECT_TRUE(at::equal(output, expected)) << "reduce_scatter " << numel << " " << dtype;
    at::Tensor alias = input.narrow(0, group.rank() * numel, numel);
    group.reduce_scatter(input, alias, op).wait();
    EXPECT_TRUE(at::equal(alias, expected)) << "reduce_scatter in place " << numel << " " << dtype;
  }
}

inline void check_moves(const Group& group, int64_t numel, at::ScalarType dtype) {
  const int size = group.size();
  const int rank = group.rank();
  std::vector<at::Tensor> all;
  for (int r = 0; r < size; ++r) all.push_back(rank_data(r, numel, dtype));
  at::Tensor gathered = at::zeros({numel * size}, dtype);
  group.all_gather(all[static_cast<size_t>(rank)], gathered).wait();
  EXPECT_TRUE(at::equal(gathered, at::cat(all))) << "all_gather " << numel << " " << dtype;

  at::Tensor in_place = at::zeros({numel * size}, dtype);
  in_place.narrow(0, rank * numel, numel).copy_(all[static_cast<size_t>(rank)]);
  group.all_gather(in_place.narrow(0, rank * numel, numel), in_place).wait();
  EXPECT_TRUE(at::equal(in_place, at::cat(all))) << "all_gather in place " << numel << " " << dtype;

  for (int root = 0; root < size; ++root) {
    at::Tensor buffer = rank_data(rank, numel, dtype);
    group.broadcast(buffer, root).wait();
    EXPECT_TRUE(at::equal(buffer, rank_data(root, numel, dtype))) << "broadcast " << numel << " " << dtype;
  }

  at::Tensor input = rank_data(rank, numel * size, dtype);
  at::Tensor output = at::zeros({numel * size}, dtype);
  group.all_to_all(input, output).wait();
  for (int r = 0; r < size; ++r) {
    EXPECT_TRUE(
        at::equal(output.narrow(0, r * numel, numel), rank_data(r, numel * size, dtype).narrow(0, rank * numel, numel)))
        << "all_to_all " << numel << " " << dtype;
  }
  if (size == 1) return;
  // Around the ring; even ranks send first, so that no backend needs to buffer.
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  at::Tensor received = at::zeros({numel}, dtype);
  if (rank % 2 == 0) {
    group.send(all[static_cast<size_t>(rank)], next).wait();
    group.recv(received, previous).wait();
  } else {
    group.recv(received, previous).wait();
    group.send(all[static_cast<size_t>(rank)], next).wait();
  }
  EXPECT_TRUE(at::equal(received, all[static_cast<size_t>(previous)])) << "send, recv " << numel << " " << dtype;
}

}  // namespace hydrofoil::testing
