"""`deepspeed.ops`: optimizers that the engine runs by its own kernels, and the builders of DeepSpeed's operators."""

from __future__ import annotations

from typing import Any, Iterable

import torch

from hydrofoil import _C

__all__ = ["DeepSpeedCPUAdagrad", "DeepSpeedCPUAdam", "DeepSpeedCPULion", "FusedAdam", "FusedLion", "compatible_ops"]


class NativeOptimizer(torch.optim.Optimizer):
    """Hyperparameters of one of the engine's kernels. `initialize(optimizer=...)` runs it; alone it cannot step."""

    native_kind: _C.OptimizerKind

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError(f"{type(self).__name__}.step: it steps inside hydrofoil.initialize(optimizer=...) only; without an engine use torch.optim")


class DeepSpeedCPUAdam(NativeOptimizer):
    """Adam, or AdamW with `adamw_mode` (Kingma, Ba, 2015; Loshchilov, Hutter, 2019)."""

    def __init__(self, model_params: Iterable[Any], lr: float = 1e-3, bias_correction: bool = True, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, adamw_mode: bool = True, fp32_optimizer_states: bool = True) -> None:
        if amsgrad:
            raise NotImplementedError(f"{type(self).__name__}: amsgrad is not built in Hydrofoil yet; torch.optim.AdamW(amsgrad=True) works in its place")
        if not fp32_optimizer_states:
            raise NotImplementedError(f"{type(self).__name__}: fp32_optimizer_states: set bf16.bf16_optimizer_states in the config instead")
        self.native_kind = _C.parse_optimizer_kind("Adam", adamw_mode)
        super().__init__(model_params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "bias_correction": bias_correction})


class FusedAdam(DeepSpeedCPUAdam):
    def __init__(self, params: Iterable[Any], lr: float = 1e-3, bias_correction: bool = True, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, adam_w_mode: bool = True, weight_decay: float = 0.0, amsgrad: bool = False, set_grad_none: bool = True) -> None:
        super().__init__(params, lr, bias_correction, betas, eps, weight_decay, amsgrad, adam_w_mode)


class DeepSpeedCPUAdagrad(NativeOptimizer):
    """Adagrad (Duchi et al., 2011)."""

    def __init__(self, model_params: Iterable[Any], lr: float = 1e-2, eps: float = 1e-10, weight_decay: float = 0.0, amsgrad: bool = False,
                 fp32_optimizer_states: bool = True) -> None:
        self.native_kind = _C.parse_optimizer_kind("Adagrad", True)
        super().__init__(model_params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})


class DeepSpeedCPULion(NativeOptimizer):
    """Lion (Chen et al., 2023)."""

    def __init__(self, model_params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0,
                 fp32_optimizer_states: bool = True) -> None:
        self.native_kind = _C.parse_optimizer_kind("Lion", True)
        super().__init__(model_params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})


class FusedLion(DeepSpeedCPULion):
    pass


class OpBuilder:
    """One of DeepSpeed's operators. Nothing is compiled here: it is part of Hydrofoil, or it is not built yet."""

    NAME, built = "", False

    def is_compatible(self, verbose: bool = False) -> bool:
        """Whether Hydrofoil has what this operator does."""
        return self.built

    def load(self, verbose: bool = True) -> Any:
        """The engine's library, which holds the operator."""
        if not self.built:
            raise NotImplementedError(f"{type(self).__name__}: the operator {self.NAME} is not built in Hydrofoil yet")
        return _C

    def builder_available(self) -> bool:
        return self.built

    def absolute_name(self) -> str:
        return f"hydrofoil.{self.NAME}"


_BUILDERS = {
    "AsyncIOBuilder": "async_io", "CCLCommBuilder": "deepspeed_ccl_comm", "CPUAdagradBuilder": "cpu_adagrad", "CPUAdamBuilder": "cpu_adam",
    "CPULionBuilder": "cpu_lion", "EvoformerAttnBuilder": "evoformer_attn", "FPQuantizerBuilder": "fp_quantizer", "FusedAdamBuilder": "fused_adam",
    "FusedLambBuilder": "fused_lamb", "FusedLionBuilder": "fused_lion", "GDSBuilder": "gds", "InferenceBuilder": "transformer_inference",
    "InferenceCoreBuilder": "inference_core_ops", "PinMemoryBuilder": "pin_memory", "InferenceCutlassBuilder": "cutlass_ops", "QuantizerBuilder": "quantizer", "RaggedOpsBuilder": "ragged_ops",
    "RaggedUtilsBuilder": "ragged_device_ops", "RandomLTDBuilder": "random_ltd", "ShareMemCommBuilder": "deepspeed_shm_comm",
    "SparseAttnBuilder": "sparse_attn", "SpatialInferenceBuilder": "spatial_inference", "StochasticTransformerBuilder": "stochastic_transformer",
    "TransformerBuilder": "transformer", "UtilsBuilder": "utils",
}
_BUILT = {"cpu_adagrad", "cpu_adam", "cpu_lion", "fused_adam", "fused_lion", "deepspeed_shm_comm", "utils"}
for _class, _op in _BUILDERS.items():
    globals()[_class] = type(_class, (OpBuilder,), {"NAME": _op, "built": _op in _BUILT, "__module__": __name__})

NotImplementedBuilder = type("NotImplementedBuilder", (OpBuilder,), {"NAME": "(of no name)", "__module__": __name__})
compatible_ops = {_op: _op in _BUILT for _op in _BUILDERS.values()}
