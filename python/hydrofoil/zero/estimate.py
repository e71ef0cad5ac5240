"""DeepSpeed's memory estimators, with the numbers of this engine: bf16 parameters, fp32 gradients and masters, AdamW.

The numbers are exact, padding included, so `additional_buffer_factor` changes nothing. `per GPU` is the device of a rank
(the host itself on a CPU), `per CPU` the host memory of a node beside it: what offload would move there, and where
parameters start without zero.Init. Offload is not supported by the engine yet; its rows say what it would leave.
"""

from __future__ import annotations

import torch

from hydrofoil import _C, _modules
from hydrofoil.errors import InvalidArgument

__all__ = [
    "estimate_zero2_model_states_mem_needs", "estimate_zero2_model_states_mem_needs_all_cold",
    "estimate_zero2_model_states_mem_needs_all_live", "estimate_zero3_model_states_mem_needs",
    "estimate_zero3_model_states_mem_needs_all_cold", "estimate_zero3_model_states_mem_needs_all_live",
]

_FP32 = 4
_BF16 = 2


def _cold_tree(sizes: list[int]) -> tuple[list[_C.ModuleNode], list[tuple[str, int, str, bool]]]:
    """A model of one module a size."""
    nodes = [_C.ModuleNode("", "Model", -1, False, False, [])]
    table = []
    for number, numel in enumerate(sizes):
        nodes.append(_C.ModuleNode(f"part{number}", f"Part{number}", 0, False, True, [number]))
        table.append((f"part{number}.weight", int(numel), "float32", True))
    return nodes, table


def _live_tree(model: torch.nn.Module) -> tuple[list[_C.ModuleNode], list[tuple[str, int, str, bool]]]:
    _, nodes, names, parameters = _modules.describe(model, (), need_values=False)
    return nodes, [(name, p.numel(), str(p.dtype).removeprefix("torch."), p.requires_grad) for name, p in zip(names, parameters)]


def _plan(stage: int, ranks: int, tree: tuple[list[_C.ModuleNode], list[tuple[str, int, str, bool]]]) -> _C.Plan:
    config = ('{"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": true}, "zero_optimization": {"stage": %d}, '
              '"hydrofoil": {"backend": "c10d"}, "optimizer": {"type": "AdamW"}}' % stage)
    options = _C.resolve_config(config, ranks, True)
    nodes, table = tree
    return _C.make_plan(options, ranks, 1, True, True, nodes, table, [], _C.Roofs(), None)[0]


def _zero2(plan: _C.Plan, gpus_per_node: int, cpu_offload: bool) -> tuple[int, int]:
    built = _FP32 * plan.num_parameters * gpus_per_node
    if not cpu_offload:
        return built, plan.state_bytes
    offloaded = plan.gradient_bytes + plan.master_bytes + plan.optimizer_state_bytes
    return max(built, offloaded * gpus_per_node), plan.state_bytes - offloaded


