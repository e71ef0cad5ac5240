"""save_checkpoint and load_checkpoint: what is Python's (buffers, schedules, client optimizers) around the C++ files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Iterator, Optional

import torch

from hydrofoil import _C, _state_json, utils
from hydrofoil.errors import InvalidArgument

if TYPE_CHECKING:
    from hydrofoil.engine import Engine

__all__ = ["consolidated_state_dict", "load", "save", "save_model"]

_EXTRA_STATE = "extra_state"  # name of the text and, with /<number>, of the tensors
_CLIENT_STATE = "client_state"  # its tensors are client_state/<number>
_SCALAR = "number:"  # before the names of states that are Python numbers


@contextlib.contextmanager
def _together(engine: "Engine", what: str) -> Iterator[None]:
    """An error of one rank inside is an error of all, so that no rank waits for one that has failed."""
    try:
        yield
    except Exception as error:
        # What agree raises is a ValueError: its text needs no second name of the class.
        _C.agree(engine.core, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}", what)
        raise
    _C.agree(engine.core, None, what)


def _kind_of_rank(kind: str, rank: int) -> str:
    """Buffers (BatchNorm statistics) and extra states are each rank's own; another number of ranks takes those of rank 0."""
    return kind if rank == 0 else f"{kind}_of_rank_{rank}"


def _buffers(engine: "Engine") -> dict[str, torch.Tensor]:
    """Persistent buffers, each once."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for path, module in engine.module.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found.setdefault(id(buffer), (_full_name(path, name), buffer))
    return dict(found.values())


def _json(value: Any, what: str, tensors: Optional[list[torch.Tensor]] = None) -> str:
    try:
        return _state_json.dumps(value, tensors)
    except (TypeError, RecursionError) as error:
        raise InvalidArgument(f"save_checkpoint: {what} holds something that a checkpoint cannot keep: {error}; it keeps None, numbers, strings, bytes, tensors, "
                         "lists, tuples and dicts of them, no pickles") from None


def _add_tensors(request: _C.SaveRequest, name: str, kind: str, tensors: list[torch.Tensor]) -> None:
    """The tensors of a JSON text, as <name>/<number>."""
    for i, tensor in enumerate(tensors):
        request.add_extra(f"{name}/{i}", kind, tensor.detach())


def _read_tensors(saved: _C.LoadedCheckpoint, name: str, kind: str) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    while (tensor := saved.read_extra(f"{name}/{len(tensors)}", kind)) is not None:
        tensors.append(tensor)
    return tensors


def _full_name(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _source_rank(engine: "Engine", saved: _C.LoadedCheckpoint) -> int:
    return engine.global_rank if saved.world_size == engine.world_size else 0


def _with_extra_state(engine: "Engine", method: str) -> Iterator[tuple[str, torch.nn.Module]]:
    for path, module in engine.module.named_modules():
        if getattr(type(module), method) is not getattr(torch.nn.Module, method):
            yield path, module


def _add_extra_states(request: _C.SaveRequest, engine: "Engine") -> None:
    """What get_extra_state of modules gives: one JSON text of all, as bytes, and the tensors in it."""
    texts: dict[str, str] = {}
    tensors: list[torch.Tensor] = []
    for path, module in _with_extra_state(engine, "get_extra_state"):
        try:
            texts[path] = _state_json.dumps(module.get_extra_state(), tensors)
        except (TypeError, RecursionError) as error:
            raise InvalidArgument(f"save_checkpoint: get_extra_state of module {path!r} ({type(module).__name__}) gives something that JSON "
                             f"cannot keep ({error}); a checkpoint keeps tensors, numbers, strings, lists, tuples and dicts") from None
    if not texts:
        return
    kind = _kind_of_rank("extra_state", engine.global_rank)
    request.add_extra(_EXTRA_STATE, kind, torch.frombuffer(bytearray(_state_json.dumps(texts).encode()), dtype=torch.uint8))
    _add_tensors(request, _EXTRA_STATE, kind, tensors)


def _load_extra_states(engine: "Engine", saved: _C.LoadedCheckpoint, strict: bool) -> None:
    modules = dict(_with_extra_state(engine, "set_extra_state"))
    if not modules:
        return
    kind = _kind_of_rank("extra_state", _source_rank(engine, saved))
    text = saved.read_extra(_EXTRA_STATE, kind)
    if text is None:
        utils.logger.warning("load_checkpoint: %s has no extra states; the model's modules %s keep theirs", saved.directory, list(modules))
        return
    texts = _state_json.loads(bytes(text.tolist()).decode())
    tensors = _read_tensors(saved, _EXTRA_STATE, kind)
    for path, module in modules.items():
        if path in texts:
            module.set_extra_state(_state_json.loads(texts[path], tensors))
        elif strict:
            raise InvalidArgument(f"{saved.directory} has no extra state of module {path!r}")


def _client_optimizer(engine: "Engine") -> str:
    return "" if engine.optimizer is None or engine.optimizer._client is None else type(engine.optimizer._client).__name__


def _client_params(engine: "Engine") -> Iterator[tuple[str, torch.Tensor]]:
    """This rank's shards of a client optimizer, with the names that a checkpoint keeps their states under."""
    optimizer = engine.optimizer
    if optimizer is None or optimizer._client is None:
        return
    optimizer._bind_client()
    for g, params in enumerate(optimizer._client_groups):
        for i, param in enumerate(params):
            yield f"client/{engine.world_size}/{engine.global_rank}/{g}/{i}", param


