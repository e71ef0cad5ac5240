#pragma once

#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/tanh.h>

#include <functional>
#include <string>
#include <vector>

#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::testing {

// Values that position and seed alone decide.
inline at::Tensor values(at::IntArrayRef sizes, double seed) {
  int64_t numel = 1;
  for (const int64_t size : sizes) numel *= size;
  return at::arange(numel, at::kFloat).add(seed).mul(1.7).sin().mul(0.5).view(sizes);
}

struct Layer {
  at::Tensor weight;
  at::Tensor bias;
};

// A multilayer perceptron of odd widths with a repeated block, a frozen bias, an empty parameter and an unused one.
struct Perceptron {
  std::vector<Layer> layers;
  at::Tensor empty;
  at::Tensor unused;
  std::vector<zero::RuntimeParameter> parameters;
  std::vector<zero::ModuleNode> modules;

  Perceptron() {
    modules.push_back({"", "Model", -1, false, false, {}});
    modules.push_back({"layers", "ModuleList", 0, true, false, {}});
    const std::vector<int64_t> widths = {5, 9, 9, 9, 3};
    for (size_t i = 0; i + 1 < widths.size(); ++i) {
      const std::string name = "layers." + std::to_string(i);
      layers.push_back({values({widths[i + 1], widths[i]}, 10.0 * i), values({widths[i + 1]}, 3.0 + 10.0 * i)});
      const int parent = 1;
      modules.push_back({name, "Linear", parent, false, false, {}});
      add(name + ".weight", layers.back().weight, true);
      add(name + ".bias", layers.back().bias, i != 1);
    }
    empty = values({0, 4}, 0.0);
    unused = values({1}, 1.0);
    modules.push_back({"extra", "Extra", 0, false, false, {}});
    add("extra.empty", empty, true);
    add("extra.unused", unused, true);
  }

  void add(const std::string& name, at::Tensor& tensor, bool trainable) {
    tensor.set_requires_grad(trainable);
    modules.back().parameters.push_back(static_cast<int64_t>(parameters.size()));
    parameters.push_back({name, tensor, 0, nullptr});
  }

  // Mean squared error on a batch that step and batch alone decide; each layer's call is a scope of the runtime.
  at::Tensor loss(zero::Runtime& runtime, int step, int batch) const {
    const double seed = 100.0 * step + 7.0 * batch;
    const auto dtype = layers[0].weight.scalar_type();
    const at::Tensor out = call(runtime, 0, values({4, 5}, seed).to(dtype), [&](const at::Tensor& x) {
      at::Tensor y = x;
      for (size_t i = 0; i < layers.size(); ++i) {
        y = call(runtime, 2 + static_cast<int>(i), y,
                 [&](const at::Tensor& z) { return at::tanh(at::addmm(layers[i].bias, z, layers[i].weight.t())); });
      }
      return y;
    });
    return at::mse_loss(out.to(at::kFloat), values({4, 3}, seed + 1.0));
  }

 private:
  static at::Tensor call(zero::Runtime& runtime, int module, const at::Tensor& x,
                         const std::function<at::Tensor(const at::Tensor&)>& body) {
    int scope = -1;
    for (size_t s = 0; s < runtime.scopes().size(); ++s) {
      if (runtime.scopes()[s].module == module) scope = static_cast<int>(s);
    }
    if (scope < 0) return body(x);
    const auto invocation = runtime.enter(scope);
    runtime.gatherer().watch_input(invocation, x);
    at::Tensor y;
    try {
      y = body(x);
    } catch (...) {
      runtime.gatherer().exit(invocation, true);
      throw;
    }
    runtime.gatherer().exit(invocation, false);
    runtime.gatherer().watch_output(invocation, y);
    return y;
  }
};

}  // namespace hydrofoil::testing
