#include "hydrofoil/plan/plan.h"

#include <gtest/gtest.h>

#include <string>

#include "hydrofoil/models/causal_lm.h"
#include "tests/support/comm_backends.h"
#include "tests/support/run_ranks.h"
#include "tests/support/runtime_step.h"

// The planner against what the runtime really keeps and allocates, to the byte.
namespace hydrofoil::plan {
namespace {

struct Case {
  const char* model;
  int stage;
  int num_ranks;
  c10::ScalarType model_dtype;
  c10::ScalarType accumulation_dtype;
  int64_t unit_min_bytes;
  bool overlap;
  std::string backend = "local";
  int micro_steps = 3;
  int64_t keep_gathered_bytes = 0;
  c10::ScalarType state_dtype = c10::ScalarType::Float;
};

constexpr auto kFp32 = c10::ScalarType::Float;
constexpr auto kBf16 = c10::ScalarType::BFloat16;
constexpr int kNumSteps = 2;

const char* config_text(const std::string& model) {
  if (model == "gpt2") {
    return R"({"model_type": "gpt2", "vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 3,
      "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})";
  }
  if (model == "tied llama") {
    return R"({"model_type": "llama", "vocab_size": 61, "hidden_size": 36, "intermediate_size": 52,
      "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": true})";
  }
  return R"({"model_type": "llama", "vocab_size": 67, "hidden_size": 20, "intermediate_size": 44,
    "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "attention_bias": true})";
}

std::unique_ptr<models::CausalLM> build(const std::string& model) {
  auto built = models::make_model(models::parse_model_config(config_text(model), "test"), at::kFloat);
  models::initialize_weights(*built, 1);
  if (model == "frozen llama") {  // the first blocks, and one weight of a later one
    for (auto& info : built->tree().parameters) {
      const bool frozen = info.name.find("layers.0.") != std::string::npos ||
                          info.name.find("embed") != std::string::npos ||
                          info.name == "model.layers.1.mlp.up_proj.weight";
      info.parameter.set_requires_grad(!frozen);
    }
  }
  if (model == "mixed llama") {  // with a dtype of its own
    for (auto& info : built->tree().parameters) {
      if (info.name.find("lm_head") != std::string::npos) info.parameter.set_data(info.parameter.to(at::kBFloat16));
    }
  }
  return built;
}

ModelSpec spec_of(const zero::ModelTree& tree) {
  ModelSpec spec;
  spec.modules = tree.modules;
  for (const auto& info : tree.parameters) {
    spec.parameters.push_back(
        {info.name, info.parameter.numel(), info.parameter.scalar_type(), info.parameter.requires_grad()});
  }
  return spec;
}

Settings settings_of(const Case& c) {
  Settings settings;
  settings.stage = c.stage;
  settings.world_size = c.num_ranks;
  if (c.model_dtype != kFp32) settings.model_dtype = c.model_dtype;
  settings.accumulation_dtype = c.accumulation_dtype;
  settings.num_optimizer_states = 2;
  settings.optimizer_state_dtype = c.state_dtype;
  settings.accumulation_steps = c.micro_steps;
  settings.narrow_buckets = c.micro_steps == 1 && c.accumulation_dtype == kFp32;
  settings.shares_parameters = c.backend == "shm";
  settings.unit_min_bytes = c.unit_min_bytes;
  settings.overlap = c.overlap;
  settings.keep_gathered_bytes = c.keep_gathered_bytes;
  return settings;
}

zero::RuntimeOptions options_of(const Case& c, int rank) {
  zero::RuntimeOptions options;
  options.sharding = zero::Sharding::of_stage(c.stage, rank, c.num_ranks, c.micro_steps);
  options.sharding.accumulation_dtype = c.accumulation_dtype;
  options.sharding.narrow_buckets = c.micro_steps == 1 && c.accumulation_dtype == kFp32;
  options.sharding.optimizer_state_dtype = c.state_dtype;
  if (c.model_dtype != kFp32) options.sharding.model_dtype = c.model_dtype;
  options.reduction.overlap = c.overlap;
  options.unit_min_bytes = c.unit_min_bytes;
  options.keep_gathered_bytes = c.keep_gathered_bytes;
  return options;
}

