#include "hydrofoil/optim/loss_scaler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

namespace hydrofoil::optim {
namespace {

// Overflows ('x') and good steps ('.') with log2 of the scale after each, from DeepSpeed 0.19.6's DynamicLossScaler
// with initial scale 2^16, window 4 and minimum 1.
struct Recording {
  bool consecutive_hysteresis;
  int64_t hysteresis;
  std::string_view steps;
  std::vector<int> log2_scale;
  int64_t hysteresis_left;
};

const Recording kRecordings[] = {
    {false,
     1,
     "x....xx.xx.....x.....x...x...........xxx...............x....",
     {15, 15, 15, 15, 15, 14, 13, 13, 12, 11, 11, 11, 11, 11, 12, 11, 11, 11, 11, 11,
      12, 11, 11, 11, 11, 10, 10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 11, 10, 9,
      9,  9,  9,  9,  10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 11, 11, 11, 11, 11},
     1},
    {false,
     2,
     ".x..xx..x..xx..x.x.......x.xx..xx...............x....x..x..x",
     {16, 16, 16, 16, 15, 14, 14, 14, 13, 13, 13, 12, 11, 11, 11, 10, 10, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 9, 8, 8,
      8,  7,  6,  6,  6,  6,  6,  7,  7,  7,  7,  8,  8,  8,  8,  9,  9,  9, 9, 9, 9, 9, 9,  8,  8,  8,  7,  7, 7, 6},
     1},
    {false,
     3,
     "......xx..x..........x...x.xx..x.....x....xx.x..xx....xx.x..",
     {16, 16, 16, 16, 17, 17, 17, 17, 17, 17, 16, 16, 16, 16, 16, 17, 17, 17, 17, 18,
      18, 18, 18, 18, 18, 18, 18, 17, 16, 16, 16, 15, 15, 15, 15, 15, 16, 16, 16, 16,
      16, 16, 16, 15, 15, 14, 14, 14, 13, 12, 12, 12, 12, 12, 11, 10, 10, 9,  9,  9},
     1},
    {true,
     1,
     "...xx......x....x.xx.x.x......x.xx......x....x..x....x..xxx.",
     {16, 16, 16, 15, 14, 14, 14, 14, 14, 15, 15, 14, 14, 14, 14, 14, 13, 13, 12, 11, 11, 10, 10, 9, 9, 9, 9, 9, 10, 10,
      9,  9,  8,  7,  7,  7,  7,  7,  8,  8,  7,  7,  7,  7,  7,  6,  6,  6,  5,  5,  5,  5,  5,  4, 4, 4, 3, 2, 1,  1},
     1},
    {true,
     2,
     "...xxxxx..x.......x.x...xx.............x..x.......x.x.......",
     {16, 16, 16, 16, 15, 14, 13, 12, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13, 13, 13,
      13, 13, 13, 13, 13, 12, 12, 12, 12, 12, 13, 13, 13, 13, 14, 14, 14, 14, 15, 15,
      15, 15, 15, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17},
     2},
    {true,
     3,
     "x.xx.xxx.xx.x......x...x..x...xxx.......x....x.......xx.....",
     {16, 16, 16, 16, 16, 16, 16, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 16, 16, 16,
      16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 15, 15, 15, 15, 15, 16, 16, 16,
      16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17, 17, 17, 17, 17, 17, 17, 18},
     3},
};

LossScalerOptions options_of(const Recording& recording) {
  return {.dynamic = true,
          .initial_scale = 65536,
          .window = 4,
          .min_scale = 1,
          .hysteresis = recording.hysteresis,
          .consecutive_hysteresis = recording.consecutive_hysteresis};
}

TEST(LossScaler, FollowsDeepSpeedsSequences) {
  for (const Recording& recording : kRecordings) {
    LossScaler scaler(options_of(recording));
    ASSERT_EQ(recording.steps.size(), recording.log2_scale.size());
    for (size_t i = 0; i < recording.steps.size(); ++i) {
      scaler.update(recording.steps[i] == 'x');
      ASSERT_EQ(scaler.scale(), std::ldexp(1.0, recording.log2_scale[i])) << recording.steps << " step " << i;
    }
    EXPECT_EQ(scaler.state().hysteresis_left, recording.hysteresis_left);
    EXPECT_EQ(scaler.state().iteration, static_cast<int64_t>(recording.steps.size()));
  }
}

TEST(LossScaler, ContinuesFromASavedStateAtEveryStep) {
  for (const Recording& recording : kRecordings) {
    LossScaler scaler(options_of(recording));
    for (const char step : recording.steps) {
      LossScaler restored(options_of(recording));
      restored.load_state(scaler.state());
      scaler.update(step == 'x');
      restored.update(step == 'x');
      ASSERT_EQ(restored.state(), scaler.state());
    }
  }
}

TEST(LossScaler, ThrowsAtTheMinimumAndChangesNothing) {
  LossScaler scaler({.dynamic = true, .initial_scale = 4, .min_scale = 1.5, .hysteresis = 1});
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 2);
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 1.5);
  const LossScalerState before = scaler.state();
  EXPECT_THROW(scaler.update(true), LossScaleAtMinimum);
  EXPECT_EQ(scaler.state(), before);
}

TEST(LossScaler, SpendsHysteresisBeforeItThrowsAtTheMinimum) {
  LossScaler scaler({.dynamic = true, .initial_scale = 1, .hysteresis = 3});
  scaler.update(true);
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 1);
  EXPECT_THROW(scaler.update(true), LossScaleAtMinimum);
}

TEST(LossScaler, StaysConstantWhenStatic) {
  LossScaler scaler({.static_scale = 128});
  EXPECT_FALSE(scaler.is_dynamic());
  for (const bool overflow : {true, false, true}) scaler.update(overflow);
  EXPECT_EQ(scaler.scale(), 128);
  scaler.set_scale(64);
  EXPECT_EQ(scaler.scale(), 64);
  EXPECT_EQ(LossScaler({}).scale(), 1.0);
}

TEST(LossScaler, RefusesWhatIsNoScale) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_THROW(LossScaler({.static_scale = 0}), InvalidArgument);
  EXPECT_THROW(LossScaler({.static_scale = infinity}), InvalidArgument);
  EXPECT_THROW(LossScaler({.dynamic = true, .initial_scale = -1}), InvalidArgument);
  EXPECT_THROW(LossScaler({.dynamic = true, .min_scale = 0}), InvalidArgument);
  EXPECT_THROW(LossScaler({.dynamic = true, .window = 0}), InvalidArgument);
  EXPECT_THROW(LossScaler({.dynamic = true, .hysteresis = 0}), InvalidArgument);
  LossScaler scaler({.dynamic = true});
  EXPECT_THROW(scaler.set_scale(0), InvalidArgument);
  LossScalerState state = scaler.state();
  state.scale = -2;
  EXPECT_THROW(scaler.load_state(state), InvalidArgument);
  state = scaler.state();
  state.iteration = -1;
  EXPECT_THROW(scaler.load_state(state), InvalidArgument);
  state = scaler.state();
  state.last_overflow_iteration = 5;
  EXPECT_THROW(scaler.load_state(state), InvalidArgument);
  state = scaler.state();
  state.hysteresis_left = 0;
  EXPECT_THROW(scaler.load_state(state), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::optim
