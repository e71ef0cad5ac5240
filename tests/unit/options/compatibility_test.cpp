// Configs as DeepSpeed's users, Accelerate and Transformers write them, and the whole schema.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "hydrofoil/base/error.h"
#include "hydrofoil/engine/engine_options.h"

namespace hydrofoil::engine {
namespace {

std::string error_of(const std::string& text, const ResolveContext& context = {.world_size = 2}) {
  try {
    (void)resolve_engine_options(text, context);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Compatibility, AcceptsTheExampleOfTheUserManual) {
  const auto resolved = resolve_engine_options(
      R"({"train_batch_size": 8, "fp16": {"enabled": true}, "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}})",
      {.world_size = 2});
  EXPECT_EQ(resolved.options.zero.stage, 3);
  EXPECT_EQ(resolved.options.model_dtype(), DType::kFloat16);
  EXPECT_EQ(resolved.options.train_micro_batch_size_per_gpu, 4);
  EXPECT_TRUE(resolved.warnings.empty());
}

TEST(Compatibility, AcceptsWhatAccelerateWrites) {
  const auto resolved = resolve_engine_options(R"({
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2,
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none", "nvme_path": null},
                          "offload_param": {"device": "none", "nvme_path": null},
                          "stage3_gather_16bit_weights_on_model_save": false},
    "gradient_clipping": 1.0, "steps_per_print": Infinity, "bf16": {"enabled": true}, "fp16": {"enabled": false},
    "zero_allow_untested_optimizer": true})",
                                               {.world_size = 2});
  EXPECT_EQ(resolved.options.train_batch_size, 16);
  EXPECT_FALSE(resolved.options.steps_per_print.has_value());
  EXPECT_EQ(resolved.options.model_dtype(), DType::kBFloat16);
}

TEST(Compatibility, AcceptsWhatTransformersWrites) {
  const auto resolved = resolve_engine_options(R"({
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}},
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "pin_memory": true},
      "offload_param": {"device": "cpu", "pin_memory": true}, "overlap_comm": true, "contiguous_gradients": true,
      "sub_group_size": 1e9, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
      "stage3_param_persistence_threshold": "auto", "stage3_max_live_parameters": 1e9, "stage3_max_reuse_distance": 1e9,
      "stage3_gather_16bit_weights_on_model_save": true},
    "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "steps_per_print": 2000,
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": 1, "wall_clock_breakdown": false,
    "amp": {"enabled": "auto", "opt_level": "auto"}})",
                                               {.world_size = 2});
  EXPECT_EQ(resolved.options.train_batch_size, 2);
  EXPECT_EQ(resolved.table.find("zero_optimization.reduce_bucket_size")->why, config::Why::kAuto);
  EXPECT_EQ(resolved.table.find("optimizer.params.betas")->why, config::Why::kAuto);
  EXPECT_EQ(resolved.table.find("zero_optimization.sub_group_size")->value, "1000000000");
}

TEST(Compatibility, AcceptsFilesWithCommentsAndBase64) {
  const auto path =
      std::filesystem::path(testing::TempDir()) / ("hydrofoil_ds_config_" + std::to_string(::getpid()) + ".json");
  std::ofstream(path) << "{\n  # the batch\n  \"train_batch_size\": 4, // all ranks\n  \"_comment\": \"x\",\n  "
                         "\"zero_optimization\": {\"stage\": 1,},\n}\n";
  EXPECT_EQ(resolve_engine_options(path.string(), {.world_size = 2}).options.zero.stage, 1);
  std::ofstream(path) << "{\n  \"train_batch_size\": 4,\n  \"gradient_clipping\": -1\n}\n";
  EXPECT_NE(error_of(path.string()).find(path.string() + ":3:24: gradient_clipping: got -1"), std::string::npos)
      << error_of(path.string());
  std::filesystem::remove(path);
  // {"train_batch_size": 4}
  EXPECT_EQ(resolve_engine_options("eyJ0cmFpbl9iYXRjaF9zaXplIjogNH0=", {.world_size = 2}).options.train_batch_size, 4);
}

