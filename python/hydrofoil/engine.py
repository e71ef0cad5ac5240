"""The training engine as Python sees it: names and torch objects around the C++ engine."""

from __future__ import annotations

import contextlib
import gc
import json
import time
import weakref
from typing import Any, Callable, Iterator, Optional

import torch

from hydrofoil import _C, _modules, comm, lr_schedules, utils
from hydrofoil._config import DTYPES, config_text
from hydrofoil._engine_names import NOT_BUILT_ATTRIBUTES, EngineNames
from hydrofoil._engine_state import EngineState
from hydrofoil._getters import ConfigGetters
from hydrofoil._step_log import StepLog
from hydrofoil.config import DeepSpeedConfig
from hydrofoil.dataloader import DataLoader
from hydrofoil.errors import InvalidArgument, InvalidType, NotBuiltAttribute
from hydrofoil.leaf_modules import leaf_modules_of_config, set_z3_leaf_module
from hydrofoil.monitor import MonitorMaster
from hydrofoil.ops import NativeOptimizer
from hydrofoil.optimizer import ZeroOptimizer, check_client, group_json, parameter_groups
from hydrofoil.profiling.step_profile import StepProfile
from hydrofoil.timer import SynchronizedWallClockTimer, ThroughputTimer

__all__ = ["DeepSpeedEngine", "Engine"]

