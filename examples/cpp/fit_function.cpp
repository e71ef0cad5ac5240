// Fits a small network to a function of two variables: `hydrofoil run --no-python --nproc 2 fit_function
// [CHECKPOINTS]`.
#include <torch/torch.h>

#include <cmath>
#include <iostream>

#include "hydrofoil/engine/torch_nn.h"

int main(int argc, char** argv) {
  namespace nn = torch::nn;
  constexpr int64_t kPoints = 1024, kBatch = 64;
  hydrofoil::comm::Job job;
  torch::manual_seed(0);
  const auto inputs = 2 * torch::rand({kPoints, 2}) - 1;
  const auto targets = torch::sin(M_PI * inputs.narrow(1, 0, 1)) * torch::cos(M_PI * inputs.narrow(1, 1, 1));
  auto model = nn::Sequential(nn::Linear(2, 64), nn::Tanh(), nn::Linear(64, 64), nn::Tanh(), nn::Linear(64, 1));
  auto engine = hydrofoil::engine::initialize(model, R"({
    "train_batch_size": 64,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
    "zero_optimization": {"stage": 3}
  })",
                                              job);

  const int64_t own_batch = kBatch / job.world_size();
  for (int64_t step = 0; step < 80; ++step) {
    const int64_t first = step * kBatch % kPoints + job.rank() * own_batch;
    const auto loss =
        nn::functional::mse_loss(engine(inputs.narrow(0, first, own_batch)), targets.narrow(0, first, own_batch));
    engine->backward(loss);
    engine->step();
    if (step % 10 == 9 && job.is_first()) std::cout << "step " << step + 1 << "  loss " << loss.item<float>() << '\n';
  }
  if (argc > 1) engine->save_checkpoint(argv[1]);
}
