"""hydrofoil.plan, the estimators of DeepSpeed, the command, and the refusal at initialize."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hydrofoil
from hydrofoil import zero
from tests.support.launcher import find_program

LLAMA = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16,
         "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 2048}


def config(stage: int, **others: Any) -> dict[str, Any]:
    return {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, "optimizer": {"type": "AdamW"}, **others}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.gelu(self.up(x)))


class Model(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(101, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 101, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def loss_of(model: Any) -> torch.Tensor:
    tokens = torch.arange(4 * 32).remainder(101).view(4, 32)
    return F.cross_entropy(model(tokens).float().flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_plan_is_what_the_engine_keeps(bf16: bool) -> None:
    settings = config(0, bf16={"enabled": bf16})
    with torch.device("meta"):
        plan = hydrofoil.plan(Model(), settings)
    engine, *_ = hydrofoil.initialize(model=Model(), config=settings)
    engine.backward(loss_of(engine))
    engine.step()
    report = engine.core.memory_report()
    for name in ("parameter_bytes", "gradient_bytes", "master_bytes", "optimizer_state_bytes", "peak_slot_bytes", "largest_unit_bytes"):
        assert getattr(plan, name) == getattr(report, name), name
    assert plan.num_parameters == sum(p.numel() for p in Model().parameters())
    engine.destroy()


class Counted:
    """Bytes of saved tensors, as a plain forward saves them, parameters apart."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.storages: dict[int, int] = {}
        self._kept: list[torch.Tensor] = []

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self.storages[storage.data_ptr()] = storage.nbytes()
            self._kept.append(tensor)  # no address is used again
        return tensor


def test_a_traced_step_keeps_what_a_real_one_does() -> None:
    model = Model()
    plan = hydrofoil.plan(model, config(3), world_size=4, step=loss_of)
    counted = Counted(model)
    with torch.autograd.graph.saved_tensors_hooks(counted.pack, lambda tensor: tensor):
        loss_of(model).backward()
    saved = sum(counted.storages.values())
    assert abs(plan.peak_activation_bytes / saved - 1) < 0.05, (plan.peak_activation_bytes, saved)
    assert plan.step_seconds > 0
    assert all(not p.is_meta and p.grad is not None for p in model.parameters())  # the model itself was not touched


def test_a_model_on_meta_is_traced_without_memory() -> None:
    with torch.device("meta"):
        model = Model(width=8192, blocks=24)  # 13 G parameters
    plan = hydrofoil.plan(model, config(3, bf16={"enabled": True}), world_size=64, step=loss_of)
    assert plan.num_parameters > 12e9
    assert plan.peak_bytes > plan.state_bytes + plan.peak_slot_bytes / 2
    assert plan.peak_phase in ("forward", "backward")


def test_json_and_table_of_a_plan() -> None:
    plan = hydrofoil.plan(Model(), config(2), world_size=4, num_nodes=2)
    values = json.loads(plan.to_json(with_timeline=True))
    assert values["world_size"] == 4 and values["num_nodes"] == 2 and values["bytes"]["states"] == plan.state_bytes
    assert values["timeline"]["events"]
    assert "optimizer states" in str(plan)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with torch.device("meta"):
        model = Model(width=1024, blocks=8)
    assert hydrofoil.plan(model, config(0), world_size=8, memory="2GiB").state_bytes < 2 << 30
    with pytest.raises(ValueError, match=r"does not fit: a rank needs .* of 300 MiB.*cheapest setting that fits: zero_optimization.stage 1"):
        hydrofoil.plan(model, config(0), world_size=8, memory="300MiB")
    with pytest.raises(ValueError, match='memory: got "300 mib"'):
        hydrofoil.plan(model, config(0), memory="300 mib")


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="step: got a tensor of shape .*, expected it to return the loss"):
        hydrofoil.plan(Model(), config(0), step=lambda model: model(torch.zeros(1, 2, dtype=torch.long)))
    with pytest.raises(ValueError, match="nodes: got 3"):
        hydrofoil.plan(Model(), config(0), world_size=4, num_nodes=3)
    for wrong in ({"memory": -1}, {"memory": float("nan")}, {"memory": 0.5}, {"world_size": 2**70}, {"num_nodes": True}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=re.escape(f"plan: {name}: got {value!r}, expected a whole number from 1 to ")):
            hydrofoil.plan(Model(), config(0), **wrong)


    assert hydrofoil.plan(Model(), config(0), world_size=np.int64(2)).peak_bytes > 0
    masked = torch.tensor([True, False])
    with pytest.raises(ValueError, match="a mask as an index"):
        hydrofoil.plan(Model(), config(0), step=lambda model: model(torch.zeros(2, 3, dtype=torch.long))[masked].sum())


