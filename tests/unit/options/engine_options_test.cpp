#include "hydrofoil/engine/engine_options.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::engine {
namespace {

using config::Why;

// A config with a batch size and `more` members.
std::string text_with(const std::string& more) {
  return "{\"train_batch_size\": 12" + (more.empty() ? "" : ", " + more) + "}";
}

ResolvedOptions resolve(const std::string& more, const ResolveContext& context = {.world_size = 2}) {
  return resolve_engine_options(text_with(more), context);
}

void expect_error(const std::string& more, const std::string& part, const ResolveContext& context = {.world_size = 2}) {
  try {
    (void)resolve(more, context);
    ADD_FAILURE() << more << " was accepted, expected an error with: " << part;
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(EngineOptions, DefaultsAreThoseOfTheReference) {
  const EngineOptions options = resolve("").options;
  EXPECT_EQ(options.train_micro_batch_size_per_gpu, 6);
  EXPECT_EQ(options.gradient_accumulation_steps, 1);
  EXPECT_EQ(options.gradient_clipping, 1.0);
  EXPECT_FALSE(options.steps_per_print.has_value());
  EXPECT_EQ(options.gradient_predivide_factor, 1.0);
  EXPECT_FALSE(options.communication_data_type.has_value());
  EXPECT_EQ(options.data_types.grad_accum_dtype, DType::kFloat32);
  EXPECT_EQ(options.zero.stage, 0);
  EXPECT_EQ(options.fp16.initial_scale_power, 16);
  EXPECT_EQ(options.fp16.loss_scale_window, 1000);
  EXPECT_EQ(options.fp16.hysteresis, 2);
  EXPECT_TRUE(options.bf16.check_grad_overflow);
  EXPECT_TRUE(options.hydrofoil.overlap);
  EXPECT_EQ(options.hydrofoil.unit_min_bytes, 1 << 20);
  EXPECT_EQ(options.hydrofoil.collective_timeout_s, 600.0);
  EXPECT_EQ(options.optimizer.type, "");
  EXPECT_EQ(options.model_dtype(), DType::kFloat32);
}

TEST(EngineOptions, ProfilersAreOffAndTakeTheirKeys) {
  EXPECT_FALSE(resolve("").options.comms_logger.enabled);
  EXPECT_FALSE(resolve("").options.flops_profiler.enabled);
  EXPECT_EQ(resolve("").options.hydrofoil.trace.path, "");
  const EngineOptions options = resolve(R"("comms_logger": {"enabled": "true", "prof_all": false,
      "prof_ops": ["all_gather_into_tensor", "barrier"], "debug": true}, "flops_profiler": {"enabled": true,
      "profile_step": 0, "recompute_fwd_factor": 1.0, "output_file": "x"}, "hydrofoil": {"trace": {"path": "t"}})")
                                    .options;
  EXPECT_TRUE(options.comms_logger.enabled && options.comms_logger.debug && !options.comms_logger.verbose);
  EXPECT_EQ(options.comms_logger.counted_ops(), (std::vector<std::string>{"all_gather", "barrier"}));
  EXPECT_EQ(resolve(R"("comms_logger": {"prof_ops": ["barrier"]})").options.comms_logger.counted_ops().size(), 0U);
  EXPECT_EQ(options.flops_profiler.profile_step, 0);
  EXPECT_EQ(options.flops_profiler.output_file, "x");
  EXPECT_EQ(options.hydrofoil.trace.first_step, 3);
  expect_error(R"("comms_logger": {"prof_ops": ["all_reduse"]})",
               "comms_logger.prof_ops: got 'all_reduse', which is no operation; the nearest is 'all_reduce'");
  expect_error(R"("comms_logger": {"enabled": true, "prof_all": false})", "nothing would be counted");
  expect_error(R"("flops_profiler": {"module_depth": -2})", "flops_profiler.module_depth: got -2");
  expect_error(R"("flops_profiler": {"top_modules": 0})", "flops_profiler.top_modules: got 0");
  expect_error(R"("hydrofoil": {"trace": {"path": "t", "num_steps": 0}})", "hydrofoil.trace.num_steps: got 0");
}

TEST(EngineOptions, BatchTripleIsDerivedWithItsArithmetic) {
  const auto resolved = resolve_engine_options(
      R"({"train_batch_size": "auto", "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": null})",
      {.world_size = 3});
  EXPECT_EQ(resolved.options.train_batch_size, 12);
  EXPECT_EQ(resolved.table.find("train_batch_size")->why, Why::kAuto);
  EXPECT_EQ(resolved.table.find("train_batch_size")->note, "4 x 1 x 3 ranks");
  EXPECT_EQ(resolved.table.find("gradient_accumulation_steps")->why, Why::kDerived);
  EXPECT_THROW((void)resolve_engine_options(R"({"train_batch_size": "auto"})", {}), InvalidArgument);
  EXPECT_THROW((void)resolve_engine_options("{}", {}), InvalidArgument);
  EXPECT_THROW((void)resolve_engine_options(text_with(""), {.world_size = 0}), InvalidArgument);
  expect_error("", "world size 5", {.world_size = 5});
}

TEST(EngineOptions, PrecisionSectionsSetTheModelsType) {
  const auto fp16 = resolve(R"("fp16": {"enabled": true, "loss_scale": 128})");
  EXPECT_EQ(fp16.options.model_dtype(), DType::kFloat16);
  EXPECT_FALSE(fp16.options.fp16.dynamic());
  EXPECT_FALSE(fp16.options.communication_data_type.has_value());  // the accumulation dtype, not the model's
  EXPECT_EQ(fp16.table.find("communication_data_type")->why, Why::kDerived);
  EXPECT_EQ(fp16.table.find("communication_data_type")->value, "fp32");
  const auto bf16 = resolve(R"("bfloat16": {"enabled": "true"}, "communication_data_type": "FP32")");
  EXPECT_EQ(bf16.options.model_dtype(), DType::kBFloat16);
  EXPECT_EQ(bf16.options.communication_data_type, DType::kFloat32);
  EXPECT_EQ(resolve(R"("data_types": {"grad_accum_dtype": "torch.bfloat16"})").options.data_types.grad_accum_dtype,
            DType::kBFloat16);
  EXPECT_EQ(resolve(R"("torch_autocast": {"enabled": true, "dtype": "half"})").options.torch_autocast.dtype,
            DType::kFloat16);
  EXPECT_EQ(resolve("").options.torch_autocast.dtype, DType::kBFloat16);
  EXPECT_EQ(resolve("", {.world_size = 2, .cpu_device = false}).options.torch_autocast.dtype, DType::kFloat16);
}

TEST(EngineOptions, ContradictionsAreErrors) {
  expect_error(R"("fp16": {"enabled": true}, "bf16": {"enabled": true})",
               "fp16.enabled and bf16.enabled are both true");
  expect_error(R"("bf16": {"enabled": true}, "bfloat16": {"enabled": true})", "given twice");
  expect_error(R"("gradient_allreduce_op": "sum", "zero_optimization": {"stage": 3})",
               "gradient_allreduce_op: got sum");
  expect_error(R"("gradient_allreduce_op": "sum", "prescale_gradients": true)",
               "gradient_allreduce_op sum divides by nothing");
  expect_error(R"("data_types": {"param_dtype": "bf16"})", "data_types.param_dtype: got bf16, expected fp32");
  expect_error(R"("fp16": {"enabled": true, "loss_scale_window": 0})", "fp16.loss_scale_window: got 0");
  expect_error(R"("fp16": {"enabled": true, "min_loss_scale": 0})", "fp16.min_loss_scale: got 0");
  expect_error(R"("zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "ratio": 0.5}})",
               "ratio: got 0.5 with stage 2");
  expect_error(R"("optimizer": {"type": "AdamW", "params": {"adam_w_mode": false}})", "adam_w_mode: got false");
  expect_error(R"("optimizer": {"type": "SGD", "params": {"nesterov": true}})", "Nesterov needs momentum > 0");
  expect_error(R"("data_parallel_size": 3)", "expected the world size 2");
  EXPECT_NO_THROW(resolve(R"("data_parallel_size": 2, "gradient_allreduce_op": "sum")"));
}

