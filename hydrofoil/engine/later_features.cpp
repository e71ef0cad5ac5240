#include "hydrofoil/engine/later_features.h"

namespace hydrofoil::engine {
namespace {

using config::accepted;
using config::Activity;
using config::Field;
using config::later;
using config::nested;
using config::Scalar;
using config::Section;

constexpr int64_t operator""_i(unsigned long long value) { return static_cast<int64_t>(value); }

using Strings = std::vector<std::string>;

Field section(std::string key, std::string doc, Activity activity, std::vector<Field> fields, bool lax = false,
              std::string switch_key = "enabled") {
  Section made;
  made.doc = std::move(doc);
  made.activity = activity;
  made.fields = std::move(fields);
  made.lax = lax;
  made.switch_key = std::move(switch_key);
  return nested(std::move(key), std::move(made)).later();
}

Field choices(Field field, Strings names) {
  field.choices = std::move(names);
  field.ignores_case = true;
  return field;
}

std::vector<Field> scalar_fields() {
  Field sequence = later("sequence_parallel_size", 1_i, "ranks of a sequence-parallel group");
  Field sp_type =
      later("seq_parallel_communication_data_type", "fp32", "dtype of the gradient reduction of sequence parallelism");
  return {
      later("managed_gradient_accumulation", true, "false: the caller owns the accumulation boundary"),
      accepted("disable_allgather", false, "DeepSpeed reads it nowhere either"),
      choices(sp_type, {"fp32", "fp16", "bf16"}),
      accepted("sparse_gradients", false, "sparse gradients are added into the dense flat buckets"),
      later("graph_harvesting", false, "CUDA graph capture"),
      accepted("zero_allow_untested_optimizer", false, "any optimizer works on the shards"),
      accepted("zero_force_ds_cpu_optimizer", true, "any optimizer works on the shards"),
      accepted("vocabulary_size", {}, "no kernel needs a multiple of 8"),
      later("use_data_before_expert_parallelism", false, "order of the data and expert axes"),
      sequence,
      accepted("allgather_size", 5e8, "one all-gather a unit"),
  };
}

std::vector<Field> memory_and_io_sections() {
  Field activation =
      section("activation_checkpointing", "DeepSpeed's activation checkpointing; torch.utils.checkpoint works",
              Activity::kByFields,
              {later("partition_activations", false), later("number_checkpoints", {}),
               later("contiguous_memory_optimization", false), later("synchronize_checkpoint_boundary", false),
               later("profile", false), later("cpu_checkpointing", false)});
  const char* nvme = "tunes DeepSpeed's NVMe reader";
  Field aio =
      section("aio", "Asynchronous NVMe I/O", Activity::kByFields,
              {accepted("block_size", 1048576_i, nvme).above(0), accepted("queue_depth", 8_i, nvme).above(0),
               accepted("intra_op_parallelism", 1_i, nvme).above(0),
               accepted("thread_count", 1_i, "DeepSpeed ignores it too"), accepted("single_submit", false, nvme),
               accepted("overlap_events", true, nvme), later("use_gds", false, "GPUDirect storage")});
  Field writer =
      section("writer", "DeepSpeed's checkpoint writers", Activity::kByPresence,
              {choices(later("type", "FAST"), {"MOCK", "PYTHON", "FAST"}), later("io_buffer_size", 67108864_i),
               later("io_buffer_double", true), later("show_statistics", false), later("data_parallel", {}),
               later("decoupled", false), later("io_multiplier", 1_i)});
  Field parallel = section("parallel_write", "Parallel checkpoint writing of pipeline stages", Activity::kByFields,
                           {later("pipeline_stage", false)});
  Field checkpoint =
      section("checkpoint", "Checkpoints", Activity::kByFields,
              {choices(later("tag_validation", "Warn", "compare the tag across ranks"), {"Warn", "Ignore", "Fail"}),
               accepted("checkpoint_serialization", true, "checkpoints are safetensors and JSON"),
               later("load_universal", false, "DeepSpeed's universal checkpoints"),
               later("use_node_local_storage", false), parallel, writer});
  Field nebula = section("nebula", "Azure Nebula checkpoints", Activity::kBySwitch,
                         {later("enabled", false), later("nebula_load_path", {}), later("enable_nebula_load", true),
                          later("persistent_storage_path", {}), later("persistent_time_interval", 100_i),
                          later("num_of_version_in_retention", 2_i)});
  return {activation, aio, checkpoint, nebula, later("datastates_ckpt", {}, "DataStates checkpoints")};
}

std::vector<Field> parallel_sections() {
  Field pipeline = section(
      "pipeline", "Pipeline parallelism", Activity::kByFields,
      {accepted("stages", {}, "DeepSpeed reads it nowhere either"),
       accepted("partition", {}, "DeepSpeed reads it nowhere either"),
       accepted("seed_layers", {}, "DeepSpeed reads it nowhere either"), later("activation_checkpoint_interval", 0_i),
       later("pipe_partitioned", true), later("grad_partitioned", true), later("use_reentrant", {})});
  Field sizes =
      section("tensor_parallel", "Sizes of tensor parallelism", Activity::kByFields,
              {later("tp_size", 1_i), later("tp_grain_size", 1_i), later("mpu", {}), later("tp_group", {})}, true);
  sizes.alias("tp");
  Field kernel = later("replace_with_kernel_inject", false);
  kernel.alias("kernel_inject");
  Field autotp = later("autotp_size", 0_i);
  autotp.inactive_values = {Scalar(1_i)};
  Field tensor =
      section("tensor_parallel", "Tensor-parallel training (AutoTP)", Activity::kBySwitch,
              {autotp, later("dtype", {}), later("tp_overlap_comm", false), sizes, later("injection_policy_tuple", {}),
               later("partition_config", {}), later("preset_model", {}), later("keep_module_on_host", false), kernel},
              true, "autotp_size");
  Field expert = section("expert_parallel", "Expert parallelism (AutoEP)", Activity::kBySwitch,
                         {later("enabled", false),
                          later("autoep_size", 1_i),
                          later("expert_tensor_parallel_size", 1_i),
                          later("validate_folding_routing", false),
                          later("preset_model", {}),
                          later("moe_layer_pattern", {}),
                          later("expert_pattern", {}),
                          later("router_pattern", {}),
                          later("use_grouped_mm", true),
                          later("disable_triton_grouped_mm", false),
                          later("route_norm", {}),
                          later("route_scale", 1.0),
                          later("score_apply", {}),
                          later("combine_impl", {}),
                          later("num_expert_groups", {}),
                          later("num_limited_groups", {}),
                          later("score_func", {}),
                          later("top_k", {}),
                          later("load_balance_coeff", {}),
                          later("routed_scaling_factor", {}),
                          later("expert_w1", {}),
                          later("expert_w2", {}),
                          later("expert_w3", {}),
                          later("num_experts_attr", {}),
                          later("top_k_attr", {}),
                          later("has_shared_experts", {}),
                          later("shared_experts_pattern", {}),
                          later("shared_experts_gate_pattern", {})});
  return {pipeline, tensor, expert};
}

std::vector<Field> compile_and_inference_sections() {
  Field compile = section(
      "compile", "DeepCompile", Activity::kBySwitch,
      {later("deepcompile", false), later("free_activation", false), later("free_activation_threshold", 10485760_i),
       later("offload_activation", false), later("offload_activation_pin_memory", true),
       later("offload_opt_states", false), later("double_buffer", true), later("symmetric_memory", false),
       later("debug_log", false), later("offload_parameters", false), later("sync_before_reduce", false),
       later("sync_after_reduce", false), later("sync_before_allgather", false), later("sync_after_allgather", false),
       later("keep_int_input_tensors", true), later("keep_all_input_tensors", false), later("passes", {})},
      true, "deepcompile");
  Field hybrid = section("hybrid_engine", "Engine for training and generation (RLHF)", Activity::kBySwitch,
                         {later("enabled", false), later("max_out_tokens", 512_i), later("inference_tp_size", 1_i),
                          later("release_inference_cache", false), later("pin_parameters", true),
                          later("tp_gather_partition_size", 8_i), later("enable_cuda_graph", false)},
                         true);
  Field quantization =
      section("weight_quantization", "Quantized weights (ZeRO-Inference)", Activity::kBySwitch,
              {later("enabled", true), later("num_bits", 8_i), later("q_type", "symmetric"), later("q_groups", 1_i),
               later("quantized_initialization", {}), later("post_init_quant", {})},
              true);
  Field sparse =
      section("sparse_attention", "Sparse attention", Activity::kByPresence,
              {later("mode", "fixed"), later("block", 16_i), later("different_layout_per_head", false),
               later("num_local_blocks", 4_i), later("num_global_blocks", 1_i), later("attention", "bidirectional"),
               later("horizontal_global_attention", false), later("num_different_global_patterns", 1_i),
               later("num_random_blocks", 0_i), later("local_window_blocks", {}), later("global_block_indices", {}),
               later("global_block_end_indices", {}), later("num_sliding_window_blocks", 3_i)});
  return {compile, hybrid, quantization, sparse};
}

Field data_efficiency_section() {
  Field curriculum =
      section("curriculum_learning", "Curriculum of the sampler", Activity::kBySwitch,
              {later("enabled", false), later("data_cluster_path", {}), later("curriculum_metrics", {})});
  Field batching =
      section("dynamic_batching", "Batches of varying size", Activity::kBySwitch,
              {later("enabled", false), later("metrics_path", {}), later("lr_scaling_method", "linear"),
               later("min_batch_size", 1_i), later("max_batch_size", {}), later("sequence_picking_order", "dataloader"),
               later("max_tokens", {}), later("verbose", false)});
  Field sampling = section("data_sampling", "Sampling", Activity::kBySwitch,
                           {later("enabled", false), later("num_epochs", 1000_i), later("num_workers", 0_i),
                            later("pin_memory", false), curriculum, batching});
  Field ltd =
      section("random_ltd", "Random layer-token drop", Activity::kBySwitch,
              {later("enabled", false), later("total_layer_num", {}), later("random_ltd_layer_num", {}),
               later("random_ltd_layer_id", {}), later("model_mask_name", {}), later("model_type", {}),
               later("hidden_state_order", {}), later("random_ltd_schedule", {}), later("global_batch_size", {}),
               later("micro_batch_size", {}), later("layer_token_lr_schedule", {})});
  Field routing = section("data_routing", "Routing", Activity::kBySwitch, {later("enabled", false), ltd});
  return section("data_efficiency", "Data efficiency: curriculum, dynamic batches, token dropping", Activity::kBySwitch,
                 {later("enabled", false), later("seed", 1234_i), sampling, routing});
}

Field compression_section() {
  const auto technique = [](const char* key, const char* doc, std::vector<Field> shared) {
    shared.insert(shared.begin(), later("enabled", false));
    Field parameters = section("shared_parameters", doc, Activity::kBySwitch, std::move(shared));
    return section(key, doc, Activity::kByFields,
                   {parameters, accepted("different_groups", {}, "read where the technique is on")});
  };
  const Field method = later("method", {});
  const Field offset = later("schedule_offset", {});
  return section("compression_training", "Compression: quantization-aware training, pruning, layer reduction",
                 Activity::kByFields,
                 {section("layer_reduction", "Layer reduction", Activity::kBySwitch,
                          {later("enabled", false), later("keep_number_layer", {}), later("module_name_prefix", {}),
                           later("teacher_layer", {}), later("other_module_name", {})}),
                  technique("weight_quantization", "Quantization of weights",
                            {later("quantizer_kernel", false), offset, later("quantize_groups", 1_i),
                             later("quantize_verbose", false), later("quantization_type", "symmetric"),
                             later("quantize_weight_in_forward", false), later("rounding", "nearest"),
                             later("fp16_mixed_quantize", {})}),
                  technique("activation_quantization", "Quantization of activations",
                            {later("quantization_type", "symmetric"), later("range_calibration", "dynamic"), offset}),
                  technique("sparse_pruning", "Pruning of single weights",
                            {method, offset, later("block_pattern", "4x1"), later("dense_ratio", {}),
                             later("schedule_offset_stride", 1_i), later("excluded_modules", {}),
                             later("schedule_offset_end", {})}),
                  technique("row_pruning", "Pruning of rows", {method, offset}),
                  technique("head_pruning", "Pruning of attention heads", {method, offset, later("num_heads", {})}),
                  technique("channel_pruning", "Pruning of channels", {method, offset})});
}

std::vector<Field> training_method_sections() {
  Field drop = section("progressive_layer_drop", "Progressive layer drop", Activity::kBySwitch,
                       {later("enabled", false), later("theta", {}), later("gamma", {})});
  Field eigenvalue = section("eigenvalue", "Eigenvalues for quantization", Activity::kBySwitch,
                             {later("enabled", false), later("verbose", false), later("max_iter", 100_i),
                              later("tol", 1e-2), later("stability", 1e-6), later("gas_boundary_resolution", 1_i),
                              later("layer_name", "bert.encoder.layer"), later("layer_num", 0_i)});
  Field quantize = section("quantize_training", "Mixture of quantization", Activity::kByFields, {eigenvalue});
  Field curriculum = section("curriculum_learning", "Curriculum of sequence lengths", Activity::kBySwitch,
                             {later("enabled", false), later("curriculum_type", {}), later("min_difficulty", {}),
                              later("max_difficulty", {}), later("schedule_type", {}), later("schedule_config", {})});
  Field amp = section("amp", "apex.amp; use fp16 or bf16", Activity::kBySwitch,
                      {later("enabled", false), later("opt_level", {})});
  Section open = *amp.section;
  open.open = true;
  amp.section = std::make_shared<const Section>(std::move(open));
  return {drop, quantize, curriculum, data_efficiency_section(), compression_section(), amp};
}

std::vector<Field> planning_sections() {
  Field elasticity =
      section("elasticity", "Elastic training", Activity::kBySwitch,
              {later("enabled", false), later("max_train_batch_size", {}), later("micro_batch_sizes", {}),
               later("min_gpus", 1_i), later("max_gpus", 10000_i), later("num_gpus_per_node", 1_i),
               later("model_parallel_size", 1_i), later("min_time", 0_i), later("prefer_larger_batch", true),
               later("ignore_non_elastic_batch_info", false), later("version", 0.2)});
  Field autotuning = section("autotuning", "Autotuning", Activity::kBySwitch,
                             {later("enabled", false),
                              later("fast", true),
                              later("results_dir", "autotuning_results"),
                              later("exps_dir", "autotuning_exps"),
                              later("overwrite", true),
                              later("start_profile_step", 3_i),
                              later("end_profile_step", 5_i),
                              later("metric", "throughput"),
                              later("metric_path", {}),
                              later("tuner_type", "gridsearch"),
                              later("tuner_early_stopping", 5_i),
                              later("tuner_num_trials", 50_i),
                              later("arg_mappings", {}),
                              later("model_info", {}),
                              later("model_info_path", {}),
                              later("mp_size", 1_i),
                              later("max_train_batch_size", {}),
                              later("min_train_batch_size", 1_i),
                              later("max_train_micro_batch_size_per_gpu", 1024_i),
                              later("min_train_micro_batch_size_per_gpu", 1_i),
                              later("num_tuning_micro_batch_sizes", 3_i)});
  return {elasticity, autotuning};
}

}  // namespace

std::vector<Field> later_feature_fields() {
  std::vector<Field> fields;
  for (const auto& part : {scalar_fields(), memory_and_io_sections(), parallel_sections(),
                           compile_and_inference_sections(), training_method_sections(), planning_sections()}) {
    fields.insert(fields.end(), part.begin(), part.end());
  }
  return fields;
}

}  // namespace hydrofoil::engine
