"""Text from a trained model, byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def generate(
    forward: Callable[[Tensor], Tensor],
    prompt: bytes,
    num_bytes: int,
    context: int,
    device: torch.device,
    seed: int,
    temperature: float = 0.7,
    keep_going: Callable[[], bool] = lambda: True,
) -> bytes:
    """`num_bytes` bytes that follow `prompt`, drawn at `temperature`; fewer where `keep_going` says no.

    `forward` maps [1, length] bytes to logits. Under ZeRO-3 it gathers parameters, so every rank calls this with the
    same arguments and a `keep_going` that answers the same everywhere. Raises ValueError for an empty prompt.
    """
    if not prompt:
        raise ValueError("the prompt is empty; the model continues at least one byte")
    random = torch.Generator().manual_seed(seed)
    text = list(prompt)
    with torch.no_grad():
        for _ in range(num_bytes):
            if not keep_going():
                break
            logits = forward(torch.tensor([text[-context:]], device=device))[0, -1].float().cpu()
            text.append(int(torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=random)))
    return bytes(text[len(prompt) :])