TEST(EngineOptions, WrongValuesAreErrors) {
  expect_error(R"("gradient_clipping": -1)", "gradient_clipping: got -1, expected a number >= 0");
  expect_error(R"("gradient_clipping": Infinity)", "does not take Infinity");
  expect_error(R"("gradient_predivide_factor": 0)", "expected a number > 0");
  expect_error(R"("gradient_allreduce_op": "avg")", "expected one of mean, sum");
  expect_error(R"("communication_data_type": "int8")", "communication_data_type");
  expect_error(R"("data_types": {"grad_accum_dtype": "int8"})", "data_types.grad_accum_dtype");
  expect_error(R"("steps_per_print": 0)", "steps_per_print: got 0");
  expect_error(R"("fp16": {"loss_scale": true})", "fp16.loss_scale: got true");
  expect_error(R"("fp16": {"loss_scale": -1})", "fp16.loss_scale: got -1");
  expect_error(R"("fp16": {"loss_scale": Infinity})", "fp16.loss_scale: got Infinity");
  expect_error(R"("fp16": {"hysteresis": 0})", "fp16.hysteresis: got 0");
  expect_error(R"("fp16": true)", "fp16: got true, expected an object");
  expect_error(R"("zero_optimization": {"stage": 4})",
               "zero_optimization.stage: got 4, expected an integer from 0 to 3");
  expect_error(R"("zero_optimization": {"reduce_bucket_size": -5})", "reduce_bucket_size: got -5");
  expect_error(R"("zero_optimization": 2)", "zero_optimization: got 2, expected an object");
  expect_error(R"("zero_optimization": {"offload_param": {"device": "gpu"}})", "expected one of none, cpu, nvme");
  expect_error(R"("hydrofoil": {"unit_min_bytes": -1})", "hydrofoil.unit_min_bytes");
  expect_error(R"("hydrofoil": {"collective_timeout_s": 0})", "hydrofoil.collective_timeout_s");
  expect_error(R"("hydrofoil": {"backend": "nccl"})", "expected one of auto, shm, c10d");
  expect_error(R"("torch_autocast": {"dtype": "int8"})", "torch_autocast.dtype");
}

