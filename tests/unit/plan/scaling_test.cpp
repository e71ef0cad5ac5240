#include "hydrofoil/plan/scaling.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/model_config.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/collective_time.h"
#include "hydrofoil/plan/transformer_spec.h"
#include "tests/support/zero_formulas.h"

namespace hydrofoil::plan {
namespace {

constexpr int64_t kNumel = 1 << 20;  // of a block: no padding up to 4,096 ranks
constexpr int kBlocks = 5;

// Blocks of one shape that compute a little.
ModelSpec blocks() {
  ModelSpec spec;
  spec.modules.push_back({.path = "", .type_name = "Model"});
  spec.modules.push_back({.path = "blocks", .type_name = "ModuleList", .parent = 0, .is_list = true});
  for (int b = 0; b < kBlocks; ++b) {
    const std::string path = "blocks." + std::to_string(b);
    spec.modules.push_back({.path = path, .type_name = "Block", .parent = 1, .parameters = {b}});
    spec.parameters.push_back({path + ".weight", kNumel});
  }
  for (size_t m = 0; m < spec.modules.size(); ++m) {
    spec.costs.push_back(
        {.forward = {.product_flops = m < 2 ? 0.0 : 1e9}, .backward = {.product_flops = m < 2 ? 0.0 : 2e9}});
  }
  return spec;
}

Settings mixed_precision(int64_t accumulation_steps) {
  Settings settings;
  settings.model_dtype = c10::ScalarType::BFloat16;
  settings.accumulation_steps = accumulation_steps;
  return settings;
}

Roofs links(CollectiveAlgorithm algorithm) {
  Roofs roofs;
  roofs.host_latency_s = roofs.network_latency_s = 5e-6;
  roofs.host_bytes_per_s = roofs.network_bytes_per_s = 25e9;
  roofs.algorithm = algorithm;
  return roofs;
}

TEST(CollectiveTime, IsTheClosedFormulaOfItsAlgorithm) {
  Settings settings;
  settings.world_size = 8;
  Roofs roofs = links(CollectiveAlgorithm::kRing);
  roofs.network_latency_s = 100.0;  // one host
  constexpr int64_t kBytes = 8'000'000;
  const double bytes_s = 7.0 / 8 * kBytes / 25e9;
  EXPECT_DOUBLE_EQ(collective_seconds(Collective::kAllGather, kBytes, settings, roofs), 7 * 5e-6 + bytes_s);
  EXPECT_DOUBLE_EQ(collective_seconds(Collective::kAllReduce, kBytes, settings, roofs), 2 * (7 * 5e-6 + bytes_s));
  roofs.algorithm = CollectiveAlgorithm::kRecursive;
  EXPECT_DOUBLE_EQ(collective_seconds(Collective::kReduceScatter, kBytes, settings, roofs), 3 * 5e-6 + bytes_s);
  for (const auto& [world_size, messages] : {std::pair{2, 1}, {3, 2}, {5, 3}, {4096, 12}, {4097, 13}}) {
    settings.world_size = world_size;
    EXPECT_DOUBLE_EQ(collective_seconds(Collective::kAllGather, 0, settings, roofs), messages * 5e-6) << world_size;
  }
  settings.world_size = 1;
  EXPECT_EQ(collective_seconds(Collective::kAllReduce, kBytes, settings, roofs), 0.0);
}

TEST(Scaling, IsTheClosedFormulas) {
  const testing::ZeroFormula formula{kBlocks, kBlocks * kNumel, 2, 4};
  for (const auto algorithm : {CollectiveAlgorithm::kRing, CollectiveAlgorithm::kRecursive}) {
    for (const int64_t micro_steps : {1, 2, 7}) {
      const Scaling scaling = plan_scaling(blocks(), mixed_precision(micro_steps), links(algorithm), 4096);
      ASSERT_EQ(scaling.points.size(), 3U * 12U);
      for (const auto& point : scaling.points) {
        const double expected =
            formula.seconds(point.stage, point.world_size, static_cast<double>(micro_steps), 5e-6, 25e9, algorithm);
        EXPECT_NEAR(point.communication_seconds, expected, 1e-9 * expected) << point.world_size << " " << point.stage;
        // Nothing overlaps: a step is compute, collectives and the update of the rank's slice, which halves with twice
        // the ranks.
        const double rest = point.step_seconds - point.compute_seconds - point.communication_seconds;
        const auto& first = scaling.points[static_cast<size_t>(point.stage - 1)];
        const double first_rest = first.step_seconds - first.compute_seconds - first.communication_seconds;
        EXPECT_NEAR(rest * point.world_size, first_rest * 2, 1e-6 * first_rest * point.world_size);
        EXPECT_NEAR(point.efficiency, point.compute_seconds / point.step_seconds, 1e-12);
        EXPECT_LE(point.efficiency, 1.0);
      }
    }
  }
}

TEST(Scaling, HidesWhatOverlaps) {
  Roofs roofs = links(CollectiveAlgorithm::kRecursive);
  const Scaling plain = plan_scaling(blocks(), mixed_precision(1), roofs, 64);
  roofs.overlaps = true;
  const Scaling overlapped = plan_scaling(blocks(), mixed_precision(1), roofs, 64);
  for (size_t i = 0; i < plain.points.size(); ++i) {
    EXPECT_LT(overlapped.points[i].step_seconds, plain.points[i].step_seconds);
    EXPECT_NEAR(overlapped.points[i].communication_seconds, plain.points[i].communication_seconds, 1e-12);
  }
}

TEST(Scaling, ShardsMoreOnMoreRanks) {
  const Scaling scaling = plan_scaling(blocks(), mixed_precision(1), Roofs(), 1024);
  for (size_t i = 3; i < scaling.points.size(); ++i) {
    EXPECT_LT(scaling.points[i].state_bytes, scaling.points[i - 3].state_bytes);
    EXPECT_GE(scaling.points[i].peak_bytes, scaling.points[i].state_bytes);
  }
  const auto& last = scaling.points.back();
  EXPECT_EQ(last.state_bytes, 18 * kBlocks * kNumel / 1024);
  EXPECT_EQ(last.num_collectives, 3 * kBlocks);
  EXPECT_DOUBLE_EQ(last.moved_bytes, 1023.0 / 1024 * (2 * 2 + 4) * kBlocks * kNumel);
}

TEST(Scaling, UsesTheLinksOfAHostInsideIt) {
  Roofs roofs;
  roofs.network_latency_s = 1.0;
  const Scaling scaling = plan_scaling(blocks(), mixed_precision(1), roofs, 32, 8);
  for (const auto& point : scaling.points) {
    EXPECT_EQ(point.communication_seconds > 1.0, point.world_size > 8) << point.world_size;
  }
}

TEST(Scaling, PlansLargeModels) {
  constexpr const char* kLlama70B = R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "max_position_embeddings": 4096})";
  const ModelSpec spec = transformer_spec(models::parse_model_config(kLlama70B, "test"), {}, c10::ScalarType::BFloat16);
  const Scaling scaling = plan_scaling(spec, mixed_precision(1), links(CollectiveAlgorithm::kRecursive), 4096, 8);
  const auto json = nlohmann::json::parse(to_json(scaling));
  EXPECT_EQ(json["points"].size(), scaling.points.size());
  EXPECT_EQ(json["points"][35]["world_size"], 4096);
  EXPECT_EQ(json["points"][35]["state_bytes"], scaling.points[35].state_bytes);
  const std::string text = to_text(scaling);
  EXPECT_NE(text.find("   4096      3"), std::string::npos) << text;
}

