// A model that is no torch::nn: tensors, and a tree that names them. Its two experts form one unit, which is gathered
// whole, whatever its parts: `hydrofoil run --no-python --nproc 2 custom_unit`.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <iostream>

#include "hydrofoil/comm/job.h"
#include "hydrofoil/engine/initialize.h"

using at::Tensor;
using hydrofoil::zero::ModelTree;

struct Mixture {
  ModelTree tree;
  int root, mixture, head;
  Tensor gate, first, second, out;

  explicit Mixture(int64_t width) {
    auto generator = at::detail::createCPUGenerator(1);  // the same weights on every rank
    const auto weight = [&](int64_t rows, int64_t columns) {
      return (at::randn({rows, columns}, generator, at::kFloat) * 0.5).set_requires_grad(true);
    };
    gate = weight(width, 2);
    first = weight(width, 2);
    second = weight(width, 2);
    out = weight(1, width);
    root = tree.add_module("", "Mixture", -1);
    mixture = tree.add_module("mixture", "Experts", root);
    tree.modules[static_cast<size_t>(mixture)].keep_whole = true;
    tree.add_parameter(mixture, "gate", gate);
    const int experts = tree.add_module("experts", "List", mixture, /*is_list=*/true);
    tree.add_parameter(tree.add_module("0", "Expert", experts), "weight", first);
    tree.add_parameter(tree.add_module("1", "Expert", experts), "weight", second);
    head = tree.add_module("head", "Linear", root);
    tree.add_parameter(head, "weight", out);
  }

  // Each call says which module runs and what goes in; the engine gathers on the way in, releases on the way out.
  Tensor forward(const Tensor& x) {
    auto& boundaries = *tree.boundaries;
    return boundaries.call(root, {x}, [&] {
      const Tensor mixed = boundaries.call(mixture, {x}, [&] {
        const Tensor share = at::sigmoid(at::linear(x, gate));
        return share * at::tanh(at::linear(x, first)) + (1 - share) * at::sin(at::linear(x, second));
      });
      return boundaries.call(head, {mixed}, [&] { return at::linear(mixed, out); });
    });
  }
};

int main() {
  hydrofoil::comm::Job job;
  Mixture model(32);
  const auto engine = hydrofoil::engine::initialize(model.tree, R"({
    "train_batch_size": 64,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "weight_decay": 0}},
    "zero_optimization": {"stage": 3},
    "hydrofoil": {"unit_min_bytes": 0}
  })",
                                                    job);
  const auto inputs = 2 * at::rand({64, 2}, at::detail::createCPUGenerator(2), at::kFloat) - 1;
  const auto targets = at::sin(inputs.narrow(1, 0, 1) * 3) * inputs.narrow(1, 1, 1);
  const int64_t own = 64 / job.world_size();
  for (int64_t step = 1; step <= 200; ++step) {
    const auto x = inputs.narrow(0, job.rank() * own, own);
    const auto loss = at::mse_loss(model.forward(x), targets.narrow(0, job.rank() * own, own));
    engine->backward(loss);
    engine->step();
    if (step % 50 == 0 && job.is_first()) std::cout << "step " << step << "  loss " << loss.item<float>() << '\n';
  }
}
