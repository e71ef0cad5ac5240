"""FLOPs of torch operators, by torch's own formulas (torch.utils.flop_counter): products, convolutions and attention."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

__all__ = ["operator_flops"]


def operator_flops(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> tuple[float, float]:
    """FLOPs of one operator in products (matrix products, convolutions) and in fused attention, forward or backward; 0 for all others.

    Fused attention (Dao, 2023) computes the weights again in backward; a causal mask leaves half of them out.
    """
    if "dot_product" in function.name() and "attention" in function.name():
        return 0.0, _attention_flops(function, args)
    formula = flop_registry.get(function.overloadpacket)
    return (0.0 if formula is None else float(formula(*args, **kwargs, out_val=result))), 0.0


def _attention_flops(function: Any, args: tuple[Any, ...]) -> float:
    named = dict(zip((argument.name for argument in function._schema.arguments), args))
    shapes = [named[name].shape for name in ("query", "key", "value")]
    is_backward = "grad_out" in named or "grad_out_" in named
    flops = sdpa_backward_flop_count(shapes[0], *shapes) if is_backward else sdpa_flop_count(*shapes)
    return flops / 2 if named.get("is_causal") is True else float(flops)
