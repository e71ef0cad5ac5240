#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hydrofoil/optim/optimizer.h"
#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::zero {

// What the ranks agree on about a window's reduced gradients.
struct GradientSummary {
  double norm = 0.0;  // global L2 norm as reduced (loss scale not removed); the same bits on every rank
  bool finite = true;
  std::string parameter;  // the first offending one, on the rank below, in the micro step below; empty if finite
  int rank = -1;
  int64_t micro_step = -1;
};

// Norm and overflow check in one pass over this rank's gradients, and one exchange. Also checks that all ranks recorded
// the same plan.
[[nodiscard]] GradientSummary summarize_gradients(Runtime& runtime);

// One fused pass over each owned slice. `groups`: hyperparameters of each optimizer group. `step` counts from 1.
void step_optimizer(Runtime& runtime, optim::OptimizerKind kind, std::span<const optim::Hyperparameters> groups,
                    int64_t step, float gradient_scale);

// What an optimizer of the user's works on, in fp32, the gradient already scaled: each parameter in its own shape where
// this rank owns it whole (stage 0, one rank), else 1-D runs of the rank's slices.
struct ClientShard {
  int group = 0;
  at::Tensor value;  // a view of the master
  at::Tensor gradient;
  int64_t parameter = -1;  // in Runtime::parameters(), where the shard is all of it
};
[[nodiscard]] std::vector<ClientShard> client_shards(Runtime& runtime);
// What an optimizer of the user's keeps of one kind for each of client_shards(), in their order (undefined: nothing
// yet, read as zeros), as Runtime::assemble takes it. Throws InvalidArgument where a piece has not its shard's shape.
[[nodiscard]] Runtime::OwnedTensor client_state(Runtime& runtime, std::vector<at::Tensor> pieces);
// Writes a parameter's full value of it into the pieces.
void set_client_state(Runtime& runtime, int64_t parameter, const std::vector<at::Tensor>& pieces,
                      const at::Tensor& value);
// Scales the owned gradients in place for them; fp32 accumulation is required where a client optimizer is used.
void scale_gradients(Runtime& runtime, double scale);
// Casts the masters to the model dtype after the client optimizer's step.
void apply_masters(Runtime& runtime);

}  // namespace hydrofoil::zero