// Every section and key of DeepSpeed 0.19.6's schema, at values that leave later features off.
constexpr const char* kWholeSchema = R"({
  "train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2, "managed_gradient_accumulation": true,
  "steps_per_print": 10, "dump_state": false, "disable_allgather": false, "communication_data_type": null,
  "seq_parallel_communication_data_type": "fp32", "prescale_gradients": false, "gradient_predivide_factor": 1.0,
  "gradient_allreduce_op": "mean", "sparse_gradients": false, "gradient_clipping": 1.0, "graph_harvesting": false,
  "zero_allow_untested_optimizer": true, "zero_force_ds_cpu_optimizer": false, "wall_clock_breakdown": false,
  "memory_breakdown": false, "vocabulary_size": 50257, "dataloader_drop_last": false, "use_data_before_expert_parallelism": false,
  "log_level": null, "sequence_parallel_size": 1, "data_parallel_size": 2, "allgather_size": 5e8,
  "optimizer": {"type": "Adam", "params": {"lr": 1e-3}, "legacy_fusion": false},
  "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}},
  "fp16": {"enabled": false, "auto_cast": false, "loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2,
           "consecutive_hysteresis": false, "min_loss_scale": 1, "fp16_master_weights_and_grads": false},
  "bf16": {"enabled": false, "immediate_grad_update": true, "check_grad_overflow": true, "bf16_master_weights_and_grads": false,
           "bf16_optimizer_states": false},
  "amp": {"enabled": false, "opt_level": "O1", "anything": 1},
  "torch_autocast": {"enabled": false, "dtype": "bfloat16", "lower_precision_safe_modules": ["torch.nn.Linear"]},
  "data_types": {"grad_accum_dtype": "fp32", "param_dtype": "fp32", "buffer_dtype": null},
  "zero_optimization": {"stage": 2, "contiguous_gradients": true, "reduce_scatter": true, "reduce_bucket_size": 5e8,
    "use_multi_rank_bucket_allreduce": true, "allgather_partitions": true, "allgather_bucket_size": 5e8, "overlap_comm": null,
    "load_from_fp32_weights": true, "elastic_checkpoint": false,
    "offload_param": {"device": "none", "nvme_path": null, "buffer_count": 5, "buffer_size": 1e8, "max_in_cpu": 1e9, "pin_memory": true},
    "offload_optimizer": {"device": "none", "nvme_path": null, "buffer_count": 4, "pin_memory": true, "pipeline_read": false,
      "pipeline_write": false, "fast_init": false, "ratio": 1.0, "super_offload": false, "cpuadam_cores_perc": 0.8},
    "zenflow": null, "sub_group_size": 1e9, "prefetch_bucket_size": 5e7, "param_persistence_threshold": 1e5,
    "model_persistence_threshold": 9223372036854775807, "max_live_parameters": 1e9, "max_reuse_distance": 1e9,
    "gather_16bit_weights_on_model_save": false, "module_granularity_threshold": 0, "use_all_reduce_for_fetch_params": false,
    "allgather_sequential": false, "ignore_unused_parameters": true, "legacy_stage1": false, "round_robin_gradients": true,
    "zero_hpz_partition_size": 1, "zero_quantized_weights": false, "zero_quantized_nontrainable_weights": false,
    "zero_quantized_gradients": false, "zeropp_loco_param": null, "mics_shard_size": -1, "mics_hierarchical_params_gather": false,
    "memory_efficient_linear": true, "pipeline_loading_checkpoint": false, "override_module_apply": true,
    "log_trace_cache_warnings": false, "enable_sanity_checks": false, "save_muon_momentum_buffer_in_memory": false,
    "leaf_module": {"classes": [], "names": [], "name_suffixes": []}},
  "activation_checkpointing": {"partition_activations": false, "number_checkpoints": null, "contiguous_memory_optimization": false,
    "synchronize_checkpoint_boundary": false, "profile": false, "cpu_checkpointing": false},
  "aio": {"block_size": 2097152, "queue_depth": 32, "intra_op_parallelism": 2, "single_submit": true, "overlap_events": true, "use_gds": false, "thread_count": 2},
  "checkpoint": {"tag_validation": "WARN", "checkpoint_serialization": false, "load_universal": false, "use_node_local_storage": false,
    "parallel_write": {"pipeline_stage": false}, "writer": null},
  "nebula": {"enabled": false, "nebula_load_path": "/x", "enable_nebula_load": true, "persistent_storage_path": "/x",
    "persistent_time_interval": 100, "num_of_version_in_retention": 2},
  "datastates_ckpt": false,
  "pipeline": {"stages": "auto", "partition": "best", "seed_layers": false, "activation_checkpoint_interval": 0, "pipe_partitioned": true,
    "grad_partitioned": true, "use_reentrant": null},
  "tensorboard": {"enabled": false, "output_path": "x", "job_name": "y"},
  "csv_monitor": {"enabled": false, "output_path": "x", "job_name": "y"},
  "wandb": {"enabled": false, "group": "a", "team": "b", "project": "c"},
  "comet": {"enabled": false, "samples_log_interval": 5, "project": "a", "workspace": "b", "api_key": "c", "experiment_name": "d",
    "experiment_key": "e", "online": true, "mode": "create"},
  "comms_logger": {"enabled": false, "prof_all": true, "prof_ops": ["all_reduce"], "verbose": false, "debug": false},
  "flops_profiler": {"enabled": false, "recompute_fwd_factor": 0.0, "profile_step": 1, "module_depth": -1, "top_modules": 1, "detailed": true,
    "output_file": null},
  "timers": {"throughput": {"enabled": true, "synchronized": true}},
  "compile": {"deepcompile": false, "free_activation": false, "free_activation_threshold": 10485760, "offload_activation": false,
    "offload_activation_pin_memory": true, "offload_opt_states": false, "double_buffer": true, "symmetric_memory": false,
    "debug_log": false, "offload_parameters": false, "sync_before_reduce": false, "sync_after_reduce": false,
    "sync_before_allgather": false, "sync_after_allgather": false, "keep_int_input_tensors": true, "keep_all_input_tensors": false, "passes": ["z3"]},
  "tensor_parallel": {"dtype": "torch.float16", "autotp_size": 1, "tp_overlap_comm": false, "tp": {"tp_size": 1, "tp_grain_size": 1, "mpu": null, "tp_group": null},
    "injection_policy_tuple": null, "partition_config": {"use_default_specs": true}, "preset_model": "llama", "keep_module_on_host": false, "kernel_inject": false},
  "expert_parallel": {"enabled": false, "autoep_size": 2, "expert_tensor_parallel_size": 1, "validate_folding_routing": false,
    "preset_model": "mixtral", "moe_layer_pattern": "x", "expert_pattern": "x", "router_pattern": "x", "use_grouped_mm": true,
    "disable_triton_grouped_mm": false, "route_norm": null, "route_scale": 1.0, "score_apply": "auto", "combine_impl": "auto",
    "num_expert_groups": null, "num_limited_groups": null, "score_func": "auto", "top_k": 2, "load_balance_coeff": null,
    "routed_scaling_factor": "auto", "expert_w1": "a", "expert_w2": "b", "expert_w3": null, "num_experts_attr": "n", "top_k_attr": "k",
    "has_shared_experts": null, "shared_experts_pattern": null, "shared_experts_gate_pattern": null},
  "hybrid_engine": {"enabled": false, "max_out_tokens": 512, "inference_tp_size": 1, "release_inference_cache": false, "pin_parameters": true,
    "tp_gather_partition_size": 8, "enable_cuda_graph": false},
  "sparse_attention": null,
  "progressive_layer_drop": {"enabled": false, "theta": 0.5, "gamma": 0.001},
  "quantize_training": {"eigenvalue": {"enabled": false, "verbose": false, "max_iter": 100, "tol": 1e-2, "stability": 1e-6,
    "gas_boundary_resolution": 1, "layer_name": "bert.encoder.layer", "layer_num": 0}},
  "curriculum_learning": {"enabled": false, "curriculum_type": "seqlen", "min_difficulty": 8, "max_difficulty": 1024,
    "schedule_type": "fixed_linear", "schedule_config": {"total_curriculum_step": 100, "difficulty_step": 8}},
  "data_efficiency": {"enabled": false, "seed": 1234,
    "data_sampling": {"enabled": true, "num_epochs": 1000, "num_workers": 0, "pin_memory": false,
      "curriculum_learning": {"enabled": true, "data_cluster_path": "/x", "curriculum_metrics": {"seqlen": {}}},
      "dynamic_batching": {"enabled": false, "metrics_path": "/x", "lr_scaling_method": "linear", "min_batch_size": 1, "max_batch_size": null,
        "sequence_picking_order": "dataloader", "max_tokens": 1, "verbose": false}},
    "data_routing": {"enabled": false, "random_ltd": {"enabled": false, "total_layer_num": 24, "random_ltd_layer_num": 22,
      "random_ltd_layer_id": [1, 2], "model_mask_name": "m", "model_type": "decoder", "hidden_state_order": "b", "random_ltd_schedule": {},
      "global_batch_size": 1, "micro_batch_size": 1, "layer_token_lr_schedule": {"enabled": false}}}},
  "compression_training": {
    "layer_reduction": {"enabled": false, "keep_number_layer": 5, "module_name_prefix": "x", "teacher_layer": [1], "other_module_name": ["y"]},
    "weight_quantization": {"shared_parameters": {"enabled": false, "quantizer_kernel": false, "schedule_offset": 0, "quantize_groups": 1,
      "quantize_verbose": false, "quantization_type": "symmetric", "quantize_weight_in_forward": false, "rounding": "nearest",
      "fp16_mixed_quantize": {"enabled": false}}, "different_groups": {"g": {"params": {"start_bits": 8}}}},
    "activation_quantization": {"shared_parameters": {"enabled": false, "quantization_type": "symmetric", "range_calibration": "dynamic", "schedule_offset": 1000}},
    "sparse_pruning": {"shared_parameters": {"enabled": false, "method": "l1", "schedule_offset": 1000, "block_pattern": "4x1",
      "dense_ratio": 0.1, "schedule_offset_stride": 1, "excluded_modules": [], "schedule_offset_end": 1000}},
    "row_pruning": {"shared_parameters": {"enabled": false, "method": "l1", "schedule_offset": 1000}},
    "head_pruning": {"shared_parameters": {"enabled": false, "method": "topk", "schedule_offset": 1000, "num_heads": 12}},
    "channel_pruning": {"shared_parameters": {"enabled": false, "method": "l1", "schedule_offset": 1000}}},
  "weight_quantization": {"enabled": false, "num_bits": 8, "q_type": "symmetric", "q_groups": 1, "quantized_initialization": {}, "post_init_quant": {}},
  "elasticity": {"enabled": false, "max_train_batch_size": 2000, "micro_batch_sizes": [2, 4, 6], "min_gpus": 1, "max_gpus": 10000,
    "num_gpus_per_node": 1, "model_parallel_size": 1, "min_time": 0, "prefer_larger_batch": true, "ignore_non_elastic_batch_info": false, "version": 0.2},
  "autotuning": {"enabled": false, "fast": true, "results_dir": "a", "exps_dir": "b", "overwrite": true, "start_profile_step": 3,
    "end_profile_step": 5, "metric": "throughput", "metric_path": null, "tuner_type": "gridsearch", "tuner_early_stopping": 5,
    "tuner_num_trials": 50, "arg_mappings": null, "model_info": {"profile": false}, "model_info_path": null, "mp_size": 1,
    "max_train_batch_size": null, "min_train_batch_size": 1, "max_train_micro_batch_size_per_gpu": 1024,
    "min_train_micro_batch_size_per_gpu": 1, "num_tuning_micro_batch_sizes": 3}
})";

