#include "hydrofoil/plan/plan.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/model_config.h"
#include "hydrofoil/plan/report.h"
#include "hydrofoil/plan/roofs_json.h"
#include "hydrofoil/plan/transformer_spec.h"

namespace hydrofoil::plan {
namespace {

constexpr auto kBf16 = c10::ScalarType::BFloat16;

// Llama-2-70B.
constexpr const char* kLlama70B = R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192,
  "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
  "max_position_embeddings": 4096})";

ModelSpec llama_70b(const BatchShape& batch = {}) {
  return transformer_spec(models::parse_model_config(kLlama70B, "test"), batch, kBf16);
}

Settings mixed_precision(int stage, int world_size) {
  Settings settings;
  settings.stage = stage;
  settings.world_size = world_size;
  settings.model_dtype = kBf16;
  return settings;
}

// Blocks of one shape, and one parameter beside them.
ModelSpec blocks(int num_blocks, int64_t numel, int64_t head) {
  ModelSpec spec;
  spec.modules.push_back({.path = "", .type_name = "Model"});
  spec.modules.push_back({.path = "blocks", .type_name = "ModuleList", .parent = 0, .is_list = true});
  for (int b = 0; b < num_blocks; ++b) {
    const std::string path = "blocks." + std::to_string(b);
    spec.modules.push_back({.path = path, .type_name = "Block", .parent = 1, .parameters = {b}});
    spec.parameters.push_back({path + ".weight", numel});
  }
  spec.modules.push_back({.path = "head", .type_name = "Linear", .parent = 0, .parameters = {num_blocks}});
  spec.parameters.push_back({"head.weight", head});
  return spec;
}

// Stage 0 (2+g+12)P; 1 (2+g)P + 12P/N; 2 2P + (g+12)P/N; 3 (2+g+12)P/N, here g = 4; 1 as 2 with one backward a step.
TEST(Plan, KeepsWhatTheZeroPaperSays) {
  constexpr int kRanks = 8;
  const ModelSpec spec = blocks(4, 1 << 20, 1 << 20);
  const int64_t p = spec.num_parameters();
  EXPECT_EQ(make_plan(spec, mixed_precision(0, kRanks)).states.total(), 18 * p);
  EXPECT_EQ(make_plan(spec, mixed_precision(1, kRanks)).states.total(), 2 * p + 16 * p / kRanks);
  Settings accumulating = mixed_precision(1, kRanks);
  accumulating.accumulation_steps = 2;
  EXPECT_EQ(make_plan(spec, accumulating).states.total(), 6 * p + 12 * p / kRanks);
  EXPECT_EQ(make_plan(spec, mixed_precision(2, kRanks)).states.total(), 2 * p + 16 * p / kRanks);
  EXPECT_EQ(make_plan(spec, mixed_precision(3, kRanks)).states.total(), 18 * p / kRanks);
  EXPECT_EQ(make_plan(spec, mixed_precision(3, 1)).states.total(), 18 * p);
}

TEST(Plan, CountsPaddingAndAlignment) {
  ModelSpec spec = blocks(1, 7, 1);
  Settings settings = mixed_precision(3, 3);
  settings.unit_min_bytes = 0;
  const Plan plan = make_plan(spec, settings);
  // 7 bf16 elements take 32 (64 bytes), a multiple of three slices of 32: 96; the head too.
  EXPECT_EQ(plan.states.parameters, 2 * 32 * 2);
  EXPECT_EQ(plan.states.masters, 2 * 32 * 4);
  EXPECT_EQ(plan.states.gradients, 2 * 32 * 4);
  EXPECT_EQ(plan.states.optimizer_states, 2 * 32 * 8);
  EXPECT_EQ(plan.largest_unit_bytes, 96 * 2);
}

int64_t bytes_of(const Plan& plan, Activity activity) {
  int64_t bytes = 0;
  for (const auto& total : plan.collectives) bytes += total.activity == activity ? total.bytes : 0;
  return bytes;
}

// Per micro step and element, in bf16 with fp32 reductions: stage 3 gathers in forward and in backward, stages 1 and 2
// gather once a step after the update.
TEST(Plan, SendsWhatTheZeroPaperSays) {
  const ModelSpec spec = blocks(6, 1 << 20, 1 << 20);
  const int64_t p = spec.num_parameters();
  for (int stage = 0; stage <= 3; ++stage) {
    Settings settings = mixed_precision(stage, 4);
    settings.accumulation_steps = 5;
    const Plan plan = make_plan(spec, settings);
    EXPECT_EQ(bytes_of(plan, Activity::kReduce), (stage >= 2 ? 5 : 1) * 4 * p) << stage;
    EXPECT_EQ(bytes_of(plan, Activity::kPublish), stage == 1 || stage == 2 ? 2 * p : 0) << stage;
    EXPECT_EQ(bytes_of(plan, Activity::kGather), stage == 3 ? 5 * 2 * 2 * p : 0) << stage;
  }
}

