"""One rank of a fine-tuning in Python, the same as `hydrofoil train` does it: MODEL CONFIG TOKENS.npy CONTEXT STEPS OUT.

Writes OUT/rank<n>.json: losses and gradient norms of the steps.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy
import torch
from transformers import LlamaForCausalLM

import hydrofoil

DATA = Path(__file__).resolve().parents[2] / "examples" / "python" / "language_model" / "data.py"
SEED = 1  # what `hydrofoil train` takes without --seed


def load_data_module():
    spec = importlib.util.spec_from_file_location("language_model_data", DATA)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def windows_of_step(data, tokens, context, step, batch_size):
    """Inputs and targets of this rank: its part of the step's windows, in the order that `seed` gives them."""
    train = tokens[: len(tokens) - len(tokens) // data.HOLD_OUT_EVERY]
    num_windows = (len(train) - 1) // context
    micro_batch = batch_size // hydrofoil.comm.get_world_size()
    first = step * batch_size + hydrofoil.comm.get_rank() * micro_batch
    indices = []
    for position in range(first, first + micro_batch):
        epoch, index = divmod(position, num_windows)
        indices.append(data.permuted(index, num_windows, SEED, epoch))
    rows = torch.from_numpy(numpy.stack([train[i * context : (i + 1) * context + 1].astype(numpy.int64) for i in indices]))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def main():
    model_folder, config, tokens_file, context, steps, out = sys.argv[1:]
    hydrofoil.init_distributed()
    data, tokens = load_data_module(), numpy.load(tokens_file)
    model = LlamaForCausalLM.from_pretrained(model_folder, attn_implementation="sdpa")
    engine, *_ = hydrofoil.initialize(model=model, config=config)
    engine.train()
    losses, norms = [], []
    for step in range(int(steps)):
        inputs, targets = windows_of_step(data, tokens, int(context), step, engine.train_batch_size())
        logits = engine(input_ids=inputs, use_cache=False).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
        norms.append(float(engine.get_global_grad_norm()))
    rank = hydrofoil.comm.get_rank()
    Path(out, f"rank{rank}.json").write_text(json.dumps({"losses": losses, "grad_norms": norms}))
    engine.destroy()


if __name__ == "__main__":
    main()
