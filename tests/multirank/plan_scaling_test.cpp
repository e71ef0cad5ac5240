#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "hydrofoil/comm/fake/fake_group.h"
#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/plan/plan.h"
#include "tests/support/runtime_step.h"
#include "tests/support/zero_formulas.h"

// The collectives of one step that the runtime really asks a fake group of N ranks for, priced by the alpha-beta model,
// against the plan's and the closed formulas.
namespace hydrofoil::plan {
namespace {

struct Case {
  int stage;
  int num_ranks;
  int micro_steps;
  CollectiveAlgorithm algorithm;
  int64_t keep_gathered_bytes = 0;
};

constexpr double kLatency = 5e-6;
constexpr double kBytesPerS = 25e9;
constexpr const char* kModel = R"({"model_type": "llama", "vocab_size": 67, "hidden_size": 20,
  "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1})";

// Of the second step: the first one records the orders.
std::vector<comm::FakeRecord> record_step(const Case& c) {
  const auto log = std::make_shared<comm::FakeLog>();
  std::vector<comm::Group> channels;
  for (int channel = 0; channel < 2; ++channel) {
    channels.push_back(comm::make_fake_group({.rank = 1, .size = c.num_ranks, .channel = channel, .log = log}));
  }
  const auto model = models::make_model(models::parse_model_config(kModel, "test"), at::kFloat);
  models::initialize_weights(*model, 1);
  zero::RuntimeOptions options;
  options.sharding = zero::Sharding::of_stage(c.stage, 1, c.num_ranks, c.micro_steps);
  options.unit_min_bytes = 0;
  options.keep_gathered_bytes = c.keep_gathered_bytes;
  zero::Runtime runtime(model->tree().parameters, model->tree().modules, options, channels[0], channels[1]);
  model->tree().boundaries->attach(&runtime);
  testing::run_optimizer_step(runtime, *model, 1, c.micro_steps, 1);
  for (const auto& group : channels) group.barrier();
  log->clear();
  testing::run_optimizer_step(runtime, *model, 1, c.micro_steps, 2);
  for (const auto& group : channels) group.barrier();
  model->tree().boundaries->attach(nullptr);
  std::vector<comm::FakeRecord> records = log->records();
  runtime.destroy(false);
  return records;
}

Plan plan_of(const Case& c, const Roofs& roofs) {
  const auto model = models::make_model(models::parse_model_config(kModel, "test"), at::kFloat);
  ModelSpec spec;
  spec.modules = model->tree().modules;
  for (const auto& info : model->tree().parameters) {
    spec.parameters.push_back({info.name, info.parameter.numel(), info.parameter.scalar_type(), true});
  }
  Settings settings;
  settings.stage = c.stage;
  settings.world_size = settings.num_nodes = c.num_ranks;
  settings.accumulation_steps = c.micro_steps;
  settings.unit_min_bytes = 0;
  settings.keep_gathered_bytes = c.keep_gathered_bytes;
  return make_plan(spec, settings, roofs);
}

double communication_seconds(const Plan& plan) {
  double seconds = 0.0;
  for (const auto& event : plan.timeline.events) {
    const bool repeats = event.micro_step == plan.timeline.repeated_micro_step && event.phase != Phase::kStep;
    const auto left_out = static_cast<double>(plan.timeline.left_out_micro_steps);
    if (event.lane != Lane::kCompute) seconds += (event.end_s - event.begin_s) * (repeats ? 1.0 + left_out : 1.0);
  }
  return seconds;
}

class ScalingOfTheRuntime : public ::testing::TestWithParam<Case> {};

TEST_P(ScalingOfTheRuntime, IsThePlansAndTheFormulas) {
  const Case& c = GetParam();
  Roofs roofs;
  roofs.network_latency_s = kLatency;
  roofs.network_bytes_per_s = kBytesPerS;
  roofs.algorithm = c.algorithm;
  const Plan plan = plan_of(c, roofs);
  int num_controls = 0;
  int64_t count = 0;
  int64_t bytes = 0;
  double seconds = 0.0;
  for (const auto& record : record_step(c)) {
    if (record.kind == comm::OpKind::kBarrier) continue;
    if (record.unit == "late gradients" || record.unit == "gradient summary") {
      ++num_controls;
      continue;
    }
    ASSERT_TRUE(record.kind == comm::OpKind::kAllGather || record.kind == comm::OpKind::kReduceScatter)
        << comm::op_kind_name(record.kind) << " of " << record.unit;
    const auto kind = record.kind == comm::OpKind::kAllGather ? Collective::kAllGather : Collective::kReduceScatter;
    const int64_t num_bytes = record.numel * static_cast<int64_t>(c10::elementSize(record.dtype));
    ++count;
    bytes += num_bytes;
    seconds += collective_seconds(kind, num_bytes, plan.settings, roofs);
  }
  // A few bytes a rank each; neither the plan nor the formulas count them.
  EXPECT_EQ(num_controls, 1 + (c.stage == 1 ? 1 : c.micro_steps));
  int64_t planned_count = 0;
  int64_t planned_bytes = 0;
  for (const auto& total : plan.collectives) {
    planned_count += total.count;
    planned_bytes += total.bytes;
  }
  EXPECT_EQ(count, planned_count);
  EXPECT_EQ(bytes, planned_bytes);
  EXPECT_NEAR(seconds, communication_seconds(plan), 1e-9 * seconds);

  int64_t padded = 0;
  for (const auto& unit : plan.units) padded += unit.full_bytes / 4;
  if (c.keep_gathered_bytes > 0) {
    const auto smallest = std::min_element(plan.units.begin(), plan.units.end(),
                                           [](const auto& x, const auto& y) { return x.full_bytes < y.full_bytes; });
    EXPECT_EQ(plan.kept_gathered_bytes, c.keep_gathered_bytes > padded * 4 ? padded * 4 : smallest->full_bytes);
    return;
  }
  const testing::ZeroFormula formula{static_cast<int64_t>(plan.units.size()), padded, 4, 4};
  EXPECT_NEAR(seconds, formula.seconds(c.stage, c.num_ranks, c.micro_steps, kLatency, kBytesPerS, c.algorithm),
              1e-9 * seconds);
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const int stage : {1, 2, 3}) {
    for (const int num_ranks : {2, 3, 64, 1024, 4096}) {
      for (const int micro_steps : {1, 3}) {
        result.push_back({stage, num_ranks, micro_steps,
                          num_ranks == 64 ? CollectiveAlgorithm::kRecursive : CollectiveAlgorithm::kRing});
      }
      for (const int micro_steps : {1, 2, 4}) {
        if (stage < 3 || num_ranks > 3) break;
        for (const int64_t keep : {int64_t{400}, int64_t{1} << 30}) {
          result.push_back({stage, num_ranks, micro_steps, CollectiveAlgorithm::kRing, keep});
        }
      }
    }
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(Ranks, ScalingOfTheRuntime, ::testing::ValuesIn(cases()), [](const auto& info) {
  return "stage" + std::to_string(info.param.stage) + "_ranks" + std::to_string(info.param.num_ranks) + "_steps" +
         std::to_string(info.param.micro_steps) +
         (info.param.keep_gathered_bytes > 0 ? "_keep" + std::to_string(info.param.keep_gathered_bytes) : "");
});

}  // namespace
}  // namespace hydrofoil::plan
