"""Stages 0 to 3 on a GPU against plain PyTorch on it: one rank over NCCL, and two ranks that share the GPU over Gloo."""

from __future__ import annotations

import pytest
import torch

import hydrofoil
from tests.support.launcher import environment, program, run  # noqa: F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

SCRIPT = """
import copy, faulthandler, os, sys

faulthandler.enable()

import torch
import torch.distributed as dist

import hydrofoil

stage, dtype, accumulation = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
STEPS, BATCH, WIDTH = 12, 4, 37
hydrofoil.init_distributed(None if int(os.environ["WORLD_SIZE"]) == 1 else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(0)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(53, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(3))
        self.head = torch.nn.Linear(WIDTH, 53, bias=False)
        self.head.weight = self.embedding.weight
        self.blocks[1].up.weight.requires_grad_(False)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return torch.nn.functional.cross_entropy(self.head(x).float().flatten(0, 1), targets.flatten())


torch.manual_seed(1)
model = Model().cuda()
plain = copy.deepcopy(model)
tokens = torch.randint(53, (STEPS, accumulation, world, BATCH, 9), generator=torch.Generator().manual_seed(2)).cuda()

expected = []
low = torch.bfloat16 if dtype == "bf16" else torch.float32
masters = [p.detach().clone() for p in plain.parameters() if p.requires_grad]  # fp32, as the engine's
plain.to(low)
trained = [p for p in plain.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(masters, lr=1e-2, weight_decay=0.01)
for step in tokens:
    sums = [torch.zeros_like(m) for m in masters]
    losses = []
    for micro in step:
        for sample in micro:
            loss = plain(sample[:, :-1], sample[:, 1:])
            losses.append(loss.detach())
            loss.backward()
            for s, p in zip(sums, trained):
                s += p.grad.float() / (accumulation * world)
                p.grad = None
    for m, s in zip(masters, sums):
        m.grad = s
    torch.nn.utils.clip_grad_norm_(masters, 1.0)
    optimizer.step()
    with torch.no_grad():
        for m, p in zip(masters, trained):
            p.copy_(m)
    expected.append(torch.stack(losses).mean().item())

engine, *_ = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config={
    "train_micro_batch_size_per_gpu": BATCH, "gradient_accumulation_steps": accumulation, "gradient_clipping": 1.0,
    "bf16": {"enabled": dtype == "bf16"}, "zero_optimization": {"stage": stage},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "weight_decay": 0.01}}})
got = []
for step in tokens:
    losses = []
    for micro in step:
        loss = engine(micro[rank, :, :-1], micro[rank, :, 1:])
        losses.append(loss.detach())
        engine.backward(loss)
        engine.step()
    mean = torch.stack(losses).mean().cpu()
    dist.all_reduce(mean)
    got.append(mean.item() / world)
engine.save_checkpoint(sys.argv[4])
engine.load_checkpoint(sys.argv[4])
dist.destroy_process_group()
tolerance = 2e-5 if dtype == "fp32" else 2e-2
worst = max(abs(g - e) / abs(e) for g, e in zip(got, expected))
assert worst < tolerance and expected[-1] < 0.9 * expected[0], (worst, got, expected)
if rank == 0:
    print(f"CUDA stage {stage} {dtype} accumulation {accumulation} world {world}: {worst:.1e}, {torch.cuda.max_memory_allocated()} bytes")
"""


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_losses_equal_plain_pytorch(run, tmp_path, world: int, stage: int, dtype: str, accumulation: int) -> None:  # noqa: F811
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    result = run("--nproc", str(world), str(script), str(stage), dtype, str(accumulation), str(tmp_path / "checkpoints"), timeout=90)
    assert result.returncode == 0 and f"world {world}" in result.stdout, result.stdout + result.stderr
    print(result.stdout)


def test_parameters_on_two_devices_are_an_error() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3).cuda(), torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="parameter 1.weight: got device cpu, expected cuda:0 as of 0.weight"):
        hydrofoil.initialize(model=model, config={"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "SGD", "params": {"lr": 0.1}}})
