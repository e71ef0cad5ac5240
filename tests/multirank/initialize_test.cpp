// What a C++ program does with the engine: initialize, backward, step, schedules, groups, checkpoints.
#include "hydrofoil/engine/initialize.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::engine {
namespace {

using testing::error_of;
using testing::values;

// Two linear layers, the first without a decay of its own, and a buffer.
struct TwoLayers {
  TwoLayers() {
    const int root = tree.add_module("", "TwoLayers", -1);
    for (int i = 0; i < 2; ++i) {
      const int module = tree.add_module("layer" + std::to_string(i), "Linear", root);
      weights.push_back(values({4, 4}, 3.0 * i).set_requires_grad(true));
      tree.add_parameter(module, "weight", weights.back());
    }
    count = at::zeros({1});
    tree.add_buffer(root, "count", count);
  }

  at::Tensor loss(double seed) {
    const at::Tensor x = values({3, 4}, seed).to(weights[0].scalar_type());
    return tree.boundaries->call(0, x, [&] {
      at::Tensor y = x;
      for (size_t i = 0; i < weights.size(); ++i) {
        y = tree.boundaries->call(static_cast<int>(i) + 1, y, [&] { return at::linear(y, weights[i]); });
      }
      return at::mse_loss(y, at::ones({3, 4}, y.options()));
    });
  }

  zero::ModelTree tree;
  std::vector<at::Tensor> weights;
  at::Tensor count;
};

std::string config_of(int stage, const std::string& more = "") {
  return detail::concat(R"({"train_micro_batch_size_per_gpu": 3, "optimizer": {"type": "AdamW", "params": {"lr": 0.1}},
    "zero_optimization": {"stage": )",
                        stage, R"(}, "hydrofoil": {"unit_min_bytes": 0})", more, "}");
}

EngineOptions resolved(const std::string& config, int world_size) {
  return resolve_engine_options(config, {world_size, true}).options;
}

class Program : public ::testing::TestWithParam<int> {
 protected:
  // A job of one rank: no launcher's variables.
  static std::unique_ptr<Engine> engine_of(TwoLayers& model, const std::string& config,
                                           const InitializeOptions& options = {}) {
    return initialize(model.tree, resolved(config, 1), comm::make_local_channels(1, 2, {})[0], options);
  }

