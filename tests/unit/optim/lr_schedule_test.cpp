#include "hydrofoil/optim/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hydrofoil/base/error.h"

namespace hydrofoil::optim {
namespace {

struct Row {
  int64_t iteration;
  std::vector<double> lr;
  double momentum = 0;  // where the schedule sets one
};

// Walks the schedule step by step as an engine does, and compares at the rows' iterations.
void expect_table(const ScheduleOptions& options, const std::vector<double>& base_lrs, const std::vector<Row>& rows) {
  LrSchedule schedule(options, base_lrs);
  ScheduleValues values = schedule.values();
  for (const Row& row : rows) {
    while (schedule.last_batch_iteration() < row.iteration) values = schedule.step();
    EXPECT_EQ(values, schedule.values_at(row.iteration));
    ASSERT_EQ(values.lr.size(), row.lr.size());
    for (size_t i = 0; i < row.lr.size(); ++i) {
      EXPECT_DOUBLE_EQ(values.lr[i], row.lr[i]) << "iteration " << row.iteration << " group " << i;
    }
    if (row.momentum != 0) {
      EXPECT_DOUBLE_EQ(values.momentum.value(), row.momentum) << "iteration " << row.iteration;
      EXPECT_EQ(values.beta2, 0.99);
    } else {
      EXPECT_FALSE(values.momentum || values.beta2);
    }
  }
}

// The tables hold what DeepSpeed 0.19.6 sets in the optimizer; -1 is the value right after construction.

TEST(WarmupLr, RisesByTheLogarithmThenStays) {
  expect_table({.warmup_min_lr = {0.001}, .warmup_max_lr = {0.05}, .warmup_num_steps = 10}, {0.01},
               {{-1, {0.001}},
                {0, {0.001}},
                {1, {0.015750469787535075}},
                {2, {0.024378941481263457}},
                {5, {0.039129411268798535}},
                {9, {0.05}},
                {10, {0.05}},
                {50, {0.05}}});
}

TEST(WarmupLr, RisesLinearlyToEachGroupsOwnLrByDefault) {
  expect_table(
      {.warmup_num_steps = 10, .warmup_type = WarmupType::kLinear}, {0.01, 0.02},
      {{-1, {0, 0}}, {0, {0, 0}}, {1, {0.001, 0.002}}, {5, {0.005, 0.01}}, {10, {0.01, 0.02}}, {11, {0.01, 0.02}}});
}

TEST(WarmupLr, TakesAValueForEachGroup) {
  expect_table({.warmup_min_lr = {0.1, 0.2},
                .warmup_max_lr = {0.3, 0.6},
                .warmup_num_steps = 4,
                .warmup_type = WarmupType::kLinear},
               {1, 1}, {{-1, {0.1, 0.2}}, {1, {0.15, 0.3}}, {4, {0.3, 0.6}}});
}

TEST(WarmupLr, CountsOneStepAsTwo) {
  expect_table({.warmup_max_lr = {1}, .warmup_num_steps = 1, .warmup_type = WarmupType::kLinear}, {1},
               {{0, {0}}, {1, {0.5}}, {2, {1}}});
}

TEST(WarmupDecayLr, FallsLinearlyToTheMinimum) {
  expect_table(
      {.kind = ScheduleKind::kWarmupDecay, .warmup_min_lr = {1e-4}, .warmup_num_steps = 4, .total_num_steps = 20},
      {0.01},
      {{-1, {0.0001}},
       {0, {0.0001}},
       {1, {0.00055}},
       {3, {0.001}},
       {4, {0.001}},
       {5, {0.00094375}},
       {10, {0.0006625}},
       {19, {0.00015625}},
       {20, {0.0001}},
       {25, {0.0001}}});
}

TEST(WarmupDecayLr, EqualsTheFormulaAtEveryIteration) {
  const int64_t warmup = 37, total = 301;
  const LrSchedule schedule({.kind = ScheduleKind::kWarmupDecay,
                             .warmup_max_lr = {0.3},
                             .warmup_num_steps = warmup,
                             .total_num_steps = total},
                            {1.0});
  for (int64_t it = 0; it < 400; ++it) {
    const double gamma = it < warmup
                             ? std::log(it + 1.0) / std::log(static_cast<double>(warmup))
                             : std::max(0.0, static_cast<double>(total - it) / static_cast<double>(total - warmup));
    EXPECT_NEAR(schedule.values_at(it).lr[0], 0.3 * gamma, 1e-15);
  }
}

TEST(WarmupCosineLr, ScalesEachGroupsOwnLr) {
  expect_table({.kind = ScheduleKind::kWarmupCosine,
                .warmup_num_steps = 4,
                .warmup_type = WarmupType::kLinear,
                .total_num_steps = 20,
                .warmup_min_ratio = 0.1},
               {0.01, 0.002},
               {{-1, {0, 0}},
                {0, {0.001, 0.0002}},
                {1, {0.00325, 0.00065}},
                {3, {0.0077500000000000008, 0.0015500000000000002}},
                {4, {0.0099039360093759517, 0.0019807872018751901}},
                {5, {0.0096194357227901792, 0.0019238871445580357}},
                {10, {0.005975854064919634, 0.0011951708129839267}},
                {18, {9.7063990624049454e-05, 1.9412798124809891e-05}},
                {19, {1e-06, 2e-07}},
                {40, {1e-06, 2e-07}}});
}

TEST(OneCycle, RisesFallsAndDecaysWithMomentumOpposed) {
  expect_table({.kind = ScheduleKind::kOneCycle,
                .cycle_min_lr = 0.001,
                .cycle_max_lr = 0.1,
                .decay_lr_rate = 0.5,
                .cycle_first_step_size = 6,
                .cycle_second_step_size = 10,
                .decay_step_size = 3,
                .decay_mom_rate = 0.01},
               {0.01},
               {{-1, {0.001}, 0.8},
                {0, {0.0175}, 0.8833333333333333},
                {1, {0.034}, 0.8666666666666667},
                {4, {0.0835}, 0.81666666666666665},
                {5, {0.1}, 0.8},
                {8, {0.0703}, 0.83000000000000007},
                {10, {0.0505}, 0.85000000000000009},
                {14, {0.0109}, 0.89},
                {15, {0.001}, 0.9},
                {16, {0.0008571428571428571}, 0.90300000000000014},
                {17, {0.00075}, 0.906},
                {30, {0.00028571428571428574}, 0.945}});
}

TEST(OneCycle, ClimbsStairs) {
  expect_table({.kind = ScheduleKind::kOneCycle,
                .cycle_min_lr = 0.001,
                .cycle_max_lr = 0.1,
                .cycle_first_step_size = 6,
                .cycle_first_stair_count = 3,
                .cycle_second_stair_count = 2},
               {0.01},
               {{0, {0.001}, 0.9},
                {1, {0.034}, 0.8666666666666667},
                {2, {0.034}, 0.8666666666666667},
                {4, {0.067}, 0.83333333333333337},
                {5, {0.1}, 0.8},
                {6, {0.0505}, 0.85000000000000009},
                {8, {0.0505}, 0.85000000000000009},
                {9, {0.001}, 0.9},
                {20, {0.001}, 0.9}});
}

TEST(OneCycle, LeavesMomentumAloneWhenTold) {
  expect_table({.kind = ScheduleKind::kOneCycle,
                .cycle_min_lr = 1,
                .cycle_max_lr = 3,
                .cycle_first_step_size = 2,
                .cycle_momentum = false},
               {1, 1}, {{-1, {1, 1}}, {0, {2, 2}}, {1, {3, 3}}, {2, {2, 2}}, {3, {1, 1}}, {9, {1, 1}}});
}

TEST(LrRangeTest, RisesContinuouslyForEachGroup) {
  expect_table({.kind = ScheduleKind::kLrRangeTest,
                .lr_range_test_min_lr = {0.001, 0.002},
                .lr_range_test_step_size = 4,
                .lr_range_test_step_rate = 0.5},
               {0.01, 0.01},
               {{-1, {0.001, 0.002}},
                {0, {0.001125, 0.00225}},
                {2, {0.001375, 0.00275}},
                {3, {0.0015, 0.003}},
                {9, {0.00225, 0.0045}}});
}

TEST(LrRangeTest, RisesByStairs) {
  expect_table({.kind = ScheduleKind::kLrRangeTest, .lr_range_test_step_size = 4, .lr_range_test_staircase = true},
               {0.01}, {{-1, {0.001}}, {2, {0.001}}, {3, {0.002}}, {4, {0.002}}, {7, {0.003}}, {9, {0.003}}});
}

TEST(LrSchedule, ResumesWhereItWasSaved) {
  const ScheduleOptions options{.kind = ScheduleKind::kWarmupDecay, .warmup_num_steps = 5, .total_num_steps = 20};
  LrSchedule schedule(options, {0.1});
  for (int i = 0; i < 8; ++i) (void)schedule.step();
  LrSchedule resumed(options, {0.1});
  resumed.set_last_batch_iteration(schedule.last_batch_iteration());
  EXPECT_EQ(resumed.values(), schedule.values());
  EXPECT_EQ(resumed.step(), schedule.step());
  EXPECT_EQ(resumed.step(2), schedule.values_at(2));
  EXPECT_EQ(resumed.last_batch_iteration(), 2);
  ScheduleOptions later = options;
  later.last_batch_iteration = 8;
  EXPECT_EQ(LrSchedule(later, {0.1}).values(), schedule.values_at(8));
}

TEST(LrSchedule, ParsesDeepSpeedsNames) {
  EXPECT_EQ(parse_schedule_kind("WarmupLR"), ScheduleKind::kWarmup);
  EXPECT_EQ(parse_schedule_kind("WarmupDecayLR"), ScheduleKind::kWarmupDecay);
  EXPECT_EQ(parse_schedule_kind("WarmupCosineLR"), ScheduleKind::kWarmupCosine);
  EXPECT_EQ(parse_schedule_kind("OneCycle"), ScheduleKind::kOneCycle);
  EXPECT_EQ(parse_schedule_kind("LRRangeTest"), ScheduleKind::kLrRangeTest);
  EXPECT_EQ(parse_warmup_type("log"), WarmupType::kLog);
  EXPECT_EQ(parse_warmup_type("linear"), WarmupType::kLinear);
  EXPECT_THROW((void)parse_warmup_type("cubic"), InvalidArgument);
  try {
    (void)parse_schedule_kind("WarmupLr");
    FAIL() << "expected InvalidArgument";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'WarmupLR'"), std::string::npos) << error.what();
  }
}

TEST(LrSchedule, RefusesOptionsThatMakeNoSchedule) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<ScheduleOptions> bad = {
      {.last_batch_iteration = -2},
      {.warmup_num_steps = 0},
      {.warmup_min_lr = {1, 2, 3}},
      {.warmup_max_lr = {nan}},
      {.kind = ScheduleKind::kWarmupDecay},
      {.kind = ScheduleKind::kWarmupCosine, .total_num_steps = 0},
      {.kind = ScheduleKind::kWarmupCosine, .total_num_steps = 9, .cos_min_ratio = nan},
      {.kind = ScheduleKind::kOneCycle, .cycle_max_lr = 1},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = nan},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = 1, .cycle_first_step_size = 0},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = 1, .cycle_second_step_size = -1},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = 1, .cycle_first_stair_count = -1},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = 1, .cycle_second_stair_count = -1},
      {.kind = ScheduleKind::kOneCycle, .cycle_min_lr = 1, .cycle_max_lr = 1, .decay_step_size = -1},
      {.kind = ScheduleKind::kLrRangeTest, .lr_range_test_min_lr = {}},
      {.kind = ScheduleKind::kLrRangeTest, .lr_range_test_step_size = 0},
      {.kind = ScheduleKind::kLrRangeTest, .lr_range_test_step_rate = nan},
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_THROW(LrSchedule(bad[i], {0.1, 0.1}), InvalidArgument) << "case " << i;
  }
  EXPECT_THROW(LrSchedule({}, {}), InvalidArgument);
  LrSchedule schedule({}, {0.1});
  EXPECT_THROW((void)schedule.values_at(-2), InvalidArgument);
  EXPECT_THROW(schedule.set_last_batch_iteration(-2), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::optim
