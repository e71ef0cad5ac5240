"""Traces one micro step with fake tensors: what it keeps for backward, and how many operations it takes."""

from __future__ import annotations

import weakref
from typing import Any, Callable, Optional

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from hydrofoil import _C

__all__ = ["trace_costs"]


class _Storages(TorchDispatchMode):
    """Bytes of the living storages that operators make, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.in_use = 0
        self.peak = 0
        self.traffic = 0
        self.calls = 0
        self._known: dict[int, int] = {}

    def ignore(self, tensor: torch.Tensor) -> None:
        self._known[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        result = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self._known:
                continue
            num_bytes = storage.nbytes()
            self._known[storage._cdata] = num_bytes
            self.in_use += num_bytes
            self.traffic += 2 * num_bytes  # written, and read once
            self.peak = max(self.peak, self.in_use)
            weakref.finalize(storage, self._free, storage._cdata)
        return result

    def _free(self, key: int) -> None:
        self.in_use -= self._known.pop(key, 0)


def trace_costs(model: torch.nn.Module, modules: list[torch.nn.Module], dtype: Optional[torch.dtype],
                step: Callable[[torch.nn.Module], torch.Tensor]) -> list[_C.ModuleCost]:
    """A cost for each of `modules`. The forward's are those of the module itself, what its backward takes beyond what is
    kept stands at the root. `step` gets `model` itself, whose parameters and buffers are fake until its backward has ended."""
    costs = [_C.ModuleCost() for _ in modules]
    number = {id(module): index for index, module in enumerate(modules)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        made: dict[int, torch.Tensor] = {}

        def to_fake(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in made:
                wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
                made[id(tensor)] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted, device="cpu" if tensor.is_meta else tensor.device,
                                                       requires_grad=tensor.requires_grad)
            return made[id(tensor)]

        state = {name: to_fake(tensor) for name, tensor in {**parameters, **buffers}.items()}
        storages = _Storages()
        for tensor in state.values():
            storages.ignore(tensor)
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(_drop_gradient)
        kept: dict[int, int] = {}
        in_forward = [True]  # what a checkpoint computes again in backward is not kept from the forward
        running = [0]
        handles = []
        for module in modules:
            handles.append(module.register_forward_pre_hook(_fake_inputs, with_kwargs=True))
            handles.append(module.register_forward_pre_hook(lambda m, _: running.append(number[id(m)])))
            handles.append(module.register_forward_hook(lambda m, _, __: _pop(running), always_call=True))

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            key = tensor.untyped_storage()._cdata
            if in_forward[0] and key not in kept and storages._known.get(key, 0) > 0:
                kept[key] = storages._known[key]
                costs[running[-1]].saved_bytes += kept[key]
            return tensor

        flops = FlopCounterMode(display=False)
        try:
            # Over the backward too: checkpoints run modules again in it.
            with _reparametrize_module(model, state), flops, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), storages:
                loss = _call(model, step)
                in_forward[0] = False
                forward_flops = flops.get_total_flops()
                forward_traffic, forward_calls = storages.traffic, storages.calls
                loss.backward()
        except DataDependentOutputException as error:
            raise ValueError(f"plan: step: {error} reads a value of a tensor (.item(), `if tensor:`, nonzero), but a plan computes no values: "
                             "leave `step` out, or pass one without that") from error
        finally:
            for handle in handles:
                handle.remove()
        backward_flops = flops.get_total_flops() - forward_flops
        total_kept = sum(cost.saved_bytes for cost in costs)
        costs[0].backward_workspace_bytes = max(storages.peak - total_kept, 0)
        weights = _flop_shares(modules)
        for cost, share in zip(costs, weights):
            cost.forward_flops = forward_flops * share
            cost.backward_flops = backward_flops * share
            cost.forward_traffic_bytes = forward_traffic * share
            cost.backward_traffic_bytes = (storages.traffic - forward_traffic) * share
            cost.forward_calls = forward_calls * share
            cost.backward_calls = (storages.calls - forward_calls) * share
    return costs


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None  # the engine takes it into its bucket


def _pop(running: list[int]) -> None:
    running.pop()


def _flop_shares(modules: list[torch.nn.Module]) -> list[float]:
    """The part of each module, by the elements of its own matrices."""
    sizes = [sum(p.numel() for p in module._parameters.values() if p is not None and p.dim() > 1)
             if not isinstance(module, torch.nn.Embedding) else 0 for module in modules]
    total = sum(sizes)
    return [size / total for size in sizes] if total > 0 else [1.0] + [0.0] * (len(modules) - 1)


def _fake_input(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, FakeTensor):
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu" if tensor.is_meta else tensor.device)


def _fake_inputs(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Optional[tuple[tuple[Any, ...], dict[str, Any]]]:
    if all(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)):
        return None
    return tree_map_only(torch.Tensor, _fake_input, (args, kwargs))


def _call(model: torch.nn.Module, step: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    loss = step(model)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"plan: step: got {got}, expected it to return the loss, a scalar that needs gradients")
    return loss
