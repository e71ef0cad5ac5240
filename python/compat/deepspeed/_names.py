"""Every module and name of DeepSpeed that programs use, and what it is here.

"hydrofoil.zero:Init" is that object, "hydrofoil.comm" that module; "!feature" is not built yet: it can be imported, and raises
NotImplementedError with the feature's name when it is called.
"""

from __future__ import annotations

from types import SimpleNamespace

from deepspeed._constants import CHECKPOINT, RUNTIME

_PIPELINE = "!pipeline parallelism"
_MOE = "!mixture of experts (MoE)"
_INFERENCE = "!the inference engine"
_TENSOR = "!tensor parallelism"
_ULYSSES = "!sequence parallelism (Ulysses)"
_CONSOLIDATE = "!fp32 consolidation of checkpoints"
_UNIVERSAL = "!universal checkpoints"
_COMPRESSION = "!model compression"
_LINEAR = "!OptimizedLinear"
_ROLLOUT = "!RLHF rollouts"
_HYBRID = "!the hybrid engine"
_ELASTIC = "!elastic training"
_OFFLOAD = "!offload"
_TRANSFORMER = "!fused transformer layers"
_LAMB = "!the LAMB optimizer"
_ONEBIT = "!1-bit optimizers"
_TILED = "!tiled linear layers"
_AUTOTUNING = "!autotuning"
_FRAGMENTS = "!access to flat fragments of parameters (the safe_get and safe_set functions are)"
_CONFIG_CLASSES = "!a class of a config section (read engine._config)"
_NUMACTL = "!core binding by numactl (hydrofoil run --bind-cores)"
_DEBUG = "!DeepSpeed's own debugging of parameters (param.ds_summary(), deepspeed.utils.logger)"
_NVME_BENCHMARK = "!benchmarks of NVMe devices"
_CHECKPOINT_ENGINE = "!a checkpoint engine of a program's own (engine.save_checkpoint writes)"
_GATHERS = "!DeepSpeed's own bookkeeping of gathers"
_CURRICULUM = "!data efficiency (curriculum learning, random LTD)"


def _all(target: str, *names: str) -> dict[str, str]:
    """The same target for each name; after a module ("hydrofoil.zero:") the name itself follows."""
    return {name: target + name if target.endswith(":") else target for name in names}


def _constants(space: str, values: SimpleNamespace) -> dict[str, str]:
    return {name: f"deepspeed._constants:{space}.{name}" for name in vars(values)}


_ZERO = _all("hydrofoil.zero:", "Init", "GatheredParameters", "register_external_parameter", "ZeroParamType", "ZeroParamStatus", "unwrap_model_for_generation")
_ESTIMATE_2 = _all("hydrofoil.zero:", "estimate_zero2_model_states_mem_needs", "estimate_zero2_model_states_mem_needs_all_live",
                   "estimate_zero2_model_states_mem_needs_all_cold")
_ESTIMATE_3 = _all("hydrofoil.zero:", "estimate_zero3_model_states_mem_needs", "estimate_zero3_model_states_mem_needs_all_live",
                   "estimate_zero3_model_states_mem_needs_all_cold")
_ACCESS = _all("hydrofoil.utils:", "safe_get_full_fp32_param", "safe_get_full_grad", "safe_get_full_optimizer_state", "safe_set_full_fp32_param",
               "safe_set_full_grad", "safe_set_full_optimizer_state", "safe_get_local_fp32_param", "safe_get_local_grad", "safe_get_local_optimizer_state",
               "safe_set_local_fp32_param", "safe_set_local_grad", "safe_set_local_optimizer_state", "safe_update_full_grad_vectorized")
_LEAF = _all("hydrofoil.utils:", "set_z3_leaf_modules", "unset_z3_leaf_modules", "get_z3_leaf_modules", "z3_leaf_module", "z3_leaf_parameter",
             "set_z3_leaf_module", "set_z3_leaf_modules_by_name", "set_z3_leaf_modules_by_suffix")
