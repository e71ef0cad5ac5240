#pragma once

#include <ATen/ops/zeros.h>

#include <cstdint>
#include <vector>

#include "hydrofoil/models/causal_lm.h"
#include "hydrofoil/zero/optimizer_step.h"

namespace hydrofoil::testing {

// Optimizer step `step`, from 1, of AdamW without an engine: `micro_steps` backwards over `batch_size` samples of 8
// tokens.
inline void run_optimizer_step(zero::Runtime& runtime, models::CausalLM& model, int64_t batch_size, int micro_steps,
                               int step) {
  const at::Tensor tokens = at::zeros({batch_size, 8}, at::kLong);
  for (int i = 0; i < micro_steps; ++i) {
    runtime.reducer().configure_rounds(i + 1 == micro_steps, 1.0 / micro_steps, i);
    const at::Tensor loss = model.loss(tokens, models::next_token_targets(tokens));
    runtime.watch_loss(loss);
    loss.backward();
  }
  runtime.prepare_step();
  (void)zero::summarize_gradients(runtime);
  zero::step_optimizer(runtime, optim::OptimizerKind::kAdamW, std::vector<optim::Hyperparameters>(1), step, 1.0F);
  runtime.publish_step();
}

}  // namespace hydrofoil::testing
