// The engine with bf16 optimizer states: bits at every stage and world size, checkpoints, frozen parameters, memory.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/engine/build_engine.h"
#include "hydrofoil/engine/engine.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::engine {
namespace {

using testing::error_of;

const std::string kLowBf16 =
    R"("bf16": {"enabled": true, "bf16_optimizer_states": true}, "optimizer": {"type": "AdamW"})";
const std::string kLowFp32 = R"("optimizer": {"type": "AdamW", "params": {"fp32_optimizer_states": false}})";
const std::string kHighBf16 = R"("bf16": {"enabled": true}, "optimizer": {"type": "AdamW"})";

struct Rank {
  Rank(const std::string& precision, int stage, const std::vector<comm::Group>& channels, bool client = false) {
    const std::string config = detail::concat(
        "{", precision,
        R"(, "train_micro_batch_size_per_gpu": 4, "gradient_clipping": 0, "zero_optimization": {"stage": )", stage,
        R"(}, "hydrofoil": {"unit_min_bytes": 0}})");
    EngineParts parts;
    parts.parameters = model.parameters;
    parts.modules = model.modules;
    parts.gather_group = channels[0];
    parts.reduce_group = channels[1];
    if (!client) parts.native_optimizer = optim::OptimizerKind::kAdamW;
    parts.optimizer_text = "AdamW";
    engine = build_engine(resolve_engine_options(config, {channels[0].size(), true}).options, std::move(parts));
  }

  void backward(int step) { engine->backward(model.loss(engine->runtime(), step, /*batch=*/0)); }
  // Every rank has the same batch, so that the mean over 1, 2 or 4 ranks is the same to the bit.
  void train(int first, int last) {
    for (int step = first; step < last; ++step) {
      backward(step);
      EXPECT_TRUE(engine->step(std::vector<optim::Hyperparameters>(1, {.lr = 0.05, .weight_decay = 0.1})).applied);
    }
  }

  at::Tensor state(int64_t parameter, size_t s) {
    return engine->runtime().assemble(parameter,
                                      [s](zero::Unit& unit, size_t b) { return unit.optimizer_states[b].at(s); });
  }
  // Masters and states of what is trained.
  std::vector<at::Tensor> everything() {
    std::vector<at::Tensor> result;
    for (size_t p = 0; p < model.parameters.size(); ++p) {
      if (!model.parameters[p].parameter.requires_grad()) continue;
      const auto parameter = static_cast<int64_t>(p);
      result.push_back(engine->runtime().assemble(
          parameter, [](zero::Unit& unit, size_t b) { return unit.buckets[b]->group().owned_master(); }));
      for (const size_t s : {0, 1}) result.push_back(state(parameter, s));
    }
    return result;
  }