TEST(EngineOptions, UnknownKeysNameTheirPathAndTheNearestName) {
  expect_error(R"("gradient_cliping": 1)",
               "gradient_cliping: unknown key; the nearest valid name is \"gradient_clipping\"");
  expect_error(R"("zero_optimization": {"stage3_prefetch_bucket": 1})",
               "zero_optimization.stage3_prefetch_bucket: unknown key; the nearest valid name is "
               "\"stage3_prefetch_bucket_size\"");
  expect_error(R"("optimizer": {"type": "Adam", "parms": {}})",
               "optimizer.parms: unknown key; the nearest valid name is \"params\"");
  expect_error(R"("optimizer": {"type": "Adam", "params": {"beta": 1}})",
               "optimizer.params.beta: unknown key; the nearest valid name is \"betas\"");
  expect_error(R"("scheduler": {"type": "WarmupLR", "params": {"total_num_steps": 1}})",
               "scheduler.params.total_num_steps: unknown key");
  expect_error(R"("zero_optimization": {"grad_hooks": true})", "zero_optimization.grad_hooks: unknown key");
}

TEST(EngineOptions, OffloadToTheCpuIsTheDeviceOnACpu) {
  const std::string more =
      R"("zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu", "ratio": 0.5}})";
  const auto resolved = resolve(more);
  EXPECT_EQ(resolved.options.zero.offload_param.device, zero::OffloadDevice::kCpu);
  for (const char* key : {"zero_optimization.offload_param.device", "zero_optimization.offload_optimizer.device"}) {
    EXPECT_NE(resolved.table.find(key)->note.find("the tier is the device"), std::string::npos);
  }
  expect_error(more, "zero_optimization.offload_param.device: cpu is not yet supported on a device other than the CPU",
               {.world_size = 2, .cpu_device = false});
  expect_error(R"("zero_optimization": {"offload_optimizer": {"device": "nvme", "nvme_path": "/x"}})",
               "offload_optimizer.device: nvme is not yet supported");
  EXPECT_NO_THROW(resolve(
      R"("zero_optimization": {"offload_optimizer": {"device": "none", "nvme_path": null}, "offload_param": null})",
      {.world_size = 2, .cpu_device = false}));
}

TEST(EngineOptions, DeprecatedFormsMapWithOneWarning) {
  const auto old = resolve(
      R"("zero_optimization": {"stage": 3, "cpu_offload": true, "cpu_offload_param": true, "cpu_offload_use_pin_memory": true,
                              "stage3_gather_fp16_weights_on_model_save": true})");
  EXPECT_EQ(old.options.zero.offload_optimizer.device, zero::OffloadDevice::kCpu);
  EXPECT_EQ(old.options.zero.offload_param.device, zero::OffloadDevice::kCpu);
  EXPECT_TRUE(old.options.zero.gather_16bit_weights_on_model_save);
  EXPECT_EQ(old.warnings.size(), 4u);
  for (const auto& [value, stage] : {std::pair("true", 1), std::pair("false", 0)}) {
    const auto flag = resolve("\"zero_optimization\": " + std::string(value));
    EXPECT_EQ(flag.options.zero.stage, stage);
    EXPECT_EQ(flag.warnings.size(), 1u);
  }
  EXPECT_TRUE(resolve(R"("zero_optimization": {"cpu_offload": null})").warnings.empty());
  EXPECT_EQ(resolve(R"("zero_optimization": {"cpu_offload": false})").options.zero.offload_optimizer.device,
            zero::OffloadDevice::kNone);
  expect_error(R"("zero_optimization": {"cpu_offload": true, "offload_optimizer": {"device": "none"}})",
               "zero_optimization.cpu_offload: given together with offload_optimizer");
  expect_error(R"("zero_optimization": {"cpu_offload": 1})",
               "zero_optimization.cpu_offload: got 1, expected true or false");
  expect_error(R"("zero_optimization": {"cpu_offload_x": true})", "zero_optimization.cpu_offload_x: unknown key");
  expect_error(
      R"("zero_optimization": {"stage3_gather_fp16_weights_on_model_save": true, "stage3_gather_16bit_weights_on_model_save": true})",
      "given twice");
}