class Caching(nn.Module):
    """Keeps things of its first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.table, self.seen, self.calls = nn.Linear(8, 8), None, [], 0
        self.register_buffer("empty", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(8).float().cos()
            self.register_buffer("late", torch.ones(8))
        self.empty = self.table * 2
        self.calls += 1
        self.seen.append(x)
        return self.linear(x) * self.table + self.empty


def test_a_step_leaves_nothing_in_the_model() -> None:
    model = Caching()
    hydrofoil.plan(model, config(0), step=lambda m: m(torch.zeros(2, 8)).sum())
    assert (model.table, model.seen, model.calls, model.empty) == (None, [], 0, None) and not hasattr(model, "late")
    assert type(model(torch.zeros(2, 8)).sum()) is torch.Tensor
    copied = hydrofoil.plan(Model(), config(0), step=lambda m: loss_of(copy.deepcopy(m)))
    assert copied.step_seconds > 0


@pytest.mark.parametrize("num_frozen", [1, 10])
def test_frozen_layers_before_take_no_backward(num_frozen: int) -> None:
    head = nn.Linear(64, 64, bias=False)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False).requires_grad_(False) for _ in range(num_frozen)), head)
    plan = hydrofoil.plan(model, config(0), roofs=products_only(), step=lambda m: m(torch.zeros(32, 64)).sum())
    backward = [event for event in json.loads(plan.to_json(with_timeline=True))["timeline"]["events"] if event["activity"] == "compute" and event["phase"] == "backward"]
    assert sum(event["end_s"] - event["begin_s"] for event in backward) == pytest.approx(2 * 32 * 64 * 64 / 1e6, rel=0.01)


def products_only() -> Any:
    roofs = hydrofoil._C.Roofs()
    roofs.fp32_flops, roofs.memory_bytes_per_s, roofs.call_s = 1e6, 1e18, 0.0
    return roofs


def test_recurrent_layers_count() -> None:
    plan = hydrofoil.plan(nn.LSTM(16, 16), config(0), roofs=products_only(), step=lambda m: m(torch.zeros(4, 2, 16))[0].sum())
    products = 4 * 2 * 2 * 4 * 16 * (16 + 16)  # steps, batch, multiply-add, gates
    assert 2.2 * products / 1e6 < plan.step_seconds < 3.2 * products / 1e6


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.qkv, self.causal = nn.Linear(32, 96), causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).view(2, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_has_a_roof_of_its_own(causal: bool) -> None:
    def seconds(**roofs: float) -> float:
        given = hydrofoil._C.Roofs()
        for name, value in roofs.items():
            setattr(given, name, value)
        return hydrofoil.plan(Attention(causal), config(0), roofs=given, step=lambda model: model(torch.zeros(2, 16, 32)).sum()).step_seconds

    # Batch 2, 4 heads, 16 x 16 weights, heads of 8: 2 products forward, 5 backward (Dao, 2023).
    flops = 7 * 2 * 2 * 4 * 16 * 16 * 8 / (2 if causal else 1)
    assert seconds(fp32_attention_flops=1e6) - seconds(fp32_attention_flops=2e6) == pytest.approx(flops / 2e6, rel=1e-6)
    assert seconds() == pytest.approx(seconds(fp32_attention_flops=hydrofoil._C.Roofs().fp32_flops), rel=1e-9)


def test_initialize_refuses_before_it_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDROFOIL_MEMORY_LIMIT", "1MiB")
    model = Model(width=128)
    with pytest.raises(ValueError, match=r"initialize\] does not fit: a rank needs .* of 1.00 MiB.*HYDROFOIL_MEMORY_LIMIT=SIZE"):
        hydrofoil.initialize(model=model, config=config(0))
    monkeypatch.setenv("HYDROFOIL_MEMORY_LIMIT", "1GiB")
    engine, *_ = hydrofoil.initialize(model=model, config=config(0))  # the model is as it was
    engine.destroy()


# -- DeepSpeed's estimators ---------------------------------------------------------------------------------------------
def test_estimators_give_the_bytes_of_this_engine() -> None:
    total = 64_000_000  # a multiple of all paddings here
    cpu, gpu = zero.estimate_zero2_model_states_mem_needs(total, num_gpus_per_node=8, num_nodes=2, cpu_offload=False)
    assert (cpu, gpu) == (4 * total * 8, 2 * total + 16 * total // 16)
    cpu, gpu = zero.estimate_zero2_model_states_mem_needs(total, num_gpus_per_node=8, num_nodes=2)
    assert (cpu, gpu) == (4 * total * 8, 2 * total)
    cpu, gpu, largest = zero.estimate_zero3_model_states_mem_needs(total, total // 16, num_gpus_per_node=8, cpu_offload=False,
                                                                   cpu_offload_params=False)
    assert largest == 2 * total // 16
    assert gpu == largest + 18 * total // 8
    assert cpu == 4 * (total // 16) * 8
    with pytest.raises(ValueError, match="largest_layer_params: got 0"):
        zero.estimate_zero3_model_states_mem_needs(10, 0)


def test_estimators_print_as_deepspeed_does(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        model = Model(width=1024, blocks=4)
    zero.estimate_zero2_model_states_mem_needs_all_live(model, num_gpus_per_node=4)
    zero.estimate_zero2_model_states_mem_needs_all_cold(2_851_000_000, num_gpus_per_node=8, num_nodes=2)
    zero.estimate_zero3_model_states_mem_needs_all_live(model, num_gpus_per_node=4)
    zero.estimate_zero3_model_states_mem_needs_all_cold(2_851_000_000, 32_000_000, num_gpus_per_node=8)
    text = capsys.readouterr().out
    assert "HW: Setup with 1 node, 4 GPUs per node." in text
    assert "SW: Model with 2851M total params." in text
    assert "SW: Model with 2851M total params, 32M largest layer params." in text
    assert text.count("  per CPU  |  per GPU |   Options") == 4
    assert "| offload_optimizer=none\n" in text
    assert "offload_param=none, offload_optimizer=none, zero_init=1\n" in text
    assert text.count("(offload is not supported yet)") == 1 + 1 + 4 + 4


# -- against what a process has --------------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", ["compute fp32 0 2", "compute fp32 3 2", "communication bf16 2 2"])
def test_peak_of_a_process(cell: str) -> None:
    """States are exact. The peak leaves out what no plan knows: code that is loaded late, graphs, heaps' odd ends."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "plan" / "accuracy.py"
    result = subprocess.run([sys.executable, str(script), "--json", "--cells", cell], capture_output=True, text=True, timeout=300,
                            env={**os.environ, "HYDROFOIL_PROGRAM": find_program(), "HYDROFOIL_PYTHON": sys.executable})
    assert result.returncode == 0, result.stderr
    planned, measured = (json.loads(result.stdout)[kind] for kind in ("planned", "measured"))
    assert planned["states"] == measured["states"] and planned["slots"] == measured["slots"]
    assert planned["peak"] == pytest.approx(measured["peak"], rel=0.08)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_with_checkpoints_leaves_the_model_alone(reentrant: bool, bf16: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(64, 256)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256)) for _ in range(6))
            self.checkpoints = False

        def training_loss(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant) if self.checkpoints else block(x)
            return x.float().pow(2).mean()

    model = Checkpointed()
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    x = torch.randn(512, 64, dtype=torch.bfloat16 if bf16 else torch.float32)
    settings = config(3, bf16={"enabled": bf16})
    peaks = []
    for model.checkpoints in (False, True):
        plan = hydrofoil.plan(model, settings, world_size=2, step=lambda m: m.training_loss(x))
        peaks.append(plan.peak_bytes - plan.state_bytes)
    assert peaks[1] < 0.95 * peaks[0], peaks
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter, before[name][1]) and parameter.grad is None


