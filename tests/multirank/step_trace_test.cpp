// The trace of a step, taken by an engine: what is on its lanes, and that it covers the step.
#include "hydrofoil/engine/step_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/engine/build_engine.h"
#include "hydrofoil/engine/engine.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::engine {
namespace {

using testing::error_of;

struct Slice {
  std::string name;
  std::string kind;
  double begin = 0;
  double end = 0;
};
using Lanes = std::map<std::pair<int, int>, std::vector<Slice>>;  // [rank, lane]

struct Rank {
  Rank(const std::string& config, const std::vector<comm::Group>& channels) {
    EngineParts parts;
    parts.parameters = model.parameters;
    parts.modules = model.modules;
    parts.gather_group = channels[0];
    parts.reduce_group = channels[1];
    parts.native_optimizer = optim::OptimizerKind::kSgd;
    parts.optimizer_text = "SGD";
    engine = build_engine(resolve_engine_options(config, {channels[0].size(), true}).options, std::move(parts));
  }
  void micro_step(int step) {
    engine->backward(model.loss(engine->runtime(), step, 0));
    engine->step(std::vector<optim::Hyperparameters>(1, {.lr = 0.05}));
  }

  testing::Perceptron model;
  std::unique_ptr<Engine> engine;
};

std::string config_of(int stage, const std::string& path, int first_step, int num_steps, int accumulation = 1) {
  return detail::concat(R"({"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": )", accumulation,
                        R"(, "zero_optimization": {"stage": )", stage,
                        R"(}, "hydrofoil": {"unit_min_bytes": 0, "keep_gathered_bytes": 0, "trace": {"path": ")", path,
                        R"(", "first_step": )", first_step, R"(, "num_steps": )", num_steps, "}}}");
}

void train(int num_ranks, const std::string& config, int micro_steps) {
  const auto channels = comm::make_local_channels(num_ranks, 2, {.name = "test", .timeout = std::chrono::seconds(60)});
  testing::run_ranks(num_ranks, [&](int r) {
    Rank rank(config, channels[r]);
    for (int step = 0; step < micro_steps; ++step) rank.micro_step(step);
  });
}

Lanes read(const std::string& path) {
  std::ifstream file(path);
  const nlohmann::json trace = nlohmann::json::parse(file);
  Lanes lanes;
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts");
    lanes[{event.at("pid").get<int>(), event.at("tid").get<int>()}].push_back(
        {event.at("name").get<std::string>(), event.at("cat").get<std::string>(), begin,
         begin + event.at("dur").get<double>()});
  }
  return lanes;
}

bool has(const std::vector<Slice>& slices, const std::string& name) {
  return std::any_of(slices.begin(), slices.end(), [&](const Slice& slice) { return slice.name == name; });
}

// Begin and duration are rounded to double one by one.
constexpr double kRounding = 1e-2;

void expect_nested(const std::vector<Slice>& slices) {
  for (const Slice& a : slices) {
    EXPECT_GE(a.end, a.begin) << a.name;
    for (const Slice& b : slices) {
      const bool apart = a.end <= b.begin + kRounding || b.end <= a.begin + kRounding;
      const bool inside = (a.begin >= b.begin - kRounding && a.end <= b.end + kRounding) ||
                          (b.begin >= a.begin - kRounding && b.end <= a.end + kRounding);
      EXPECT_TRUE(apart || inside) << a.name << " [" << a.begin << ", " << a.end << "] and " << b.name << " ["
                                   << b.begin << ", " << b.end << "]";
    }
  }
}

class StepTraceStages : public ::testing::TestWithParam<int> {};