TEST(Plan, HoldsTwoUnitsAndThreeBucketsAtMost) {
  const ModelSpec spec = blocks(12, 1 << 20, 1 << 20);
  const Plan plan = make_plan(spec, mixed_precision(3, 4));
  EXPECT_EQ(plan.peak_slot_bytes, (2 * 2 + 3 * 4) * (int64_t{1} << 20));
  Settings without_overlap = mixed_precision(3, 4);
  without_overlap.overlap = false;
  EXPECT_EQ(make_plan(spec, without_overlap).peak_slot_bytes, (2 + 4) * (int64_t{1} << 20));
}

TEST(Plan, OneHostKeepsParametersOnceAndGathersNothing) {
  const ModelSpec spec = blocks(6, 1 << 20, 1 << 20);
  const int64_t p = spec.num_parameters();
  for (int stage = 1; stage <= 3; ++stage) {
    Settings settings = mixed_precision(stage, 4);
    settings.shares_parameters = settings.narrow_buckets = true;
    const Plan plan = make_plan(spec, settings);
    EXPECT_EQ(plan.states.total(), 18 * p / 4) << stage;
    EXPECT_EQ(bytes_of(plan, Activity::kGather) + bytes_of(plan, Activity::kPublish), 0) << stage;
    EXPECT_EQ(bytes_of(plan, Activity::kReduce), 2 * p) << stage;
    EXPECT_EQ(plan.peak_slot_bytes, 3 * 2 * (int64_t{1} << 20)) << stage;
  }
  Settings settings = mixed_precision(1, 3);
  settings.shares_parameters = true;
  EXPECT_EQ(make_plan(blocks(1, 7, 1), settings).states.parameters, 4096);  // whole pages a slice
}

TEST(Plan, PassingGradientsComeWithTheirReductions) {
  const ModelSpec spec = blocks(6, 1 << 20, 1 << 20);
  Settings settings = mixed_precision(2, 4);
  const Plan kept = make_plan(spec, settings);
  settings.passing_gradients = true;
  const Plan passing = make_plan(spec, settings);
  EXPECT_EQ(passing.states.total(), kept.states.total());
  EXPECT_EQ(passing.permanent_bytes(), kept.states.total() - kept.states.gradients);
  EXPECT_EQ(passing.timeline.memory.front().gradient_bytes, 0);
  EXPECT_EQ(passing.timeline.memory.back().gradient_bytes, 0);
  int64_t most = 0;
  for (const auto& point : passing.timeline.memory) most = std::max(most, point.gradient_bytes);
  EXPECT_EQ(most, kept.states.gradients);
}

