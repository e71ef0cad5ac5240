#include "hydrofoil/engine/torch_nn.h"

#include <gtest/gtest.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>
#include <torch/optim/sgd.h>

#include "hydrofoil/base/error.h"
#include "tests/support/perceptron.h"

namespace hydrofoil::engine {
namespace {

using testing::values;
namespace nn = torch::nn;

struct BlockImpl : nn::Module, CallsChildren {
  BlockImpl() {
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({6})));
    inner = register_module("inner", nn::Sequential(nn::Linear(6, 9), nn::Tanh(), nn::Linear(9, 6)));
  }
  at::Tensor forward(const at::Tensor& x) { return x + call(inner, call(norm, x)); }
  nn::LayerNorm norm = nullptr;
  nn::Sequential inner = nullptr;
};
TORCH_MODULE(Block);

struct StackImpl : nn::Module, CallsChildren {
  StackImpl() {
    blocks = register_module("blocks", nn::ModuleList());
    for (int i = 0; i < 3; ++i) blocks->push_back(Block());
    head = register_module("head", nn::Linear(6, 2));
    count = register_buffer("count", torch::zeros({1}));
  }
  at::Tensor forward(at::Tensor x) {
    for (size_t i = 0; i < blocks->size(); ++i) x = call(blocks->at<BlockImpl>(i), x);
    return call(head, x);
  }
  nn::ModuleList blocks = nullptr;
  nn::Linear head = nullptr;
  at::Tensor count;
};
TORCH_MODULE(Stack);

// A module that calls its children itself.
struct PlainImpl : nn::Module {
  PlainImpl() {
    first = register_module("first", nn::Linear(6, 5));
    second = register_module("second", nn::Linear(5, 2));
  }
  at::Tensor forward(const at::Tensor& x) { return second(torch::tanh(first(x))); }
  nn::Linear first = nullptr, second = nullptr;
};
TORCH_MODULE(Plain);

template <typename Holder>
void set_weights(Holder& module) {
  const at::NoGradGuard no_grad;
  double seed = 0.0;
  for (auto& parameter : module->parameters()) parameter.copy_(values(parameter.sizes(), seed += 7.0));
}

template <typename Forward>
at::Tensor loss_of(Forward&& forward, int step) {
  return nn::functional::mse_loss(forward(values({4, 6}, step)), values({4, 2}, step + 0.5));
}

// Three steps of SGD under each stage, against torch::optim.
template <typename Holder>
void expect_training_equals_torch(const std::function<Holder()>& make) {
  Holder expected = make();
  set_weights(expected);
  torch::optim::SGD optimizer(expected->parameters(), torch::optim::SGDOptions(0.05));
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    loss_of([&](const at::Tensor& x) { return expected->forward(x); }, step).backward();
    optimizer.step();
  }
  comm::Job job(comm::LaunchEnvironment{});
  for (int stage = 0; stage <= 3; ++stage) {
    Holder module = make();
    set_weights(module);
    auto engine = initialize(module,
                             detail::concat(R"({"train_batch_size": 4, "gradient_clipping": 0, "optimizer":
      {"type": "SGD", "params": {"lr": 0.05}}, "hydrofoil": {"unit_min_bytes": 0}, "zero_optimization": {"stage": )",
                                            stage, "}}"),
                             job);
    for (int step = 0; step < 3; ++step) {
      engine->backward(loss_of(engine, step));
      EXPECT_TRUE(engine->step().applied);
    }
    engine->destroy(/*gather=*/true);
    const auto parameters = module->named_parameters();
    for (const auto& item : expected->named_parameters()) {
      EXPECT_TRUE(parameters[item.key()].allclose(item.value(), 1e-6, 1e-7)) << "stage " << stage << ", " << item.key();
    }
  }
}

TEST(TorchNn, TrainsASequential) {
  expect_training_equals_torch<nn::Sequential>(
      [] { return nn::Sequential(nn::Linear(6, 9), nn::Tanh(), nn::Linear(9, 9), nn::ReLU(), nn::Linear(9, 2)); });
}

TEST(TorchNn, TrainsAModuleThatCallsItsChildren) {
  expect_training_equals_torch<Stack>([] { return Stack(); });
}

TEST(TorchNn, TrainsAModuleThatDoesNot) {
  expect_training_equals_torch<Plain>([] { return Plain(); });
}

TEST(TorchNn, MakesEachBlockAUnit) {
  Stack model;
  zero::ModelTree tree;
  (void)TorchCalls::describe(*model, tree);
  EXPECT_EQ(tree.buffers.at(0).name, "count");
  EXPECT_EQ(tree.parameters.at(0).name, "blocks.0.norm.weight");
  std::vector<zero::ParameterSize> sizes;
  for (const auto& info : tree.parameters) sizes.push_back({info.parameter.numel(), 4});
  const auto layout = zero::plan_units(tree.modules, sizes, 0);
  std::vector<std::string> units;
  for (const auto& unit : layout.units) units.push_back(unit.name);
  EXPECT_EQ(units, (std::vector<std::string>{"blocks.0", "blocks.1", "blocks.2", "head"}));

  Plain plain;
  zero::ModelTree whole;
  (void)TorchCalls::describe(*plain, whole);
  EXPECT_TRUE(whole.modules[0].keep_whole);
}

TEST(TorchNn, NamesAModuleThatCameLater) {
  comm::Job job(comm::LaunchEnvironment{});
  Stack model;
  auto engine = initialize(model, R"({"train_batch_size": 4, "zero_optimization": {"stage": 3}})", job);
  model->blocks->push_back(Block());
  EXPECT_THROW((void)engine(values({4, 6}, 1.0)), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::engine
