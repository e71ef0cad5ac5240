#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/allocation.h"
#include "hydrofoil/memory/arena.h"
#include "hydrofoil/memory/flat_buffer.h"
#include "hydrofoil/memory/process_memory.h"

namespace hydrofoil::memory {
namespace {

const c10::Device kCpu(c10::kCPU);

TEST(Arena, PlacesFirstFitAndMergesFreeNeighbours) {
  auto arena = Arena::create(kCpu, 1 << 20);
  auto a = arena->allocate(1000);
  auto b = arena->allocate(64);
  const char* first = static_cast<const char*>(a.get());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % kHostAlignmentBytes, 0U);
  EXPECT_EQ(static_cast<const char*>(b.get()) - first, 1024);
  a.clear();
  EXPECT_EQ(arena->in_use_bytes(), 64);
  b.clear();
  EXPECT_EQ(arena->allocate(1 << 20).get(), first);  // all of it is one range again
  EXPECT_EQ(arena->peak_bytes(), 1 << 20);
}

TEST(Arena, GrowsByRegionsAndOutlivesItsHandle) {
  auto arena = Arena::create(kCpu, 4096);
  auto small = arena->allocate(4096);
  auto large = arena->allocate(1 << 20);
  arena.reset();
  static_cast<char*>(large.get())[(1 << 20) - 1] = 1;
  static_cast<char*>(small.get())[0] = 1;
}

TEST(Arena, TrimGivesFreePagesBack) {
  auto arena = Arena::create(kCpu, 64 << 20);
  auto slot = arena->allocate(64 << 20);
  std::memset(slot.get(), 1, 64 << 20);
  const int64_t full = process_memory().rss_bytes;
  slot.clear();
  arena->trim();
  EXPECT_LT(process_memory().rss_bytes, full - (60 << 20));
}

TEST(Arena, PoisonsWhatReturnsWhenAsked) {
  auto arena = Arena::create(kCpu, 1 << 20);
  const auto first_value = [&] {
    auto slot = arena->allocate(64);
    return std::exchange(*static_cast<float*>(slot.get()), 3.0F);
  };
  (void)first_value();
  EXPECT_EQ(first_value(), 3.0F);
  arena->poison_released();
  (void)first_value();
  EXPECT_TRUE(std::isnan(first_value()));
  const auto bfloat = *static_cast<const uint16_t*>(arena->allocate(64).get());
  EXPECT_EQ(bfloat & 0x7f80, 0x7f80);  // NaN in 16 bits too
}

TEST(Arena, RejectsNegativeSizes) {
  EXPECT_THROW((void)Arena::create(kCpu, -1), InvalidArgument);
  EXPECT_THROW((void)Arena::create(kCpu, 1)->allocate(-1), InvalidArgument);
}

TEST(FlatBuffer, ViewsComeBackAfterEachAttach) {
  auto arena = Arena::create(kCpu, 1 << 20);
  FlatBuffer buffer(32, at::kFloat, kCpu, "w is released");
  at::Tensor view = buffer.view(16, {2, 3}, {3, 1});
  EXPECT_EQ(view.numel(), 6);
  try {
    (void)view.data_ptr();
    FAIL() << "no exception";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("w is released"), std::string::npos);
  }
  buffer.attach(arena->allocate(buffer.num_bytes()));
  buffer.raw_slice(0, 32).fill_(2);
  EXPECT_EQ(view.sum().item<float>(), 12);
  buffer.detach("again");
  buffer.detach("idempotent");
  EXPECT_EQ(arena->in_use_bytes(), 0);
  buffer.attach(arena->allocate(buffer.num_bytes()));
  buffer.raw_slice(16, 6).fill_(1);
  EXPECT_EQ(view.sum().item<float>(), 6);
}

TEST(FlatBuffer, GuardSaysTheLastMessage) {
  FlatBuffer buffer(4, at::kFloat, kCpu, "first");
  const at::Tensor view = buffer.view(0, {4}, {1});
  const auto message = [&] {
    try {
      (void)view.data_ptr();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message().find("first"), std::string::npos);
  buffer.guard("second");
  EXPECT_NE(message().find("second"), std::string::npos);
  buffer.attach(allocate_zeroed(kCpu, buffer.num_bytes()));
  EXPECT_EQ(message(), "");
  buffer.guard("third");
  EXPECT_FALSE(buffer.attached());
  EXPECT_NE(message().find("third"), std::string::npos);
}

TEST(FlatBuffer, ViewsOutliveTheBuffer) {
  at::Tensor view;
  {
    FlatBuffer buffer(8, at::kFloat, kCpu, "released");
    buffer.attach(allocate_zeroed(kCpu, buffer.num_bytes()));
    view = buffer.view(0, {8}, {1});
  }
  EXPECT_EQ(view.sum().item<float>(), 0);
}

TEST(Allocation, IsZeroedAndAligned) {
  for (const int64_t numel : {0, 1, 17, 1 << 20}) {
    const at::Tensor flat = make_flat_tensor(numel, at::kFloat, kCpu);
    EXPECT_EQ(flat.numel(), numel);
    EXPECT_EQ(flat.sum().item<float>(), 0);
    if (numel > 0) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(flat.data_ptr()) % kHostAlignmentBytes, 0U);
    }
  }
}

TEST(Allocation, RejectsSizesThatOverflow) {
  EXPECT_THROW((void)round_up(INT64_MAX, 64), InvalidArgument);
  EXPECT_THROW((void)round_up(-1, 64), InvalidArgument);
  EXPECT_THROW((void)checked_multiply(int64_t{1} << 62, 4, "test"), InvalidArgument);
  EXPECT_THROW((void)make_flat_tensor(int64_t{1} << 62, at::kFloat, kCpu), InvalidArgument);
  EXPECT_THROW((void)allocate_zeroed(kCpu, -1), InvalidArgument);
}

TEST(ProcessMemory, TrimGivesFreedHeapBack) {
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  constexpr size_t kBytes = 64 << 10;  // below the size that malloc maps by itself
  std::vector<std::unique_ptr<char[]>> blocks;
  for (int i = 0; i < 1024; ++i) {
    blocks.emplace_back(new char[kBytes]);
    std::fill_n(blocks.back().get(), kBytes, '\1');
  }
  const auto last = std::make_unique<char[]>(kBytes);  // keeps the top of the heap
  blocks.clear();
  const int64_t before = process_memory().pss_bytes;
  trim_heap();
  EXPECT_LT(process_memory().pss_bytes, before - (32 << 20));
#else
  GTEST_SKIP() << "trim_heap does nothing without the allocator of glibc";
#endif
}

TEST(ProcessMemory, CountsThisProcess) {
  const ProcessMemory memory = process_memory();
  EXPECT_GT(memory.pss_bytes, 0);
  EXPECT_GE(memory.rss_bytes, memory.pss_bytes);
  EXPECT_GE(memory.peak_rss_bytes, memory.rss_bytes);
}

}  // namespace
}  // namespace hydrofoil::memory
