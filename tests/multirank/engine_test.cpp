#include "hydrofoil/engine/engine.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/local/local_group.h"
#include "hydrofoil/engine/build_engine.h"
#include "hydrofoil/engine/engine_checkpoint.h"
#include "hydrofoil/storage/safetensors.h"
#include "tests/support/perceptron.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::engine {
namespace {

using testing::error_of;

constexpr double kLr = 0.05;

EngineOptions options_of(int stage, int num_ranks, const std::string& more = "") {
  return resolve_engine_options(
             detail::concat(R"({"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": )", stage,
                            R"(}, "hydrofoil": {"unit_min_bytes": 0})", more, "}"),
             {num_ranks, true})
      .options;
}

// One rank: model and engine.
struct Rank {
  Rank(const EngineOptions& options, const std::vector<comm::Group>& channels, bool client = false,
       const std::string& optimizer_text = "SGD") {
    EngineParts parts;
    parts.parameters = model.parameters;
    parts.modules = model.modules;
    parts.gather_group = channels[0];
    parts.reduce_group = channels[1];
    if (!client) parts.native_optimizer = optim::OptimizerKind::kSgd;
    parts.optimizer_text = optimizer_text;
    engine = build_engine(options, std::move(parts));
    rank = channels[0].rank();
  }

  void backward(int step, double factor = 1.0) {
    const at::Tensor loss = model.loss(engine->runtime(), step, rank).mul(engine->begin_backward() * factor);
    engine->runtime().watch_loss(loss);
    loss.backward();
  }

  StepResult step() { return engine->step(std::vector<optim::Hyperparameters>(1, {.lr = kLr})); }

  at::Tensor master(int64_t parameter) {
    return engine->runtime().assemble(
        parameter, [](zero::Unit& unit, size_t b) { return unit.buckets[b]->group().owned_master(); });
  }

  testing::Perceptron model;
  std::unique_ptr<Engine> engine;
  int rank = 0;
};

void on_ranks(int num_ranks, const std::function<void(int, const std::vector<comm::Group>&)>& body) {
  const auto channels = comm::make_local_channels(num_ranks, 2, {.name = "test", .timeout = std::chrono::seconds(30)});
  testing::run_ranks(num_ranks, [&](int rank) { body(rank, channels[rank]); });
}

class EngineStages : public ::testing::TestWithParam<int> {};

TEST_P(EngineStages, AnOverflowOfOneRankSkipsTheStepOfAll) {
  const std::string fp16 =
      R"(, "fp16": {"enabled": true, "initial_scale_power": 4, "hysteresis": 1, "loss_scale_window": 100})";
  on_ranks(2, [&](int r, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(GetParam(), 2, fp16), channels);
    rank.backward(0);
    EXPECT_TRUE(rank.step().applied);
    const at::Tensor before = rank.master(4);
    rank.backward(1, r == 1 ? std::numeric_limits<double>::infinity() : 1.0);
    const StepResult result = rank.step();
    EXPECT_TRUE(result.overflow && result.boundary && !result.applied);
    EXPECT_TRUE(rank.master(4).equal(before));
    EXPECT_EQ(rank.engine->loss_scaler().scale(), 8.0);
    EXPECT_EQ(rank.engine->counters().skipped_steps, 1);
    EXPECT_EQ(rank.engine->counters().optimizer_steps, 1);
    EXPECT_NE(rank.engine->overflow_report().find("is not finite on rank 1, micro step 1"), std::string::npos)
        << rank.engine->overflow_report();
    rank.backward(2);
    EXPECT_TRUE(rank.step().applied);
    EXPECT_FALSE(rank.master(4).equal(before));
  });
}

TEST_P(EngineStages, RefusesALossWithoutItsScale) {
  on_ranks(2, [&](int, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(GetParam(), 2, R"(, "fp16": {"enabled": true, "initial_scale_power": 4})"), channels);
    rank.model.loss(rank.engine->runtime(), 0, rank.rank).backward();
    const std::string error = error_of<InvalidArgument>([&] { (void)rank.step(); });
    EXPECT_NE(error.find("was not multiplied by the loss scale, 16"), std::string::npos) << error;
    rank.engine->zero_grad();
    rank.backward(0);
    EXPECT_TRUE(rank.step().applied);
    rank.engine->set_loss_scale(1.0);
    rank.model.loss(rank.engine->runtime(), 1, rank.rank).backward();
    EXPECT_TRUE(rank.step().applied);
  });
}

// Plain SGD on the client's shards does what the fused kernel does.
TEST_P(EngineStages, AClientOptimizerWorksOnTheShards) {
  for (const int num_ranks : {1, 3}) {
    on_ranks(num_ranks, [&](int, const std::vector<comm::Group>& channels) {
      Rank native(options_of(GetParam(), num_ranks), channels);
      Rank client(options_of(GetParam(), num_ranks), channels, /*client=*/true);
      for (int step = 0; step < 3; ++step) {
        native.backward(step);
        native.step();
        client.backward(step);
        ASSERT_TRUE(client.engine->begin_step());
        {
          const at::NoGradGuard no_grad;
          for (auto& shard : client.engine->begin_client_update()) shard.value.sub_(shard.gradient, kLr);
        }
        EXPECT_TRUE(client.engine->finish_step().applied);
      }
      for (const int64_t p : {0, 1, 4}) EXPECT_TRUE(client.master(p).allclose(native.master(p), 1e-6, 1e-7)) << p;
    });
  }
}

