#include "hydrofoil/engine/step_report.h"

#include <gtest/gtest.h>

namespace hydrofoil::engine {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(Throughput, LeavesOutTheFirstSteps) {
  Throughput throughput;
  int64_t now = kSecond;
  const auto step = [&](int64_t seconds) {
    throughput.begin_micro_step(now);
    throughput.end_micro_step(true, 12, now += seconds * kSecond);
  };
  for (int64_t i = 0; i < Throughput::kWarmUpSteps; ++i) step(100);
  EXPECT_EQ(throughput.average(), std::nullopt);
  EXPECT_EQ(throughput.take_recent(), std::nullopt);
  step(2);
  EXPECT_EQ(throughput.average(), 6.0);
  EXPECT_EQ(throughput.take_recent(), 6.0);
  EXPECT_EQ(throughput.take_recent(), std::nullopt);
  step(4);
  EXPECT_EQ(throughput.take_recent(), 3.0);
  EXPECT_EQ(throughput.average(), 4.0);
  EXPECT_EQ(throughput.num_steps(), 2);
  EXPECT_EQ(throughput.seconds(), 6.0);
}

TEST(Throughput, CountsMicroStepsAndNotTheTimeBetweenThem) {
  Throughput throughput;
  int64_t now = kSecond;
  for (int step = 0; step < Throughput::kWarmUpSteps + 1; ++step) {
    for (const bool boundary : {false, true}) {
      throughput.begin_micro_step(now);
      throughput.begin_micro_step(now + 1);  // the backward of the same micro step
      throughput.end_micro_step(boundary, 12, now += kSecond);
      now += 50 * kSecond;  // loading data
    }
  }
  EXPECT_EQ(throughput.average(), 6.0);
}

TEST(Throughput, WithoutAForwardCountsFromStepToStep) {
  Throughput throughput;
  int64_t now = kSecond;
  for (int step = 0; step < Throughput::kWarmUpSteps + 2; ++step) {
    throughput.end_micro_step(true, 12, now += 3 * kSecond);
  }
  EXPECT_EQ(throughput.average(), 4.0);
}

TEST(ProgressLine, SaysWhatIsKnown) {
  Progress progress{.step = 10, .skipped = 1, .lr = {1e-3, 0.5}, .momentum = {{0.9, 0.999}, {}}, .grad_norm = 0.25};
  EXPECT_EQ(progress_line(progress), "step=10, skipped=1, lr=[0.001, 0.5], mom=[(0.9, 0.999), none], grad_norm=0.25");
  progress.momentum = {{0.9}};
  progress.loss_scale = 65536;
  progress.samples_per_second = 100.0;
  progress.num_ranks = 4;
  EXPECT_EQ(progress_line(progress),
            "step=10, skipped=1, lr=[0.001, 0.5], mom=[0.9], grad_norm=0.25, loss_scale=65536, samples/s=100.0 (25.0 a "
            "rank)");
}

TEST(BreakdownLine, HasPhasesAndWaits) {
  EXPECT_EQ(breakdown_line(7, {.forward_ms = 1, .backward_ms = 2.5, .step_ms = 0.125, .reduce_wait_ms = 0.5}),
            "step=7, time (ms) | forward: 1.00 | backward: 2.50 | step: 0.12 | reduce wait: 0.50 | gather wait: 0.00");
}

TEST(MemoryLine, NamesTierAndCategories) {
  const zero::MemoryReport memory{.parameter_bytes = 1 << 20, .gradient_bytes = 2 << 20, .peak_slot_bytes = 3 << 20};
  const std::string line = memory_line("after step 3", memory, c10::Device(c10::kCPU));
  for (const char* part : {"memory after step 3 (MiB) | host: parameters 1.0, gradients 2.0, masters 0.0, ",
                           "(peak 3.0) | process: ", "RSS ", "PSS ", "peak RSS "}) {
    EXPECT_NE(line.find(part), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace hydrofoil::engine
