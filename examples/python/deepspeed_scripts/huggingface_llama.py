"""A DeepSpeed script that trains Hugging Face's LlamaForCausalLM, built from a config, on number sequences.

hydrofoil run --nproc 2 huggingface_llama.py --deepspeed --deepspeed_config huggingface_llama.json
"""

import argparse
import math

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

import hydrofoil as deepspeed

VOCABULARY, LENGTH = 96, 48


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hugging Face's Llama under DeepSpeed's API")
    parser.add_argument("--local_rank", type=int, default=-1, help="local rank passed from the launcher")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--save_dir", help="save a checkpoint here, load it again and go on one step")
    parser = deepspeed.add_config_arguments(parser)
    return parser.parse_args()


def make_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def make_batch(generator: torch.Generator, batch_size: int) -> torch.Tensor:
    """Arithmetic sequences: a random start, then steps of 1, 2 or 3, around the vocabulary."""
    starts = torch.randint(0, VOCABULARY, (batch_size, 1), generator=generator)
    strides = torch.randint(1, 4, (batch_size, 1), generator=generator)
    return (starts + strides * torch.arange(LENGTH)) % VOCABULARY


def train_step(model_engine: object, tokens: torch.Tensor) -> float:
    tokens = tokens.to(model_engine.device)
    loss = model_engine(input_ids=tokens, labels=tokens).loss
    model_engine.backward(loss)
    model_engine.step()
    return loss.item()


def main() -> None:
    args = get_args()
    deepspeed.init_distributed()
    torch.manual_seed(0)

    model = make_model()
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model_engine, _, _, _ = deepspeed.initialize(args=args, model=model, model_parameters=model.parameters())

    model_engine.train()
    generator = torch.Generator().manual_seed(1 + dist.get_rank())
    losses = []
    for step in range(args.steps):
        batch_size = model_engine.train_micro_batch_size_per_gpu()
        losses.append(train_step(model_engine, make_batch(generator, batch_size)))
        if dist.get_rank() == 0 and (step + 1) % 5 == 0:
            norm = float(model_engine.get_global_grad_norm())
            print(f"step {step + 1:3d}  loss {losses[-1]:.4f}  gradient norm {norm:.3f}", flush=True)
    assert all(math.isfinite(loss) for loss in losses)

    if args.save_dir:
        model_engine.save_checkpoint(args.save_dir, tag="last", client_state={"step": args.steps})
        path, client_state = model_engine.load_checkpoint(args.save_dir, tag="last")
        assert client_state["step"] == args.steps
        loss = train_step(model_engine, make_batch(generator, model_engine.train_micro_batch_size_per_gpu()))
        if dist.get_rank() == 0:
            print(f"went on from {path} with loss {loss:.4f}")
    if dist.get_rank() == 0:
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
