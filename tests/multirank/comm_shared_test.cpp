// Collectives of inputs that lie in memory which the peers can read, against their definition.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/shared_slices.h"
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

// Of a broadcast only the root's memory matters; the other ranks' may lie anywhere.
TEST_P(SharedInputs, OfTheRootAreBroadcast) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    for (const int64_t numel : {3, 40'001, 300'007}) {
      for (int root = 0; root < size(); ++root) {
        for (const bool root_shares : {true, false}) {
          const at::Tensor values = rank_data(rank, numel, at::kFloat);
          const at::Tensor buffer = root_shares == (rank == root) ? shared_copy(group, values) : values;
          group.broadcast(buffer, root).wait();
          EXPECT_TRUE(at::equal(buffer, rank_data(root, numel, at::kFloat))) << numel << " from " << root;
          buffer.fill_(-1);  // is not seen by a slower peer: the next round would fail
        }
      }
    }
  });
}

// Slots of several sizes follow each other through the ring, which they pass several times.
TEST_P(SharedInputs, SlotsKeepApart) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    for (int round = 0; round < 200; ++round) {
      const int64_t part = 1 + (round * 7919) % 30'000;
      const at::Tensor own = at::full({part}, static_cast<float>(round * size() + rank));
      const at::Tensor all = at::empty({part * size()}, at::kFloat);
      group.all_gather(own, all).wait();
      for (int peer = 0; peer < size(); ++peer) {
        const at::Tensor expected = at::full({part}, static_cast<float>(round * size() + peer));
        ASSERT_TRUE(at::equal(all.narrow(0, peer * part, part), expected)) << "round " << round << " of " << peer;
      }
      if (round % 3 == 0) group.barrier();
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

// The sum of 16-bit inputs as it was taken, in fp32: through the slots, and read in place.
TEST_P(SharedInputs, WidenTheirSums) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    EXPECT_TRUE(group.widens_sums());
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      for (const int64_t part : {5, 40'003}) {
        at::Tensor sum = rank_data(0, part * size(), dtype).to(at::kFloat);
        for (int peer = 1; peer < size(); ++peer) sum = sum + rank_data(peer, part * size(), dtype).to(at::kFloat);
        const at::Tensor expected = (sum * (1.0F / static_cast<float>(size()))).narrow(0, rank * part, part);
        const at::Tensor output = at::empty({part}, at::kFloat);
        const at::Tensor input = rank_data(rank, part * size(), dtype);
        group.reduce_scatter(shared_copy(group, input), output, ReduceOp::kAvg).wait();
        EXPECT_TRUE(at::equal(output, expected)) << dtype << " of " << part << " in place";
        output.zero_();
        group.reduce_scatter(input, output, ReduceOp::kAvg).wait();
        EXPECT_TRUE(at::equal(output, expected)) << dtype << " of " << part << " through the slots";
      }
    }
    const at::Tensor whole = at::zeros({2 * size()}, at::kInt);
    EXPECT_THROW((void)group.reduce_scatter(whole, at::zeros({2}, at::kFloat), ReduceOp::kSum), InvalidArgument);
  });
}

// The slices of all ranks without a copy: see NOTE [Shared slices].
TEST_P(SharedInputs, SlicesAreOneBuffer) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  constexpr int64_t kNumel = 3 * 4096 / 4;
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    // What lies before it differs between the ranks, and so does its place.
    const auto before = group.shared_arena(SharedUse::kSlices)->allocate(1000 + 10'000 * rank);
    at::Tensor own = memory::make_flat_tensor(kNumel, at::kFloat, *group.shared_arena(SharedUse::kSlices), true);
    const auto slices = group.share_slices(own);
    ASSERT_NE(slices, nullptr);
    ASSERT_EQ(slices->num_bytes(), kNumel * 4 * size());
    const at::Tensor all = at::from_blob(slices->data(), {size(), kNumel}, at::kFloat);
    own.fill_(static_cast<float>(rank + 1));
    group.barrier();
    for (int peer = 0; peer < size(); ++peer) EXPECT_TRUE(all[peer].eq(peer + 1).all().item<bool>()) << "of " << peer;
    group.barrier();

    // A write is this rank's own, in its slice too, until it is dropped.
    all.mul_(10 + rank);
    group.barrier();
    EXPECT_TRUE(own.eq(rank + 1).all().item<bool>());
    for (int peer = 0; peer < size(); ++peer) {
      EXPECT_TRUE(all[peer].eq((peer + 1) * (10 + rank)).all().item<bool>()) << "of " << peer;
    }
    own.fill_(static_cast<float>(rank + 100));
    group.barrier();
    EXPECT_EQ(all[rank][0].item<float>(), (rank + 1) * (10 + rank)) << "the owner's value is hidden by the write";
    slices->discard_writes();
    for (int peer = 0; peer < size(); ++peer) EXPECT_TRUE(all[peer].eq(peer + 100).all().item<bool>()) << "of " << peer;
    // One page only.
    all[size() - 1][kNumel - 1].fill_(-1);
    EXPECT_EQ(all[size() - 1][kNumel - 1].item<float>(), -1);
    slices->discard_writes();
    EXPECT_EQ(all[size() - 1][kNumel - 1].item<float>(), size() + 99);
    group.barrier();
  });
}

TEST_P(SharedInputs, SlicesOutliveTheConnectionOfTheirOwner) {
  if (size() == 1) GTEST_SKIP() << "a world of one has no peers";
  auto groups = connect_threads("shm", size(), 1);
  std::vector<std::shared_ptr<SharedSlices>> slices(static_cast<size_t>(size()));
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    at::Tensor own = memory::make_flat_tensor(1024, at::kFloat, *group.shared_arena(SharedUse::kSlices), true);
    slices[static_cast<size_t>(rank)] = group.share_slices(own);
    own.fill_(static_cast<float>(rank + 1));
    group.barrier();
  });
  groups.clear();
  for (int rank = 1; rank < size(); ++rank) slices[static_cast<size_t>(rank)].reset();
  const at::Tensor all = at::from_blob(slices[0]->data(), {size(), 1024}, at::kFloat);
  for (int peer = 0; peer < size(); ++peer) EXPECT_TRUE(all[peer].eq(peer + 1).all().item<bool>()) << "of " << peer;
}

TEST_P(SharedInputs, SlicesElsewhereAreNotShared) {
  const auto groups = connect_threads("shm", size(), 1);
  run_ranks(size(), [&](int rank) {
    const Group& group = groups[static_cast<size_t>(rank)][0];
    at::Tensor own = memory::make_flat_tensor(1024, at::kFloat, c10::Device(c10::kCPU));
    if (rank > 0) own = memory::make_flat_tensor(1024, at::kFloat, *group.shared_arena(SharedUse::kSlices), true);
    EXPECT_EQ(group.share_slices(own), nullptr) << "rank 0 has its slice in memory of its own";
    EXPECT_THROW((void)group.share_slices(own.narrow(0, 0, 3)), InvalidArgument);
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, SharedInputs, ::testing::Values(1, 2, 3), ::testing::PrintToStringParamName());

}  // namespace
}  // namespace hydrofoil::comm
