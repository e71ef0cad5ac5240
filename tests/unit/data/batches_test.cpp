#include "hydrofoil/data/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/token_files.h"

namespace hydrofoil::data {
namespace {

constexpr int64_t kContext = 7;
constexpr int64_t kGlobalBatch = 12;
constexpr int64_t kNumTokens = 1000;  // 142 windows and five tokens that are never taken

class BatchesOfARun : public testing::Test {
 protected:
  BatchesOfARun() : stream_(open(kNumTokens)) {}

  TokenStream open(int64_t num_tokens) const {
    std::vector<uint16_t> tokens(static_cast<size_t>(num_tokens));
    std::iota(tokens.begin(), tokens.end(), 0);
    const std::string path = directory_.path() + "/" + std::to_string(num_tokens) + ".npy";
    write_bytes(path, npy_of("<u2", tokens));
    return TokenStream::open({path});
  }

  Batches make(int64_t world_size, int64_t rank, int64_t accumulation = 1, int64_t seed = 3) const {
    return Batches(stream_, {.context = kContext,
                             .global_batch = kGlobalBatch,
                             .seed = seed,
                             .rank = rank,
                             .world_size = world_size,
                             .accumulation = accumulation});
  }

  // The windows of a step in the order of micro steps and ranks.
  std::vector<int64_t> global_batch(int64_t step, int64_t world_size, int64_t accumulation) const {
    std::vector<int64_t> all;
    for (int64_t micro_step = 0; micro_step < accumulation; ++micro_step) {
      for (int64_t rank = 0; rank < world_size; ++rank) {
        const auto part = make(world_size, rank, accumulation).window_indices(step, micro_step);
        EXPECT_EQ(static_cast<int64_t>(part.size()), kGlobalBatch / world_size / accumulation);
        all.insert(all.end(), part.begin(), part.end());
      }
    }
    return all;
  }

  storage::TemporaryDirectory directory_;
  TokenStream stream_;
};

TEST_F(BatchesOfARun, AreEqualForEveryWorldSizeAndAccumulation) {
  for (const int64_t step : {0, 1, 11, 500}) {
    const std::vector<int64_t> expected = make(1, 0).window_indices(step);
    for (const int64_t world_size : {1, 2, 3, 4}) {
      for (const int64_t accumulation : {int64_t{1}, kGlobalBatch / world_size}) {
        EXPECT_EQ(global_batch(step, world_size, accumulation), expected) << step << " " << world_size;
      }
    }
  }
}

TEST_F(BatchesOfARun, AreDisjointAcrossRanksAndTakeEveryWindowOnceAnEpoch) {
  const int64_t num_windows = make(1, 0).num_windows();
  ASSERT_EQ(num_windows, 142);
  for (const int64_t world_size : {1, 2, 3, 4}) {
    std::vector<int64_t> taken;
    for (int64_t step = 0; static_cast<int64_t>(taken.size()) < 2 * num_windows; ++step) {
      const auto batch = global_batch(step, world_size, 1);
      taken.insert(taken.end(), batch.begin(), batch.end());
    }
    // A step may span two epochs.
    const std::vector<int64_t> first(taken.begin(), taken.begin() + num_windows);
    const std::vector<int64_t> second(taken.begin() + num_windows, taken.begin() + 2 * num_windows);
    EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 142u);
    EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 142u);
    EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
    EXPECT_NE(first, second);
  }
}

TEST_F(BatchesOfARun, GoOnAtAnyStepWithoutAHistory) {
  const Batches whole = make(2, 1, 2);
  for (int64_t step = 0; step < 30; ++step) {
    for (int64_t micro_step = 0; micro_step < 2; ++micro_step) {
      EXPECT_EQ(make(2, 1, 2).window_indices(step, micro_step), whole.window_indices(step, micro_step));
    }
  }
}

TEST_F(BatchesOfARun, DependOnTheSeed) {
  EXPECT_EQ(make(1, 0, 1, 3).window_indices(0), make(1, 0, 1, 3).window_indices(0));
  EXPECT_NE(make(1, 0, 1, 3).window_indices(0), make(1, 0, 1, 4).window_indices(0));
}

TEST_F(BatchesOfARun, HoldWindowsAndTheTokensThatFollow) {
  const Batches batches = make(3, 1);
  const Batch batch = batches.micro_batch(5);
  const auto indices = batches.window_indices(5);
  ASSERT_EQ(batch.inputs.sizes(), (at::IntArrayRef{4, kContext}));
  ASSERT_EQ(batch.targets.sizes(), batch.inputs.sizes());
  EXPECT_EQ(batch.inputs.scalar_type(), at::kLong);
  EXPECT_TRUE(batch.inputs.is_contiguous() && batch.targets.is_contiguous());
  for (int64_t row = 0; row < 4; ++row) {
    for (int64_t i = 0; i < kContext; ++i) {
      const int64_t expected = indices[static_cast<size_t>(row)] * kContext + i;
      EXPECT_EQ(batch.inputs[row][i].item<int64_t>(), expected);
      EXPECT_EQ(batch.targets[row][i].item<int64_t>(), expected + 1);
    }
  }
}