_CHECKPOINTING = _all("hydrofoil.checkpointing:", "configure", "checkpoint", "is_configured", "reset", "non_reentrant_checkpoint", "CheckpointFunction",
                      "get_cuda_rng_tracker", "model_parallel_cuda_manual_seed", "model_parallel_reconfigure_tp_seed", "set_num_layers",
                      "partition_activations_in_checkpoint")
_SCHEDULES = _all("hydrofoil.lr_schedules:", "LRRangeTest", "OneCycle", "WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "VALID_LR_SCHEDULES", "add_tuning_arguments")
_ACCELERATOR = _all("hydrofoil.accelerator:", "get_accelerator", "set_accelerator", "is_current_accelerator_supported") | {"DeepSpeedAccelerator": "hydrofoil.accelerator:Accelerator"}
_LOG = _all("hydrofoil.utils:", "logger", "log_dist", "log_dist_once", "set_log_level_from_string")
_MOE_UTILS = _all("hydrofoil.moe:", "has_moe_layers", "is_moe_param", "is_moe_param_group", "split_params_into_different_moe_groups_for_optimizer") | _all(
    _MOE, "split_params_into_shared_and_expert_params", "split_params_grads_into_shared_and_expert_params", "configure_moe_param_groups")
_BUILDERS = ("AsyncIOBuilder", "CCLCommBuilder", "CPUAdagradBuilder", "CPUAdamBuilder", "CPULionBuilder", "EvoformerAttnBuilder", "FPQuantizerBuilder",
             "FusedAdamBuilder", "FusedLambBuilder", "FusedLionBuilder", "GDSBuilder", "InferenceBuilder", "InferenceCoreBuilder", "InferenceCutlassBuilder",
             "NotImplementedBuilder", "OpBuilder", "PinMemoryBuilder", "QuantizerBuilder", "RaggedOpsBuilder", "RaggedUtilsBuilder", "RandomLTDBuilder", "ShareMemCommBuilder", "SparseAttnBuilder",
             "SpatialInferenceBuilder", "StochasticTransformerBuilder", "TransformerBuilder", "UtilsBuilder")
_COMM = _all("deepspeed._distributed:", "init_distributed", "is_initialized") | _all("hydrofoil.comm:", "is_available", "destroy_process_group", "new_group", "get_rank", "get_world_size",
             "get_local_rank", "get_global_rank", "get_world_group", "get_all_ranks_from_group", "barrier", "monitored_barrier", "broadcast",
             "broadcast_object_list", "all_gather", "all_gather_object", "all_gather_into_tensor", "all_gather_coalesced", "allgather_fn", "reduce_scatter",
             "reduce_scatter_fn", "reduce_scatter_tensor", "all_to_all_single", "all_to_all", "send", "recv", "isend", "irecv", "gather", "scatter", "reduce",
             "all_reduce", "all_reduce_coalesced", "inference_all_reduce", "has_all_gather_into_tensor", "has_reduce_scatter_tensor", "has_coalescing_manager",
             "has_all_reduce_coalesced", "initialize_mesh_device", "ReduceOp", "ProcessGroup", "P2POp", "batch_isend_irecv", "mpi_discovery", "configure", "log_summary",
             "reset_log", "has_comm_data", "get_comm_operation_count", "get_logged_comm_ops") | {
    "enable_symm_mem_for_group": "!symmetric memory"} | _all("!cloud discovery", "in_aml", "in_aws_sm", "in_dlts")
_GROUPS = _all("hydrofoil.groups:", "initialize", "get_data_parallel_group", "get_data_parallel_rank", "get_data_parallel_world_size",
               "get_model_parallel_group", "get_model_parallel_rank", "get_model_parallel_world_size", "get_tensor_model_parallel_group",
               "get_tensor_model_parallel_rank", "get_tensor_model_parallel_world_size", "_get_data_parallel_group", "_get_data_parallel_rank",
               "_get_data_parallel_world_size", "_get_sequence_parallel_group", "_get_sequence_parallel_rank", "_get_sequence_parallel_world_size") | _all(
    _MOE, "_get_expert_parallel_group", "_get_expert_data_parallel_group", "_create_expert_and_data_parallel") | _all(
    "!hierarchical partitioning (hpZ)", "_get_zero_param_intra_parallel_group", "_create_zero_param_parallel_group")

NAMES: dict[str, dict[str, str]] = {
    "deepspeed": {
        **_all("deepspeed._version:", "__version__", "version", "__version_major__", "__version_minor__", "__version_patch__", "__git_hash__", "git_hash",
               "__git_branch__", "git_branch", "HAS_TRITON", "ADAM_OPTIMIZER", "LAMB_OPTIMIZER", "MUON_OPTIMIZER", "TORCH_DISTRIBUTED_DEFAULT_PORT"),
        **_all("hydrofoil:", "initialize", "add_config_arguments", "DeepSpeedEngine", "log_dist", "logger"),
        "init_distributed": "deepspeed._distributed:init_distributed",
        "add_tuning_arguments": "hydrofoil.lr_schedules:add_tuning_arguments",
        "get_accelerator": "hydrofoil.accelerator:get_accelerator",
        "DeepSpeedConfig": "hydrofoil.config:DeepSpeedConfig", "DeepSpeedConfigError": "hydrofoil.config:DeepSpeedConfigError",
        "DeepSpeedOptimizer": "hydrofoil.optimizer:ZeroOptimizer", "DeepSpeedDataLoader": "hydrofoil.dataloader:DataLoader",
        "OnDevice": "hydrofoil.utils:OnDevice", "is_compile_supported": "hydrofoil.utils:is_compile_supported",
        "DeepSpeedOptimizerCallable": "typing:Callable", "DeepSpeedSchedulerCallable": "typing:Callable",
        "dist": "deepspeed.comm",
        **_all(_INFERENCE, "init_inference", "default_inference_config", "InferenceEngine", "DeepSpeedInferenceConfig"),
        **_all(_TENSOR, "tp_model_init", "set_autotp_mode"),
        **_all(_PIPELINE, "PipelineEngine", "PipelineModule"),
        "DeepSpeedHybridEngine": _HYBRID, "set_optimizer_flags": "!the Muon optimizer",
        **_all(_TRANSFORMER, "replace_transformer_layer", "revert_transformer_layer", "DeepSpeedTransformerLayer", "DeepSpeedTransformerConfig"),
    },
    "deepspeed.comm": _COMM,
    "deepspeed.comm.comm": _COMM,
    "deepspeed.comm.torch": _all("hydrofoil.comm:", "has_coalescing_manager", "has_all_reduce_coalesced") | _all(
        "!communication backends as objects (deepspeed.comm's functions are)", "TorchBackend", "get_coalescing_manager", "build_shm_op"),
    "deepspeed.zero": {**_ZERO, **_ESTIMATE_2, **_ESTIMATE_3, **_all(_TILED, "TiledLinear", "TiledLinearReturnBias"), "MiCS_Init": "!MiCS",
                       "DeepSpeedZeRoOffload": _OFFLOAD, "DeepSpeedTensorOverride": _TENSOR},
    "deepspeed.runtime": {},
    "deepspeed.runtime.engine": {"DeepSpeedEngine": "hydrofoil:DeepSpeedEngine"},
    "deepspeed.runtime.constants": _constants("RUNTIME", RUNTIME),
    "deepspeed.runtime.checkpoint_engine": _all(_CHECKPOINT_ENGINE, "TorchCheckpointEngine", "FastCheckpointEngine", "DecoupledCheckpointEngine",
                                                "DataStatesCheckpointEngine", "CheckpointCommitInfo", "create_checkpoint_engine"),
    "deepspeed.runtime.checkpoint_engine.checkpoint_engine": _all(_CHECKPOINT_ENGINE, "CheckpointEngine", "CheckpointCommitInfo"),
    "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine": _all(_CHECKPOINT_ENGINE, "TorchCheckpointEngine"),
    "deepspeed.runtime.state_dict_factory": _all("!loading of Megatron's checkpoints", "SDLoaderFactory", "SDLoaderBase", "MegatronSDLoader"),
    "deepspeed.runtime.weight_quantizer": _all("!quantization of weights", "WeightQuantization"),
    "deepspeed.runtime.base_optimizer": {"DeepSpeedOptimizer": "hydrofoil.optimizer:ZeroOptimizer", "ZeROOptimizer": "hydrofoil.optimizer:ZeroOptimizer"},
    "deepspeed.runtime.config": {"DeepSpeedConfig": "hydrofoil.config:DeepSpeedConfig", "DeepSpeedConfigError": "hydrofoil.config:DeepSpeedConfigError"},
    "deepspeed.runtime.dataloader": {"DeepSpeedDataLoader": "hydrofoil.dataloader:DataLoader", "RepeatingLoader": "hydrofoil.utils:RepeatingLoader"},
    "deepspeed.runtime.lr_schedules": _SCHEDULES,
    "deepspeed.runtime.utils": {**_all("hydrofoil.utils:", "move_to_device", "see_memory_usage"),
                                **_all("!gradient norms and clipping by hand (set gradient_clipping)", "clip_grad_norm_", "get_global_norm", "get_grad_norm"),
                                "DummyOptim": "!an optimizer in the place of none (give initialize no optimizer)"},
    "deepspeed.runtime.zero": {**_ZERO, **_all(_TILED, "TiledLinear", "TiledLinearReturnBias")},
    "deepspeed.runtime.zero.partition_parameters": {
        **_ZERO, **_all("hydrofoil.zero.constructors:", "zero_wrapper_for_fp_tensor_constructor", "_orig_torch_arange"), "DeepSpeedTensorOverride": _TENSOR},
    "deepspeed.runtime.zero.utils": _all("hydrofoil.errors:", "ZeRORuntimeException"),
    "deepspeed.runtime.zero.config": {**_all("hydrofoil.config:", "ZeroStageEnum", "OffloadDeviceEnum"), "DeepSpeedZeroConfig": _CONFIG_CLASSES},
    "deepspeed.runtime.zero.offload_config": {**_all("hydrofoil.config:", "OffloadDeviceEnum", "OffloadStateTypeEnum"),
                                              **_all(_CONFIG_CLASSES, "DeepSpeedZeroOffloadOptimizerConfig", "DeepSpeedZeroOffloadParamConfig")},
    "deepspeed.runtime.zero.parameter_offload": {"DeepSpeedZeRoOffload": _OFFLOAD, "GatheredParameters": "hydrofoil.zero:GatheredParameters",
                                                 "Init": "hydrofoil.zero:Init", **_all("hydrofoil.zero:", "ZeroParamStatus", "ZeroParamType")},
    "deepspeed.runtime.zero.stage_1_and_2": {"DeepSpeedZeroOptimizer": "hydrofoil.optimizer:ZeroOptimizer", **_ESTIMATE_2},
    "deepspeed.runtime.zero.stage3": {"DeepSpeedZeroOptimizer_Stage3": "hydrofoil.optimizer:ZeroOptimizer", **_ESTIMATE_3},
    # No layer needs a linear of its own here: parameters keep their storage for life.
    "deepspeed.runtime.zero.linear": {"zero3_linear_wrap": "torch.nn.functional:linear", "LinearModuleForZeroStage3": "torch.nn:Linear",
                                      "LinearFunctionForZeroStage3": "!a linear function for stage 3 (torch.nn.functional.linear)"},
    "deepspeed.runtime.zero.partitioned_param_coordinator": _all(_GATHERS, "PartitionedParameterCoordinator", "InflightParamRegistry", "ZeRoTraceMode",
                                                                 "get_all_parameters", "iter_params", "update_recompute_parameters"),
    "deepspeed.runtime.zero.tiling": _all(_TILED, "TiledLinear", "TiledLinearReturnBias"),
    "deepspeed.runtime.zero.mics": {"MiCS_Init": "!MiCS", "MiCS_Optimizer": "!MiCS"},
    "deepspeed.runtime.bf16_optimizer": {"BF16_Optimizer": "hydrofoil.optimizer:ZeroOptimizer"},
    "deepspeed.runtime.fp16": {},
    "deepspeed.runtime.fp16.loss_scaler": _all("!a loss scaler of its own (the engine scales)", "LossScaler", "DynamicLossScaler", "LossScalerBase",
                                               "CreateLossScaler"),
    "deepspeed.runtime.fp16.unfused_optimizer": {"FP16_UnfusedOptimizer": "hydrofoil.optimizer:ZeroOptimizer"},
    "deepspeed.runtime.fp16.fused_optimizer": {"FP16_Optimizer": "hydrofoil.optimizer:ZeroOptimizer"},
    "deepspeed.runtime.fp16.onebit": _all(_ONEBIT, "OnebitAdam", "OnebitLamb", "ZeroOneAdam"),
    "deepspeed.runtime.activation_checkpointing": {},
    "deepspeed.runtime.activation_checkpointing.checkpointing": _CHECKPOINTING,
    "deepspeed.runtime.pipe": _all(_PIPELINE, "PipelineModule", "LayerSpec", "TiedLayerSpec", "ProcessTopology"),
    "deepspeed.runtime.pipe.module": _all(_PIPELINE, "PipelineModule", "LayerSpec", "TiedLayerSpec"),
    "deepspeed.runtime.pipe.engine": _all(_PIPELINE, "PipelineEngine"),
    "deepspeed.runtime.pipe.topology": _all(_PIPELINE, "ProcessTopology", "PipeDataParallelTopology", "PipeModelDataParallelTopology", "PipelineParallelGrid"),
    "deepspeed.runtime.hybrid_engine": _all(_HYBRID, "DeepSpeedHybridEngine"),
    "deepspeed.runtime.data_pipeline": {},
    "deepspeed.runtime.data_pipeline.data_sampling": _all(_CURRICULUM, "DeepSpeedDataSampler"),
    "deepspeed.runtime.rollout": _all(_ROLLOUT, "build_rollout", "RolloutConfig", "SamplingConfig", "RolloutRequest", "RolloutBatch", "RolloutEngine",
                                      "HybridEngineRollout"),
    "deepspeed.runtime.sequence_parallel": {},
    "deepspeed.runtime.sequence_parallel.ulysses_sp": _all(_ULYSSES, "UlyssesSPAttentionHF", "UlyssesSPDataLoaderAdapter", "SequenceTiledCompute", "TiledMLP",
                                                           "TiledFusedLogitsLoss", "sequence_tiled_compute", "UlyssesSPFwdLossBwdWithLogits"),
    "deepspeed.runtime.sequence_parallel.parallel_state_sp": _all(_ULYSSES, "initialize_sequence_parallel"),
    "deepspeed.utils": {**_LOG, **_ACCESS, **_LEAF, **_all("hydrofoil.utils:", "OnDevice", "RepeatingLoader", "instrument_w_nvtx", "see_memory_usage", "get_caller_func"),
                        **_all(_FRAGMENTS, "fragment_address", "get_full_hp_param", "get_full_hp_grad", "set_full_hp_param", "set_full_hp_grad",
                               "get_hp_fragment_mapping", "map_to_flat_opt_states", "link_hp_params", "lazy_init_hp_params_optimizer_state"),
                        "get_numactl_cmd": _NUMACTL, "groups": "hydrofoil.groups"},
    "deepspeed.utils.numa": _all(_NUMACTL, "get_numactl_cmd", "get_numa_cores", "check_for_numactl_pkg", "parse_range", "parse_range_list"),
    "deepspeed.utils.debug": _all(_DEBUG, "debug_extract_module_and_param_names", "debug_clear_module_and_param_names", "debug_module2name", "debug_module2name_id",
                                  "debug_module2name_class", "debug_param2name", "debug_param2name_id", "debug_param2name_id_shape",
                                  "debug_param2name_id_shape_device", "debug_param2name_id_numel", "debug_param2name_id_shape_status", "printflock",
                                  "log_rank_file", "print_backward_tensors", "print_rank", "print_rank0"),
    "deepspeed.utils.comms_logging": {"get_caller_func": "hydrofoil.utils:get_caller_func",
                                      **_all("!a log of communication as an object (deepspeed.comm.configure, log_summary)", "CommsLogger", "calc_bw_log", "convert_size")},
    "deepspeed.utils.nvtx": _all("hydrofoil.utils:", "instrument_w_nvtx"),
    "deepspeed.utils.logging": _all("hydrofoil.utils:", "logger", "log_dist", "log_dist_once", "set_log_level_from_string"),
    "deepspeed.utils.timer": _all("hydrofoil.timer:", "SynchronizedWallClockTimer", "ThroughputTimer"),
    "deepspeed.utils.groups": _GROUPS,
    "deepspeed.utils.tensor_fragment": {**_ACCESS, **_all(_FRAGMENTS, "tensor_fragment", "fragment_address", "get_full_hp_param", "get_full_hp_grad",
                                                          "set_full_hp_param", "get_hp_fragment_mapping")},
    "deepspeed.utils.z3_leaf_module": _LEAF,
    "deepspeed.utils.zero_to_fp32": _all(_CONSOLIDATE, "get_fp32_state_dict_from_zero_checkpoint", "convert_zero_checkpoint_to_fp32_state_dict",
                                         "load_state_dict_from_zero_checkpoint", "get_model_state_file", "get_optim_files"),
    "deepspeed.utils.init_on_device": {"OnDevice": "hydrofoil.utils:OnDevice"},
    "deepspeed.checkpointing": _CHECKPOINTING,
    "deepspeed.accelerator": _ACCELERATOR,
    "deepspeed.accelerator.real_accelerator": _ACCELERATOR,
    "deepspeed.ops": {"__compatible_ops__": "hydrofoil.ops:compatible_ops"},
    "deepspeed.ops.adam": _all("hydrofoil.ops:", "DeepSpeedCPUAdam", "FusedAdam") | {"ZenFlowSelectiveAdamW": "!ZenFlow"},
    "deepspeed.ops.adam.cpu_adam": _all("hydrofoil.ops:", "DeepSpeedCPUAdam"),
    "deepspeed.ops.adam.fused_adam": _all("hydrofoil.ops:", "FusedAdam"),
    "deepspeed.ops.adagrad": _all("hydrofoil.ops:", "DeepSpeedCPUAdagrad"),
    "deepspeed.ops.lion": _all("hydrofoil.ops:", "DeepSpeedCPULion", "FusedLion"),
    "deepspeed.ops.lamb": _all(_LAMB, "FusedLamb"),
    "deepspeed.ops.aio": {"AsyncIOBuilder": "hydrofoil.ops:AsyncIOBuilder"},
    "deepspeed.ops.op_builder": _all("hydrofoil.ops:", *_BUILDERS),
    "deepspeed.ops.transformer": _all(_TRANSFORMER, "DeepSpeedTransformerLayer", "DeepSpeedTransformerConfig"),
    "deepspeed.ops.sparse_attention": _all("!sparse attention", "SparseSelfAttention", "SparsityConfig", "FixedSparsityConfig"),
    "deepspeed.checkpoint": {"DeepSpeedCheckpoint": _UNIVERSAL},
    "deepspeed.checkpoint.constants": _constants("CHECKPOINT", CHECKPOINT),
    "deepspeed.checkpoint.ds_to_universal": {"main": _UNIVERSAL},
    "deepspeed.checkpoint.utils": _all("hydrofoil.utils:", "clone_tensors_for_torch_save"),
    "deepspeed.monitor": {},
    "deepspeed.monitor.config": _all(_CONFIG_CLASSES, "DeepSpeedMonitorConfig", "TensorBoardConfig", "WandbConfig", "CSVConfig", "CometConfig", "get_monitor_config"),
    "deepspeed.monitor.monitor": _all("hydrofoil.monitor:", "MonitorMaster", "TensorBoardMonitor", "WandbMonitor", "csvMonitor", "CometMonitor"),
    "deepspeed.profiling": {},
    "deepspeed.profiling.config": _all(_CONFIG_CLASSES, "DeepSpeedFlopsProfilerConfig"),
    "deepspeed.profiling.flops_profiler": _all("hydrofoil.profiling.flops_profiler:", "FlopsProfiler", "get_model_profile"),
    "deepspeed.profiling.flops_profiler.profiler": _all("hydrofoil.profiling.flops_profiler:", "FlopsProfiler", "get_model_profile"),
    "deepspeed.nvme": _all(_NVME_BENCHMARK, "sweep_main", "parse_sweep_arguments", "generate_main", "ds_io_main"),
    "deepspeed.git_version_info": _all("deepspeed._version:", "version", "git_hash", "git_branch"),
    "deepspeed.constants": _all("deepspeed._version:", "TORCH_DISTRIBUTED_DEFAULT_PORT"),
    "deepspeed.pipe": _all(_PIPELINE, "PipelineModule", "LayerSpec", "TiedLayerSpec", "ProcessTopology"),
    "deepspeed.moe": {},
    "deepspeed.moe.layer": {"MoE": _MOE},
    "deepspeed.moe.sharded_moe": _all(_MOE, "MOELayer", "TopKGate", "top1gating", "top2gating", "topkgating"),
    "deepspeed.moe.experts": _all(_MOE, "Experts"),
    "deepspeed.moe.utils": _MOE_UTILS,
    "deepspeed.sequence": {},
    "deepspeed.sequence.cross_entropy": _all(_ULYSSES, "vocab_sequence_parallel_cross_entropy", "vocab_parallel_cross_entropy", "VocabParallelCrossEntropyLoss",
                                             "VocabParallelCausalLMLoss", "configure_vocab_parallel_loss", "validate_vocab_parallel_loss"),
    "deepspeed.sequence.layer": _all(_ULYSSES, "DistributedAttention", "_SeqAllToAll", "single_all_to_all"),
    "deepspeed.linear": _all(_LINEAR, "OptimizedLinear", "LoRAConfig", "QuantizationConfig", "Init", "init_lora"),
    "deepspeed.linear.quantization": _all(_LINEAR, "QuantizedParameter", "QuantizedLinear"),
    "deepspeed.compression": {},
    "deepspeed.compression.compress": _all(_COMPRESSION, "init_compression", "redundancy_clean", "student_initialization"),
    "deepspeed.elasticity": _all(_ELASTIC, "compute_elastic_config", "elasticity_enabled", "ensure_immutable_elastic_config", "DSElasticAgent"),
    "deepspeed.autotuning": _all(_AUTOTUNING, "Autotuner"),
    "deepspeed.inference": _all(_INFERENCE, "InferenceEngine"),
    "deepspeed.inference.engine": _all(_INFERENCE, "InferenceEngine"),
    "deepspeed.inference.config": _all(_INFERENCE, "DeepSpeedInferenceConfig"),
    "deepspeed.inference.v2": _all(_INFERENCE, "build_hf_engine", "build_engine_from_ds_checkpoint", "InferenceEngineV2", "RaggedInferenceEngineConfig",
                                   "DeepSpeedTPConfig"),
    "deepspeed.module_inject": _all(_TENSOR, "replace_transformer_layer", "revert_transformer_layer", "auto_tp", "AutoTP"),
    "deepspeed.domino": _all("!Domino", "transformer"),
    "deepspeed.launcher": {},
    "deepspeed.launcher.launch": _all("!a launcher of one host alone (hydrofoil run starts all ranks)", "main", "parse_args", "terminate_process_tree"),
    "deepspeed.launcher.runner": {"DEEPSPEED_ENVIRONMENT_NAME": "deepspeed._version:DEEPSPEED_ENVIRONMENT_NAME", "main": "deepspeed._commands:run"},
    "deepspeed.env_report": {"cli_main": "deepspeed._commands:report", "main": "deepspeed._commands:print_report"},
}
