"""Bytes of parameters, gradients and optimizer states a rank: the formula of the ZeRO stages, in the engine's books and the kernel's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.python.example_ranks import TwoRanks

MIB = 1 << 20
SCRIPT = Path(__file__).with_name("memory_ranks.py")


def run(**arguments: Any) -> list[dict[str, Any]]:
    with TwoRanks(SCRIPT, json.dumps(arguments)) as ranks:
        codes, outputs = ranks.finish()
    assert codes == [0, 0], "\n".join(outputs)
    return [json.loads(output.split("RESULT ")[1].splitlines()[0]) for output in outputs]


def formula(stage: int, dtype: str, numel: int, ranks: int = 2) -> dict[str, float]:
    """Bytes a rank with fp32 gradients: (m + 4 + s) per parameter, of which a stage divides by the ranks what it shards.

    On one host the parameters of stages 1 and 2 exist once for all ranks; with one backward a step stage 1 shards gradients, too."""
    model = {"fp32": 4, "bf16": 2}[dtype]
    return {
        "parameter_bytes": model * numel / (ranks if stage >= 1 else 1),
        "gradient_bytes": 4 * numel / (ranks if stage >= 1 else 1),
        "master_bytes": (0 if dtype == "fp32" else 4) * numel / (ranks if stage >= 1 else 1),
        "optimizer_state_bytes": 8 * numel / (ranks if stage >= 1 else 1),
    }


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_states_are_the_formula(stage: int, dtype: str) -> None:
    grown = {"after forward": 0.0, "after backward": 0.0, "after step": 0.0}  # of all ranks: the kernel divides what they share as it likes
    allowed = required = 0.0
    for result in run(mode="train", stage=stage, dtype=dtype):
        expected = formula(stage, dtype, result["numel"])
        for name, size in expected.items():
            assert 0 <= result["report"][name] - size <= 64 * 1024, f"{name}: {result['report'][name]}, formula {size}"
        total = sum(expected.values())
        slots = result["report"]["peak_slot_bytes"]
        for phase in grown:
            own = result[phase]["pss"] - result["base"]["pss"]
            grown[phase] += own
            print(f"stage {stage} {dtype} {phase}: formula {total / MIB:.1f} MiB, slots {slots / MIB:.1f}, PSS +{own / MIB:.1f}, "
                  f"memfd {result[phase]['memfd'] / MIB:.1f}, peak RSS {result[phase]['peak_rss'] / MIB:.0f}")
        # Beside the states: slots of gathered units and transient buckets, large tensors of the model (whose place gradient shards
        # take, too), chunks of the transport, the heap's slack.
        allowed += total + slots + result["report"]["host_tensor_bytes"] + 16 * MIB
        required += 0.9 * total
    assert max(grown.values()) <= allowed, (grown, allowed)
    assert grown["after step"] >= required, (grown, required)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_init_never_holds_the_full_model(dtype: str) -> None:
    for result in run(mode="construct", stage=3, dtype=dtype, init=True):
        full = 4 * result["numel"]
        element = {"fp32": 4, "bf16": 2}[dtype]
        states = sum(formula(3, dtype, result["numel"]).values()) - 12 * result["numel"] / 2  # gradients and moments are untouched yet
        unit = result["report"]["largest_unit_bytes"] * 4 / element  # as built, in fp32
        shard = element * result["numel"] / 2
        base = result["base"]["peak_rss"]
        built, peak = result["built"]["peak_rss"] - base, result["initialized"]["peak_rss"] - base
        now = result["initialized"]["pss"] - result["base"]["pss"]
        print(f"{dtype}: full {full / MIB:.0f} MiB, shard {shard / MIB:.0f}, unit {unit / MIB:.0f}, states {states / MIB:.0f}; peak RSS: "
              f"built +{built / MIB:.0f}, initialized +{peak / MIB:.0f}, PSS +{now / MIB:.0f}")
        assert full > 250 * MIB
        assert built <= shard + unit + 24 * MIB
        assert peak <= states + unit + 24 * MIB
        assert result["report"]["parameter_bytes"] <= shard + 64 * 1024


def test_a_plain_model_needs_the_full_memory() -> None:
    """The measurement sees what Init saves."""
    for result in run(mode="construct", stage=3, dtype="fp32", init=False):
        assert result["built"]["peak_rss"] - result["base"]["peak_rss"] > 0.9 * 4 * result["numel"]
