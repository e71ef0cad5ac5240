"""DeepSpeed's constants: keys of ds_config.json, and keys and file names of DeepSpeed's own checkpoints (Hydrofoil's are in other files).

Defaults are not among them: docs/config.md lists those that hold here.
"""

from __future__ import annotations

from types import SimpleNamespace

__all__ = ["CHECKPOINT", "RUNTIME"]


class ValidationMode:
    WARN, IGNORE, FAIL = "WARN", "IGNORE", "FAIL"


def _named_as_valued(*values: str) -> dict[str, str]:
    return {value.upper(): value for value in values}


RUNTIME = SimpleNamespace(
    **_named_as_valued(
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "optimizer", "scheduler", "type", "legacy_fusion", "max_grad_norm",
        "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "steps_per_print", "managed_gradient_accumulation", "check_overflow", "fp16",
        "torch_autocast", "gradient_clipping", "communication_data_type", "seq_parallel_communication_data_type", "prescale_gradients",
        "gradient_predivide_factor", "gradient_allreduce_op", "disable_allgather", "dump_state", "disable_python_gc", "vocabulary_size", "wall_clock_breakdown",
        "memory_breakdown", "checkpoint", "data_types", "grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules", "dataloader_drop_last",
        "data_parallel_group", "global_rank", "log_level"),
    DDP_BFLOAT16="ddp_bf16", OPTIMIZER_PARAMS="params", SCHEDULER_PARAMS="params", BFLOAT16="bf16", BFLOAT16_OLD="bfloat16", BFLOAT16_ENABLED="enabled",
    BFLOAT16_IMMEDIATE_GRAD_UPDATE="immediate_grad_update", BFLOAT16_MASTER_WEIGHTS_AND_GRADS="bf16_master_weights_and_grads",
    BFLOAT16_OPTIMIZER_STATES="bf16_optimizer_states", FP16_ENABLED="enabled", FP16_LOSS_SCALE="loss_scale", FP16_AUTO_CAST="auto_cast",
    FP16_INITIAL_SCALE_POWER="initial_scale_power", FP16_LOSS_SCALE_WINDOW="loss_scale_window", FP16_HYSTERESIS="hysteresis",
    FP16_CONSECUTIVE_HYSTERESIS="consecutive_hysteresis", FP16_MIN_LOSS_SCALE="min_loss_scale", FP16_MASTER_WEIGHTS_AND_GRADS="fp16_master_weights_and_grads",
    TORCH_AUTOCAST_ENABLED="enabled", TORCH_AUTOCAST_DTYPE="dtype", TORCH_AUTOCAST_LOWER_PRECISION_SAFE_MODULES="lower_precision_safe_modules",
    GRADIENT_ALLREDUCE_OP_MEAN="mean", GRADIENT_ALLREDUCE_OP_SUM="sum", GRADIENT_ALLREDUCE_OP_SUPPORTED=("mean", "sum"),
    CHECKPOINT_TAG_VALIDATION="tag_validation", CHECKPOINT_TAG_VALIDATION_MODES=[ValidationMode.WARN, ValidationMode.IGNORE, ValidationMode.FAIL],
    ValidationMode=ValidationMode, LOAD_UNIVERSAL_CHECKPOINT="load_universal", USE_NODE_LOCAL_STORAGE_CHECKPOINT="use_node_local_storage",
    CHECKPOINT_PARALLEL_WRITE="parallel_write", CHECKPOINT_PARALLEL_WRITE_PIPELINE_STAGE="pipeline_stage", PIPE_REPLICATED="ds_pipe_replicated",
    USE_DATA_BEFORE_EXPERT_PARALLEL="use_data_before_expert_parallelism", ROUTE_TRAIN="train", ROUTE_EVAL="eval", ROUTE_PREDICT="predict", ROUTE_ENCODE="encode")

CHECKPOINT = SimpleNamespace(
    **_named_as_valued(
        "optimizer_state_dict", "base_optimizer_state", "base_optimizer_state_step", "param_groups", "group_paddings", "param_alignment_paddings",
        "partition_count", "zero_stage", "clip_grad", "loss_scaler", "param", "param_shapes", "buffer_names", "frozen_param_shapes", "frozen_param_fragments",
        "ds_version", "universal_checkpoint_info", "vocab_tensor", "padded_vocab_size", "original_vocab_size", "param_slice_mappings", "cat_dim",
        "param_n_sub_params", "sub_param_shape", "vocabulary_parameter_patterns", "pipeline_replicated_parameter_patterns",
        "parameter_to_average_patterns", "parameter_with_row_parallelism_patterns", "tp_replicated_parameter_patterns", "parameter_with_sub_params",
        "sub_param_shard_widths", "sub_params_shape"),
    FP32_WEIGHT_KEY="fp32", SINGLE_PARTITION_OF_FP32_GROUPS="single_partition_of_fp32_groups", FP32_GROUPS="fp32_groups", FP32_FLAT_GROUPS="fp32_flat_groups",
    MODEL_FILE_PREFIX="mp_rank_", ZERO_FILE_PREFIX="zero_pp_rank_", BF16_ZERO_FILE_PREFIX="bf16_zero_pp_rank_", FP16_ZERO_FILE_PREFIX="fp16_zero_pp_rank_",
    OPTIM_FILE_SUFFIX="_optim_states.pt", MODEL_FILE_SUFFIX="_model_states.pt", LAYER_FILE_PREFIX="layer_",
    UNIVERSAL_CHECKPOINT_VERSION_KEY="universal_checkpoint_version", UNIVERSAL_CHECKPOINT_VERSION_VALUE=0.4)
