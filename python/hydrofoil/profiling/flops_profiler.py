"""FLOPs, MACs, parameters and latency of each module of a model, under DeepSpeed's names.

Counted are matrix products, convolutions and fused attention, by torch's formulas (a multiply-accumulate is 2 FLOPs); what works
element by element (norms, activations, embeddings) is not. Stage 3 changes nothing: a sharded parameter has its whole shape.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Iterable, Optional

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hydrofoil._flops import operator_flops
from hydrofoil.profiling import _report
from hydrofoil.profiling._report import (  # noqa: F401  (DeepSpeed's names)
    duration_to_string, flops_to_string, macs_to_string, number_to_string, params_to_string)

__all__ = ["FlopsProfiler", "get_model_profile"]


class _Counter(TorchDispatchMode):
    """Gives each operator's FLOPs to `count`."""

    def __init__(self, count: Callable[[float], None]) -> None:
        super().__init__()
        self._count = count

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # composite operators arrive whole there
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = function(*args, **kwargs)
        flops = sum(operator_flops(function, args, kwargs, result))
        if flops:
            self._count(flops)
        return result


class ModuleProfile:
    """What one module took since start_profile(): `flops` by itself in forward, `seconds` with its children."""

    def __init__(self) -> None:
        self.flops = 0.0
        self.seconds = 0.0
        self.calls = 0


class FlopsProfiler:
    """Profiles what `model` (or the engine's module) runs between start_profile() and stop_profile()."""

    def __init__(self, model: torch.nn.Module, ds_engine: Any = None, recompute_fwd_factor: float = 0.0) -> None:
        """`recompute_fwd_factor`: DeepSpeed's estimate of what checkpoints compute again; it is counted here, so it must be 0."""
        if recompute_fwd_factor != 0.0:
            raise ValueError(f"FlopsProfiler: recompute_fwd_factor: got {recompute_fwd_factor}, expected 0: what a backward computes once "
                             "more is counted as it runs")
        self.model = model
        self.ds_engine = ds_engine
        self.started = False
        self.profiles: dict[int, ModuleProfile] = {}
        self.backward_flops = 0.0
        self.backward_seconds = 0.0
        self.step_seconds = 0.0
        self._running: list[ModuleProfile] = []
        self._handles: list[Any] = []
        self._counter: Optional[_Counter] = None
        self._in_backward = False

    # -- measuring -----------------------------------------------------------------------------------------------------
    def start_profile(self, ignore_list: Optional[Iterable[type]] = None) -> None:
        """Counts from zero. Modules of the types in `ignore_list` have no profile of their own: theirs is their parent's."""
        self.end_profile()
        ignored = tuple(ignore_list or ())
        self.profiles = {id(module): ModuleProfile() for module in self.model.modules()}
        self.backward_flops = self.backward_seconds = self.step_seconds = 0.0
        for module in self.model.modules():
            if not ignored or type(module) not in ignored:
                self._watch(module)
        self._counter = _Counter(self._add)
        self._counter.__enter__()
        self.started = True

    @property
    def running(self) -> bool:
        """Between start_profile() and stop_profile()."""
        return self._counter is not None

    def stop_profile(self) -> None:
        """Stops counting; what was counted stays."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._running.clear()

    def reset_profile(self) -> None:
        """Sets all counts to zero."""
        self.profiles = {id(module): ModuleProfile() for module in self.model.modules()}
        self.backward_flops = self.backward_seconds = self.step_seconds = 0.0

    def end_profile(self) -> None:
        """Stops, and drops what was counted."""
        self.stop_profile()
        self.profiles = {}
        self.started = False

    def _watch(self, module: torch.nn.Module) -> None:
        profile = self.profiles[id(module)]
        begins: list[float] = []

        def enter(_: torch.nn.Module, __: Any) -> None:
            self._running.append(profile)
            begins.append(self._now())

        def leave(_: torch.nn.Module, __: Any, ___: Any) -> None:
            self._running.pop()
            begin = begins.pop()
            if not self._in_backward:  # a checkpoint that computes it again belongs to the backward
                profile.seconds += self._now() - begin
                profile.calls += 1

        self._handles.append(module.register_forward_pre_hook(enter, prepend=True))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def _add(self, flops: float) -> None:
        if self._in_backward:
            self.backward_flops += flops
        elif self._running:
            self._running[-1].flops += flops

    def _now(self) -> float:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    def run_backward(self, backward: Callable[[], Any]) -> Any:
        """Runs `backward`, whose FLOPs and latency are those of the backward."""
        begin = self._now()
        self._in_backward = True
        try:
            return backward()
        finally:
            self._in_backward = False
            self.backward_seconds += self._now() - begin

    # -- results -------------------------------------------------------------------------------------------------------
    def _require_profile(self) -> None:
        if not self.started:
            raise ValueError("FlopsProfiler: nothing was profiled: call start_profile() before the forward")

    def module_flops(self, module: torch.nn.Module) -> float:
        """Forward FLOPs of the module and all in it, each module once."""
        self._require_profile()
        return sum(self.profiles[id(part)].flops for part in module.modules() if id(part) in self.profiles)

    def module_seconds(self, module: torch.nn.Module) -> float:
        """Forward latency; of a module that is not called itself (a list) that of its children."""
        self._require_profile()
        profile = self.profiles.get(id(module))
        if profile is None or profile.calls == 0:
            return sum(self.module_seconds(child) for child in module.children())
        return profile.seconds

    def get_total_flops(self, as_string: bool = False) -> Any:
        """Of the forward."""
        total = self.module_flops(self.model)
        return flops_to_string(total) if as_string else total

    def get_total_macs(self, as_string: bool = False) -> Any:
        """Multiply-accumulates of the forward: half of the FLOPs."""
        total = self.module_flops(self.model) / 2
        return macs_to_string(total) if as_string else total

    def get_total_duration(self, as_string: bool = False) -> Any:
        """Seconds of the forward."""
        total = self.module_seconds(self.model)
        return duration_to_string(total) if as_string else total

    def get_total_params(self, as_string: bool = False) -> Any:
        """Elements of the model's parameters, each once."""
        total = _report.num_params(self.model)
        return params_to_string(total) if as_string else total

    def print_model_profile(self, profile_step: int = 1, module_depth: int = -1, top_modules: int = 1, detailed: bool = True,
                            output_file: Optional[str] = None) -> None:
        """Prints the totals, the top modules of each depth and, with `detailed`, the tree of modules."""
        self._require_profile()
        _report.write(_report.model_profile(self, profile_step, module_depth, top_modules, detailed), output_file)

    def print_model_aggregated_profile(self, module_depth: int = -1, top_modules: int = 1) -> None:
        """Prints the classes that take the most, for each depth of the tree down to `module_depth`."""
        self._require_profile()
        print(_report.aggregated_profile(self, module_depth, top_modules))