void train(zero::Runtime& runtime, models::CausalLM& model, int micro_steps) {
  for (int step = 1; step <= kNumSteps; ++step) testing::run_optimizer_step(runtime, model, 2, micro_steps, step);
}

class PlanAgainstRuntime : public ::testing::TestWithParam<Case> {};

TEST_P(PlanAgainstRuntime, HasItsBytes) {
  const Case& c = GetParam();
  const bool runs = std::string(c.model) != "mixed llama" || c.model_dtype != kFp32;  // else dtypes do not match
  const auto channels =
      testing::connect_threads(c.backend, c.num_ranks, 2, {.name = "test", .timeout = std::chrono::seconds(60)});
  std::vector<zero::MemoryReport> reports(c.num_ranks);
  testing::run_ranks(c.num_ranks, [&](int r) {
    const auto model = build(c.model);
    zero::Runtime runtime(model->tree().parameters, model->tree().modules, options_of(c, r), channels[r][0],
                          channels[r][1]);
    model->tree().boundaries->attach(&runtime);
    if (runs) {
      train(runtime, *model, c.micro_steps);
    } else {
      runtime.allocate_optimizer_states(2);
    }
    reports[r] = runtime.memory();
    model->tree().boundaries->attach(nullptr);
    runtime.destroy(false);
  });
  const Plan plan = make_plan(spec_of(build(c.model)->tree()), settings_of(c));
  for (const auto& report : reports) {
    EXPECT_EQ(plan.states.parameters, report.parameter_bytes);
    EXPECT_EQ(plan.states.gradients, report.gradient_bytes);
    EXPECT_EQ(plan.states.masters, report.master_bytes);
    EXPECT_EQ(plan.states.optimizer_states, report.optimizer_state_bytes);
    EXPECT_EQ(plan.largest_unit_bytes, report.largest_unit_bytes);
    if (runs) {
      EXPECT_EQ(plan.peak_slot_bytes, report.peak_slot_bytes);
    }
  }
  EXPECT_GT(reports[0].parameter_bytes, 0);
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const char* model : {"llama", "tied llama", "gpt2", "frozen llama", "mixed llama"}) {
    for (int stage = 0; stage <= 3; ++stage) {
      for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
        result.push_back({model, stage, num_ranks, kFp32, kFp32, 0, true});
        if (num_ranks % 2 == 0) result.push_back({model, stage, num_ranks, kBf16, kFp32, 4096, true});
        if (num_ranks == 2) result.push_back({model, stage, num_ranks, kBf16, kFp32, 0, true, "shm", 1});
        if (num_ranks == 3) result.push_back({model, stage, num_ranks, kFp32, kFp32, 4096, true, "shm"});
        if (num_ranks == 3) result.push_back({model, stage, num_ranks, kBf16, kFp32, 0, true, "local", 1});
        if (num_ranks == 3) result.push_back({model, stage, num_ranks, kBf16, kBf16, 0, false});
        if (num_ranks < 3) result.push_back({model, stage, num_ranks, kBf16, kFp32, 0, true, "local", 2, 0, kBf16});
        const bool keeps = stage == 3 && (num_ranks == 2 || num_ranks == 3) && std::string(model).ends_with(" llama");
        for (const int micro_steps : {1, 4}) {
          if (keeps) result.push_back({model, stage, num_ranks, kFp32, kFp32, 0, true, "local", micro_steps, 20'000});
          if (keeps) result.push_back({model, stage, num_ranks, kBf16, kFp32, 0, true, "local", micro_steps, 1 << 30});
        }
      }
    }
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(Grid, PlanAgainstRuntime, ::testing::ValuesIn(cases()), [](const auto& info) {
  const Case& c = info.param;
  std::string name = std::string(c.model) + "_stage" + std::to_string(c.stage) + "_ranks" +
                     std::to_string(c.num_ranks) + "_" + (c.model_dtype == kFp32 ? "fp32" : "bf16") +
                     (c.accumulation_dtype == kFp32 ? "" : "_bf16acc") + (c.state_dtype == kFp32 ? "" : "_bf16states") +
                     "_" + c.backend + std::to_string(c.micro_steps) +
                     (c.keep_gathered_bytes > 0 ? "_keep" + std::to_string(c.keep_gathered_bytes) : "");
  for (auto& letter : name) letter = letter == ' ' ? '_' : letter;
  return name;
});

}  // namespace
}  // namespace hydrofoil::plan