TEST(Scaling, RefusesWhatIsNoCurve) {
  EXPECT_THROW((void)plan_scaling(blocks(), {}, {}, 1), InvalidArgument);
  EXPECT_THROW((void)plan_scaling(blocks(), {}, {}, 8, 0), InvalidArgument);
  EXPECT_THROW((void)plan_scaling(blocks(), {}, {}, 8, 3), InvalidArgument);
  ModelSpec without_costs = blocks();
  without_costs.costs.clear();
  EXPECT_THROW((void)plan_scaling(without_costs, {}, {}, 8), InvalidArgument);
}

TEST(Links, AreReadStrictly) {
  EXPECT_DOUBLE_EQ(parse_duration("t", "5us"), 5e-6);
  EXPECT_DOUBLE_EQ(parse_duration("t", "1.5 ms"), 1.5e-3);
  EXPECT_DOUBLE_EQ(parse_duration("t", "0s"), 0.0);
  EXPECT_DOUBLE_EQ(parse_byte_rate("b", "25GB/s"), 25e9);
  EXPECT_DOUBLE_EQ(parse_byte_rate("b", "1.5 GiB/s"), 1.5 * (1 << 30));
  for (const char* text : {"", "5", "us", "5 µs", "-5us", "5usec", "5us ", "1e3us"}) {
    EXPECT_THROW((void)parse_duration("t", text), InvalidArgument) << text;
  }
  for (const char* text : {"", "25GB", "25/s", "GB/s", "0GB/s", "200Gb/s", "-1GB/s", "25GB/s/s"}) {
    EXPECT_THROW((void)parse_byte_rate("b", text), InvalidArgument) << text;
  }
}

}  // namespace
}  // namespace hydrofoil::plan