TEST_P(EngineStages, ClientStatesAreAssembledAndWritten) {
  on_ranks(3, [&](int, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(GetParam(), 3), channels, /*client=*/true);
    zero::Runtime& runtime = rank.engine->runtime();
    std::vector<at::Tensor> pieces;
    for (const auto& shard : zero::client_shards(runtime)) pieces.push_back(shard.value.detach().clone());
    const at::Tensor value = runtime.assemble(4, zero::client_state(runtime, pieces));
    EXPECT_TRUE(value.equal(testing::values({9, 9}, 20.0)));
    zero::set_client_state(runtime, 4, pieces, value.mul(2.0));
    EXPECT_TRUE(runtime.assemble(4, zero::client_state(runtime, pieces)).equal(value.mul(2.0)));
    EXPECT_TRUE(runtime.assemble(0, zero::client_state(runtime, pieces)).equal(testing::values({9, 5}, 0.0)));
    pieces.push_back(pieces.back());
    EXPECT_THROW((void)zero::client_state(runtime, pieces), InvalidArgument);
    pieces.pop_back();
    if (!pieces.empty()) {
      pieces[0] = at::empty({pieces[0].numel() + 1}, at::kFloat);
      EXPECT_THROW((void)zero::client_state(runtime, pieces), InvalidArgument);
      EXPECT_THROW(zero::set_client_state(runtime, 4, pieces, value), InvalidArgument);
    }
  });
}

TEST_P(EngineStages, SavesTheWholeModelAsOneFile) {
  const storage::TemporaryDirectory directory;
  const std::string path = directory.path() + "/model.safetensors";
  on_ranks(2, [&](int, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(GetParam(), 2), channels);
    save_model(*rank.engine, path, {{"count", "", at::empty({2}, at::kLong).fill_(7)}}, /*exclude_frozen=*/false);
  });
  const storage::SafetensorsReader reader(path);
  const testing::Perceptron model;
  ASSERT_EQ(reader.tensors().size(), model.parameters.size() + 1);
  for (const auto& info : model.parameters) {
    const at::Tensor value = at::empty(info.parameter.sizes(), at::kFloat);
    reader.read(reader.entry(info.name), 0, static_cast<int64_t>(value.nbytes()), value.data_ptr());
    EXPECT_TRUE(value.equal(info.parameter.detach())) << info.name;
  }
  EXPECT_TRUE(reader.contains("count"));
}

INSTANTIATE_TEST_SUITE_P(Zero, EngineStages, ::testing::Values(0, 1, 2, 3));

TEST(Engine, AccumulatesToTheBoundaryAndCountsSteps) {
  on_ranks(2, [](int, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(2, 2, R"(, "gradient_accumulation_steps": 3)"), channels);
    const at::Tensor before = rank.master(4);
    for (int micro = 0; micro < 3; ++micro) {
      EXPECT_EQ(rank.engine->is_boundary(), micro == 2);
      rank.backward(micro);
      EXPECT_EQ(rank.step().boundary, micro == 2);
      EXPECT_EQ(rank.master(4).equal(before), micro < 2);
    }
    EXPECT_EQ(rank.engine->counters().micro_steps, 3);
    EXPECT_EQ(rank.engine->counters().global_steps, 1);
    EXPECT_EQ(rank.engine->counters().global_samples, 24);
    EXPECT_TRUE(rank.engine->grad_norm().value_or(0.0) > 0.0);
  });
}

TEST(Engine, RejectsCallsOutOfPlace) {
  on_ranks(2, [](int, const std::vector<comm::Group>& channels) {
    Rank rank(options_of(2, 2), channels, /*client=*/true);
    EXPECT_THROW(rank.engine->set_no_sync(true), InvalidArgument);   // stage 2 reduces every gradient
    EXPECT_THROW((void)rank.engine->begin_step(), InvalidArgument);  // no backward
    EXPECT_THROW(rank.engine->update_native({}), InvalidArgument);   // a client optimizer
    rank.engine->destroy(false);
    EXPECT_THROW((void)rank.engine->begin_backward(), InvalidArgument);
    EXPECT_THROW(rank.engine->zero_grad(), InvalidArgument);
    EXPECT_THROW(rank.engine->set_boundary(true), InvalidArgument);
  });
  EXPECT_THROW(on_ranks(1,
                        [](int, const std::vector<comm::Group>& channels) {
                          const Rank rank(options_of(1, 1, R"(, "data_types": {"grad_accum_dtype": "bf16"})"), channels,
                                          /*client=*/true);
                        }),
               InvalidArgument);
}

TEST(BuildEngine, NamesWhatDiffersBetweenRanks) {
  on_ranks(3, [](int r, const std::vector<comm::Group>& channels) {
    const std::string clipping = error_of<CommError>(
        [&] { const Rank rank(options_of(1, 3, r == 2 ? R"(, "gradient_clipping": 0.5)" : ""), channels); });
    EXPECT_NE(clipping.find("rank 2: got gradient_clipping = 0.5, rank 0 has gradient_clipping = 1"), std::string::npos)
        << clipping;
    const std::string optimizer = error_of<CommError>(
        [&] { const Rank rank(options_of(1, 3), channels, false, r == 1 ? "SGD lr 0.1" : "SGD lr 0.2"); });
    EXPECT_NE(optimizer.find("rank 1: got optimizer SGD lr 0.1, rank 0 has optimizer SGD lr 0.2"), std::string::npos)
        << optimizer;
  });
}

}  // namespace
}  // namespace hydrofoil::engine
