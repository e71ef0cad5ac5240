#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/plan/plan.h"
#include "hydrofoil/plan/transformer_spec.h"
#include "hydrofoil/zero/runtime.h"

// The planner's activations and temporaries against what torch's allocator is asked for in a step.
namespace hydrofoil::plan {
namespace {

// Counts the bytes of living CPU tensors.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t num_bytes) override {
    char* base = static_cast<char*>(std::aligned_alloc(kHeader, (num_bytes + 2 * kHeader - 1) / kHeader * kHeader));
    *reinterpret_cast<int64_t*>(base) = static_cast<int64_t>(num_bytes);
    const int64_t now = (in_use_ += static_cast<int64_t>(num_bytes));
    int64_t most = peak_;
    while (now > most && !peak_.compare_exchange_weak(most, now)) {
    }
    char* address = base + kHeader;
    return {address, address, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t num_bytes) const override {
    default_copy_data(to, from, num_bytes);
  }
  void start() { base_ = in_use_.load(), peak_ = base_; }
  [[nodiscard]] int64_t peak() const { return peak_ - base_; }

 private:
  static constexpr size_t kHeader = 64;  // holds the size
  static void release(void* address) {
    char* base = static_cast<char*>(address) - kHeader;
    in_use_ -= *reinterpret_cast<int64_t*>(base);
    std::free(base);
  }
  inline static std::atomic<int64_t> in_use_{0};
  inline static std::atomic<int64_t> peak_{0};
  int64_t base_ = 0;
};

CountingAllocator& counter() {
  static auto* allocator = [] {
    auto* made = new CountingAllocator;  // for the life of the process, as torch keeps its address
    c10::SetCPUAllocator(made, /*priority=*/100);
    return made;
  }();
  return *allocator;
}

struct Case {
  const char* name;
  const char* config;
  c10::ScalarType dtype;
  BatchShape batch;
};

constexpr const char* kLlama = R"({"model_type": "llama", "vocab_size": 500, "hidden_size": 192,
  "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 3})";
constexpr const char* kTiedLlama = R"({"model_type": "llama", "vocab_size": 6000, "hidden_size": 128,
  "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
  "tie_word_embeddings": true})";
constexpr const char* kGpt2 = R"({"model_type": "gpt2", "vocab_size": 800, "n_positions": 128, "n_embd": 192,
  "n_layer": 5, "n_head": 6, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})";
constexpr const char* kGpt2Dropout = R"({"model_type": "gpt2", "vocab_size": 800, "n_positions": 128, "n_embd": 192,
  "n_layer": 5, "n_head": 6})";

class PlanPeak : public testing::TestWithParam<Case> {};

TEST_P(PlanPeak, IsWithinTwoPercent) {
  const Case& c = GetParam();
  CountingAllocator& allocator = counter();
  at::set_num_threads(1);  // attention has a small buffer a thread
  const models::ModelConfig config = models::parse_model_config(c.config, "test");
  const auto model = models::make_model(config, at::TensorOptions().dtype(c.dtype));
  models::initialize_weights(*model, 1);
  const auto channels = comm::make_local_channels(1, 2, {.name = "test", .timeout = std::chrono::seconds(60)});
  zero::RuntimeOptions options;
  zero::Runtime runtime(model->tree().parameters, model->tree().modules, options, channels[0][0], channels[0][1]);
  model->tree().boundaries->attach(&runtime);
  const at::Tensor tokens = at::arange(c.batch.micro_batch_size * c.batch.sequence_length, at::kLong)
                                .remainder(config.vocab_size())
                                .view({c.batch.micro_batch_size, c.batch.sequence_length});
  const at::Tensor targets = models::next_token_targets(tokens);
  for (int step = 0; step < 2; ++step) {
    allocator.start();
    {
      const at::Tensor loss = model->loss(tokens, targets);
      runtime.watch_loss(loss);
      loss.backward();
    }
    runtime.prepare_step();
    runtime.publish_step();
  }
  const auto measured = static_cast<double>(allocator.peak());
  model->tree().boundaries->attach(nullptr);
  runtime.destroy(false);

  const Plan plan = make_plan(transformer_spec(config, c.batch, c.dtype), Settings{});
  const auto planned = static_cast<double>(plan.peak.bytes - plan.states.total());
  RecordProperty("measured", std::to_string(measured));
  std::printf("%s: activations and temporaries planned %.0f, measured %.0f (%.1f %%); peak %+.1f %%\n", c.name, planned,
              measured, 100 * (planned / measured - 1),
              100 * (planned - measured) / (measured + static_cast<double>(plan.states.total())));

  EXPECT_NEAR(planned, measured, 0.02 * measured);
}

constexpr auto kFp32 = c10::ScalarType::Float;
constexpr auto kBf16 = c10::ScalarType::BFloat16;
INSTANTIATE_TEST_SUITE_P(
    Models, PlanPeak,
    testing::Values(Case{"llama_fp32", kLlama, kFp32, {4, 96}}, Case{"llama_bf16", kLlama, kBf16, {4, 96}},
                    Case{"llama_small_batch", kLlama, kBf16, {1, 64}},
                    Case{"tied_llama_fp32", kTiedLlama, kFp32, {2, 64}},
                    Case{"tied_llama_bf16", kTiedLlama, kBf16, {2, 64}}, Case{"gpt2_fp32", kGpt2, kFp32, {4, 96}},
                    Case{"gpt2_bf16", kGpt2, kBf16, {4, 96}}, Case{"gpt2_dropout_fp32", kGpt2Dropout, kFp32, {4, 96}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hydrofoil::plan
