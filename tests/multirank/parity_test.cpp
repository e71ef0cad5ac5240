// The parity matrix of C++ programs: stage x dtype x accumulation x unit size x clipping x model x ranks (as threads)
// against a plain loop over libtorch in one thread, which runs the ranks' micro-batches one after the other.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/engine/initialize.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"

namespace hydrofoil::engine {
namespace {

using testing::values;

constexpr int kSteps = 6;
constexpr int64_t kRows = 3;
constexpr double kLr = 0.01, kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-8, kDecay = 0.1, kScale = 1024.0;

enum class Variant { kPlain, kTied, kFrozen, kOdd };
constexpr Variant kVariants[] = {Variant::kPlain, Variant::kTied, Variant::kFrozen, Variant::kOdd};

// A stack of repeated blocks between two projections, in its variants.
class Net {
 public:
  explicit Net(Variant variant) : width_(variant == Variant::kOdd ? 9 : 16) {
    const int root = tree.add_module("", "Net", -1);
    inward_ = linear("inward", root, kInputs);
    const int list = tree.add_module("blocks", "ModuleList", root, /*is_list=*/true);
    for (int b = 0; b < 3; ++b) {
      blocks_.push_back(linear(std::to_string(b), list, width_));
      if (variant == Variant::kFrozen && b == 1) {
        blocks_[1].weight.set_requires_grad(false);
        blocks_[1].bias.set_requires_grad(false);
      }
    }
    outward_.module = tree.add_module("outward", "Linear", root);
    outward_.weight = variant == Variant::kTied ? inward_.weight : parameter({width_, kInputs}, 77.0);
    tree.add_parameter(outward_.module, "weight", outward_.weight);
    if (variant != Variant::kOdd) return;
    scale_ = parameter({}, 3.0);
    tree.add_parameter(root, "scale", scale_);
    tree.add_parameter(root, "empty", parameter({0, 3}, 0.0));
    tree.add_parameter(root, "unused", parameter({5}, 1.0));
  }

  at::Tensor loss(int step, int micro, int rank) {
    const double seed = 100.0 * step + 10.0 * micro + 1000.0 * rank;
    const at::Tensor target = values({kRows, kInputs}, seed + 1.0);
    const at::Tensor x = values({kRows, kInputs}, seed).to(inward_.weight.scalar_type());
    const at::Tensor y = tree.boundaries->call(0, x, [&] {
      at::Tensor h = run(inward_, x);
      for (const Linear& block : blocks_) h = run(block, h);
      h = tree.boundaries->call(outward_.module, h, [&] { return h.matmul(outward_.weight); });
      return scale_.defined() ? h * scale_ : h;
    });
    return at::mse_loss(y.to(at::kFloat), target);
  }

  zero::ModelTree tree;

 private:
  static constexpr int64_t kInputs = 6;
  struct Linear {
    int module = -1;
    at::Tensor weight, bias;
  };

  static at::Tensor parameter(at::IntArrayRef sizes, double seed) {
    return values(sizes, seed).set_requires_grad(true);
  }

  Linear linear(const std::string& name, int parent, int64_t inputs) {
    Linear result;
    result.module = tree.add_module(name, "Linear", parent);
    const auto seed = static_cast<double>(10 * result.module);
    result.weight = parameter({width_, inputs}, seed);
    tree.add_parameter(result.module, "weight", result.weight);
    tree.add_parameter(result.module, "bias", result.bias = parameter({width_}, seed + 5.0));
    return result;
  }

  at::Tensor run(const Linear& layer, const at::Tensor& x) {
    return tree.boundaries->call(layer.module, x, [&] { return at::tanh(at::addmm(layer.bias, x, layer.weight.t())); });
  }

