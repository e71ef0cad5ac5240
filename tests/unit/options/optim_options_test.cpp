#include "hydrofoil/optim/optim_options.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/engine/engine_options.h"

namespace hydrofoil::optim {
namespace {

engine::ResolvedOptions resolve(const std::string& more) {
  return engine::resolve_engine_options("{\"train_batch_size\": 1, " + more + "}", {});
}

OptimizerOptions optimizer(const std::string& json) { return resolve("\"optimizer\": " + json).options.optimizer; }
SchedulerOptions scheduler(const std::string& json) { return resolve("\"scheduler\": " + json).options.scheduler; }

void expect_error(const std::string& more, const std::string& part) {
  try {
    (void)resolve(more);
    ADD_FAILURE() << more << " was accepted, expected an error with: " << part;
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(OptimizerOptions, NativeTypesGoByAnyCaseWithTheirOwnDefaults) {
  const auto adam = optimizer(R"({"type": "adam"})");
  EXPECT_EQ(adam.type, "Adam");
  EXPECT_TRUE(adam.native);
  EXPECT_TRUE(adam.params.adam_w_mode);
  EXPECT_EQ(adam.params.lr, 1e-3);
  EXPECT_EQ(adam.params.betas, (std::vector<double>{0.9, 0.999}));
  EXPECT_EQ(adam.params.weight_decay, 0.0);
  EXPECT_EQ(optimizer(R"({"type": "ADAMW"})").type, "AdamW");
  const auto adagrad = optimizer(R"({"type": "adagrad"})");
  EXPECT_EQ(adagrad.params.lr, 1e-2);
  EXPECT_EQ(adagrad.params.eps, 1e-10);
  EXPECT_EQ(optimizer(R"({"type": "sgd", "params": {"momentum": 0.9, "nesterov": true}})").params.momentum, 0.9);
  EXPECT_EQ(optimizer(R"({"type": "Lion", "params": {"betas": [0.9, 0.99]}})").params.betas[1], 0.99);
}

TEST(OptimizerOptions, TorchAdamTakesTheDecayOfTorchsAdamW) {
  const auto resolved_decay = [](const std::string& type, const std::string& params) {
    return optimizer(R"({"type": ")" + type + R"(", "params": {)" + params + "}}").params.weight_decay;
  };
  EXPECT_EQ(resolved_decay("AdamW", ""), 0.0);
  for (const char* type : {"AdamW", "Adam", "adam"}) {
    EXPECT_EQ(resolved_decay(type, R"("torch_adam": true)"), 0.01) << type;
    EXPECT_EQ(resolved_decay(type, R"("torch_adam": true, "weight_decay": "auto")"), 0.01) << type;
    EXPECT_EQ(resolved_decay(type, R"("torch_adam": true, "weight_decay": 0)"), 0.0) << type;
    EXPECT_EQ(resolved_decay(type, R"("torch_adam": false)"), 0.0) << type;
  }
  EXPECT_EQ(resolved_decay("Adam", R"("torch_adam": true, "adam_w_mode": false)"), 0.0);  // torch.optim.Adam's
  const auto row = *resolve(R"("optimizer": {"type": "AdamW", "params": {"torch_adam": true}})")
                        .table.find("optimizer.params.weight_decay");
  EXPECT_EQ(row.value, "0.01");
  EXPECT_EQ(row.note, "torch_adam: the default of torch.optim.AdamW");
  EXPECT_NE(
      optimizer(R"({"type": "AdamW", "params": {"torch_adam": true}})").params_json.find("\"weight_decay\": 0.01"),
      std::string::npos);
}

TEST(OptimizerOptions, ParamsAreWrittenBackWithAutoResolved) {
  const auto options =
      optimizer(R"({"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "weight_decay": 0.1}})");
  EXPECT_EQ(options.params.lr, 1e-3);
  EXPECT_EQ(
      options.params_json,
      R"({"lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-08, "weight_decay": 0.1, "bias_correction": true, "adam_w_mode": true})");
}

TEST(OptimizerOptions, OtherTorchTypesArePassedThrough) {
  const auto options = optimizer(R"({"type": "NAdam", "params": {"lr": 1e-3, "momentum_decay": 0.004}})");
  EXPECT_EQ(options.type, "NAdam");
  EXPECT_FALSE(options.native);
  EXPECT_EQ(options.params_json, R"({"lr": 0.001, "momentum_decay": 0.004})");
  EXPECT_EQ(optimizer(R"({"type": "RMSprop"})").params_json, "{}");
  expect_error(R"("optimizer": {"type": "NAdam", "params": {"lr": "auto"}})",
               "optimizer.params.lr: \"auto\" has no value here");
}

TEST(OptimizerOptions, AnAbsentSectionMeansNone) {
  for (const char* json : {"null", "{}", R"({"type": null})", R"({"type": null, "params": null})"}) {
    EXPECT_EQ(optimizer(json).type, "") << json;
  }
}

TEST(OptimizerOptions, UnknownAndLaterTypesAreErrors) {
  expect_error(R"("optimizer": {"type": "AdmW"})", "unknown type \"AdmW\"; the nearest valid name is \"AdamW\"");
  expect_error(R"("optimizer": {"type": "nadam"})", "unknown type \"nadam\"; the nearest valid name is \"NAdam\"");
  for (const char* type : {"Lamb", "OneBitAdam", "onebitlamb", "ZeroOneAdam", "Muon", "MuAdamW"}) {
    expect_error("\"optimizer\": {\"type\": \"" + std::string(type) + "\"}", "is not yet supported");
  }
  expect_error(R"("optimizer": "auto")", "optimizer: \"auto\" has no value here");
  expect_error(R"("optimizer": {"type": "auto"})", "optimizer.type: \"auto\" has no value here");
  expect_error(R"("optimizer": {"type": ""})", "optimizer.type: got an empty name");
  expect_error(R"("optimizer": {"params": {"lr": 1}})", "optimizer.type: is missing beside params");
  expect_error(R"("optimizer": {"type": "Adam", "params": 1})", "optimizer.params: got 1, expected an object");
  expect_error(R"("optimizer": 1)", "optimizer: got 1, expected an object");
}

TEST(OptimizerOptions, WrongParamsAreErrors) {
  expect_error(R"("optimizer": {"type": "Adam", "params": {"max_grad_norm": 1}})",
               "max_grad_norm: is not a setting of the optimizer; use gradient_clipping");
  expect_error(R"("optimizer": {"type": "Adam", "params": {"lr": "1e-5"}})", "write numbers without quotes");
  expect_error(R"("optimizer": {"type": "Adam", "params": {"lr": -1}})", "optimizer.params.lr: got -1");
  expect_error(R"("optimizer": {"type": "Adam", "params": {"betas": [0.9]}})", "expected a list of 2 numbers");
  expect_error(R"("optimizer": {"type": "Adam", "params": {"amsgrad": true}})", "amsgrad: not yet supported");
  expect_error(R"("optimizer": {"type": "SGD", "params": {"maximize": true}})", "maximize: not yet supported");
  expect_error(R"("optimizer": {"type": "Adagrad", "params": {"lr_decay": 0.1}})", "lr_decay: not yet supported");
  EXPECT_NO_THROW(optimizer(
      R"({"type": "Adam", "params": {"torch_adam": true, "fused": true, "foreach": null, "amsgrad": false}})"));
}

TEST(SchedulerOptions, NativeTypesHaveTheirDefaults) {
  const auto warmup = resolve(
      R"("optimizer": {"type": "Adam", "params": {"lr": 0.5}}, "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": "auto"}})");
  const auto& params = warmup.options.scheduler.params;
  EXPECT_EQ(params.warmup_num_steps, 1000);
  EXPECT_EQ(params.warmup_type, "log");
  EXPECT_FALSE(params.warmup_max_lr.has_value());
  EXPECT_EQ(warmup.table.find("scheduler.params.warmup_max_lr")->value, "each group's lr");
  EXPECT_FALSE(scheduler(R"({"type": "WarmupLR"})").params.warmup_max_lr.has_value());
  EXPECT_EQ(*scheduler(R"({"type": "WarmupDecayLR", "params": {"total_num_steps": 2000}})").params.warmup_max_lr,
            std::vector<double>{0.001});
  EXPECT_EQ(scheduler(R"({"type": "WarmupCosineLR", "params": {"total_num_steps": 1e4}})").params.cos_min_ratio, 1e-4);
  EXPECT_EQ(scheduler(R"({"type": "LRRangeTest", "params": {"lr_range_test_min_lr": [1e-4, 1e-3]}})")
                .params.lr_range_test_min_lr.size(),
            2u);
  const auto cycle = scheduler(R"({"type": "OneCycle", "params": {"cycle_min_lr": 0.1, "cycle_max_lr": 1}})");
  EXPECT_EQ(cycle.params.cycle_max_mom, 0.9);
  EXPECT_FALSE(cycle.params.cycle_second_step_size.has_value());
}

TEST(SchedulerOptions, OtherTorchTypesArePassedThrough) {
  const auto options = scheduler(R"({"type": "StepLR", "params": {"step_size": 3}})");
  EXPECT_FALSE(options.native);
  EXPECT_EQ(options.params_json, R"({"step_size": 3})");
}

TEST(SchedulerOptions, WrongParamsAreErrors) {
  expect_error(R"("scheduler": {"type": "warmuplr"})", "the nearest valid name is \"WarmupLR\"");
  expect_error(R"("scheduler": {"type": "WarmupDecayLR"})",
               "scheduler.params.total_num_steps: is missing; give the number");
  expect_error(R"("scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto"}})",
               "total_num_steps: \"auto\" has no value here");
  expect_error(R"("scheduler": {"type": "OneCycle", "params": {"cycle_min_lr": 0.1}})", "cycle_max_lr: is missing");
  expect_error(R"("scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 0}})",
               "warmup_num_steps: got 0, expected an integer >= 1");
  expect_error(R"("scheduler": {"type": "WarmupLR", "params": {"warmup_type": "cosine"}})",
               "expected one of log, linear");
  EXPECT_EQ(resolve(R"("scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 5}})").warnings.size(), 1u);
}

}  // namespace
}  // namespace hydrofoil::optim