  testing::Perceptron model;
  std::unique_ptr<Engine> engine;
};

void on_ranks(int num_ranks, const std::function<void(int, const std::vector<comm::Group>&)>& body) {
  const auto channels = comm::make_local_channels(num_ranks, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(num_ranks, [&](int rank) { body(rank, channels[rank]); });
}

void expect_equal(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(got[i].equal(expected[i])) << "tensor " << i;
}

bool holds_in_bf16(const at::Tensor& values) { return values.to(at::kBFloat16).to(at::kFloat).equal(values); }

// What one rank at stage 0 has after `steps`.
std::vector<at::Tensor> expected(const std::string& precision, int steps) {
  std::vector<at::Tensor> result;
  on_ranks(1, [&](int, const std::vector<comm::Group>& channels) {
    Rank rank(precision, 0, channels);
    rank.train(0, steps);
    result = rank.everything();
  });
  return result;
}

TEST(LowStates, HaveTheSameBitsAtEveryStageAndWorldSize) {
  constexpr int kSteps = 5;
  for (const std::string& precision : {kLowBf16, kLowFp32}) {
    const auto reference = expected(precision, kSteps);
    EXPECT_TRUE(holds_in_bf16(reference[1]) && holds_in_bf16(reference[2]));
    for (const int num_ranks : {1, 2, 4}) {
      for (int stage = 0; stage <= 3; ++stage) {
        SCOPED_TRACE(detail::concat(precision, ", ", num_ranks, " ranks, stage ", stage));
        on_ranks(num_ranks, [&](int, const std::vector<comm::Group>& channels) {
          Rank rank(precision, stage, channels);
          rank.train(0, kSteps);
          expect_equal(rank.everything(), reference);
        });
      }
    }
  }
}

TEST(LowStates, GoOnFromACheckpointAtAnyWorldSize) {
  const storage::TemporaryDirectory directory;
  const auto at_three = expected(kLowBf16, 3), at_five = expected(kLowBf16, 5);
  on_ranks(2, [&](int, const std::vector<comm::Group>& channels) {
    Rank rank(kLowBf16, 3, channels);
    rank.train(0, 3);
    rank.engine->save_checkpoint(directory.path());
  });
  for (const auto& [num_ranks, stage] : {std::pair{1, 0}, {2, 3}, {4, 1}}) {
    on_ranks(num_ranks, [&, stage = stage](int, const std::vector<comm::Group>& channels) {
      Rank rank(kLowBf16, stage, channels);
      ASSERT_TRUE(rank.engine->load_checkpoint(directory.path()).has_value());
      expect_equal(rank.everything(), at_three);
      rank.train(3, 5);
      expect_equal(rank.everything(), at_five);
    });
  }
}

TEST(LowStates, AreConvertedWhereTheCheckpointHasTheOtherDtype) {
  for (const bool to_low : {true, false}) {
    const storage::TemporaryDirectory directory;
    const auto saved = expected(to_low ? kHighBf16 : kLowBf16, 3);
    on_ranks(2, [&](int, const std::vector<comm::Group>& channels) {
      {
        Rank rank(to_low ? kHighBf16 : kLowBf16, 2, channels);
        rank.train(0, 3);
        rank.engine->save_checkpoint(directory.path());
        rank.engine->destroy(true);
      }
      Rank rank(to_low ? kLowBf16 : kHighBf16, 2, channels);
      ASSERT_TRUE(rank.engine->load_checkpoint(directory.path()).has_value());
      auto wanted = saved;
      for (size_t i = 0; i < wanted.size(); ++i) {
        if (to_low && i % 3 != 0) wanted[i] = wanted[i].to(at::kBFloat16).to(at::kFloat);  // to nearest, once
      }
      expect_equal(rank.everything(), wanted);
    });
  }
}

TEST(LowStates, OutlastAFreeze) {
  for (const int num_ranks : {1, 3}) {
    on_ranks(num_ranks, [&](int, const std::vector<comm::Group>& channels) {
      Rank rank(kLowBf16, 3, channels);
      rank.train(0, 2);
      const at::Tensor average = rank.state(4, 0), square = rank.state(4, 1);
      at::Tensor& weight = rank.model.parameters[4].parameter;
      weight.set_requires_grad(false);
      rank.train(2, 3);
      weight.set_requires_grad(true);
      rank.backward(3);
      EXPECT_TRUE(rank.state(4, 0).equal(average) && rank.state(4, 1).equal(square));
    });
  }
}

TEST(LowStates, TakeHalfTheMemory) {
  on_ranks(2, [&](int, const std::vector<comm::Group>& channels) {
    Rank low(kLowBf16, 1, channels), high(kHighBf16, 1, channels);
    low.train(0, 1);
    high.train(0, 1);
    EXPECT_EQ(2 * low.engine->runtime().memory().optimizer_state_bytes,
              high.engine->runtime().memory().optimizer_state_bytes);
  });
}

TEST(LowStates, AreRefusedWhereTheProgramKeepsThem) {
  on_ranks(1, [&](int, const std::vector<comm::Group>& channels) {
    const std::string error =
        error_of<InvalidArgument>([&] { const Rank rank(kLowBf16, 1, channels, /*client=*/true); });
    EXPECT_NE(error.find("bf16.bf16_optimizer_states: got true with an optimizer of the program's own (AdamW)"),
              std::string::npos)
        << error;
  });
}

}  // namespace
}  // namespace hydrofoil::engine
