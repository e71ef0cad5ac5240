"""Texts of the FLOPs profiler."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

import torch

if TYPE_CHECKING:
    from hydrofoil.profiling.flops_profiler import FlopsProfiler

__all__ = ["aggregated_profile", "duration_to_string", "flops_to_string", "macs_to_string", "model_profile", "num_params",
           "number_to_string", "params_to_string", "write"]

_PREFIXES = {"T": 1e12, "G": 1e9, "M": 1e6, "K": 1e3, "": 1.0}


def number_to_string(num: float, units: Optional[str] = None, precision: int = 2) -> str:
    """1234567 as "1.23 M"; `units` (T, G, M, K or "") fixes the prefix."""
    if units is None:
        units = next((prefix for prefix, size in _PREFIXES.items() if abs(num) >= size), "")
    if units not in _PREFIXES:
        raise ValueError(f"number_to_string: units: got {units!r}, expected one of {list(_PREFIXES)}")
    return f"{round(num / _PREFIXES[units], precision)} {units}"


def flops_to_string(flops: float, units: Optional[str] = None, precision: int = 2) -> str:
    return f"{number_to_string(flops, _prefix(units, 'FLOPS'), precision)}FLOPS"


def macs_to_string(macs: float, units: Optional[str] = None, precision: int = 2) -> str:
    return f"{number_to_string(macs, _prefix(units, 'MACs'), precision)}MACs"


def params_to_string(params_num: float, units: Optional[str] = None, precision: int = 2) -> str:
    return number_to_string(params_num, units, precision).strip()


def duration_to_string(duration: float, units: Optional[str] = None, precision: int = 2) -> str:
    """Seconds as s, ms or us."""
    scales = {"s": 1.0, "ms": 1e3, "us": 1e6}
    if units is None:
        units = "s" if duration > 1 else "ms" if duration > 1e-3 else "us"
    if units not in scales:
        raise ValueError(f"duration_to_string: units: got {units!r}, expected one of {list(scales)}")
    return f"{round(duration * scales[units], precision)} {units}"


def _prefix(units: Optional[str], unit: str) -> Optional[str]:
    """Of "GFLOPS" or "G"."""
    return units.removesuffix(unit) if units is not None else None


def num_params(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _share(part: float, whole: float) -> str:
    return f"{100.0 * part / whole:.2f}%" if whole else "0.00%"


def _rate(flops: float, seconds: float) -> str:
    return flops_to_string(flops / seconds) if seconds > 0 else "0.0 FLOPS"


def model_profile(profiler: FlopsProfiler, profile_step: int, module_depth: int, top_modules: int, detailed: bool) -> str:
    rows = _summary(profiler)
    width = max(len(name) for name, _ in rows) + 2
    lines = ["", "-------------------------- Hydrofoil flops profiler --------------------------",
             f"Profile of step {profile_step}. FLOPs are those of products, convolutions and attention; 2 a multiply-accumulate (MAC).", ""]
    lines += [f"{name + ':':<{width}}{value}" for name, value in rows]
    lines += ["", aggregated_profile(profiler, module_depth, top_modules)]
    if detailed:
        lines += ["", "Each module: parameters, MACs and forward latency, each with its share of the model's; FLOPS of its forward", ""]
        totals = (profiler.get_total_flops(), profiler.get_total_duration(), profiler.get_total_params())
        lines += _tree(profiler, profiler.model, "", 0, set(), totals)
    lines.append("------------------------------------------------------------------------------")
    return "\n".join(lines)


def _summary(profiler: FlopsProfiler) -> list[tuple[str, str]]:
    flops, seconds = profiler.get_total_flops(), profiler.get_total_duration()
    rows = [("params", params_to_string(profiler.get_total_params())), ("fwd MACs", macs_to_string(flops / 2)),
            ("fwd FLOPs", flops_to_string(flops)), ("fwd latency", duration_to_string(seconds)), ("fwd FLOPS", _rate(flops, seconds))]
    engine = profiler.ds_engine
    if engine is not None:
        rows = [("world size", str(engine.world_size)), ("batch size a rank", str(engine.train_micro_batch_size_per_gpu())), *rows]
    if profiler.backward_seconds > 0:
        both = flops + profiler.backward_flops
        both_seconds = seconds + profiler.backward_seconds
        rows += [("bwd FLOPs", flops_to_string(profiler.backward_flops)), ("bwd latency", duration_to_string(profiler.backward_seconds)),
                 ("bwd FLOPS", _rate(profiler.backward_flops, profiler.backward_seconds)), ("fwd+bwd FLOPS", _rate(both, both_seconds))]
    if profiler.step_seconds > 0:
        rows.append(("step latency", duration_to_string(profiler.step_seconds)))
        if engine is not None:
            whole = seconds + profiler.backward_seconds + profiler.step_seconds
            rows.append(("samples/second", f"{engine.train_micro_batch_size_per_gpu() * engine.world_size / whole:.2f}"))
    return rows


def aggregated_profile(profiler: FlopsProfiler, module_depth: int, top_modules: int) -> str:
    """For each depth the classes with the most parameters, MACs and latency."""
    depths: list[dict[str, list[float]]] = []

    def visit(module: torch.nn.Module, depth: int) -> None:
        if len(depths) <= depth:
            depths.append({})
        sums = depths[depth].setdefault(type(module).__name__, [0.0, 0.0, 0.0])
        values = (num_params(module), profiler.module_flops(module) / 2, profiler.module_seconds(module))
        for i, value in enumerate(values):
            sums[i] += value
        for child in module.children():
            visit(child, depth + 1)

    visit(profiler.model, 0)
    last = len(depths) - 1 if module_depth == -1 else min(module_depth, len(depths) - 1)
    lines = [f"Top {top_modules} modules in params, MACs and forward latency, by depth:"]
    for depth in range(last + 1):
        lines.append(f"depth {depth}:")
        for i, (what, text) in enumerate((("params", params_to_string), ("MACs", macs_to_string), ("fwd latency", duration_to_string))):
            top = sorted(depths[depth].items(), key=lambda item: -item[1][i])[:top_modules]
            lines.append(f"    {what:<12}" + ", ".join(f"{name}: {text(sums[i])}" for name, sums in top))
    return "\n".join(lines)


def _tree(profiler: FlopsProfiler, module: torch.nn.Module, name: str, depth: int, seen: set[int],
          totals: tuple[float, float, float]) -> list[str]:
    indent = "  " * depth
    head = f"{indent}({name}): " if name else indent
    if id(module) in seen:
        return [f"{head}{type(module).__name__} (the same module as above)"]
    seen.add(id(module))
    flops, seconds, params = profiler.module_flops(module), profiler.module_seconds(module), num_params(module)
    numbers = ", ".join([
        f"{params_to_string(params)} = {_share(params, totals[2])} params", f"{macs_to_string(flops / 2)} = {_share(flops, totals[0])}",
        f"{duration_to_string(seconds)} = {_share(seconds, totals[1])}", _rate(flops, seconds)])
    children = [line for child_name, child in module.named_children() for line in _tree(profiler, child, child_name, depth + 1, seen, totals)]
    details = module.extra_repr().replace("\n", " ")
    return [f"{head}{type(module).__name__}({numbers}{'; ' + details if details else ''})", *children]


def write(text: str, output_file: Optional[str]) -> None:
    """Into the file (its folder is made), or to standard output where there is none."""
    if not output_file:
        print(text)
        return
    folder = os.path.dirname(os.path.abspath(output_file))
    os.makedirs(folder, exist_ok=True)
    with open(output_file, "w", encoding="utf-8") as file:
        file.write(text + "\n")
