"""`zero.Init`: models built sharded are equal to models built plainly."""

from __future__ import annotations

import pytest

from tests.support.world import world

CASES = "tests.python.init_cases:"


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", ["odd", "reinitialised", "late", "llama"])
def test_values_are_those_of_rank_0(name: str, size: int) -> None:
    if name == "llama":
        pytest.importorskip("transformers")
    world(size).run(CASES + "values_are_those_of_rank_0", name=name)


@pytest.mark.parametrize(("name", "stage", "dtype"), [
    ("odd", 3, "fp32"), ("odd", 3, "bf16"), ("odd", 2, "fp32"), ("reinitialised", 3, "fp32"), ("llama", 3, "fp32"), ("llama", 3, "bf16")])
def test_initialize_is_as_from_a_plain_model(name: str, stage: int, dtype: str) -> None:
    if name == "llama":
        pytest.importorskip("transformers")
    world(2).run(CASES + "initialize_is_as_from_a_plain_model", name=name, stage=stage, dtype=dtype)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", [
    "config_gives_dtype_and_stage", "exception_leaves_no_trace", "contexts_nest", "initialize_inside_the_context",
    "a_built_module_can_be_sharded", "gathered_parameters_before_initialize", "unsupported_arguments"])
def test_init(case: str, size: int) -> None:
    world(size).run(CASES + case)
