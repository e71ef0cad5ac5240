"""State dicts and checkpoints of an engine."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

import torch

from hydrofoil.errors import InvalidType

__all__ = ["EngineState"]


class EngineState:
    """Methods of the engine that give, load and save its state."""

    module: torch.nn.Module

    def module_state_dict(self, destination: Optional[dict[str, Any]] = None, prefix: str = "", keep_vars: bool = False,
                          exclude_frozen_parameters: bool = False) -> dict[str, Any]:
        """Full state dict of the model on every rank, in copies; sharded parameters are gathered (collective)."""
        from hydrofoil.zero import GatheredParameters

        if keep_vars:
            raise NotImplementedError("module_state_dict: keep_vars: the values are copies; take engine.module.state_dict(keep_vars=True) in GatheredParameters")
        frozen = {prefix + n for n, p in self.module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        with GatheredParameters(list(self.module.parameters())):
            state = {name: value.detach().clone() if isinstance(value, torch.Tensor) else value  # extra states may be anything
                     for name, value in self.module.state_dict(prefix=prefix).items()}
        state = {n: v for n, v in state.items() if not (exclude_frozen_parameters and n in frozen)}
        if destination is None:
            return state
        destination.update(state)
        return destination

    def _zero3_consolidated_16bit_state_dict(self, exclude_frozen_parameters: bool = False) -> Optional[dict[str, Any]]:
        """The whole model in its own dtype on rank 0, in CPU memory; None on the others. Collective, unit by unit."""
        from hydrofoil import checkpoint

        return checkpoint.consolidated_state_dict(self, exclude_frozen_parameters)

    _consolidated_16bit_state_dict = _zero3_consolidated_16bit_state_dict

    def load_module_state_dict(self, checkpoint: dict[str, Any], strict: bool = True, custom_load_fn: Optional[Callable[..., Any]] = None,
                               fetch_z3_params: bool = False, z3_params_to_fetch: Any = None, allowed_missing_keys: Any = None) -> Any:
        """Loads full values, given as a state dict or as {"module": state dict}, on every rank; the fp32 masters follow (collective)."""
        from hydrofoil.zero import GatheredParameters

        state = checkpoint["module"] if isinstance(checkpoint.get("module"), dict) else checkpoint
        with GatheredParameters(list(self.module.parameters()), modifier_rank=0):
            if custom_load_fn is not None:
                return custom_load_fn(src=state, dst=self.module)
            result = self.module.load_state_dict(state, strict=strict and not allowed_missing_keys)
            missing = set(result.missing_keys) - set(allowed_missing_keys or ())
            if strict and (missing or result.unexpected_keys):
                raise RuntimeError(f"load_module_state_dict: missing: {sorted(missing)}; not of the model: {sorted(result.unexpected_keys)}")
        return result

    def save_checkpoint(self, save_dir: str | os.PathLike[str], tag: Optional[str] = None, client_state: Optional[dict[str, Any]] = None,
                        save_latest: bool = True, exclude_frozen_parameters: bool = False) -> bool:
        """Writes <save_dir>/<tag> (default global_step<N>): one safetensors file a rank and a JSON manifest; collective."""
        from hydrofoil import checkpoint

        if not isinstance(save_dir, (str, os.PathLike)):
            raise InvalidType(f"save_checkpoint: save_dir: got {save_dir!r}, expected a path")
        return checkpoint.save(self, os.fspath(save_dir), tag, client_state or {}, save_latest, exclude_frozen_parameters)

    def load_checkpoint(self, load_dir: str | os.PathLike[str], tag: Optional[str] = None, load_module_strict: bool = True,
                        load_optimizer_states: bool = True, load_lr_scheduler_states: bool = True, load_module_only: bool = False,
                        custom_load_fn: Any = None) -> tuple[Optional[str], Optional[dict[str, Any]]]:
        """Restores what save_checkpoint wrote; returns (path, client_state), or (None, None) where there is no checkpoint. Collective."""
        from hydrofoil import checkpoint

        if custom_load_fn is not None:
            raise NotImplementedError("load_checkpoint: custom_load_fn is not built in Hydrofoil yet; load with load_module_state_dict(state, custom_load_fn=...)")

        return checkpoint.load(self, os.fspath(load_dir), tag, load_module_strict, load_optimizer_states and not load_module_only,
                               load_lr_scheduler_states and not load_module_only)

    def save_16bit_model(self, save_dir: str | os.PathLike[str], save_filename: str = "model.safetensors",
                         exclude_frozen_parameters: bool = False) -> bool:
        """Writes the full model in its own dtype as one safetensors file; one unit is gathered at a time. Collective.

        Under stage 3 it needs zero_optimization.stage3_gather_16bit_weights_on_model_save; without it returns False.
        """
        from hydrofoil import checkpoint

        return checkpoint.save_model(self, os.fspath(save_dir), save_filename, exclude_frozen_parameters)

    save_fp16_model = save_16bit_model