class Engine(ConfigGetters, EngineNames, EngineState, torch.nn.Module):
    """A model under ZeRO. Call it as the model, then backward(loss) and step(). Made by `hydrofoil.initialize`."""

    def __init__(
        self,
        model: torch.nn.Module,
        options: _C.EngineOptions,
        optimizer: Any,
        model_parameters: Any,
        training_data: Any,
        lr_scheduler: Any,
        collate_fn: Optional[Callable[..., Any]],
        config: Any,
    ) -> None:
        super().__init__()
        self.module = model
        self.options = options
        self.config = config
        self._config = DeepSpeedConfig(config, options=options)
        self.global_rank = comm.get_rank()
        self.world_size = self.dp_world_size = comm.get_world_size()
        self.mp_world_size = 1
        self.local_rank = comm.get_local_rank()
        self.client_optimizer = optimizer
        self.client_lr_scheduler = lr_scheduler
        if options.log_level is not None:
            utils.set_log_level_from_string(options.log_level.name)
        self._dtype = DTYPES[options.model_dtype]
        if self._dtype != torch.float32:
            _modules.cast_buffers(model, self._dtype)
        self._build(optimizer, model_parameters)
        self.lr_scheduler = self._make_scheduler(lr_scheduler)
        self.training_dataloader = None
        if training_data is not None:
            self.training_dataloader = self.deepspeed_io(training_data, collate_fn=collate_fn)
        self._step_applied = self._in_no_sync = False
        self._profile = StepProfile(self) if options.flops_profiler.enabled and self.global_rank == 0 else None
        self._observe()
        if options.dump_state and self.global_rank == 0:
            utils.logger.info("resolved config:\n%s", self.explain())

    # -- construction --------------------------------------------------------------------------------------------------
    def _build(self, optimizer: Any, model_parameters: Any) -> None:
        options = self.options
        _release_forgotten(self.module)
        for module in leaf_modules_of_config(self.module, options.leaf_module):
            set_z3_leaf_module(module, True)
        modules, nodes, names, parameters = _modules.describe(self.module, options.unit_names)
        self._parameters_list = parameters
        self.device = parameters[0].device if parameters else torch.device("cpu")
        self.param_names = dict(zip(parameters, names))
        kind: Optional[_C.OptimizerKind] = None
        client = None
        defaults: dict[str, Any] = {"lr": 1e-3}
        if isinstance(optimizer, NativeOptimizer):
            kind, groups, defaults = optimizer.native_kind, optimizer.param_groups, optimizer.defaults
        elif optimizer is not None:
            client = optimizer(parameter_groups(model_parameters, self.module)) if _is_factory(optimizer) else optimizer
            if not hasattr(client, "param_groups"):
                raise InvalidType(f"initialize: optimizer: got {type(client).__name__}, expected a torch optimizer, or a callable that makes one")
            groups = [dict(group) for group in client.param_groups]
        else:
            groups = parameter_groups(model_parameters, self.module)
            if options.optimizer.native:
                params = options.optimizer.params
                kind = _C.parse_optimizer_kind(options.optimizer.type, params.adam_w_mode)
                defaults = {
                    "lr": params.lr, "betas": tuple(params.betas), "eps": params.eps, "weight_decay": params.weight_decay,
                    "momentum": params.momentum, "dampening": params.dampening, "nesterov": params.nesterov,
                    "bias_correction": params.bias_correction,
                }
                read = _C.hyperparameter_names(kind)
                defaults = {name: value for name, value in defaults.items() if name in read}
            elif options.optimizer.type:
                factory = getattr(torch.optim, options.optimizer.type)
                client = factory(groups, **json.loads(options.optimizer.params_json))
                groups = [dict(group) for group in client.param_groups]
        if client is not None:
            check_client(client, sharded=options.zero_stage > 0 and self.world_size > 1)
            defaults = dict(getattr(client, "defaults", defaults))  # schedulers look there for what an optimizer knows
        group_of: dict[int, int] = {}
        for number, group in enumerate(groups):
            for p in group["params"]:
                if group_of.setdefault(id(p), number) != number:
                    raise InvalidArgument(f"initialize: parameter {self.param_names.get(p, '(not of the model)')} is in the optimizer groups "
                                     f"{group_of[id(p)]} and {number}; list it in one")
        # Without a list of the user's, parameters that are frozen now belong to the only group too.
        group_of_others = 0 if client is None and model_parameters is None else -1
        unknown = [p for group in groups for p in group["params"] if p not in self.param_names]
        if unknown:
            raise InvalidArgument(f"initialize: {len(unknown)} parameters of the optimizer are not parameters of the model")
        table = []
        for name, parameter in zip(names, parameters):
            if parameter.requires_grad and id(parameter) not in group_of and (client is not None or kind is not None):
                utils.logger.warning("parameter %s is trainable but in no optimizer group: it is frozen", name)
                parameter.requires_grad_(False)
            shard = parameter.__dict__.get("_hydrofoil_initial_shard")
            table.append(_C.RuntimeParameter(name, parameter, group_of.get(id(parameter), group_of_others), shard))
        comm.close_left_groups()  # of models that the program has dropped
        self._groups = comm.EngineGroups(options.comm_backend, options.collective_timeout_s, self.device.type)
        core_kind = kind if client is None else None
        training = client is not None or kind is not None
        optimizer_text = f"{type(client).__name__ if client is not None else options.optimizer.type} {group_json(groups)}"
        self.core = _C.Engine(options, table, nodes, self._groups.gather, self._groups.reduce, core_kind, optimizer_text, training)
        comm.log_engine(self.core, options)
        for parameter in parameters:
            parameter.__dict__.pop("_hydrofoil_initial_shard", None)
            parameter._hydrofoil_engine = self.core
        del table, shard
        comm.close_left_groups()
        self._wrapping = _modules.Wrapping(self.core, modules)
        self.optimizer: Any = None
        if training:
            self.optimizer = ZeroOptimizer(self, kind, groups, defaults, client)
            self.core.optimizer = weakref.ref(self.optimizer)
        self.core.owner = weakref.ref(self)
        self.core.hold = (self._wrapping, self._groups, parameters)
        self.basic_optimizer = client if client is not None else self.optimizer

    def _make_scheduler(self, lr_scheduler: Any) -> Any:
        if lr_scheduler is not None:
            return lr_scheduler(self.basic_optimizer) if _is_factory(lr_scheduler) else lr_scheduler
        scheduler = self.options.scheduler
        if not scheduler.type:
            return None
        if self.optimizer is None:
            raise InvalidArgument("scheduler: a schedule needs an optimizer (config 'optimizer' or initialize(optimizer=...))")
        params = json.loads(scheduler.params_json)
        if scheduler.native:
            return lr_schedules.SCHEDULES[scheduler.type](self.optimizer, **params)
        return getattr(torch.optim.lr_scheduler, scheduler.type)(self.optimizer, **params)

    def _observe(self) -> None:
        options = self.options
        self.monitor = MonitorMaster(options, self.global_rank)
        self._step_log = StepLog(self)
        try:
            self.core.agree("initialize", self.monitor.open())
        except Exception:
            self.destroy(gather=True)
            raise
        self.timers = SynchronizedWallClockTimer(self.core.report)
        self.tput_timer = ThroughputTimer(self)
        self._has_phases = options.wall_clock_breakdown or options.memory_breakdown

    # -- the loop ------------------------------------------------------------------------------------------------------
    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self._profile is not None:
            return self._profile.forward(lambda: self._measured_forward(*inputs, **kwargs))
        return self._measured_forward(*inputs, **kwargs)

    def _measured_forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if not self.training:
            return self._forward(*inputs, **kwargs)
        if self._has_phases:
            with self._phase(_C.Phase.FORWARD):
                return self._forward(*inputs, **kwargs)
        self.core.begin_micro_step()
        return self._forward(*inputs, **kwargs)

    @contextlib.contextmanager
    def _measured(self, phase: _C.Phase) -> Iterator[None]:
        self.core.begin_phase(phase)
        try:
            yield
        finally:
            self.core.end_phase(phase)

    def _phase(self, phase: _C.Phase) -> contextlib.AbstractContextManager[None]:
        return self._measured(phase) if self._has_phases else contextlib.nullcontext()

    def _forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.options.fp16_auto_cast and self.options.fp16_enabled:
            inputs, kwargs = utils.cast_floating((inputs, kwargs), torch.float16)
        if self.options.autocast_enabled:
            dtype = DTYPES[self.options.autocast_dtype or "bf16"]
            with torch.autocast(self.device.type, dtype=dtype):
                return self.module(*inputs, **kwargs)
        return self.module(*inputs, **kwargs)

    def backward(self, loss: torch.Tensor, retain_graph: bool = False, scale_wrt_gas: bool = True, **kwargs: Any) -> torch.Tensor:
        """Runs the backward of this micro step; returns loss / gradient_accumulation_steps, as DeepSpeed does."""
        if self.optimizer is None:
            raise InvalidArgument("backward: this engine has no optimizer; it can only run forward")
        if not isinstance(loss, torch.Tensor):
            raise InvalidType(f"backward: loss: got {type(loss).__name__}, expected the tensor that the model returned as its loss")
        if loss.numel() != 1 and kwargs.get("gradient") is None:
            raise InvalidArgument(f"backward: loss: got shape {list(loss.shape)}, expected one number; take its mean() or sum()")
        self._step_log.add_loss(loss)
        with self._phase(_C.Phase.BACKWARD):
            scaled = self.core.scale_loss(loss, scale_wrt_gas)
            run = lambda: scaled.backward(retain_graph=retain_graph or None, **kwargs)  # noqa: E731  (None: as create_graph says)
            run() if self._profile is None else self._profile.backward(run)
        return loss / self.gradient_accumulation_steps() if scale_wrt_gas else loss

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the loss scale, for a plain loss.backward()."""
        self._step_log.add_loss(loss)
        return loss * self.core.begin_backward(True)

    def step(self, lr_kwargs: Optional[dict[str, Any]] = None) -> None:
        """Ends a micro step; at an accumulation boundary clips, updates the parameters and steps the schedule."""
        if self.optimizer is None:
            raise InvalidArgument("step: this engine has no optimizer")
        self._wrapping.check()
        began = time.perf_counter()
        with self._phase(_C.Phase.STEP):
            if self.core.begin_step():
                self.optimizer._update()
            result = self.core.finish_step()
        self._step_applied = result.applied
        if self._profile is not None and result.boundary:
            self._profile.end_step(time.perf_counter() - began)
        if result.applied and self.lr_scheduler is not None:
            self.lr_scheduler.step(**(lr_kwargs or {}))
        if result.boundary:
            self._step_log.after_step(self, result)

    def was_step_applied(self) -> bool:
        return self._step_applied

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of this accumulation window."""
        self.core.zero_grad()

    def is_gradient_accumulation_boundary(self) -> bool:
        return self.core.is_boundary()

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        self.core.set_boundary(is_boundary)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside do not reduce; stages 0 and 1 only."""
        if self._in_no_sync:
            raise InvalidArgument("no_sync: called inside no_sync(); one is enough, and the inner one would end both")
        self.core.set_no_sync(True)
        self._in_no_sync = True
        try:
            yield
        finally:
            self._in_no_sync = False
            self.core.set_no_sync(False)

    # -- what scripts read ---------------------------------------------------------------------------------------------
    @property
    def global_steps(self) -> int:
        return self.core.counters.global_steps

    @property
    def micro_steps(self) -> int:
        return self.core.counters.micro_steps

    @property
    def global_samples(self) -> int:
        return self.core.counters.global_samples

    @property
    def skipped_steps(self) -> int:
        return self.core.counters.skipped_steps

    def get_global_grad_norm(self) -> Optional[float]:
        return self.core.grad_norm

    def memory_report(self) -> _C.MemoryReport:
        """Bytes that this rank keeps, by kind of state."""
        return self.core.memory_report()

    def get_wall_clock_timers(self) -> SynchronizedWallClockTimer:
        return self.timers

    def explain(self) -> str:
        """Every resolved value of the config and why it has it."""
        return _C.explain_config(config_text(self.config), self.world_size, self.device.type == "cpu")

    def deepspeed_io(self, dataset: Any, batch_size: Optional[int] = None, route: str = "train", pin_memory: bool = True,
                     data_sampler: Any = None, collate_fn: Optional[Callable[..., Any]] = None,
                     num_local_io_workers: Optional[int] = None) -> DataLoader:
        return DataLoader(
            dataset, batch_size or self.train_micro_batch_size_per_gpu(), rank=self.global_rank, world_size=self.world_size,
            shuffle=route == "train", sampler=data_sampler, collate_fn=collate_fn, num_workers=num_local_io_workers or 0,
            drop_last=self.options.dataloader_drop_last)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            module = self.__dict__.get("_modules", {}).get("module")
            if module is not None and hasattr(module, name):
                return getattr(module, name)
            if name in NOT_BUILT_ATTRIBUTES:
                raise NotBuiltAttribute(f"{name}: {NOT_BUILT_ATTRIBUTES[name]} is not built in Hydrofoil yet") from None
            raise

    def get_sequence_parallel_group(self) -> Any:
        """None: sequences are not split."""
        return None

    @contextlib.contextmanager
    def coalesce_grad_reduction(self) -> Iterator[None]:
        """Several backward passes before one step(): their gradients are summed. Each reduces its own, so this saves no communication."""
        if self.zero_optimization_stage() == 0:
            raise NotImplementedError("coalesce_grad_reduction: got ZeRO stage 0, expected 1 to 3; use no_sync()")
        yield

    def empty_partition_cache(self) -> None:
        """Releases units that stay gathered between micro steps. Collective."""
        self.core.release_retained()

    # -- the end ---------------------------------------------------------------------------------------------------------
    def destroy(self, gather: bool = False) -> None:
        """Returns all hooks and memory. Under stage 3 parameters stay sharded, for GatheredParameters and the next `initialize`, or with
        `gather` become ordinary (collective).

        A client optimizer then works on the model's parameters: with its state at stage 0 or on one rank, else as a new one.
        """
        self.monitor.close()
        _let_go(self.core, gather)
        if self.optimizer is not None:
            self.optimizer._release_client()
        self._parameters_list = []


def _let_go(core: _C.Engine, gather: bool = False) -> None:
    """Ends the engine's hold of the model. Idempotent."""
    wrapping, groups, parameters = core.hold
    core.hold = (wrapping, groups, [])
    wrapping.remove()
    shards = core.destroy(gather)
    for parameter in parameters:
        parameter.__dict__.pop("_hydrofoil_engine", None)
    left = []
    for parameter, shard in zip(parameters, shards):
        if shard is not None:
            parameter.__dict__["_hydrofoil_initial_shard"] = shard
            left.append(weakref.ref(shard))
    groups.close(left)


def _release_forgotten(model: torch.nn.Module) -> None:
    """An engine of this model that the program has dropped (`del engine`) cannot be destroyed any more by it: this does."""
    cores = {id(core): core for p in model.parameters() if (core := p.__dict__.get("_hydrofoil_engine")) is not None and core.alive}
    if cores:
        gc.collect()  # engines are in cycles: on every rank the same are gone after this
    for core in cores.values():
        if core.owner() is None:
            _let_go(core)


def _is_factory(value: Any) -> bool:
    return callable(value) and not hasattr(value, "step")


DeepSpeedEngine = Engine
