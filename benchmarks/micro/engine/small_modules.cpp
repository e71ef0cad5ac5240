// The shape `small` of benchmarks/e2e/shapes.py in C++: one rank, which takes its turns as benchmarks/e2e/worker.py
// does, from the same seeds. `bench_small_modules STAGE`, started by benchmarks/micro/run.py. With "bare" for a stage
// it runs forward and backward of libtorch only, without an engine: the least that any C++ program takes.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/engine/torch_nn.h"

namespace nn = torch::nn;

namespace {

constexpr int64_t kNumLayers = 1000, kWidth = 32, kRows = 64;

struct SmallModulesImpl : nn::Module, hydrofoil::engine::CallsChildren {
  SmallModulesImpl() {
    for (int64_t i = 0; i < kNumLayers; ++i) layers->push_back(nn::Linear(kWidth, kWidth));
    register_module("layers", layers);
  }

  at::Tensor forward(at::Tensor x) {
    for (int64_t i = 0; i < kNumLayers; ++i) x = x + 0.1 * torch::tanh(call(layers->at<nn::LinearImpl>(i), x));
    return x;
  }

  nn::ModuleList layers;
};
TORCH_MODULE(SmallModules);

std::string config_of(const std::string& stage) {
  return R"({"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 1.0,
             "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
             "zero_optimization": {"stage": )" +
         stage + "}}";
}

using TrainStep = std::function<at::Tensor(const at::Tensor& inputs, const at::Tensor& targets)>;

TrainStep bare_step(SmallModules model) {
  return [model](const at::Tensor& inputs, const at::Tensor& targets) mutable {
    at::Tensor x = inputs;
    for (int64_t i = 0; i < kNumLayers; ++i) x = x + 0.1 * torch::tanh(model->layers->at<nn::LinearImpl>(i).forward(x));
    const at::Tensor loss = torch::mse_loss(x, targets);
    loss.backward();
    model->zero_grad();
    return loss;
  };
}

TrainStep engine_step(SmallModules model, const std::string& stage, hydrofoil::comm::Job& job) {
  const auto engine = std::make_shared<decltype(hydrofoil::engine::initialize(model, config_of(stage), job))>(
      hydrofoil::engine::initialize(model, config_of(stage), job));
  return [engine](const at::Tensor& inputs, const at::Tensor& targets) {
    const at::Tensor loss = torch::mse_loss((*engine)(inputs), targets);
    (*engine)->backward(loss);
    (*engine)->step();
    return loss;
  };
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

std::string pipe_of(const char* variable) {
  const char* number = std::getenv(variable);
  if (number == nullptr) throw std::runtime_error(std::string(variable) + " is not set; run benchmarks/micro/run.py");
  return std::string("/dev/fd/") + number;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " STAGE|bare\n";
    return 2;
  }
  at::set_num_threads(1);
  hydrofoil::comm::Job job;
  torch::manual_seed(0);
  SmallModules model;
  const std::string stage = argv[1];
  const TrainStep train_step = stage == "bare" ? bare_step(model) : engine_step(model, stage, job);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1 + job.rank());
  std::ofstream answers(pipe_of("BENCH_ANSWERS"));
  std::ifstream turns(pipe_of("BENCH_TURNS"));
  answers << R"({"ready": true})" << std::endl;
  std::string command;
  for (int64_t num_steps = 0; turns >> command >> num_steps;) {
    nlohmann::json answer;
    const double cpu_start = cpu_seconds();
    for (int64_t i = 0; i < num_steps; ++i) {
      const at::Tensor inputs = torch::randn({kRows, kWidth}, generator);
      const at::Tensor targets = torch::randn({kRows, kWidth}, generator);
      const double start = hydrofoil::monotonic_seconds();
      const at::Tensor loss = train_step(inputs, targets);
      answer["losses"].push_back(loss.item<double>());
      answer["times"].push_back(hydrofoil::monotonic_seconds() - start);
    }
    answer["cpu_s"] = (cpu_seconds() - cpu_start) / static_cast<double>(num_steps);
    answers << answer << std::endl;
  }
}
