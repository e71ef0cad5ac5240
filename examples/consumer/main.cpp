// Trains a tiny Llama on random tokens under ZeRO-3: tiny_llama [CHECKPOINTS]
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randint.h>

#include <cstdio>
#include <exception>

#include "hydrofoil/comm/job.h"
#include "hydrofoil/engine/initialize.h"
#include "hydrofoil/models/causal_lm.h"

constexpr const char* kModel = R"({
  "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32
})";
constexpr const char* kConfig = R"({
  "train_batch_size": 4,
  "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
  "zero_optimization": {"stage": 3}
})";

void train(int argc, char** argv) {
  namespace models = hydrofoil::models;
  hydrofoil::comm::Job job;  // this rank among those that `hydrofoil run` started, or a world of one
  const auto model = models::make_model(models::parse_model_config(kModel, "config.json"), at::kFloat);
  models::initialize_weights(*model, 1);
  const auto engine = hydrofoil::engine::initialize(model->tree(), kConfig, job);

  // The same four sequences on every rank, which trains on its share of them.
  const auto tokens = at::randint(64, {4, 16}, at::detail::createCPUGenerator(7), at::kLong);
  const int64_t own = tokens.size(0) / job.world_size();
  const auto inputs = tokens.narrow(0, job.rank() * own, own);
  const auto channels = job.connect({.num_channels = 1});  // for the mean of the ranks' losses
  for (int step = 1; step <= 10; ++step) {
    const auto loss = model->loss(inputs, models::next_token_targets(inputs));
    engine->backward(loss);
    engine->step();
    const auto mean = loss.detach().clone().reshape({1});
    channels[0].all_reduce(mean, hydrofoil::comm::ReduceOp::kAvg).wait();
    if (job.is_first()) std::printf("step %d  loss %.6f\n", step, mean.item<double>());
  }
  if (argc > 1) engine->save_checkpoint(argv[1]);
}

int main(int argc, char** argv) {
  try {
    train(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
