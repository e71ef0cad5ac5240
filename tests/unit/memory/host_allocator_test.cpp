#include "hydrofoil/memory/host_allocator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/free_ranges.h"

namespace hydrofoil::memory {
namespace {

TEST(FreeRanges, TakesFirstFitAtTheAlignmentAndMergesNeighbours) {
  FreeRanges ranges(1000);
  EXPECT_EQ(ranges.take(10, 64), 0);
  EXPECT_EQ(ranges.take(10, 64), 64);
  EXPECT_EQ(ranges.take(54, 1), 10) << "what the alignment left over";
  EXPECT_EQ(ranges.take(927, 1), std::nullopt);
  EXPECT_EQ(ranges.take(926, 1), 74);
  EXPECT_TRUE(ranges.free().empty());
  ranges.give_back(64, 10);
  ranges.give_back(0, 10);
  EXPECT_EQ(ranges.free().size(), 2U);
  ranges.give_back(10, 54);
  EXPECT_EQ(ranges.free(), (std::map<int64_t, int64_t>{{0, 74}}));
  EXPECT_THROW(ranges.give_back(0, 10), Error);
}

TEST(FreeRanges, TakesTheLastPlaceBelowALimit) {
  FreeRanges ranges(1000);
  EXPECT_EQ(ranges.take_last(100, 64, 500), 384);
  EXPECT_EQ(ranges.take_last(100, 1, 500), 284) << "what is left above the first is too small";
  EXPECT_EQ(ranges.take(600, 1), std::nullopt);
  EXPECT_EQ(ranges.take_last(10, 1, 500), 490);
  EXPECT_EQ(ranges.take_last(300, 1, 284), std::nullopt);
  EXPECT_EQ(ranges.take_last(284, 1, 284), 0);
}

class HostAllocator : public ::testing::Test {
 protected:
  void SetUp() override {
    install_host_allocator();
    const at::Tensor probe = at::empty({1 << 20}, at::kFloat);
    if (host_allocator_use().in_use_bytes == 0) GTEST_SKIP() << "not installed here (a sanitizer, ulimit -v)";
  }
  static at::Tensor large() { return at::empty({1 << 20}, at::kFloat); }
};

TEST_F(HostAllocator, ReusesThePlaceOfWhatWasFreed) {
  at::Tensor first = large();
  const at::Tensor second = at::ones({1 << 20}, at::kFloat);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data_ptr()) % 64, 0U);
  EXPECT_EQ(host_allocator_use().in_use_bytes, 8 << 20);
  const void* place = first.data_ptr();
  first.reset();
  EXPECT_EQ(host_allocator_use().in_use_bytes, 4 << 20);
  first = large();
  EXPECT_EQ(first.data_ptr(), place);
  EXPECT_EQ(second.sum().item<float>(), 1 << 20);
  EXPECT_EQ(host_allocator_use().resident_bytes, 8 << 20);
}

TEST_F(HostAllocator, PlacesSuccessorsAtTheTopOfWhatIsResident) {
  std::vector<at::Tensor> activations;
  for (int i = 0; i < 8; ++i) activations.push_back(large());
  const auto resident = host_allocator_use().resident_bytes;
  std::vector<at::Tensor> gradients;
  while (!activations.empty()) {
    activations.pop_back();
    gradients.push_back(make_successor_tensor(1 << 19, at::kFloat, c10::Device(c10::kCPU)));
  }
  EXPECT_EQ(host_allocator_use().resident_bytes, resident);
  activations.push_back(at::ones({4 << 20}, at::kFloat));  // half of the place: the gradients left it in one piece
  EXPECT_EQ(host_allocator_use().resident_bytes, resident);
}

TEST_F(HostAllocator, LeavesSmallTensorsToTorch) {
  const at::Tensor small = at::empty({1000}, at::kFloat);
  EXPECT_EQ(host_allocator_use().in_use_bytes, 0);
}

TEST_F(HostAllocator, ServesTheRawInterfaceAndResizing) {
  c10::Allocator& allocator = *c10::GetCPUAllocator();
  for (const size_t bytes : {size_t{100}, size_t{1} << 20}) allocator.raw_deallocate(allocator.raw_allocate(bytes));
  at::Tensor tensor = at::ones({1 << 18}, at::kFloat);
  tensor.resize_({1 << 21});
  EXPECT_EQ(tensor.narrow(0, 0, 1 << 18).sum().item<float>(), 1 << 18);
  tensor.reset();
  EXPECT_EQ(host_allocator_use().in_use_bytes, 0);
}

TEST_F(HostAllocator, IsSafeFromThreadsAndInAForkedChild) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) EXPECT_EQ(at::ones({1 << 17}, at::kFloat)[i].item<float>(), 1.0F);
    });
  }
  const at::Tensor kept = at::ones({1 << 20}, at::kFloat);
  for (int i = 0; i < 5; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      // No operators: their threads are not in the child.
      at::Tensor own = large();
      own.data_ptr<float>()[7] = 2.0F;
      kept.data_ptr<float>()[7] = 3.0F;
      own.reset();
      ::_exit(host_allocator_use().in_use_bytes < (32 << 20) ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(kept.sum().item<float>(), 1 << 20);
}

TEST_F(HostAllocator, TrimGivesBackWhatNoTensorHolds) {
  at::Tensor low = at::ones({4 << 20}, at::kFloat);
  const at::Tensor kept = at::ones({1 << 20}, at::kFloat);
  at::Tensor high = at::ones({4 << 20}, at::kFloat);
  const auto before = host_allocator_use();
  low.reset();
  high.reset();
  trim_host_allocator();
  const auto after = host_allocator_use();
  EXPECT_LE(after.resident_bytes, before.resident_bytes - (14 << 20));
  EXPECT_GE(after.resident_bytes, after.in_use_bytes);
  EXPECT_EQ(kept.sum().item<float>(), 1 << 20);
  const at::Tensor again = at::empty({4 << 20}, at::kFloat);
  EXPECT_LT(again.slice(0, 1 << 20, 3 << 20).sum().item<float>(), 1.0F) << "the pages are new";
}

}  // namespace
}  // namespace hydrofoil::memory