TEST(EngineOptions, OwnOptionsAreDerivedFromDeepSpeedsKeys) {
  const auto resolved = resolve(R"("zero_optimization": {"enable_sanity_checks": true})");
  EXPECT_TRUE(resolved.options.hydrofoil.debug_checks);
  EXPECT_EQ(resolved.table.find("hydrofoil.debug_checks")->why, Why::kDerived);
  EXPECT_FALSE(resolve(R"("zero_optimization": {"enable_sanity_checks": true}, "hydrofoil": {"debug_checks": false})")
                   .options.hydrofoil.debug_checks);
}

TEST(EngineOptions, LeafModulesAreListsOrOneString) {
  const auto leaves = [](const std::string& json) {
    return resolve(R"("zero_optimization": {"leaf_module": )" + json + "}").options.zero.leaf_module;
  };
  const auto none = leaves("{}");
  EXPECT_EQ(none.classes.size(), 3U);
  EXPECT_EQ(none.classes[0], "transformers.models.mixtral.modeling_mixtral.MixtralSparseMoeBlock");
  EXPECT_TRUE(none.names.empty() && none.name_suffixes.empty());
  const auto given = leaves(R"({"classes": "a.Moe", "names": ["x.0", "x.1"], "name_suffixes": "experts"})");
  EXPECT_EQ(given.classes, (std::vector<std::string>{"a.Moe"}));
  EXPECT_EQ(given.names, (std::vector<std::string>{"x.0", "x.1"}));
  EXPECT_EQ(given.name_suffixes, (std::vector<std::string>{"experts"}));
  EXPECT_TRUE(leaves(R"({"classes": []})").classes.empty());
  expect_error(R"("zero_optimization": {"leaf_module": {"classes": [1]}})",
               "zero_optimization.leaf_module.classes: got");
  expect_error(R"("zero_optimization": {"leaf_module": ["Moe"]})", "zero_optimization.leaf_module: got");
}

TEST(EngineOptions, PredivideWithoutPrescaleIsExplained) {
  const auto resolved = resolve(R"("gradient_predivide_factor": 2)");
  EXPECT_EQ(resolved.table.find("gradient_predivide_factor")->note, "no effect without prescale_gradients");
}

TEST(EngineOptions, StatesAreFp32UnlessOneOfTwoKeysSaysBf16) {
  const auto bf16 = [](const std::string& more) { return R"("bf16": {"enabled": true)" + more + "}"; };
  const auto adam = [](const std::string& params) {
    return R"(, "optimizer": {"type": "Adam", "params": {)" + params + "}}";
  };
  const std::string low = R"(, "bf16_optimizer_states": true)", high = R"(, "bf16_optimizer_states": false)";
  const std::string fp32 = R"("fp32_optimizer_states": true)", not_fp32 = R"("fp32_optimizer_states": false)";
  const char* const row = "optimizer.params.fp32_optimizer_states";
  const auto plain = resolve(bf16("") + adam(""));
  EXPECT_FALSE(plain.options.has_bf16_states());
  EXPECT_EQ(plain.table.find(row)->value, "true");
  const auto asked = resolve(bf16(low) + adam(""));
  EXPECT_TRUE(asked.options.has_bf16_states());
  EXPECT_EQ(asked.table.find(row)->value, "false");
  EXPECT_EQ(asked.table.find(row)->note, "bf16.bf16_optimizer_states");
  EXPECT_TRUE(resolve(bf16(low) + R"(, "optimizer": {"type": "SGD"})").options.has_bf16_states());
  EXPECT_TRUE(resolve(bf16("") + adam(not_fp32)).options.has_bf16_states());
  EXPECT_TRUE(resolve(bf16(low) + adam(not_fp32)).options.has_bf16_states());
  EXPECT_TRUE(resolve(R"("fp16": {"enabled": true})" + adam(not_fp32)).options.has_bf16_states());
  EXPECT_FALSE(resolve(bf16(high) + adam(fp32)).options.has_bf16_states());
  expect_error(bf16(low) + adam(fp32),
               "fp32_optimizer_states: got true beside bf16.bf16_optimizer_states true, which says the contrary");
  expect_error(bf16(high) + adam(not_fp32), "got false beside bf16.bf16_optimizer_states false");
  expect_error(bf16(low) + R"(, "optimizer": {"type": "NAdam"})", "got true with optimizer.type NAdam");
  const auto off = resolve(R"("bf16": {"bf16_optimizer_states": true})");  // the section is off
  EXPECT_FALSE(off.options.has_bf16_states());
  EXPECT_NE(off.table.find("bf16.bf16_optimizer_states")->note.find("no effect"), std::string::npos);
}