def _add_client_state(request: _C.SaveRequest, engine: "Engine") -> None:
    """States of a client optimizer belong to this rank's shards: they are kept under the rank's name."""
    for name, param in _client_params(engine):
        for key, value in engine.optimizer._client.state.get(param, {}).items():
            if isinstance(value, torch.Tensor):
                request.add_extra(name, key, value)
            elif isinstance(value, (bool, int, float)):
                request.add_extra(name, _SCALAR + key, torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None))
            elif value is not None:
                raise InvalidArgument(f"the client optimizer's state {key!r} is a {type(value).__name__}; a checkpoint keeps tensors and numbers")


def save(engine: "Engine", directory: str, tag: Optional[str], client_state: dict[str, Any], save_latest: bool,
         exclude_frozen: bool) -> bool:
    with _together(engine, "save_checkpoint: prepare"):
        request = _request(engine, directory, tag, client_state, save_latest, exclude_frozen)
    _C.save_engine(engine.core, request)
    return True


def _request(engine: "Engine", directory: str, tag: Optional[str], client_state: dict[str, Any], save_latest: bool,
             exclude_frozen: bool) -> _C.SaveRequest:
    request = _C.SaveRequest()
    request.directory = directory
    request.tag = str(tag) if tag is not None else f"global_step{engine.global_steps}"
    request.save_latest = save_latest
    request.exclude_frozen = exclude_frozen
    states = {}
    if engine.optimizer is not None:
        states["param_groups"] = engine.optimizer.hyperparameter_json()
    if engine.lr_scheduler is not None:
        state = {k: v for k, v in engine.lr_scheduler.state_dict().items() if not callable(v)}
        states["lr_scheduler"] = _json(state, "the learning rate schedule's state")
    request.states = states
    tensors: list[torch.Tensor] = []
    request.client_state = _json(client_state, "client_state", tensors)
    if engine.global_rank == 0:  # its text is rank 0's too
        _add_tensors(request, _CLIENT_STATE, "tensor", tensors)
    request.client_optimizer = _client_optimizer(engine)
    for name, buffer in _buffers(engine).items():
        request.add_extra(name, _kind_of_rank("buffer", engine.global_rank), buffer)
    _add_extra_states(request, engine)
    _add_client_state(request, engine)
    return request


def save_model(engine: "Engine", directory: str, filename: str, exclude_frozen: bool) -> bool:
    if engine.zero_optimization_stage() == 3 and engine.world_size > 1 and not engine.options.gather_16bit_weights_on_model_save:
        utils.logger.warning("save_16bit_model: nothing is saved: zero_optimization.stage3_gather_16bit_weights_on_model_save is false")
        return False
    if not filename.endswith(".safetensors"):
        raise InvalidArgument(f"save_16bit_model: save_filename: got {filename!r}, expected a name that ends in .safetensors (no pickles)")
    buffers = _C.SaveRequest()
    buffers.exclude_frozen = exclude_frozen
    for name, buffer in _buffers(engine).items():
        buffers.add_extra(name, "buffer", buffer)
    _C.save_model(engine.core, os.path.join(directory, filename), buffers)
    return True