  static void step(Engine& engine, TwoLayers& model, double seed) {
    engine.backward(model.loss(seed));
    engine.step();
  }
};

TEST_P(Program, FollowsTheSchedule) {
  TwoLayers model;
  const auto engine = engine_of(model, config_of(GetParam(), R"(, "scheduler": {"type": "WarmupLR", "params":
    {"warmup_max_lr": 0.4, "warmup_num_steps": 4, "warmup_type": "linear"}})"));
  EXPECT_EQ(engine->groups()[0].lr, 0.0);
  std::vector<double> lrs;
  for (int i = 0; i < 6; ++i) {
    step(*engine, model, i);
    lrs.push_back(engine->groups()[0].lr);
  }
  const std::vector<double> expected = {0.0, 0.1, 0.2, 0.3, 0.4, 0.4};  // the second step runs at iteration 0
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(lrs[i], expected[i], 1e-12) << i;
}

TEST_P(Program, SplitsParametersIntoGroups) {
  TwoLayers model;
  InitializeOptions options;
  options.groups = {[](auto& group) { group.lr = 0.0; }, [](auto& group) { group.weight_decay = 0.5; }};
  options.group_of = [](const std::string& name, const at::Tensor&) { return name == "layer0.weight" ? 0 : 1; };
  const auto engine = engine_of(model, config_of(GetParam()), options);
  EXPECT_EQ(engine->groups()[1].lr, 0.1);
  step(*engine, model, 1.0);
  engine->destroy(/*gather=*/true);
  EXPECT_TRUE(model.weights[0].equal(values({4, 4}, 0.0)));
  EXPECT_FALSE(model.weights[1].equal(values({4, 4}, 3.0)));
  options.group_of = [](const std::string&, const at::Tensor&) { return 2; };
  TwoLayers other;
  EXPECT_THROW((void)engine_of(other, config_of(GetParam()), options), InvalidArgument);
}

TEST_P(Program, ReturnsTheLossPerMicroStepAndStepsAtTheBoundary) {
  TwoLayers model;
  const auto engine = engine_of(model, config_of(GetParam(), R"(, "gradient_accumulation_steps": 2)"));
  const at::Tensor loss = model.loss(1.0);
  EXPECT_EQ(engine->backward(loss).item<float>(), loss.item<float>() / 2);
  EXPECT_FALSE(engine->step().boundary);
  engine->backward(model.loss(2.0));
  EXPECT_TRUE(engine->step().applied);
  EXPECT_EQ(engine->counters().global_steps, 1);
}

TEST_P(Program, KeepsTheModulesOfTheConfigWhole) {
  const auto units_and_loss = [](const std::string& zero, const std::string& own) {
    TwoLayers model;
    const auto engine =
        engine_of(model, detail::concat(R"({"train_batch_size": 3, "optimizer": {"type": "AdamW"},
      "zero_optimization": {"stage": )",
                                        GetParam(), zero, R"(}, "hydrofoil": {"unit_min_bytes": 0)", own, "}}"));
    step(*engine, model, 1.0);
    const auto loss = model.loss(2.0).item<double>();
    return std::pair(engine->runtime().units().size(), loss);
  };
  const auto plain = units_and_loss("", "");
  EXPECT_EQ(plain.first, 2U);
  const auto leaf = units_and_loss(R"(, "leaf_module": {"classes": "package.TwoLayers"})", "");
  EXPECT_EQ(leaf, std::pair(size_t{1}, plain.second));
  const auto named = units_and_loss("", R"(, "unit_names": [""])");
  EXPECT_EQ(named, leaf);
  EXPECT_THROW((void)units_and_loss("", R"(, "unit_names": ["layer2"])"), InvalidArgument);
  EXPECT_EQ(units_and_loss(R"(, "leaf_module": {"names": ["layer2"]})", ""), plain);  // a warning
}

TEST_P(Program, SaysWhatIsWrongWithALoss) {
  TwoLayers model;
  const auto engine = engine_of(model, config_of(GetParam()));
  EXPECT_NE(error_of<InvalidArgument>([&] { engine->backward(at::ones({2})); }).find("shape [2]"), std::string::npos);
  EXPECT_NE(error_of<InvalidArgument>([&] { engine->backward(at::ones({})); }).find("needs no gradient"),
            std::string::npos);
  EXPECT_NE(error_of<InvalidArgument>([&] { engine->backward(at::Tensor()); }).find("undefined"), std::string::npos);
  TwoLayers other;
  const auto forward_only = engine_of(other, R"({"train_batch_size": 3})");
  EXPECT_NE(error_of<InvalidArgument>([&] { forward_only->backward(other.loss(1.0)); }).find("no optimizer"),
            std::string::npos);
  EXPECT_THROW(forward_only->step(), InvalidArgument);
}

TEST_P(Program, GathersParametersForReadingAndChanging) {
  const auto channels = comm::make_local_channels(2, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(2, [&](int rank) {
    TwoLayers model;
    const auto engine = initialize(model.tree, resolved(config_of(GetParam()), 2), channels[rank]);
    const std::vector<at::Tensor> both = {model.weights[1], model.weights[0], model.weights[1]};
    engine->with_gathered(both, [&] { EXPECT_TRUE(model.weights[1].equal(values({4, 4}, 3.0))); });
    const at::NoGradGuard no_grad;
    engine->with_gathered(
        both, [&] { model.weights[0].fill_(rank == 1 ? 7.0 : 5.0); }, /*modifier_rank=*/1);
    engine->with_gathered(both, [&] { EXPECT_TRUE(model.weights[0].equal(at::full({4, 4}, 7.0))); });
    EXPECT_THROW(engine->with_gathered({model.weights[0]}, [] { throw std::runtime_error("from inside"); }),
                 std::runtime_error);
    EXPECT_NE(error_of<InvalidArgument>([&] { engine->with_gathered({at::ones({2})}, [] {}); }).find("no parameter"),
              std::string::npos);
    EXPECT_NE(error_of<InvalidArgument>([&] {
                engine->with_gathered(
                    both, [] {}, 2);
              }).find("got 2, expected 0 to 1"),
              std::string::npos);
  });
}

TEST_P(Program, RefusesParametersOfAnotherEngine) {
  TwoLayers model;
  auto engine = engine_of(model, config_of(GetParam()));
  zero::ModelTree tree;  // another tree over the same parameters, as torch::nn models build at each initialize
  tree.add_parameter(tree.add_module("", "TwoLayers", -1), "layer1", model.weights[1]);
  const auto second = [&] {
    return initialize(tree, resolved(config_of(GetParam()), 1), comm::make_local_channels(1, 2, {})[0]);
  };
  EXPECT_NE(error_of<InvalidArgument>([&] { (void)second(); }).find("layer1 belongs to an engine already"),
            std::string::npos);
  step(*engine, model, 1.0);
  engine->destroy(/*gather=*/true);
  EXPECT_NE(second(), nullptr);
}

TEST_P(Program, RefusesASecondEngineUntilTheFirstIsGone) {
  TwoLayers model;
  auto engine = engine_of(model, config_of(GetParam()));
  EXPECT_THROW((void)engine_of(model, config_of(GetParam())), InvalidArgument);
  engine->destroy(/*gather=*/true);
  engine.reset();
  const auto second = engine_of(model, config_of(GetParam()));
  step(*second, model, 1.0);
  EXPECT_EQ(second->counters().global_steps, 1);
}

TEST_P(Program, AModelOutlivesItsEngine) {
  TwoLayers model;
  {
    const auto engine = engine_of(model, config_of(GetParam()));
    step(*engine, model, 1.0);
    engine->destroy(/*gather=*/true);
  }
  EXPECT_FALSE(model.tree.boundaries->attached());
  EXPECT_TRUE(std::isfinite(model.loss(1.0).item<double>()));
}

TEST_P(Program, ResumesFromACheckpointAtAnotherNumberOfRanks) {
  storage::TemporaryDirectory directory;
  const std::string schedule = R"(, "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 5}})";
  std::vector<double> expected;
  const auto train = [&](int world, int first, int last, bool load, bool save, std::vector<double>* losses) {
    const auto channels = comm::make_local_channels(world, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
    testing::run_ranks(world, [&](int rank) {
      TwoLayers model;
      const auto engine = initialize(model.tree, resolved(config_of(GetParam(), schedule), world), channels[rank]);
      if (load) {
        const auto loaded = engine->load_checkpoint(directory.path());
        ASSERT_TRUE(loaded.has_value());
        EXPECT_EQ(loaded->client_state, R"({"epoch":7})");
        EXPECT_EQ(model.count.item<float>(), 5.0F);
      }
      for (int i = first; i < last; ++i) {
        const at::Tensor loss = model.loss(i);  // the same on every rank, so that the number of ranks changes nothing
        if (rank == 0 && losses != nullptr) losses->push_back(loss.item<double>());
        engine->backward(loss);
        engine->step();
      }
      model.count.fill_(5.0);
      if (save) engine->save_checkpoint(directory.path(), {.client_state = R"({"epoch":7})"});
    });
  };
  std::vector<double> whole, second;
  train(2, 0, 6, false, false, &whole);
  train(2, 0, 3, false, true, nullptr);
  train(3, 3, 6, true, false, &second);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(second.at(i) / whole.at(3 + i), 1.0, 1e-6) << i;
}

