"""Traces one micro step with fake tensors: what it keeps for backward, and how many operations it takes."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, Callable, Iterator, Optional

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensor, FakeTensorMode
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
        self.when_freed: Callable[[int], None] = lambda key: None
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
        self.when_freed(key)


class _Calls:
    """Which module runs, and what each of them computes and keeps."""

    def __init__(self, modules: list[torch.nn.Module], operators: _Operators) -> None:
        self.costs = [_C.ModuleCost() for _ in modules]
        self.backward = _C.ComputeWork()  # of all modules
        self.in_backward: set[int] = {0}  # modules whose output needs gradients
        self._number = {id(module): index for index, module in enumerate(modules)}
        self._running = [0]
        self._kept: dict[int, tuple[int, int]] = {}  # storages: the module that keeps them, bytes
        self._in_forward = True  # what a checkpoint computes again in backward is not kept from the forward
        self._operators = operators
        operators.work = self.costs[0].forward
        operators.when_freed = self._forget

    def __deepcopy__(self, memo: Any) -> "_Calls":
        return self  # of the hooks of a copied module

    def enter(self, module: torch.nn.Module, _: Any) -> None:
        # A copy of a module, made inside the step, has its hooks too: its work is the caller's.
        self._running.append(self._number.get(id(module), self._running[-1]))
        self._count_here()

    def leave(self, module: torch.nn.Module, _: Any, output: Any) -> None:
        number = self._number.get(id(module), self._running[-1])
        if len(self._running) > 1 and self._running[-1] == number:  # not where a hook before enter() raised
            self._running.pop()
        if any(leaf.requires_grad for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)):
            self.in_backward.add(number)
        self._count_here()

    def _count_here(self) -> None:
        if self._in_forward:
            self._operators.work = self.costs[self._running[-1]].forward

    def begin_backward(self) -> None:
        self._in_forward = False
        self._operators.work = self.backward

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        num_bytes = self._operators._known.get(key, 0)
        if self._in_forward and key not in self._kept and num_bytes > 0:
            self._kept[key] = self._running[-1], num_bytes
            self.costs[self._running[-1]].saved_bytes += num_bytes
        return tensor

    def _forget(self, key: int) -> None:
        """A graph that is dropped before the backward keeps nothing."""
        number, num_bytes = self._kept.pop(key, (0, 0))
        if self._in_forward:
            self.costs[number].saved_bytes -= num_bytes

    def share_backward(self) -> None:
        """A backward's work goes to the modules that have one, as their forwards' does."""
        for kind in ("product_flops", "attention_flops", "traffic_bytes", "num_calls"):
            total = getattr(self.backward, kind)
            weights = [getattr(cost.forward, kind) if number in self.in_backward else 0.0 for number, cost in enumerate(self.costs)]
            if sum(weights) == 0:
                weights[0] = 1.0
            for cost, weight in zip(self.costs, weights):
                setattr(cost.backward, kind, total * weight / sum(weights))


def trace_costs(model: torch.nn.Module, modules: list[torch.nn.Module], dtype: Optional[torch.dtype],
                step: Callable[[torch.nn.Module], torch.Tensor]) -> list[_C.ModuleCost]:
    """A cost for each of `modules`. The forward's are those of the module itself, what its backward takes beyond what is
    kept stands at the root. `step` gets `model` itself, whose parameters and buffers are fake until its backward has ended."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    operators = _Operators()
    calls = _Calls(modules, operators)
    inputs = _FakeInputs()
    made: dict[int, torch.Tensor] = {}

    def to_fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            made[id(tensor)] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted, device="cpu" if tensor.is_meta else tensor.device,
                                                   requires_grad=tensor.requires_grad)
        return made[id(tensor)]

    # oneDNN's recurrent layers are one operator that says neither what it keeps nor what it computes.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad(), _without_onednn(), _unchanged(model):
        state = {name: to_fake(tensor) for name, tensor in {**parameters, **buffers}.items()}
        for tensor in state.values():
            operators.ignore(tensor)
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(_drop_gradient)
        handles = []
        for module in modules:
            handles.append(module.register_forward_pre_hook(inputs.replace, with_kwargs=True))
            handles.append(module.register_forward_pre_hook(calls.enter))
            handles.append(module.register_forward_hook(calls.leave, always_call=True))
        try:
            # Over the backward too: checkpoints run modules again in it.
            with _reparametrize_module(model, state), torch.autograd.graph.saved_tensors_hooks(calls.pack, lambda tensor: tensor), operators:
                loss = _call(model, step)
                calls.begin_backward()
                loss.backward()
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ValueError(f"plan: step: {error} reads a value of a tensor (.item(), `if tensor:`, nonzero, a mask as an index), but a plan computes "
                             "no values: leave `step` out, or pass one without that") from error
        finally:
            for handle in handles:
                handle.remove()
        operators.when_freed = lambda key: None
        total_kept = sum(cost.saved_bytes for cost in calls.costs)
        calls.costs[0].backward_workspace_bytes = max(operators.peak - total_kept, 0)
        calls.share_backward()
    return calls.costs


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags() warns about settings that it does not change
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@contextlib.contextmanager
def _unchanged(model: torch.nn.Module) -> Iterator[None]:
    """What a forward keeps in its modules (caches, counters, buffers made on first use) is fake here: it goes again."""

    def copy_of(value: Any) -> Any:
        return value.copy() if type(value) in (dict, list, set) else value

    before = [(module, {name: (value, copy_of(value)) for name, value in module.__dict__.items()}) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in module.__dict__.keys() - attributes.keys():
                del module.__dict__[name]
            for name, (value, content) in attributes.items():
                if type(value) in (dict, set):
                    value.clear()
                    value.update(content)
                elif type(value) is list:
                    value[:] = content
                module.__dict__[name] = value


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None  # the engine takes it into its bucket


class _FakeInputs:
    """Real tensors that a step hands to modules, as fake ones: one for each, however often it comes."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # with the real one, whose id it keeps

    def __deepcopy__(self, memo: Any) -> "_FakeInputs":
        return self

    def replace(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Optional[tuple[tuple[Any, ...], dict[str, Any]]]:
        if all(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)):
            return None
        return tree_map_only(torch.Tensor, self._fake, (args, kwargs))

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._made:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu" if tensor.is_meta else tensor.device, requires_grad=tensor.requires_grad)
            self._made[id(tensor)] = tensor, fake
        return self._made[id(tensor)][1]


def _call(model: torch.nn.Module, step: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    loss = step(model)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"plan: step: got {got}, expected it to return the loss, a scalar that needs gradients")
    return loss