TEST(Plan, GrowsWithUnitsNotWithRanks) {
  BatchShape batch;
  batch.sequence_length = 4096;
  const ModelSpec spec = llama_70b(batch);
  EXPECT_EQ(spec.num_parameters(), 68'976'648'192);
  Settings settings = mixed_precision(3, 4096);
  settings.accumulation_steps = 1'000'000;
  const Plan plan = make_plan(spec, settings);
  EXPECT_EQ(plan.units.size(), 82);  // 80 blocks, the embedding, norm and head together
  EXPECT_LT(plan.timeline.events.size(), 2'000);
  EXPECT_EQ(plan.timeline.left_out_micro_steps, 999'998);
  EXPECT_NEAR(static_cast<double>(plan.states.total()), 18.0 * 68'976'648'192 / 4096,
              1e-3 * 18 * 68'976'648'192 / 4096);
}

TEST(Plan, TellsWhereThePeakIs) {
  const Plan plan = make_plan(llama_70b({.micro_batch_size = 8, .sequence_length = 4096}), mixed_precision(3, 512));
  EXPECT_EQ(plan.peak.bytes,
            plan.states.total() + plan.peak.slot_bytes + plan.peak.activation_bytes + plan.peak.workspace_bytes);
  EXPECT_EQ(plan.peak.phase, Phase::kBackward);
  EXPECT_FALSE(plan.peak.where.empty());
  int64_t most = 0;
  for (const auto& point : plan.timeline.memory) most = std::max(most, point.transient_bytes());
  EXPECT_EQ(plan.peak.bytes, plan.states.total() + most);
  EXPECT_EQ(plan.timeline.memory.back().transient_bytes(), 0);  // nothing is left of a step
}

TEST(Plan, CheckpointingTradesMemoryForTime) {
  BatchShape batch{.micro_batch_size = 4, .sequence_length = 4096};
  const Plan plain = make_plan(llama_70b(batch), mixed_precision(3, 512));
  batch.checkpointing = true;
  const Plan checkpointed = make_plan(llama_70b(batch), mixed_precision(3, 512));
  EXPECT_LT(checkpointed.peak_activation_bytes, plain.peak_activation_bytes / 4);
  EXPECT_GT(checkpointed.step_seconds, 1.2 * plain.step_seconds);
}

TEST(Plan, LanesNeverOverlapThemselves) {
  Roofs roofs;
  roofs.overlaps = true;
  const Plan plan = make_plan(llama_70b(), mixed_precision(3, 64), roofs);
  std::map<Lane, double> end;
  for (const auto& event : plan.timeline.events) {
    EXPECT_GE(event.begin_s, end[event.lane] - 1e-9);
    EXPECT_GE(event.end_s, event.begin_s);
    end[event.lane] = event.end_s;
  }
  const Plan serial = make_plan(llama_70b(), mixed_precision(3, 64));
  EXPECT_LT(plan.step_seconds, serial.step_seconds);
}

TEST(Plan, FrozenParametersHaveNeitherGradientsNorStates) {
  ModelSpec spec = blocks(4, 1 << 20, 1 << 20);
  for (auto& parameter : spec.parameters) parameter.trainable = parameter.name == "head.weight";
  const Plan plan = make_plan(spec, mixed_precision(0, 2));
  EXPECT_EQ(plan.states.parameters, 2 * spec.num_parameters());
  EXPECT_EQ(plan.states.gradients, 4 << 20);
  EXPECT_EQ(plan.num_trainable, 1 << 20);
}

TEST(Plan, RefusesWhatIsNoPlan) {
  const ModelSpec spec = blocks(1, 8, 8);
  const auto error_of = [&](auto change) {
    Settings settings;
    Roofs roofs;
    change(settings, roofs);
    try {
      (void)make_plan(spec, settings, roofs);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.stage = 4; }).find("stage: got 4"), std::string::npos);
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.world_size = 0; }).find("world_size: got 0"), std::string::npos);
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.num_nodes = 2; }).find("nodes: got 2"), std::string::npos);
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.accumulation_steps = 0; }).find("got 0"), std::string::npos);
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.num_optimizer_states = -1; }).find("got -1"), std::string::npos);
  EXPECT_NE(error_of([](Settings& s, Roofs&) { s.alignment_bytes = 48; }).find("got 48"), std::string::npos);
  EXPECT_NE(error_of([](Settings&, Roofs& r) { r.memory_bytes_per_s = 0; }).find("memory_bytes_per_s"),
            std::string::npos);
  EXPECT_NE(error_of([](Settings&, Roofs& r) { r.host_latency_s = -1; }).find("latency"), std::string::npos);
  EXPECT_THROW((void)make_plan(ModelSpec{}, Settings{}), InvalidArgument);
  EXPECT_THROW((void)make_plan(blocks(2, INT64_MAX / 2, 8), Settings{}), InvalidArgument);
  ModelSpec costs = spec;
  costs.costs.resize(1);
  EXPECT_THROW((void)make_plan(costs, Settings{}), InvalidArgument);
  EXPECT_THROW((void)llama_70b({.micro_batch_size = 0}), InvalidArgument);
  EXPECT_THROW((void)llama_70b({.sequence_length = 0}), InvalidArgument);
}

TEST(Roofs, AreReadStrictly) {
  const Roofs roofs = parse_roofs(R"({"fp32_flops": 2e12, "host_latency_s": 0, "overlaps": true})", "roofs.json");
  EXPECT_EQ(roofs.fp32_flops, 2e12);
  EXPECT_TRUE(roofs.overlaps);
  EXPECT_EQ(roofs.bf16_flops, Roofs().bf16_flops);
  for (const char* text : {"[]", "{\"fp32_flop\": 1}", "{\"fp32_flops\": \"1\"}", "{\"fp32_flops\": 0}",
                           "{\"overlaps\": 1}", "{\"call_s\": -1}", "{", "{\"call_s\": 1, \"call_s\": 1}"}) {
    EXPECT_THROW((void)parse_roofs(text, "roofs.json"), InvalidArgument) << text;
  }
}

TEST(Report, JsonHasWhatTheTableHas) {
  const Plan plan = make_plan(llama_70b(), mixed_precision(3, 512));
  const auto json = nlohmann::json::parse(to_json(plan, true));
  EXPECT_EQ(json["bytes"]["states"], plan.states.total());
  EXPECT_EQ(json["bytes"]["peak"], plan.peak.bytes);
  EXPECT_EQ(json["units"].size(), plan.units.size());
  EXPECT_EQ(json["timeline"]["events"].size(), plan.timeline.events.size());
  EXPECT_EQ(json["model_dtype"], "bfloat16");
  const std::string text = to_text(plan);
  for (const char* word :
       {"512 ranks", "stage 3", "fp32 masters", "peak", "collectives a step", "model.layers.0 and 79 like it"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
}

}  // namespace
}  // namespace hydrofoil::plan
