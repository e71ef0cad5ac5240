"""The whole optimizer step of the engine against the same done with torch's fused AdamW, in turns in one process.

    python benchmarks/micro/optimizer_step.py --json FILE [--threads 1 2]

torch: global norm and finiteness, clipping, fused AdamW on fp32 masters, 16-bit copy, gradients zeroed; with its multi-tensor operators
throughout. Hydrofoil: engine.step(). Backward is not timed; the parameters of both must stay equal. One thread: CPU time, which others on
the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import hydrofoil

CLIP, LR, DECAY = 1.0, 1e-3, 0.01
SHAPES = [(1024, 1024)] * 12 + [(4096, 1024), (1024,), (4096,)]
# Dtypes of the parameters, of the gradients that a step finds, and of the engine's optimizer states; torch's are fp32.
CASES = {
    "fp32": (torch.float32, torch.float32, torch.float32),
    "bf16": (torch.bfloat16, torch.float32, torch.float32),
    "bf16, bf16 gradients": (torch.bfloat16, torch.bfloat16, torch.float32),
    "bf16, bf16 gradients and states": (torch.bfloat16, torch.bfloat16, torch.bfloat16),
}


class Parameters(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.nn.Parameter(torch.randn(shape) * 0.02) for shape in SHAPES)


class Torch:
    def __init__(self, model: Parameters, dtype: torch.dtype, gradient_dtype: torch.dtype) -> None:
        self.masters = [torch.nn.Parameter(p.detach().to(dtype).float().clone()) for p in model.weights]  # of what the model holds
        self.model = None if dtype == torch.float32 else [p.detach().to(dtype) for p in self.masters]
        # What backward accumulates into: fp32, or the 16-bit gradients of the model.
        self.low_gradients = None if gradient_dtype == torch.float32 else [torch.zeros_like(p) for p in self.model]
        for p in self.masters:
            p.grad = torch.zeros_like(p)
        self.optimizer = torch.optim.AdamW(self.masters, lr=LR, weight_decay=DECAY, fused=True)

    def backward(self, gradients: list[torch.Tensor]) -> None:
        torch._foreach_copy_(self.low_gradients or [p.grad for p in self.masters], gradients)

    def step(self) -> None:
        if self.low_gradients:
            torch._foreach_copy_([p.grad for p in self.masters], self.low_gradients)
        norm = torch.nn.utils.clip_grad_norm_(self.masters, CLIP, foreach=True)
        if norm.isfinite().item():
            self.optimizer.step()
            if self.model:
                torch._foreach_copy_(self.model, [p.detach() for p in self.masters])
        torch._foreach_zero_(self.low_gradients or [p.grad for p in self.masters])

    def values(self) -> list[torch.Tensor]:
        return self.model or [p.detach() for p in self.masters]


class Engine:
    def __init__(self, model: Parameters, dtype: torch.dtype, gradient_dtype: torch.dtype, state_dtype: torch.dtype) -> None:
        config = {
            "train_micro_batch_size_per_gpu": 1, "gradient_clipping": CLIP, "steps_per_print": 10**9,
            "optimizer": {"type": "AdamW", "params": {"lr": LR, "weight_decay": DECAY}},
            "bf16": {"enabled": dtype == torch.bfloat16, "bf16_optimizer_states": state_dtype == torch.bfloat16},
            "data_types": {"grad_accum_dtype": "fp32" if gradient_dtype == torch.float32 else "bf16"},
        }
        self.engine, *_ = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=config)

    def backward(self, gradients: list[torch.Tensor]) -> None:
        self.engine.backward(sum((p * g).sum() for p, g in zip(self.engine.module.weights, gradients)))

    def step(self) -> None:
        self.engine.step()

    def values(self) -> list[torch.Tensor]:
        return [p.detach() for p in self.engine.module.weights]


def measure(case: str, threads: int, rounds: int) -> dict[str, float | str]:
    dtype, gradient_dtype, state_dtype = CASES[case]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Parameters()
    competitors = {"torch": Torch(model, dtype, gradient_dtype), "hydrofoil": Engine(model, dtype, gradient_dtype, state_dtype)}
    clock = time.process_time if threads == 1 else time.perf_counter
    gradients = [(torch.randn(shape) * 1e-3).to(dtype) for shape in SHAPES]
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for round_number in range(rounds + 2):
        for name, competitor in competitors.items():
            competitor.backward(gradients)
            started = clock()
            competitor.step()
            if round_number >= 2:
                times[name].append(clock() - started)
    for ours, theirs in zip(competitors["hydrofoil"].values(), competitors["torch"].values()):
        # One rounding of a 16-bit copy may fall to the other side where the order of the norm's sum differs.
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
                                   atol=1e-6 if state_dtype == torch.float32 else LR * (rounds + 2) * 2**-6)  # each update by a last bit of both states
    competitors["hydrofoil"].engine.destroy()
    numel = sum(g.numel() for g in gradients)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"case": case, "threads": threads, "numel": numel, **{f"{name}_s": value for name, value in medians.items()},
            "ratio": medians["torch"] / medians["hydrofoil"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        for threads in arguments.threads:
            row = measure(case, threads, arguments.rounds)
            rows.append(row)
            print(f"{case:<32}{threads} threads  torch {row['torch_s'] * 1e3:>7.1f} ms  hydrofoil {row['hydrofoil_s'] * 1e3:>7.1f} ms  {row['ratio']:.2f}x", flush=True)
    arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