TEST_F(BatchesOfARun, TakeMoreWindowsThanTheStreamHas) {
  const Batches batches(open(2 * kContext + 1), {.context = kContext, .global_batch = 6, .seed = 1});
  const auto indices = batches.window_indices(0);
  EXPECT_EQ(std::count(indices.begin(), indices.end(), 0), 3);
  EXPECT_EQ(std::count(indices.begin(), indices.end(), 1), 3);
}

TEST_F(BatchesOfARun, RefuseWrongOptions) {
  const BatchesOptions good{.context = kContext, .global_batch = kGlobalBatch};
  const auto defect = [&](auto&& change) {
    BatchesOptions options = good;
    change(options);
    return error_of<InvalidArgument>([&] { (void)Batches(stream_, options); });
  };
  EXPECT_EQ(defect([](auto&) {}), "no error");
  EXPECT_NE(defect([](auto& o) { o.context = 0; }).find("context: got 0"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.global_batch = -1; }).find("global_batch: got -1"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.world_size = 0; }).find("world_size: got 0"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.accumulation = 0; }).find("accumulation: got 0"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.rank = 1; }).find("rank: got 1"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.rank = -1; }).find("rank: got -1"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.world_size = 5; }).find("5 ranks x 1 accumulation steps; expected a multiple of 5"),
            std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.world_size = o.accumulation = INT64_MAX; }).find("below 2^63"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.global_batch = INT64_MAX; }).find("below 2^63"), std::string::npos);
  EXPECT_NE(defect([](auto& o) { o.context = kNumTokens; }).find("got 1000 tokens, expected at least 1000 + 1"),
            std::string::npos);
}

TEST_F(BatchesOfARun, RefuseStepsThatAreNone) {
  const Batches batches = make(1, 0, 2);
  EXPECT_THROW((void)batches.window_indices(-1), InvalidArgument);
  EXPECT_THROW((void)batches.window_indices(INT64_MAX), InvalidArgument);
  EXPECT_THROW((void)batches.window_indices(0, 2), InvalidArgument);
  EXPECT_THROW((void)batches.window_indices(0, -1), InvalidArgument);
  EXPECT_EQ(batches.window_indices(INT64_MAX / kGlobalBatch - 1, 1).size(), 6u);
}

TEST_F(BatchesOfARun, KnowWhetherASavedRunGoesOn) {
  const Batches batches = make(2, 1);
  auto saved = make(4, 0, 3).state();
  EXPECT_EQ(saved, (std::map<std::string, int64_t>{
                       {"context", kContext}, {"num_tokens", kNumTokens}, {"seed", 3}, {"tokens_per_step", 84}}));
  EXPECT_NO_THROW(batches.check_state(saved));
  saved["step"] = 7;  // what the caller keeps beside it is the caller's
  EXPECT_NO_THROW(batches.check_state(saved));
  for (const char* name : {"context", "num_tokens", "seed", "tokens_per_step"}) {
    auto other = saved;
    ++other[name];
    const std::string what = error_of<InvalidArgument>([&] { batches.check_state(other); });
    EXPECT_NE(what.find(std::string(name) + ": the saved run has"), std::string::npos) << what;
    other.erase(name);
    EXPECT_THROW(batches.check_state(other), InvalidArgument);
  }
}

TEST_F(BatchesOfARun, EvaluateOnWindowsSpreadOverTheStream) {
  EXPECT_EQ(spread_windows(stream_, kContext, 0), std::vector<int64_t>{});
  EXPECT_EQ(spread_windows(stream_, kContext, 2), (std::vector<int64_t>{0, 71}));
  EXPECT_EQ(spread_windows(stream_, kContext, 10'000).size(), 142u);
  EXPECT_THROW((void)spread_windows(stream_, kContext, -1), InvalidArgument);
  EXPECT_EQ(read_windows(stream_, kContext, std::vector<int64_t>{}).inputs.size(0), 0);
  for (const int64_t index : {-1, 142}) {
    EXPECT_THROW((void)read_windows(stream_, kContext, std::vector<int64_t>{index}), InvalidArgument);
  }
}

}  // namespace
}  // namespace hydrofoil::data