def _zero3(plan: _C.Plan, gpus_per_node: int, cpu_offload: bool, cpu_offload_params: bool, zero_init: bool) -> tuple[int, int, int]:
    largest = plan.largest_unit_bytes
    built = _FP32 * (largest // _BF16 if zero_init else plan.num_parameters) * gpus_per_node
    offloaded = plan.gradient_bytes + plan.master_bytes + plan.optimizer_state_bytes if cpu_offload else 0
    offloaded += plan.parameter_bytes if cpu_offload and cpu_offload_params else 0
    return max(built, offloaded * gpus_per_node), plan.state_bytes - offloaded + largest, largest


def estimate_zero2_model_states_mem_needs(total_params: int, num_gpus_per_node: int = 1, num_nodes: int = 1, cpu_offload: bool = True,
                                          additional_buffer_factor: float = 1.5) -> tuple[int, int]:
    """Bytes (per node on the host, per rank on the device) of parameters, gradients and optimizer states under stage 2."""
    return _zero2(_plan(2, num_gpus_per_node * num_nodes, _cold_tree([total_params])), num_gpus_per_node, cpu_offload)


def estimate_zero3_model_states_mem_needs(total_params: int, largest_layer_params: int, num_gpus_per_node: int = 1, num_nodes: int = 1,
                                          cpu_offload: bool = True, cpu_offload_params: bool = True, zero_init: bool = True,
                                          additional_buffer_factor: float = 1.5) -> tuple[int, int, int]:
    """The same under stage 3, one gathered layer included, whose bytes come third."""
    plan = _plan(3, num_gpus_per_node * num_nodes, _cold_tree(_parts(total_params, largest_layer_params)))
    return _zero3(plan, num_gpus_per_node, cpu_offload, cpu_offload_params, zero_init)


def _parts(total_params: int, largest_layer_params: int) -> list[int]:
    """The model in layers of the largest one's size."""
    if not 0 < largest_layer_params <= total_params:
        raise InvalidArgument(f"largest_layer_params: got {largest_layer_params}, expected 1 to total_params, {total_params}")
    most_parts = 10_000
    count = min(total_params // largest_layer_params, most_parts)
    parts = [largest_layer_params] * count
    rest = total_params - count * largest_layer_params
    return parts + ([rest] if 0 < rest <= largest_layer_params else [])


def _heading(num_gpus_per_node: int, num_nodes: int, software: str) -> None:
    nodes = "nodes" if num_nodes > 1 else "node"
    gpus = "GPUs" if num_gpus_per_node > 1 else "GPU"
    print("Estimated memory needed for params, optim states and gradients for a:\n"
          f"HW: Setup with {num_nodes} {nodes}, {num_gpus_per_node} {gpus} per node.\n"
          f"SW: {software}")
    print("  per CPU  |  per GPU |   Options")


def _row(cpu_mem: int, gpu_mem: int, options: str, offload: bool) -> None:
    note = " (offload is not supported yet)" if offload else ""
    print(f" {cpu_mem / 2**30:7.2f}GB | {gpu_mem / 2**30:6.2f}GB | {options}{note}")


def _print_zero2(plan: _C.Plan, num_gpus_per_node: int, num_nodes: int) -> None:
    _heading(num_gpus_per_node, num_nodes, f"Model with {int(plan.num_parameters / 1e6)}M total params.")
    for cpu_offload in (True, False):
        cpu_mem, gpu_mem = _zero2(plan, num_gpus_per_node, cpu_offload)
        _row(cpu_mem, gpu_mem, f"offload_optimizer={'cpu ' if cpu_offload else 'none'}", cpu_offload)


def _print_zero3(plan: _C.Plan, largest_layer_params: int, num_gpus_per_node: int, num_nodes: int) -> None:
    _heading(num_gpus_per_node, num_nodes, f"Model with {int(plan.num_parameters / 1e6)}M total params, "
             f"{int(largest_layer_params / 1e6)}M largest layer params.")
    for cpu_offload, cpu_offload_params in ((True, True), (True, False), (False, False)):
        for zero_init in (True, False):
            cpu_mem, gpu_mem, _ = _zero3(plan, num_gpus_per_node, cpu_offload, cpu_offload_params, zero_init)
            _row(cpu_mem, gpu_mem, f"offload_param={'cpu ' if cpu_offload_params else 'none'}, "
                 f"offload_optimizer={'cpu ' if cpu_offload else 'none'}, zero_init={int(zero_init)}", cpu_offload)


def estimate_zero2_model_states_mem_needs_all_live(model: torch.nn.Module, num_gpus_per_node: int = 1, num_nodes: int = 1,
                                                   additional_buffer_factor: float = 1.5) -> None:
    """Prints what stage 2 needs for `model`, whose parameters may be on the meta device."""
    _print_zero2(_plan(2, num_gpus_per_node * num_nodes, _live_tree(model)), num_gpus_per_node, num_nodes)


def estimate_zero2_model_states_mem_needs_all_cold(total_params: int, num_gpus_per_node: int = 1, num_nodes: int = 1,
                                                   additional_buffer_factor: float = 1.5) -> None:
    """Prints what stage 2 needs for a model of `total_params` parameters."""
    _print_zero2(_plan(2, num_gpus_per_node * num_nodes, _cold_tree([total_params])), num_gpus_per_node, num_nodes)


def estimate_zero3_model_states_mem_needs_all_live(model: torch.nn.Module, num_gpus_per_node: int = 1, num_nodes: int = 1,
                                                   additional_buffer_factor: float = 1.5) -> None:
    """Prints what stage 3 needs for `model`; the largest layer is the largest unit that is gathered."""
    plan = _plan(3, num_gpus_per_node * num_nodes, _live_tree(model))
    _print_zero3(plan, plan.largest_unit_bytes // _BF16, num_gpus_per_node, num_nodes)


def estimate_zero3_model_states_mem_needs_all_cold(total_params: int, largest_layer_params: int, num_gpus_per_node: int = 1,
                                                   num_nodes: int = 1, additional_buffer_factor: float = 1.5) -> None:
    """Prints what stage 3 needs for a model of `total_params` parameters."""
    plan = _plan(3, num_gpus_per_node * num_nodes, _cold_tree(_parts(total_params, largest_layer_params)))
    _print_zero3(plan, largest_layer_params, num_gpus_per_node, num_nodes)
