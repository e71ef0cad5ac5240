"""AdamW updates of the peers on one flat fp32 tensor, in turns in one process: torch's fused one and DeepSpeed's CPUAdam.

    OMP_NUM_THREADS=2 benchmarks/.peers/bin/python benchmarks/micro/peer_adam.py --json FILE

bench_kernels measures torch's beside Hydrofoil's: torch is the common measure, on huge pages there and here. DeepSpeed's operator has an OpenMP of its own: the
environment says how many threads both take. One thread: CPU time, which others on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from deepspeed.ops.adam import DeepSpeedCPUAdam  # noqa: E402

NUMEL = 1 << 24


def huge(value: float) -> torch.Tensor:
    memory = mmap.mmap(-1, 4 * NUMEL)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).fill_(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    makers = {"torch": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01, fused=True),
              "deepspeed": lambda p: DeepSpeedCPUAdam(p, lr=1e-3, weight_decay=0.01, adamw_mode=True)}
    optimizers = {}
    for name, make in makers.items():
        parameter = torch.nn.Parameter(huge(0.5))
        parameter.grad = huge(1e-3)
        optimizers[name] = make([parameter])
        optimizers[name].step()
        state = optimizers[name].state[parameter]
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = huge(0.0).copy_(state[key])
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for round_number in range(arguments.rounds + 2):
        for name, optimizer in optimizers.items():
            started = clock()
            optimizer.step()
            if round_number >= 2:
                times[name].append(clock() - started)
    values = [optimizer.param_groups[0]["params"][0].detach() for optimizer in optimizers.values()]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
    medians = {f"{name}_s": statistics.median(values) for name, values in times.items()}
    row = {"threads": torch.get_num_threads(), "numel": NUMEL, **medians, "ratio": medians["torch_s"] / medians["deepspeed_s"]}
    print(f"{row['threads']} threads  torch {row['torch_s'] * 1e3:.1f} ms  deepspeed {row['deepspeed_s'] * 1e3:.1f} ms  {row['ratio']:.2f}x of torch's speed", flush=True)
    arguments.json.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
