"""The optimizer that `initialize` returns: hyperparameters for the C++ engine, behind torch.optim's interface."""

from __future__ import annotations

import collections
import contextlib
import copy
import json
import weakref
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Optional

import torch

from hydrofoil import _C, utils
from hydrofoil._optimizer_names import OptimizerNames
from hydrofoil.errors import InvalidArgument, UnknownState

if TYPE_CHECKING:
    from hydrofoil.engine import Engine

__all__ = ["ZeroOptimizer", "check_client", "group_json", "parameter_groups"]


def parameter_groups(model_parameters: Optional[Iterable[Any]], model: torch.nn.Module) -> list[dict[str, Any]]:
    """torch.optim's groups from a list of parameters, of (name, parameter) pairs, or of group dicts."""
    entries = list(model_parameters) if model_parameters is not None else [p for p in model.parameters() if p.requires_grad]
    if not entries:
        entries = [p for p in model.parameters() if p.requires_grad]
    if entries and isinstance(entries[0], dict):
        groups = [dict(group) for group in entries]
    else:
        groups = [{"params": entries}]
    for group in groups:
        params = group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        group["params"] = [p[1] if isinstance(p, tuple) else p for p in params]
    return groups


# These read shapes, norms or histories of whole tensors, which a slice of a flat buffer does not have.
_WHOLE_TENSOR = frozenset(("Adafactor", "FusedLamb", "LAMB", "LARS", "Lamb", "Muon", "SOAP", "Shampoo"))


def check_client(client: Any, sharded: bool) -> None:
    """Raises ValueError where a client optimizer cannot work under the engine, or has a state that could not follow.

    `sharded`: it will get 1-D slices of the fp32 parameters, instead of the parameters in their shapes.
    """
    name = type(client).__name__
    if name in ("LBFGS", "SparseAdam"):
        raise InvalidArgument(f"initialize: optimizer {name} is not supported: the engine calls step() without a closure, with dense gradients")
    if sharded and name in _WHOLE_TENSOR:
        raise InvalidArgument(f"initialize: optimizer {name} works on whole tensors, but under ZeRO stages 1 to 3 an optimizer gets flat slices "
                         "of them; take stage 0, or one that updates each element by itself, such as AdamW, SGD or RMSprop")
    for state in getattr(client, "state", {}).values():
        if float(state["step"]) > 0 if "step" in state else state:
            raise InvalidArgument(f"initialize: optimizer {name} has a state of its own already, which cannot follow to the engine; give a new "
                             "optimizer, and load its state with load_checkpoint")


def _guard_client(optimizer: "ZeroOptimizer") -> list[Any]:
    """The client's own step, state_dict and load_state_dict miss the shards: they raise, and say what to call; removable hooks."""
    owner = weakref.ref(optimizer)  # the user's optimizer does not keep an engine

    def guard(call: str, instead: str) -> Any:
        def hook(client: Any, *_: Any) -> None:
            wrapper = owner()
            if wrapper is not None and not wrapper._client_bound:
                raise InvalidArgument(f"{call}: optimizer {type(client).__name__} belongs to an engine, which holds its state; call {instead}, or "
                                 "destroy the engine first")
        return hook

    guards = {"register_step_pre_hook": guard("step", "engine.step()"),
              "register_state_dict_pre_hook": guard("state_dict", "engine.optimizer.state_dict()"),
              "register_load_state_dict_pre_hook": guard("load_state_dict", "engine.optimizer.load_state_dict(...) or engine.load_checkpoint")}
    client = optimizer._client
    return [getattr(client, register)(hook) for register, hook in guards.items() if hasattr(client, register)]