TEST(EngineOptions, MonitorsTakeWhatDeepSpeedsTake) {
  EXPECT_FALSE(resolve("").options.has_monitors());
  EXPECT_FALSE(resolve(R"("tensorboard": {"enabled": false, "job_name": "x"})").options.has_monitors());
  for (const char* on :
       {R"("tensorboard": {"enabled": true})", R"("csv_monitor": {"enabled": "true"})", R"("wandb": {"enabled": 1})",
        R"("comet": {"enabled": true})", R"("hydrofoil": {"json_monitor": {"enabled": true}})"}) {
    EXPECT_TRUE(resolve(on).options.has_monitors()) << on;
  }
  const EngineOptions options =
      resolve(R"("wandb": {"team": "a"}, "comet": {"mode": "get_or_create", "online": false, "api_key": "secret"})")
          .options;
  EXPECT_EQ(options.wandb.team, "a");
  EXPECT_EQ(options.wandb.project, "deepspeed");
  EXPECT_FALSE(options.wandb.group.has_value());
  EXPECT_EQ(options.comet.online, false);
  EXPECT_EQ(options.comet.api_key, "secret");
  expect_error(R"("comet": {"mode": "gat"})", "nearest: get");
  expect_error(R"("comet": {"samples_log_interval": 0})", "comet.samples_log_interval");
  expect_error(R"("csv_monitor": {"path": "x"})", "unknown key");
}

TEST(EngineOptions, WhatOnlyReportsMayDifferBetweenRanks) {
  const char* on =
      R"("steps_per_print": 5, "wall_clock_breakdown": true, "memory_breakdown": true, "dump_state": true,
         "tensorboard": {"enabled": true}, "csv_monitor": {"enabled": true}, "wandb": {"enabled": true},
         "comet": {"enabled": true, "api_key": "secret"}, "timers": {"throughput": {"enabled": false}},
         "hydrofoil": {"json_monitor": {"enabled": true}})";
  EXPECT_EQ(resolve(on).options.resolved_lines, resolve("").options.resolved_lines);
}

TEST(ExplainConfig, KeepsTheKeyOfAnAccount) {
  const std::string text = explain_config(text_with(R"("comet": {"api_key": "secret"})"), {.world_size = 2});
  EXPECT_EQ(text.find("secret"), std::string::npos) << text;
}

TEST(EngineOptions, ValidateChecksOptionsMadeInCode) {
  EngineOptions options;
  EXPECT_THROW(options.validate(), InvalidArgument);  // no batch sizes
  options.train_batch_size = options.train_micro_batch_size_per_gpu = options.gradient_accumulation_steps = 1;
  EXPECT_NO_THROW(options.validate());
  options.zero.stage = 4;
  EXPECT_THROW(options.validate(), InvalidArgument);
  EXPECT_THROW(options.zero.validate(), InvalidArgument);
  options.zero.stage = 3;
  options.fp16.hysteresis = 0;
  EXPECT_THROW(options.fp16.validate(), InvalidArgument);
}

TEST(ExplainConfig, ShowsEveryValueAndWhy) {
  const std::string text = explain_config(
      text_with(
          R"("zero_optimization": {"stage": 2, "overlap_comm": true, "cpu_offload": true}, "gradient_clipping": "auto")"),
      {.world_size = 3});
  for (const char* part :
       {"world size 3, device cpu", "12 // 3 ranks // 1", "zero_optimization.stage ", " given ", " default ",
        " derived ", " auto ", "see hydrofoil.overlap", "warning: zero_optimization.cpu_offload is deprecated"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) EXPECT_NE(text[begin], ' ');
}

}  // namespace
}  // namespace hydrofoil::engine