TEST(Compatibility, KnowsEveryKeyOfTheSchema) {
  EXPECT_EQ(error_of(kWholeSchema), "no error");
  EXPECT_EQ(error_of(kWholeSchema, {.world_size = 2, .cpu_device = false}), "no error");
}

TEST(Compatibility, ExplainsEveryTopLevelKey) {
  const std::string text = explain_config(kWholeSchema, {.world_size = 2});
  for (const auto& field : engine_section().fields) EXPECT_NE(text.find(field.key), std::string::npos) << field.key;
}

struct Active {
  const char* member;
  const char* key;  // the key that the error names
};

class LaterFeature : public testing::TestWithParam<Active> {};

TEST_P(LaterFeature, IsAnErrorThatNamesItsKeyWhereItIsActive) {
  const std::string message = error_of("{\"train_batch_size\": 2, " + std::string(GetParam().member) + "}");
  EXPECT_NE(message.find(std::string(GetParam().key) + ": not yet supported"), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Keys, LaterFeature,
    testing::Values(
        Active{R"("managed_gradient_accumulation": false)", "managed_gradient_accumulation"},
        Active{R"("sequence_parallel_size": 2)", "sequence_parallel_size"},
        Active{R"("graph_harvesting": true)", "graph_harvesting"}, Active{R"("amp": {"enabled": true})", "amp.enabled"},
        Active{R"("fp16": {"fp16_master_weights_and_grads": true})", "fp16.fp16_master_weights_and_grads"},
        Active{R"("bf16": {"bf16_master_weights_and_grads": true})", "bf16.bf16_master_weights_and_grads"},
        Active{R"("data_types": {"buffer_dtype": "bf16"})", "data_types.buffer_dtype"},
        Active{R"("zero_optimization": {"zero_hpz_partition_size": 2})", "zero_optimization.zero_hpz_partition_size"},
        Active{R"("zero_optimization": {"zero_quantized_weights": true})", "zero_optimization.zero_quantized_weights"},
        Active{R"("zero_optimization": {"zero_quantized_gradients": true})",
               "zero_optimization.zero_quantized_gradients"},
        Active{R"("zero_optimization": {"zeropp_loco_param": {"err_beta": 0.8}})",
               "zero_optimization.zeropp_loco_param"},
        Active{R"("zero_optimization": {"mics_shard_size": 2})", "zero_optimization.mics_shard_size"},
        Active{R"("zero_optimization": {"ignore_unused_parameters": false})",
               "zero_optimization.ignore_unused_parameters"},
        Active{R"("zero_optimization": {"zenflow": {"topk_ratio": 0.1}})", "zero_optimization.zenflow"},
        Active{R"("zero_optimization": {"offload_optimizer": {"super_offload": true}})",
               "zero_optimization.offload_optimizer.super_offload"},
        Active{R"("activation_checkpointing": {"cpu_checkpointing": true})",
               "activation_checkpointing.cpu_checkpointing"},
        Active{R"("aio": {"use_gds": true})", "aio.use_gds"},
        Active{R"("checkpoint": {"load_universal": true})", "checkpoint.load_universal"},
        Active{R"("checkpoint": {"tag_validation": "FAIL"})", "checkpoint.tag_validation"},
        Active{R"("checkpoint": {"writer": {"type": "FAST"}})", "checkpoint.writer"},
        Active{R"("nebula": {"enabled": true})", "nebula.enabled"},
        Active{R"("datastates_ckpt": {"host_cache_size": 1})", "datastates_ckpt"},
        Active{R"("pipeline": {"activation_checkpoint_interval": 1})", "pipeline.activation_checkpoint_interval"},
        Active{R"("compile": {"deepcompile": true})", "compile.deepcompile"},
        Active{R"("tensor_parallel": {"autotp_size": 2})", "tensor_parallel.autotp_size"},
        Active{R"("expert_parallel": {"enabled": true})", "expert_parallel.enabled"},
        Active{R"("hybrid_engine": {"enabled": true})", "hybrid_engine.enabled"},
        Active{R"("weight_quantization": {"num_bits": 4})", "weight_quantization"},
        Active{R"("sparse_attention": {"mode": "fixed"})", "sparse_attention"},
        Active{R"("progressive_layer_drop": {"enabled": true})", "progressive_layer_drop.enabled"},
        Active{R"("quantize_training": {"eigenvalue": {"enabled": true}})", "quantize_training.eigenvalue.enabled"},
        Active{R"("curriculum_learning": {"enabled": true})", "curriculum_learning.enabled"},
        Active{R"("data_efficiency": {"enabled": true})", "data_efficiency.enabled"},
        Active{R"("compression_training": {"row_pruning": {"shared_parameters": {"enabled": true}}})",
               "compression_training.row_pruning.shared_parameters.enabled"},
        Active{R"("compression_training": {"layer_reduction": {"enabled": true}})",
               "compression_training.layer_reduction.enabled"},
        Active{R"("elasticity": {"enabled": true})", "elasticity.enabled"},
        Active{R"("autotuning": {"enabled": true})", "autotuning.enabled"}));

TEST(Compatibility, BrokenTextIsAnErrorAndNothingElse) {
  const std::string whole = kWholeSchema;
  std::minstd_rand random(7);
  constexpr std::string_view kBytes = "{}[]\",:#/*\\-0.eNtu \n\xC3\xFF";
  for (int i = 0; i < 400; ++i) {
    std::string text = whole;
    if (i % 2 == 0) {
      text.resize(random() % text.size());
    } else {
      text[random() % text.size()] = kBytes[random() % kBytes.size()];
    }
    try {
      (void)resolve_engine_options(text, {.world_size = 2});
    } catch (const InternalError& error) {
      ADD_FAILURE() << error.what();
    } catch (const Error& error) {
      EXPECT_LT(std::string_view(error.what()).size(), 2000u);
    }
  }
}

// docs/config.md of the tree that this program was built in; __FILE__ may be relative.
std::filesystem::path reference_path() {
  auto directory = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  while (!std::filesystem::exists(directory / "docs/config.md") && directory != directory.root_path()) {
    directory = directory.parent_path();
  }
  return directory / "docs/config.md";
}

TEST(ConfigReference, DocumentIsCurrent) {
  std::ifstream file(reference_path());
  ASSERT_TRUE(file) << "docs/config.md is not found above this program";
  std::ostringstream text;
  text << file.rdbuf();
  EXPECT_TRUE(text.str() == config_reference_markdown())
      << "docs/config.md is out of date: hydrofoil_config_doc > docs/config.md";
}

}  // namespace
}  // namespace hydrofoil::engine