TEST_P(StepTraceStages, HasEachUnitOnEachLane) {
  const storage::TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  constexpr int kRanks = 2;
  train(kRanks, config_of(GetParam(), path, 2, 2), 4);
  const Lanes lanes = read(path);
  for (int rank = 0; rank < kRanks; ++rank) {
    const auto& steps = lanes.at({rank, 0});
    const auto& compute = lanes.at({rank, 1});
    for (const auto& slices : {steps, compute}) expect_nested(slices);
    EXPECT_FALSE(has(steps, "step 1"));
    EXPECT_TRUE(has(steps, "step 2") && has(steps, "step 3"));
    EXPECT_FALSE(has(steps, "step 4"));
    EXPECT_TRUE(has(steps, "gradient norm") && has(steps, "publish") && has(steps, "update layers.0"));
    for (const std::string module : {"(root)", "layers.0", "layers.3"}) {
      for (const std::string what : {"forward ", "backward "}) {
        EXPECT_EQ(std::count_if(compute.begin(), compute.end(),
                                [&](const Slice& slice) { return slice.name == what + module; }),
                  2)
            << what << module;
      }
    }
    EXPECT_TRUE(has(compute, "reduce layers.0") && has(compute, "reduce wait layers.0"));
    EXPECT_EQ(has(compute, "gather wait layers.0"), GetParam() == 3);
    EXPECT_EQ(has(compute, "release layers.0"), GetParam() == 3);
    EXPECT_TRUE(has(lanes.at({rank, 2}), "all_gather gradient summary"));
    EXPECT_EQ(has(lanes.at({rank, 2}), "all_gather layers.0"), GetParam() > 0);
    EXPECT_TRUE(has(lanes.at({rank, 3}), GetParam() == 0 ? "all_reduce layers.0" : "reduce_scatter layers.0"));
  }
}

// What a step consists of is within it, and the last of it ends with it; the next step begins where it ends.
TEST_P(StepTraceStages, CoversTheStep) {
  const storage::TemporaryDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  train(1, config_of(GetParam(), path, 1, 2, /*accumulation=*/2), 4);
  const Lanes lanes = read(path);
  std::vector<Slice> steps;
  for (const Slice& slice : lanes.at({0, 0})) {
    if (slice.kind == "step") steps.push_back(slice);
  }
  ASSERT_EQ(steps.size(), 2U);
  EXPECT_LE(steps[0].end, steps[1].begin + kRounding);
  std::vector<std::string> order;
  double last_end = 0;
  for (const auto& lane : {lanes.at({0, 0}), lanes.at({0, 1})}) {
    for (const Slice& slice : lane) {
      const Slice& step = slice.begin < steps[0].end ? steps[0] : steps[1];
      EXPECT_TRUE(slice.begin >= step.begin - kRounding && slice.end <= step.end + kRounding) << slice.name;
      if (&step == &steps[0] && slice.name == "optimizer step") last_end = slice.begin;
    }
  }
  for (const Slice& slice : lanes.at({0, 1})) {
    if (slice.name.ends_with("(root)") && slice.begin < steps[0].end) {
      order.push_back(slice.kind);
      EXPECT_LE(slice.end, last_end + kRounding) << slice.name;
    }
  }
  EXPECT_EQ(order, (std::vector<std::string>{"forward", "backward", "forward", "backward"}));
}

INSTANTIATE_TEST_SUITE_P(Stages, StepTraceStages, ::testing::Values(0, 1, 2, 3));

TEST(StepTrace, SaysWhereTheStepsDidNotCome) {
  const storage::TemporaryDirectory directory;
  ::testing::internal::CaptureStderr();
  train(1, config_of(2, directory.path() + "/trace.json", 2, 2), 2);
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(
      text.find("trace.json is not written: the engine has ended after step 2, and was to trace the steps 2 to 3"),
      std::string::npos)
      << text;
  EXPECT_TRUE(directory.names().empty());
}

TEST(StepTrace, IsAnErrorOfAllRanksWhereTheFileCannotBeWritten) {
  const storage::TemporaryDirectory directory;
  const std::string path = directory.path() + "/missing/trace.json";
  const auto channels = comm::make_local_channels(2, 2, {.name = "test", .timeout = std::chrono::seconds(60)});
  testing::run_ranks(2, [&](int r) {
    Rank rank(config_of(0, path, 1, 1), channels[r]);
    const std::string error = error_of<Error>([&] { rank.micro_step(0); });
    EXPECT_NE(error.find(path), std::string::npos) << error;
  });
}

}  // namespace
}  // namespace hydrofoil::engine
