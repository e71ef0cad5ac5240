#include "hydrofoil/comm/c10d/plain_reduce.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/c10d/shm_process_group.h"

namespace hydrofoil::comm::detail {
namespace {

at::Tensor reduced(const at::Tensor& slices, int size, PlainOp op) {
  at::Tensor output = at::empty({slices.numel() / size}, slices.options());
  reduce_plainly(slices, size, op, output);
  return output;
}

TEST(ReducePlainly, TakesSlicesInOrderAndInPieces) {
  const int64_t numel = 70'001;
  const at::Tensor slices = at::arange(3 * numel, at::kDouble);
  const auto slice = [&](int rank) { return slices.narrow(0, rank * numel, numel); };
  EXPECT_TRUE(at::equal(reduced(slices, 3, PlainOp::kSum), slice(0).add(slice(1)).add(slice(2))));
  EXPECT_TRUE(at::equal(reduced(slices, 3, PlainOp::kAvg), slice(1)));
  EXPECT_TRUE(at::equal(reduced(slices, 3, PlainOp::kMin), slice(0)));
  EXPECT_TRUE(at::equal(reduced(slices, 3, PlainOp::kMax), slice(2)));
  EXPECT_TRUE(at::equal(reduced(slices, 3, PlainOp::kProduct), slice(0).mul(slice(1)).mul(slice(2))));
  EXPECT_EQ(reduced(at::empty({0}), 3, PlainOp::kSum).numel(), 0);
}

TEST(ReducePlainly, RoundsSmallFloatsOnce) {
  // 256 + 1 is a tie that rounds down in bf16; in fp32 the two ones count.
  const at::Tensor slices = at::cat({at::full({1}, 256.0), at::full({2}, 1.0)}).to(at::kBFloat16);
  EXPECT_EQ(reduced(slices, 3, PlainOp::kSum).item<float>(), 258.0F);
}

TEST(ReducePlainly, MayWriteToASlice) {
  const at::Tensor slices = at::arange(6, at::kLong);
  reduce_plainly(slices, 2, PlainOp::kSum, slices.narrow(0, 3, 3));
  EXPECT_TRUE(at::equal(slices.narrow(0, 3, 3), at::arange(3, 9, 2, at::kLong)));
}

TEST(ReducePlainly, KnowsWhatHasAMeaning) {
  EXPECT_TRUE(reduces_plainly(PlainOp::kBitXor, at::kBool));
  EXPECT_TRUE(reduces_plainly(PlainOp::kSum, at::kComplexFloat));
  EXPECT_FALSE(reduces_plainly(PlainOp::kMax, at::kComplexFloat));
  EXPECT_FALSE(reduces_plainly(PlainOp::kAvg, at::kLong));
  EXPECT_FALSE(reduces_plainly(PlainOp::kBitAnd, at::kFloat));
  EXPECT_FALSE(reduces_plainly(PlainOp::kSum, at::ScalarType::UInt16));
}

TEST(ShmProcessGroup, RefusesRanksThatCannotBe) {
  EXPECT_THROW(make_shm_process_group({}, 2, 2, {}), InvalidArgument);
  EXPECT_THROW(make_shm_process_group({}, 0, 0, {}), InvalidArgument);
  EXPECT_THROW(make_shm_process_group({}, 0, 2, {}), InvalidArgument);  // no store
  EXPECT_EQ(make_shm_process_group({}, 0, 1, {})->getSize(), 1);
}

}  // namespace
}  // namespace hydrofoil::comm::detail
