// What the engine adds to the call of a unit: a chain of tiny units with and without it, forward, backward and without
// gradients. Every rank runs the same series, so the counts are fixed:
//   bench_boundaries
//   hydrofoil run --no-python --nproc 2 bench_boundaries
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/engine/initialize.h"

namespace hydrofoil::bench {
namespace {

constexpr int kNumUnits = 64;
constexpr int64_t kNumel = 16;  // of a unit

class Chain {
 public:
  Chain() {
    const int root = tree.add_module("", "Chain", -1);
    const int list = tree.add_module("units", "ModuleList", root, /*is_list=*/true);
    for (int i = 0; i < kNumUnits; ++i) {
      weights_.push_back(at::ones({kNumel}).set_requires_grad(true));
      modules_.push_back(tree.add_module(std::to_string(i), "Scale", list));
      tree.add_parameter(modules_.back(), "weight", weights_.back());
    }
  }

  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const {
    return tree.boundaries->call(0, {x}, [&] {
      at::Tensor y = x;
      for (int i = 0; i < kNumUnits; ++i) {
        y = tree.boundaries->call(modules_[i], {y}, [&] { return at::mul(y, weights_[i]); });
      }
      return y;
    });
  }

  void drop_gradients() {
    for (auto& weight : weights_) weight.mutable_grad().reset();
  }

  zero::ModelTree tree;

 private:
  std::vector<at::Tensor> weights_;
  std::vector<int> modules_;
};

std::string config_of(int stage) {
  return R"({"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "SGD", "params": {"lr": 0.0}},
             "zero_optimization": {"stage": )" +
         std::to_string(stage) + R"(}, "hydrofoil": {"unit_min_bytes": 0}})";
}

// One training step of a chain, in the parts that are timed. `engine` is null for the bare chain.
struct Step {
  Chain chain;
  std::unique_ptr<engine::Engine> engine;

  void backward(const at::Tensor& loss) {
    if (engine != nullptr) {
      engine->backward(loss);
    } else {
      loss.backward();
    }
  }
  void finish() {
    if (engine != nullptr) {
      engine->step();
    } else {
      chain.drop_gradients();
    }
  }
};

double seconds_of(const std::function<void()>& body) {
  const double start = monotonic_seconds();
  body();
  return monotonic_seconds() - start;
}

void time_step(benchmark::State& state, Step& step, std::string_view direction) {
  const at::Tensor x = at::ones({kNumel});
  for (auto _ : state) {
    if (direction == "no_grad") {
      const at::NoGradGuard no_grad;
      state.SetIterationTime(seconds_of([&] { benchmark::DoNotOptimize(step.chain.forward(x)); }));
      continue;
    }
    at::Tensor loss;
    const double forward_s = seconds_of([&] { loss = step.chain.forward(x); });
    loss = loss.sum();
    const double backward_s = seconds_of([&] { step.backward(loss); });
    step.finish();
    state.SetIterationTime(direction == "forward" ? forward_s : backward_s);
  }
  state.counters["num_units"] = kNumUnits;
}

class NoReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

int run(int argc, char** argv) {
  comm::Job job;
  std::vector<char*> arguments;
  for (int i = 0; i < argc; ++i) {
    // One rank writes the file.
    if (job.is_first() || !std::string_view(argv[i]).starts_with("--benchmark_out")) arguments.push_back(argv[i]);
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;

  std::vector<std::pair<std::string, std::shared_ptr<Step>>> steps = {{"bare", std::make_shared<Step>()}};
  for (const int stage : job.world_size() > 1 ? std::vector<int>{0, 3} : std::vector<int>{0}) {
    auto step = std::make_shared<Step>();
    step->engine = engine::initialize(step->chain.tree, config_of(stage), job);
    steps.emplace_back("stage" + std::to_string(stage), step);
  }
  for (const auto* direction : {"forward", "backward", "no_grad"}) {
    for (const auto& [name, step] : steps) {
      benchmark::RegisterBenchmark(
          (std::string("boundaries/") + direction + "/" + name).c_str(),
          [step = step, direction](benchmark::State& state) { time_step(state, *step, direction); })
          ->Iterations(100)
          ->Repetitions(5)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  NoReporter silent;
  benchmark::RunSpecifiedBenchmarks(job.is_first() ? nullptr : &silent);
  benchmark::Shutdown();  // the engines end before the job they were connected through
  steps.clear();
  return 0;
}

}  // namespace
}  // namespace hydrofoil::bench

int main(int argc, char** argv) { return hydrofoil::bench::run(argc, argv); }