TEST_P(Program, SaysWhatACheckpointCannotKeep) {
  storage::TemporaryDirectory directory;
  TwoLayers model;
  const auto engine = engine_of(model, config_of(GetParam()));
  EXPECT_THROW(engine->save_checkpoint(directory.path(), {.client_state = "[1]"}), Error);
  EXPECT_THROW(engine->save_checkpoint(directory.path(), {.client_state = "no json"}), Error);
  EXPECT_FALSE(engine->load_checkpoint(directory.path()).has_value());
}

TEST_P(Program, LogsItsSteps) {
  TwoLayers model;
  const auto engine = engine_of(model, config_of(GetParam(), R"(, "steps_per_print": 2, "wall_clock_breakdown": true,
                                                  "memory_breakdown": true)"));
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    at::Tensor loss;
    {
      const PhaseScope forward(*engine, Phase::kForward);
      loss = model.loss(i);
    }
    engine->backward(loss);
    engine->step();
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  for (const char* once : {"step=2, skipped=0, lr=[0.1], mom=[(0.9, 0.999)], grad_norm=",
                           "step=2, time (ms) | forward: ", "memory after forward of step 2 (MiB) | host: ",
                           "memory after backward of step 2 ", "memory after step of step 2 "}) {
    const size_t found = text.find(once);
    EXPECT_TRUE(found != std::string::npos && text.find(once, found + 1) == std::string::npos) << once << "\n" << text;
  }
  EXPECT_EQ(text.find("step=1"), std::string::npos) << text;
  EXPECT_EQ(text.find("step=3"), std::string::npos) << text;
  EXPECT_THROW(engine->end_phase(Phase::kForward), InvalidArgument);
}

TEST_P(Program, CountsItsWaitsWithinThePhases) {
  for (const bool counted : {false, true}) {
    const auto channels = comm::make_local_channels(2, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
    testing::run_ranks(2, [&](int rank) {
      TwoLayers model;
      const std::string more = counted ? R"(, "wall_clock_breakdown": true, "steps_per_print": 9)" : "";
      const auto engine = initialize(model.tree, resolved(config_of(GetParam(), more), 2), channels[rank]);
      for (int i = 0; i < 2; ++i) {
        engine->backward(model.loss(i));
        engine->step();
      }
      const PhaseTimes times = engine->report().last_step();
      EXPECT_EQ(times.reduce_wait_ms > 0, counted);
      EXPECT_EQ(times.gather_wait_ms > 0, counted);
      EXPECT_LE(times.reduce_wait_ms, times.backward_ms + times.step_ms);
      EXPECT_EQ(times.step_ms > 0, counted);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, Program, ::testing::Values(0, 3));

TEST(Initialize, NamesWhatNeedsPython) {
  const auto error = [](const std::string& config) {
    TwoLayers model;
    return error_of<InvalidArgument>(
        [&] { (void)initialize(model.tree, resolved(config, 1), comm::make_local_channels(1, 2, {})[0]); });
  };
  EXPECT_NE(error(R"({"train_batch_size": 1, "optimizer": {"type": "RMSprop"}})").find("optimizer.type: got RMSprop"),
            std::string::npos);
  EXPECT_NE(error(config_of(0, R"(, "scheduler": {"type": "StepLR", "params": {"step_size": 3}})"))
                .find("scheduler.type: got StepLR"),
            std::string::npos);
  EXPECT_NE(error(config_of(0, R"(, "csv_monitor": {"enabled": true})")).find("csv_monitor"), std::string::npos);
  EXPECT_NE(error(config_of(0, R"(, "torch_autocast": {"enabled": true})")).find("torch_autocast"), std::string::npos);
  EXPECT_NE(
      error(R"({"train_batch_size": 1, "scheduler": {"type": "WarmupLR"}})").find("needs the section 'optimizer'"),
      std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::engine