def consolidated_state_dict(engine: "Engine", exclude_frozen: bool) -> Optional[dict[str, Any]]:
    """The model's state dict on rank 0, in CPU memory; None elsewhere. One module's own parameters are gathered at a time. Collective."""
    from hydrofoil.zero import GatheredParameters

    is_writer = engine.global_rank == 0
    state: dict[str, Any] = {}
    copies: dict[int, torch.Tensor] = {}  # tied parameters stay one tensor
    for path, module in engine.module.named_modules(remove_duplicate=False):
        own = {name: p for name, p in module._parameters.items() if p is not None and (p.requires_grad or not exclude_frozen)}
        with GatheredParameters([p for p in own.values() if id(p) not in copies]):
            for name, parameter in own.items():
                if id(parameter) not in copies:
                    copies[id(parameter)] = parameter.detach().cpu().clone() if is_writer else parameter
                state[_full_name(path, name)] = copies[id(parameter)]
        if not is_writer:
            continue
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                state[_full_name(path, name)] = buffer.detach().cpu().clone()
    if not is_writer:
        return None
    for path, module in _with_extra_state(engine, "get_extra_state"):
        state[_full_name(path, "_extra_state")] = module.get_extra_state()
    return state


def _check_client_state(engine: "Engine", saved: _C.LoadedCheckpoint) -> None:
    if not _client_optimizer(engine) or saved.world_size == engine.world_size:
        return
    if '"client"' not in saved.states.get("optimizer", '"client"'):
        return  # load_engine says that it is another optimizer
    raise InvalidArgument(
        f"load_checkpoint: the client optimizer's state was saved by {saved.world_size} ranks and cannot be read by "
        f"{engine.world_size}; pass load_optimizer_states=False, or use an optimizer of the config, which any world size reads")


def _load_client_state(engine: "Engine", saved: _C.LoadedCheckpoint) -> None:
    for name, param in _client_params(engine):
        state: dict[str, Any] = {}
        for kind in saved.kinds(name):
            value = saved.read_extra(name, kind)
            if value.dim() == 1 and value.shape != param.shape:
                raise InvalidArgument(
                    f"the client optimizer's state {kind!r} was saved for shards of another layout (stage, unit_min_bytes or parameter "
                    f"groups): got {value.numel()} elements, expected {param.numel()}; pass load_optimizer_states=False")
            state[kind.removeprefix(_SCALAR)] = value.item() if kind.startswith(_SCALAR) else value
        if state:
            engine.optimizer._client.state[param] = state


def load(engine: "Engine", directory: str, tag: Optional[str], strict: bool, load_optimizer_states: bool,
         load_lr_scheduler_states: bool) -> tuple[Optional[str], Optional[dict[str, Any]]]:
    saved = _C.open_checkpoint(engine.core, directory, None if tag is None else str(tag))
    if saved is None:
        utils.logger.warning("load_checkpoint: %s has no file 'latest': nothing is loaded", directory)
        return None, None
    if load_optimizer_states:
        _check_client_state(engine, saved)
    _C.load_engine(engine.core, saved, strict, load_optimizer_states and engine.optimizer is not None, _client_optimizer(engine))
    with _together(engine, "load_checkpoint: the rest"):
        _load_rest(engine, saved, strict, load_optimizer_states, load_lr_scheduler_states)
    engine.loaded_checkpoint_dp_world_size, engine.loaded_checkpoint_mp_world_size = saved.world_size, 1
    return saved.directory, _state_json.loads(saved.client_state, _read_tensors(saved, _CLIENT_STATE, "tensor"))


def _load_rest(engine: "Engine", saved: _C.LoadedCheckpoint, strict: bool, load_optimizer_states: bool,
               load_lr_scheduler_states: bool) -> None:
    for name, buffer in _buffers(engine).items():
        value = saved.read_extra(name, _kind_of_rank("buffer", _source_rank(engine, saved)))
        if value is None:
            if strict:
                raise InvalidArgument(f"{saved.directory} has no buffer {name}")
            continue
        if value.shape != buffer.shape:
            raise InvalidArgument(f"buffer {name}: got shape {list(value.shape)} in the checkpoint, the model has {list(buffer.shape)}")
        with torch.no_grad():
            buffer.copy_(value)
    _load_extra_states(engine, saved, strict)
    states = saved.states
    if load_optimizer_states and engine.optimizer is not None:
        if "param_groups" in states:
            engine.optimizer.load_hyperparameter_json(states["param_groups"])
        _load_client_state(engine, saved)
    if load_lr_scheduler_states and engine.lr_scheduler is not None and "lr_scheduler" in states:
        engine.lr_scheduler.load_state_dict(_state_json.loads(states["lr_scheduler"]))
