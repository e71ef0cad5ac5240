"""What a rank runs for test_cpp_parity: the Python side of `hydrofoil train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import hydrofoil

ROOT = Path(__file__).resolve().parents[2]


def train(directory: str, text: str, config: dict[str, Any], steps: int, save: str, context: int, seed: int,
          load: str | None = None) -> dict[str, Any]:
    """Losses (a step: mean of this rank's micro-batches) and norms; writes a checkpoint that C++ can resume from."""
    sys.path.insert(0, str(ROOT / "examples/python/language_model"))
    from data import Batches, load_corpus
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    engine, *_ = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=config)
    accumulation = engine.gradient_accumulation_steps()
    corpus = load_corpus(text, context)
    world_size, rank = engine.world_size, engine.global_rank
    batches = Batches(corpus.train, context, config["train_batch_size"], seed, rank, world_size, accumulation)
    first = 0
    if load is not None:
        _, state = engine.load_checkpoint(load)
        first = state["step"]
    losses, norms = [], []
    for step in range(first, steps):
        total = 0.0
        for micro in range(accumulation):
            tokens, targets = batches.micro_batch(step, micro)
            logits = engine(tokens, use_cache=False).logits.float()
            loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))
            engine.backward(loss)
            engine.step()
            total += loss.item()
        losses.append(total / accumulation)
        norms.append(float(engine.get_global_grad_norm()))
    tokens_per_step = config["train_batch_size"] * context
    state = {"context": context, "num_tokens": len(corpus.train), "seed": seed, "tokens_per_step": tokens_per_step, "step": steps}
    engine.save_checkpoint(save, tag=f"step{steps}", client_state=state)
    engine.destroy()
    return {"losses": losses, "norms": norms}
