#include "hydrofoil/engine/batch_sizes.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::engine {
namespace {

using Maybe = std::optional<int64_t>;
constexpr auto kNone = std::nullopt;

struct Case {
  Maybe train, micro, accumulation;
  int64_t world;
  int64_t expected_train, expected_micro, expected_accumulation;
};

class BatchTriple : public testing::TestWithParam<Case> {};

TEST_P(BatchTriple, IsCompletedAsInDeepSpeed) {
  const Case& c = GetParam();
  const BatchSizes sizes = complete_batch_sizes(c.train, c.micro, c.accumulation, c.world);
  EXPECT_EQ(sizes.train_batch_size, c.expected_train);
  EXPECT_EQ(sizes.micro_batch_size, c.expected_micro);
  EXPECT_EQ(sizes.accumulation_steps, c.expected_accumulation);
  EXPECT_EQ(sizes.train_note.empty(), c.train.has_value());
  EXPECT_EQ(sizes.micro_note.empty(), c.micro.has_value());
  EXPECT_EQ(sizes.accumulation_note.empty(), c.accumulation.has_value());
}

INSTANTIATE_TEST_SUITE_P(Forms, BatchTriple,
                         testing::Values(Case{24, 4, 3, 2, 24, 4, 3}, Case{24, 4, kNone, 2, 24, 4, 3},
                                         Case{24, kNone, 3, 2, 24, 4, 3}, Case{kNone, 4, 3, 2, 24, 4, 3},
                                         Case{24, kNone, kNone, 2, 24, 12, 1}, Case{kNone, 4, kNone, 2, 8, 4, 1},
                                         Case{1, kNone, kNone, 1, 1, 1, 1}, Case{21, kNone, 1, 3, 21, 7, 1}));

void expect_error(Maybe train, Maybe micro, Maybe accumulation, int64_t world, const std::string& part) {
  try {
    (void)complete_batch_sizes(train, micro, accumulation, world);
    ADD_FAILURE() << "accepted, expected an error with: " << part;
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(BatchTriple, ErrorsShowTheArithmeticAndTheWorldSize) {
  expect_error(10, 3, 1, 2,
               "train_batch_size 10 is not equal to train_micro_batch_size_per_gpu 3 x gradient_accumulation_steps 1 x "
               "world size 2 = 6");
  expect_error(10, 3, kNone, 2, "gradient_accumulation_steps 1 (10 // 3 // 2 ranks) x world size 2 = 6");
  expect_error(7, kNone, kNone, 2, "train_micro_batch_size_per_gpu 3 (7 // 2 ranks // 1)");
  expect_error(1, kNone, kNone, 2, "train_batch_size 1 is too small");
  expect_error(2, 4, kNone, 1, "too small");
  expect_error(kNone, kNone, 3, 2, "either train_batch_size or train_micro_batch_size_per_gpu");
  expect_error(kNone, kNone, kNone, 2, "the world size is 2");
  expect_error(0, kNone, kNone, 2, "train_batch_size: got 0, expected an integer >= 1");
  expect_error(8, -1, kNone, 2, "train_micro_batch_size_per_gpu: got -1");
  expect_error(8, kNone, 0, 2, "gradient_accumulation_steps: got 0");
  expect_error(8, kNone, kNone, 0, "world size: got 0");
  expect_error(kNone, INT64_MAX, 2, 2, "exceeds 64 bits");
}

}  // namespace
}  // namespace hydrofoil::engine
