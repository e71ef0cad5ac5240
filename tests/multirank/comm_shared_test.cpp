// Collectives of inputs that lie in memory which the peers can read, against their definition.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/memory/arena.h"
#include "tests/support/collectives.h"
#include "tests/support/comm_backends.h"

namespace hydrofoil::comm {
namespace {

using testing::connect_threads;
using testing::rank_data;
using testing::reduced;
using testing::run_ranks;

at::Tensor shared_copy(const Group& group, const at::Tensor& values) {
  at::Tensor tensor =
      memory::make_flat_tensor(values.numel(), values.scalar_type(), *group.shared_arena(SharedUse::kTransient));
  return tensor.copy_(values);
}

class SharedInputs : public ::testing::TestWithParam<int> {
 protected:
  int size() const { return GetParam(); }
};

TEST_P(SharedInputs, EqualTheDefinition) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    for (const at::ScalarType dtype : testing::comm_dtypes()) {
      for (const int64_t part : {3, 40'001, 300'007}) {  // through the slots, and read in place
        const int64_t numel = part * size();
        for (const ReduceOp op : testing::reduce_ops(dtype)) {
          const at::Tensor expected = reduced(size(), numel, dtype, op);
          at::Tensor all = shared_copy(group, rank_data(rank, numel, dtype));
          group.all_reduce(all, op).wait();
          EXPECT_TRUE(at::equal(all, expected)) << "all_reduce " << dtype << " of " << numel;
          const at::Tensor own = expected.narrow(0, rank * part, part);
          const at::Tensor input = shared_copy(group, rank_data(rank, numel, dtype));
          const at::Tensor output = at::empty({part}, input.options());
          group.reduce_scatter(input, output, op).wait();
          EXPECT_TRUE(at::equal(output, own)) << "reduce_scatter " << dtype << " of " << numel;
          const at::Tensor in_place = input.narrow(0, rank * part, part);
          group.reduce_scatter(input, in_place, op).wait();
          EXPECT_TRUE(at::equal(in_place, own)) << "reduce_scatter in place " << dtype << " of " << numel;
        }
        std::vector<at::Tensor> parts;
        for (int peer = 0; peer < size(); ++peer) parts.push_back(rank_data(peer, part, dtype));
        const at::Tensor expected = at::cat(parts);
        const at::Tensor gathered = at::empty({numel}, expected.options());
        group.all_gather(shared_copy(group, parts[static_cast<size_t>(rank)]), gathered).wait();
        EXPECT_TRUE(at::equal(gathered, expected)) << "all_gather " << dtype << " of " << numel;
        const at::Tensor whole = shared_copy(group, at::zeros({numel}, expected.options()));
        const at::Tensor own = whole.narrow(0, rank * part, part);
        own.copy_(parts[static_cast<size_t>(rank)]);
        group.all_gather(own, whole).wait();
        EXPECT_TRUE(at::equal(whole, expected)) << "all_gather in place " << dtype << " of " << numel;
      }
    }
  });
}

// What a rank does to its input right after a collective is not seen by a peer that is slower.
TEST_P(SharedInputs, MayBeOverwrittenAfterTheCall) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    constexpr int64_t kNumel = 100'000;
    at::Tensor input = shared_copy(group, at::full({kNumel}, 0.0F));
    at::Tensor output = at::empty({kNumel * size()}, at::kFloat);
    for (int round = 0; round < 50; ++round) {
      input.fill_(static_cast<float>(1000 * round + rank));
      group.all_gather(input, output).wait();
      input.fill_(-1.0F);
      for (int peer = 0; peer < size(); ++peer) {
        const at::Tensor part = output.narrow(0, peer * kNumel, kNumel);
        ASSERT_TRUE(at::equal(part, at::full({kNumel}, static_cast<float>(1000 * round + peer)))) << round;
      }
    }
  });
}

TEST_P(SharedInputs, OfSomeRanksOnlyAreAnError) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    const at::Tensor values = rank_data(rank, 50'000, at::kFloat);
    Work work = group.all_reduce(rank == 0 ? shared_copy(group, values) : values, ReduceOp::kSum);
    EXPECT_THROW(work.wait(), CommError);
  });
}

TEST_P(SharedInputs, GoBackToTheSystem) {
  const auto groups = connect_threads("shm", size(), 2);
  run_ranks(size(), [&](int rank) {
    const auto& channels = groups[static_cast<size_t>(rank)];
    auto arena = channels[0].shared_arena(SharedUse::kPermanent);
    if (size() == 1) {
      EXPECT_EQ(arena, nullptr);
      return;
    }
    EXPECT_EQ(arena, channels[1].shared_arena(SharedUse::kPermanent)) << "one for all channels";
    EXPECT_NE(arena, channels[0].shared_arena(SharedUse::kTransient));
    at::Tensor tensor = memory::make_flat_tensor(1 << 20, at::kFloat, *arena);
    EXPECT_EQ(arena->in_use_bytes(), 4 << 20);
    tensor.fill_(1.0F);
    tensor.reset();
    arena->trim();
    EXPECT_EQ(arena->in_use_bytes(), 0);
    tensor = memory::make_flat_tensor(1 << 20, at::kFloat, *arena);
    EXPECT_EQ(tensor.sum().item<float>(), 0.0F);
    arena.reset();
    EXPECT_EQ(tensor.sum().item<float>(), 0.0F) << "its memory lives on";
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, SharedInputs, ::testing::Values(1, 2, 3), ::testing::PrintToStringParamName());

}  // namespace
}  // namespace hydrofoil::comm
