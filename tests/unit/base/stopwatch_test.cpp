#include "hydrofoil/base/stopwatch.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {
namespace {

// Lets the clock move on by at least a microsecond.
void spin() {
  const int64_t begin = monotonic_ns();
  while (monotonic_ns() < begin + 1000) {
  }
}

void measure(Stopwatch& watch) {
  watch.start();
  spin();
  watch.stop();
}

TEST(Stopwatch, AddsUpWhatLiesBetweenStartAndStop) {
  Stopwatch watch;
  EXPECT_EQ(watch.elapsed_ms(), 0.0);
  EXPECT_EQ(watch.mean_ms(), 0.0);
  measure(watch);
  const double first = watch.elapsed_ms();
  EXPECT_GE(first, 1e-3);
  spin();
  EXPECT_EQ(watch.elapsed_ms(), first);
  measure(watch);
  EXPECT_GE(watch.elapsed_ms(), first + 1e-3);
  EXPECT_DOUBLE_EQ(watch.mean_ms(), watch.elapsed_ms() / 2);
}

TEST(Stopwatch, CountsWhatStillRuns) {
  Stopwatch watch;
  watch.start();
  spin();
  EXPECT_GE(watch.elapsed_ms(), 1e-3);
  EXPECT_TRUE(watch.running());
}

TEST(Stopwatch, ResetLeavesTheTotalAndARunningWatch) {
  Stopwatch watch;
  measure(watch);
  const int64_t total = watch.total_ns();
  watch.reset();
  EXPECT_EQ(watch.elapsed_ms(), 0.0);
  EXPECT_EQ(watch.mean_ms(), 0.0);
  EXPECT_EQ(watch.total_ns(), total);
  watch.start();
  spin();
  watch.reset();
  EXPECT_TRUE(watch.running());
  watch.stop();
  EXPECT_GE(watch.total_ns(), total + 1000);
}

TEST(Stopwatch, StopAloneDropsWhatWasBefore) {
  Stopwatch watch;
  measure(watch);
  const int64_t before = watch.total_ns();
  watch.start();
  spin();
  watch.stop(/*alone=*/true);
  EXPECT_DOUBLE_EQ(watch.elapsed_ms(), 1e-6 * static_cast<double>(watch.total_ns() - before));
  EXPECT_DOUBLE_EQ(watch.mean_ms(), watch.elapsed_ms());
}

TEST(Stopwatch, RejectsCallsOutOfOrder) {
  Stopwatch watch;
  EXPECT_THROW(watch.stop(), InvalidArgument);
  watch.start();
  EXPECT_THROW(watch.start(), InvalidArgument);
}

TEST(ScopedStopwatch, RunsForItsScopeOrNotAtAll) {
  Stopwatch watch;
  {
    const ScopedStopwatch scope(&watch);
    EXPECT_TRUE(watch.running());
  }
  EXPECT_FALSE(watch.running());
  const ScopedStopwatch none(nullptr);
}

}  // namespace
}  // namespace hydrofoil