  int64_t width_;
  Linear inward_, outward_;
  std::vector<Linear> blocks_;
  at::Tensor scale_;
};

struct Case {
  int world = 1;
  at::ScalarType dtype = at::kFloat;
  int accumulation = 1;
  double clipping = 0.0;
  Variant variant = Variant::kPlain;
  auto operator<=>(const Case&) const = default;
};

struct History {
  std::vector<std::vector<double>> losses;      // a rank: every micro step's
  std::vector<double> norms;                    // a step
  std::map<std::string, at::Tensor> gradients;  // of the first step: averaged, not clipped
  std::map<std::string, at::Tensor> parameters;
};

// Plain libtorch: fp32 masters, gradients summed in fp32, clipped by their global norm, AdamW.
History reference(const Case& c) {
  Net net(c.variant);
  struct State {
    at::Tensor master, total, m, v;
  };
  std::map<std::string, State> states;
  for (auto& info : net.tree.parameters) {
    info.parameter.set_data(info.parameter.to(c.dtype));
    if (!info.parameter.requires_grad()) continue;
    const at::Tensor master = info.parameter.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    states[info.name] = {master, {}, at::zeros_like(master), at::zeros_like(master)};
  }
  const double scale = c.dtype == at::kHalf ? kScale : 1.0;
  History history;
  history.losses.resize(c.world);
  for (int step = 0; step < kSteps; ++step) {
    for (auto& [name, state] : states) state.total = at::zeros_like(state.master);
    for (int rank = 0; rank < c.world; ++rank) {
      for (int micro = 0; micro < c.accumulation; ++micro) {
        const at::Tensor loss = net.loss(step, micro, rank);
        history.losses[rank].push_back(loss.item<double>());
        loss.mul(scale).backward();
        for (auto& info : net.tree.parameters) {
          at::Tensor& gradient = info.parameter.mutable_grad();
          if (gradient.defined()) states.at(info.name).total.add_(gradient.to(at::kFloat), 1.0 / c.accumulation);
          gradient = at::Tensor();
        }
      }
    }
    const at::NoGradGuard no_grad;
    double square = 0.0;
    for (auto& [name, state] : states) {
      state.total.div_(c.world * scale);
      square += state.total.to(at::kDouble).square().sum().item<double>();
      if (step == 0) history.gradients[name] = state.total.clone();
    }
    history.norms.push_back(std::sqrt(square));
    const double clip = c.clipping > 0 ? std::min(1.0, c.clipping / (std::sqrt(square) + 1e-6)) : 1.0;
    for (auto& info : net.tree.parameters) {
      if (!info.parameter.requires_grad()) continue;
      State& state = states.at(info.name);
      const at::Tensor gradient = state.total * clip;
      state.m = state.m * kBeta1 + gradient * (1.0 - kBeta1);
      state.v = state.v * kBeta2 + gradient.square() * (1.0 - kBeta2);
      state.master.mul_(1.0 - kLr * kDecay);
      const at::Tensor root = state.v.sqrt() / std::sqrt(1.0 - std::pow(kBeta2, step + 1)) + kEps;
      state.master.sub_(state.m / root * (kLr / (1.0 - std::pow(kBeta1, step + 1))));
      info.parameter.copy_(state.master);
    }
  }
  for (const auto& [name, state] : states) history.parameters[name] = state.master;
  return history;
}

const History& cached_reference(const Case& c) {
  static std::map<Case, History> cache;
  const auto found = cache.find(c);
  return found != cache.end() ? found->second : cache.emplace(c, reference(c)).first->second;
}

EngineOptions options_of(const Case& c, int stage, int64_t unit_min_bytes) {
  std::string precision;
  if (c.dtype == at::kBFloat16) precision = R"("bf16": {"enabled": true}, )";
  if (c.dtype == at::kHalf) precision = detail::concat(R"("fp16": {"enabled": true, "loss_scale": )", kScale, "}, ");
  const std::string text =
      detail::concat("{", precision, R"("train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": )",
                     c.accumulation, R"(, "gradient_clipping": )", c.clipping, R"(, "zero_optimization": {"stage": )",
                     stage, R"(}, "hydrofoil": {"unit_min_bytes": )", unit_min_bytes,
                     R"(}, "optimizer": {"type": "AdamW", "params": {"lr": )", kLr, R"(, "betas": [)", kBeta1, ", ",
                     kBeta2, R"(], "eps": )", kEps, R"(, "weight_decay": )", kDecay, "}}}");
  return resolve_engine_options(text, {c.world, true}).options;
}

History on_engine(const Case& c, int stage, int64_t unit_min_bytes) {
  History history;
  history.losses.resize(c.world);
  const auto channels = comm::make_local_channels(c.world, 2, {.name = "parity", .timeout = std::chrono::seconds(60)});
  testing::run_ranks(c.world, [&](int rank) {
    Net net(c.variant);
    const auto engine = initialize(net.tree, options_of(c, stage, unit_min_bytes), channels[rank]);
    for (int step = 0; step < kSteps; ++step) {
      for (int micro = 0; micro < c.accumulation; ++micro) {
        const at::Tensor loss = net.loss(step, micro, rank);
        history.losses[rank].push_back(loss.item<double>());
        engine->backward(loss);
        if (step == 0 && micro == c.accumulation - 1) {
          const auto& parameters = engine->runtime().parameters();
          for (size_t p = 0; p < parameters.size(); ++p) {
            if (!parameters[p].parameter.requires_grad()) continue;
            const auto gradient = engine->runtime().reduced_gradient(static_cast<int64_t>(p));
            if (rank == 0 && gradient)
              history.gradients[parameters[p].name] = *gradient / engine->loss_scaler().scale();
          }
        }
        const StepResult result = engine->step();
        EXPECT_EQ(result.applied, micro == c.accumulation - 1);
        if (result.boundary && rank == 0) history.norms.push_back(result.grad_norm);
      }
    }
    const auto master = [](zero::Unit& unit, size_t bucket) { return unit.buckets[bucket]->group().owned_master(); };
    const auto& parameters = engine->runtime().parameters();
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (!parameters[p].parameter.requires_grad()) continue;
      const at::Tensor value = engine->runtime().assemble(static_cast<int64_t>(p), master);
      if (rank == 0) history.parameters[parameters[p].name] = value;
    }
  });
  return history;
}

double difference(const at::Tensor& got, const at::Tensor& expected) {
  const double norm = expected.norm().item<double>();
  return (got - expected).norm().item<double>() / (norm > 0 ? norm : 1.0);
}

struct Tolerance {
  double gradient, loss, norm, parameter;
};

Tolerance tolerance_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return {1e-6, 1e-5, 1e-5, 1e-4};
  if (dtype == at::kBFloat16) return {2e-2, 1e-2, 2e-2, 2e-2};
  return {5e-3, 5e-3, 5e-3, 5e-3};
}