class ZeroOptimizer(OptimizerNames, torch.optim.Optimizer):
    """Steps the engine's shards. `param_groups` are the source of lr, betas, weight decay, ... and may be changed at any time.

    With `client`, a torch.optim optimizer (or one with its interface) is run on this rank's fp32 shards instead of the fused
    kernels; its groups then are `param_groups`. At stage 0 it sees the parameters in their shapes, else flat slices of them. They
    stand in its groups only while it steps; outside, the groups list the model's parameters. Its state is keyed by the shards.
    """

    def __init__(self, engine: "Engine", kind: Optional[_C.OptimizerKind], groups: list[dict[str, Any]],
                 defaults: dict[str, Any], client: Any = None) -> None:
        self._engine = engine
        self._kind = kind
        self.optimizer = client if client is not None else self
        self._client = client
        self._client_groups: list[list[torch.nn.Parameter]] = []
        self._client_whole: dict[torch.nn.Parameter, int] = {}  # shards that are whole parameters: their index in the model
        self._client_bound = False
        self._client_guards = _guard_client(self) if client is not None else []
        # Optimizer.__init__ would import torch._dynamo with sympy: seconds, and 70 MB a rank. The way of unpickling does not.
        for group in groups:
            for name, value in defaults.items():
                group.setdefault(name, value)
        # A client's list is shared: schedulers of the user's hold its dicts.
        self.__setstate__({"defaults": defaults, "state": collections.defaultdict(dict),
                           "param_groups": groups if client is None else client.param_groups})

    # -- hyperparameters -----------------------------------------------------------------------------------------------
    def _hyperparameters(self) -> list[_C.Hyperparameters]:
        result = []
        for group in self.param_groups:
            values = _C.Hyperparameters()
            values.lr = float(group["lr"])
            if "betas" in group:
                values.beta1, values.beta2 = (float(beta) for beta in group["betas"])
            for name in ("eps", "weight_decay", "momentum", "dampening"):
                if name in group:
                    setattr(values, name, float(group[name]))
            for name in ("nesterov", "bias_correction"):
                if name in group:
                    setattr(values, name, bool(group[name]))
            result.append(values)
        return result

    # -- stepping ------------------------------------------------------------------------------------------------------
    def _bind_client(self) -> None:
        """Makes the parameters over this rank's shards that the client works on; its state, keyed by parameter, stays with them."""
        if not self._engine.core.alive:
            raise InvalidArgument("optimizer: the engine was destroyed")
        shards = self._engine.core.client_shards()
        key = [(s.group, s.value.data_ptr(), s.value.numel()) for s in shards]
        if getattr(self, "_client_key", None) == key:
            return
        if self._client_groups and self._client.state:
            raise InvalidArgument("step: requires_grad of some parameters has changed, and the states of a client optimizer cannot follow "
                             "the new layout; take an optimizer of the config, or build a new engine")
        self._client_key = key
        self._client_groups = [[] for _ in self._client.param_groups]
        self._client_whole = {}
        for shard in shards:
            param = torch.nn.Parameter(shard.value, requires_grad=True)
            self._client_groups[shard.group].append(param)
            if shard.parameter >= 0:
                self._client_whole[param] = shard.parameter
        self._client.state.clear()

    @contextlib.contextmanager
    def _bound_client(self) -> Iterator[None]:
        """Inside, the client's groups list this rank's shards; outside, as they were: what users read and clip is the model's."""
        self._bind_client()
        groups = self._client.param_groups
        if len(groups) != len(self._client_groups):
            raise InvalidArgument("add_param_group: the groups of the optimizer are laid out in initialize; give them all there")
        own = [group["params"] for group in groups]
        for group, params in zip(groups, self._client_groups):
            group["params"] = params
        self._client_bound = True
        try:
            yield
        finally:
            self._client_bound = False
            for group, params in zip(groups, own):
                group["params"] = params

    def _release_client(self) -> None:
        """After the engine's end: whole parameters' states go on with the model's parameters, others are dropped with one line."""
        if self._client is None:
            return
        for guard in self._client_guards:
            guard.remove()
        dropped = 0
        for param in (param for params in self._client_groups for param in params):
            state = self._client.state.pop(param, None)
            if not state:
                continue
            index = self._client_whole.get(param)
            if index is None:
                dropped += 1
                continue
            parameter = self._engine._parameters_list[index]
            # As torch's load_state_dict: states have the dtype of the parameter, "step" its own.
            self._client.state[parameter] = {
                key: value.to(parameter.dtype) if key != "step" and isinstance(value, torch.Tensor) and value.is_floating_point() else value
                for key, value in state.items()}
        self._client_groups, self._client_whole = [], {}
        if dropped and self._engine.global_rank == 0:
            utils.logger.warning("destroy: the states of optimizer %s belong to slices of the parameters and are dropped; it goes on as a "
                                 "new one", type(self._client).__name__)

    def _update(self) -> None:
        core = self._engine.core
        self._opt_called = True  # torch's schedulers warn where no step of the optimizer came before theirs
        if self._client is None:
            core.update_native(self._hyperparameters())
            return
        with self._bound_client():
            position = [0] * len(self._client_groups)
            for shard in core.begin_client_update():
                self._client_groups[shard.group][position[shard.group]].grad = shard.gradient
                position[shard.group] += 1
            try:
                self._client.step()
            finally:
                for params in self._client_groups:
                    for param in params:
                        param.grad = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Use engine.step(); calling this does the same without the learning rate schedule."""
        if closure is not None:
            raise InvalidArgument("step: closures are not supported; call engine.backward and engine.step")
        core = self._engine.core
        if core.begin_step():
            self._update()
        core.finish_step()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        raise InvalidArgument("add_param_group: the groups of a Hydrofoil optimizer are laid out in initialize; give them all there")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of this accumulation window, whatever `set_to_none` says."""
        self._engine.core.zero_grad()

    def backward(self, loss: torch.Tensor, retain_graph: bool = False) -> None:
        self._engine.backward(loss, retain_graph=retain_graph)

    # -- states by name ------------------------------------------------------------------------------------------------
    def _native_state(self, key: str) -> int:
        names = _C.state_names(self._kind, self._hyperparameters())
        if key not in names:
            raise UnknownState(f"unknown optimizer state {key!r}; this optimizer has {', '.join(names) or 'none'}")
        return names.index(key)

    def _client_pieces(self, key: str) -> list[Optional[torch.Tensor]]:
        """The client's states of one name, in the order of core.client_shards(). Collective."""
        self._bind_client()
        position = [0] * len(self._client_groups)
        pieces: list[Optional[torch.Tensor]] = []
        known: dict[str, None] = {}
        for shard in self._engine.core.client_shards():
            state = self._client.state.get(self._client_groups[shard.group][position[shard.group]], {})
            position[shard.group] += 1
            known.update(dict.fromkeys(k for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape == shard.value.shape))
            pieces.append(state[key] if key in known and key in state else None)
        # A rank that owns nothing knows no names: those who know tell it.
        unknown = f"unknown optimizer state {key!r}; this optimizer has {', '.join(known)}" if known and key not in known else ""
        self._engine.core.agree("optimizer state", unknown)
        return pieces

    def full_state(self, core: _C.Engine, index: int, key: str) -> torch.Tensor:
        if self._client is None:
            return core.full_state(index, self._native_state(key))
        return core.full_client_state(index, self._client_pieces(key))

    def set_full_state(self, core: _C.Engine, index: int, key: str, value: torch.Tensor) -> None:
        if self._client is None:
            core.set_full_state(index, self._native_state(key), value)
        else:
            core.set_full_client_state(index, self._client_pieces(key), value)

    # -- state_dict ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """This rank's share: fp32 masters, optimizer states, hyperparameters, loss scaler. Loads at the same world size and stage."""
        core = self._engine.core
        state: dict[Any, Any] = {"loss_scale": core.loss_scale, "optimizer_steps": core.counters.optimizer_steps,
                                 "loss_scaler": core.loss_scaler, "missed_steps": core.missed_steps}
        if self._client is not None:
            with self._bound_client():
                state["client"] = copy.deepcopy(self._client.state_dict()["state"])
        state["shards"] = [[tensor.clone() for tensor in tensors] for tensors in core.owned_tensors()]
        return {"state": state, "param_groups": json.loads(self.hyperparameter_json())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # type: ignore[override]
        """What state_dict() gave, on every rank; the parameters become the masters' values. Collective."""
        core, state = self._engine.core, state_dict["state"]
        if "shards" not in state:
            raise InvalidArgument("load_state_dict: got a state_dict that no Hydrofoil optimizer made: its 'state' has no 'shards'")
        if self._client is None:
            core.allocate_states()
        mine = core.owned_tensors()
        if [tensors[0].shape for tensors in mine] != [tensors[0].shape for tensors in state["shards"]]:
            raise InvalidArgument("load_state_dict: the state was made for other shards (world size, stage, units or model); "
                             "save_checkpoint and load_checkpoint move between them")
        core.missed_steps = state.get("missed_steps", core.missed_steps)
        self.load_hyperparameter_json(json.dumps(state_dict["param_groups"]))
        with torch.no_grad():
            for tensors, saved in zip(mine, state["shards"]):
                for tensor, value in zip(tensors, saved):
                    tensor.copy_(value)
        if self._client is not None:
            with self._bound_client():
                groups, own = self._client.param_groups, self._client.state_dict()
                self._client.load_state_dict({"state": state["client"], "param_groups": own["param_groups"]})
                self._client.param_groups = groups  # load_state_dict made others, and schedulers hold these
        counters = core.counters
        counters.optimizer_steps = state["optimizer_steps"]
        core.load_counters(counters)
        scaler = state.get("loss_scaler")
        if scaler is None or core.dynamic_loss_scale and scaler["hysteresis_left"] < 1:  # an older dict, or a constant scale's
            core.loss_scale = state["loss_scale"]
        else:
            core.load_loss_scaler(state["loss_scale"], **scaler)
        core.publish_masters()

    # -- hyperparameters in checkpoints ------------------------------------------------------------------------------------
    def hyperparameter_json(self) -> str:
        """Groups without their parameters, as a checkpoint keeps them."""
        return group_json(self._client.param_groups if self._client is not None else self.param_groups, report=True)

    def load_hyperparameter_json(self, text: str) -> None:
        groups = self._client.param_groups if self._client is not None else self.param_groups
        saved = json.loads(text)
        if len(saved) != len(groups):
            raise InvalidArgument(f"load_checkpoint: got {len(saved)} parameter groups in the checkpoint, the optimizer has {len(groups)}")
        for group, values in zip(groups, saved):
            for name, value in values.items():
                if isinstance(group.get(name), torch.Tensor):
                    group[name].fill_(value)
                else:
                    group[name] = tuple(value) if isinstance(value, list) else value


def group_json(groups: list[dict[str, Any]], report: bool = False) -> str:
    """Optimizer groups without their parameters as JSON, tensors as numbers; leaves out, and may log, what JSON cannot hold."""
    kept = [{k: _number(v) for k, v in group.items() if k != "params"} for group in groups]
    dropped = sorted({k for group in kept for k, v in group.items() if not _is_json(v)})
    if dropped and report:
        utils.logger.warning("parameter groups: %s: not kept, since JSON cannot hold it", ", ".join(dropped))
    return json.dumps([{k: v for k, v in group.items() if _is_json(v)} for group in kept])


def _number(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_number(item) for item in value]
    return value.item() if isinstance(value, torch.Tensor) and value.dim() == 0 else value


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