def test_a_step_that_reads_values_is_named() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="reads a value of a tensor"):
        hydrofoil.plan(model, config(0), step=lambda m: m(torch.ones(2, 4)).sum() * m(torch.ones(2, 4)).sum().item())


# -- the command --------------------------------------------------------------------------------------------------------
def run(tmp_path: Path, *arguments: str, stage: int = 3) -> subprocess.CompletedProcess[str]:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "ds_config.json").write_text(json.dumps(config(stage, bf16={"enabled": True})))
    return subprocess.run([find_program(), "plan", "--config", str(tmp_path / "ds_config.json"), "--model", str(tmp_path), "--device", "cpu", *arguments],
                          capture_output=True, text=True, timeout=60)


def test_command_prints_table_and_json(tmp_path: Path) -> None:
    table = run(tmp_path, "--world-size", "8")
    assert table.returncode == 0, table.stderr
    assert "bytes a rank" in table.stdout and "predicted" in table.stdout
    printed = run(tmp_path, "--world-size", "8", "--nodes", "2", "--sequence-length", "128", "--json")
    values = json.loads(printed.stdout)
    assert values["world_size"] == 8 and values["bytes"]["peak"] > values["bytes"]["states"]


def test_command_refuses_what_does_not_fit(tmp_path: Path) -> None:
    result = run(tmp_path, "--world-size", "8", "--memory", "2GiB", stage=0)
    assert result.returncode == 1
    assert "does not fit: a rank needs" in result.stderr and "of 2.00 GiB" in result.stderr
    assert "cheapest setting that fits: " in result.stderr
    assert run(tmp_path, "--world-size", "8", "--memory", "1TiB").returncode == 0


@pytest.mark.parametrize("arguments, message", [
    (["--memory", "24gib"], '--memory: got "24gib"'),
    (["--world-size", "0"], "--world-size: got 0"),
    (["--sequence-length", "-1"], "--sequence-length: got -1"),
    (["--nodes", "3", "--world-size", "4"], "nodes: got 3"),
    (["--device", "tpu"], '--device: got "tpu"'),
    (["--micro-batches", "3"], "--micro-batch"),
])
def test_command_names_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(tmp_path, *arguments)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_command_takes_roofs(tmp_path: Path) -> None:
    slow, fast = tmp_path / "slow.json", tmp_path / "fast.json"
    slow.write_text('{"bf16_flops": 1e9}')
    fast.write_text('{"bf16_flops": 1e15, "overlaps": true}')
    times = [json.loads(run(tmp_path, "--json", "--roofs", str(file)).stdout)["step_seconds"] for file in (slow, fast)]
    assert times[0] > 10 * times[1]
    slow.write_text('{"bf16_flop": 1}')
    assert "unknown roof bf16_flop; the nearest is bf16_flops" in run(tmp_path, "--roofs", str(slow)).stderr