// Of a step, over ranks and micro steps.
double mean_loss(const History& history, int step) {
  double sum = 0.0;
  size_t count = 0;
  for (const auto& losses : history.losses) {
    const size_t accumulation = losses.size() / kSteps;
    for (size_t i = 0; i < accumulation; ++i) sum += losses.at(step * accumulation + i);
    count += accumulation;
  }
  return sum / static_cast<double>(count);
}

void expect_equal(const History& got, const History& expected, const Tolerance& tolerance) {
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(mean_loss(got, step) / mean_loss(expected, step), 1.0, tolerance.loss) << "step " << step;
  }
  for (size_t step = 0; step < expected.norms.size(); ++step) {
    EXPECT_NEAR(got.norms.at(step) / expected.norms[step], 1.0, tolerance.norm) << "step " << step;
  }
  EXPECT_EQ(got.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : got.gradients) {
    EXPECT_LE(difference(gradient, expected.gradients.at(name)), tolerance.gradient) << "gradient of " << name;
  }
  ASSERT_EQ(got.parameters.size(), expected.parameters.size());
  for (const auto& [name, value] : got.parameters) {
    EXPECT_LE(difference(value, expected.parameters.at(name)), tolerance.parameter) << name;
  }
}

class Parity : public ::testing::TestWithParam<std::tuple<int, at::ScalarType, int>> {};

TEST_P(Parity, EveryCaseEqualsThePlainLoop) {
  const auto [world, dtype, stage] = GetParam();
  for (const Variant variant : kVariants) {
    for (const int accumulation : {1, 3}) {
      for (const double clipping : {0.0, 0.05}) {
        const Case c{world, dtype, accumulation, clipping, variant};
        for (const int64_t unit_min_bytes : {0, 1 << 20}) {
          SCOPED_TRACE(detail::concat("model ", static_cast<int>(variant), ", accumulation ", accumulation,
                                      ", clipping ", clipping, ", unit_min_bytes ", unit_min_bytes));
          expect_equal(on_engine(c, stage, unit_min_bytes), cached_reference(c), tolerance_of(dtype));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Matrix, Parity,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4),
                                            ::testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                                            ::testing::Values(0, 1, 2, 3)),
                         [](const auto& info) {
                           return detail::concat("World", std::get<0>(info.param),
                                                 c10::toString(std::get<1>(info.param)), "Stage",
                                                 std::get<2>(info.param));
                         });

}  // namespace
}  // namespace hydrofoil::engine
