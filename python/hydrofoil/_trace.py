"""Traces one micro step with fake tensors: what it keeps for backward, and how many operations it takes."""

from __future__ import annotations

import weakref
from typing import Any, Callable, Optional

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from hydrofoil import _C
from hydrofoil._flops import operator_flops

__all__ = ["trace_costs"]


class _Operators(TorchDispatchMode):
    """Bytes of the living storages that operators make, and the most there were; the operators' work, added to `work`."""

    def __init__(self) -> None:
        super().__init__()
        self.in_use = 0
        self.peak = 0
        self.work = _C.ComputeWork()
        self._known: dict[int, int] = {}

    def ignore(self, tensor: torch.Tensor) -> None:
        self._known[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.work.num_calls += 1
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        product, attention = operator_flops(function, args, kwargs, result)
        self.work.product_flops += product
        self.work.attention_flops += attention
        for tensor in tree_flatten(result)[0]:
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self._known:
                continue
            num_bytes = storage.nbytes()
            self._known[storage._cdata] = num_bytes
            self.in_use += num_bytes
            self.work.traffic_bytes += 2 * num_bytes  # written, and read once
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
        operators = _Operators()
        for tensor in state.values():
            operators.ignore(tensor)
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(_drop_gradient)
        kept: dict[int, int] = {}
        in_forward = [True]  # what a checkpoint computes again in backward is not kept from the forward
        running = [0]
        handles = []

        def enter(module: torch.nn.Module, _: Any) -> None:
            running.append(number[id(module)])
            if in_forward[0]:
                operators.work = costs[running[-1]].forward

        def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
            running.pop()
            if in_forward[0]:
                operators.work = costs[running[-1]].forward

        for module in modules:
            handles.append(module.register_forward_pre_hook(_fake_inputs, with_kwargs=True))
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            key = tensor.untyped_storage()._cdata
            if in_forward[0] and key not in kept and operators._known.get(key, 0) > 0:
                kept[key] = operators._known[key]
                costs[running[-1]].saved_bytes += kept[key]
            return tensor

        backward = _C.ComputeWork()
        operators.work = costs[0].forward
        try:
            # Over the backward too: checkpoints run modules again in it.
            with _reparametrize_module(model, state), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), operators:
                loss = _call(model, step)
                in_forward[0] = False
                operators.work = backward
                loss.backward()
        except DataDependentOutputException as error:
            raise ValueError(f"plan: step: {error} reads a value of a tensor (.item(), `if tensor:`, nonzero), but a plan computes no values: "
                             "leave `step` out, or pass one without that") from error
        finally:
            for handle in handles:
                handle.remove()
        total_kept = sum(cost.saved_bytes for cost in costs)
        costs[0].backward_workspace_bytes = max(operators.peak - total_kept, 0)
        for kind in ("product_flops", "attention_flops", "traffic_bytes", "num_calls"):
            _share(costs, kind, getattr(backward, kind))
    return costs


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None  # the engine takes it into its bucket


def _share(costs: list[_C.ModuleCost], kind: str, total: float) -> None:
    """A backward's work goes to the modules as their forwards' does."""
    forward = [getattr(cost.forward, kind) for cost in costs]
    if sum(forward) == 0:
        forward[0] = 1.0
    for cost, work in zip(costs, forward):
        setattr(cost.backward, kind, total * work / sum(forward))


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