def get_model_profile(
    model: torch.nn.Module,
    input_shape: Optional[tuple[int, ...]] = None,
    args: Iterable[Any] = (),
    kwargs: Optional[dict[str, Any]] = None,
    print_profile: bool = True,
    detailed: bool = True,
    module_depth: int = -1,
    top_modules: int = 1,
    warm_up: int = 1,
    as_string: bool = True,
    output_file: Optional[str] = None,
    ignore_modules: Optional[Iterable[type]] = None,
    mode: str = "forward",
) -> tuple[Any, Any, Any]:
    """Runs one forward (or, with mode="generate", model.generate) and returns its FLOPs, MACs and the model's parameters.

    The input is either a tensor of `input_shape` (ones, of the model's dtype and device) or `args` and `kwargs`.
    """
    if mode not in ("forward", "generate"):
        raise ValueError(f"get_model_profile: mode: got {mode!r}, expected 'forward' or 'generate'")
    arguments, named = list(args), dict(kwargs or {})
    if input_shape is not None:
        if arguments or named:
            raise ValueError("get_model_profile: got input_shape and args or kwargs, expected one of the two")
        if not isinstance(input_shape, tuple) or not input_shape:
            raise ValueError(f"get_model_profile: input_shape: got {input_shape!r}, expected a tuple of sizes")
        first = next(model.parameters(), torch.empty(0))
        arguments = [torch.ones(input_shape, dtype=first.dtype, device=first.device)]
    if not arguments and not named:
        raise ValueError("get_model_profile: got no input, expected input_shape, args or kwargs")
    call = model if mode == "forward" else model.generate
    was_training = model.training
    model.eval()
    profiler = FlopsProfiler(model)
    try:
        with torch.no_grad():
            for _ in range(warm_up):
                call(*arguments, **named)
            profiler.start_profile(ignore_modules)
            try:
                call(*arguments, **named)
            finally:
                profiler.stop_profile()
    finally:
        model.train(was_training)
    if print_profile:
        profiler.print_model_profile(warm_up, module_depth, top_modules, detailed, output_file)
    result = (profiler.get_total_flops(as_string), profiler.get_total_macs(as_string), profiler.get_total_params(as_string))
    profiler.end_profile()
    return result
