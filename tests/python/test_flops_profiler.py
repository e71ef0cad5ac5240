"""The FLOPs profiler against closed formulas."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hydrofoil.profiling import flops_profiler
from hydrofoil.profiling.flops_profiler import FlopsProfiler, get_model_profile

TOKENS, HIDDEN, INNER, HEADS, KEY_HEADS, VOCAB, LAYERS = 10, 24, 40, 4, 2, 50, 3


def llama(attention: str = "eager") -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS,
        vocab_size=VOCAB, attn_implementation=attention, use_cache=False))


def block_flops(batch: int, attention_share: float) -> float:
    """2 a multiply-accumulate: four projections, two products of attention, three of the MLP."""
    tokens = batch * TOKENS
    projections = 2 * tokens * HIDDEN * (2 * HIDDEN + 2 * HIDDEN * KEY_HEADS // HEADS)
    attention = 2 * 2 * batch * TOKENS * TOKENS * HIDDEN * attention_share
    return projections + attention + 3 * 2 * tokens * HIDDEN * INNER


@pytest.mark.parametrize("attention, share", [("eager", 1.0), ("sdpa", 0.5)])  # the fused one leaves out what the mask hides
def test_llama_block_has_its_closed_formula(attention: str, share: float) -> None:
    model = llama(attention)
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(input_ids=torch.zeros(2, TOKENS, dtype=torch.long))
    profiler.stop_profile()
    rotary = profiler.module_flops(model.model.rotary_emb)  # torch may multiply its frequencies element by element, or as a product
    block = block_flops(2, share)
    assert [profiler.module_flops(layer) for layer in model.model.layers] == [block] * LAYERS
    assert profiler.module_flops(model.model.layers[0].mlp.up_proj) == 2 * 2 * TOKENS * HIDDEN * INNER
    head = 2 * 2 * TOKENS * HIDDEN * VOCAB
    assert profiler.get_total_flops() == LAYERS * block + head + rotary
    assert profiler.get_total_macs() == profiler.get_total_flops() / 2
    assert profiler.get_total_params() == sum(p.numel() for p in model.parameters())
    assert 0 < profiler.module_seconds(model.model.layers[1]) < profiler.get_total_duration()
    seconds = profiler.module_seconds(model.model.layers)  # a list is not called itself
    assert seconds == sum(profiler.module_seconds(layer) for layer in model.model.layers)


def test_convolution_and_embedding() -> None:
    convolution = nn.Conv2d(6, 8, kernel_size=(3, 5), groups=2, padding=1)
    out = convolution(torch.zeros(2, 6, 9, 11))
    flops, macs, params = get_model_profile(convolution, (2, 6, 9, 11), print_profile=False, as_string=False)
    assert flops == 2 * out.numel() * (6 // 2) * 3 * 5 and macs == flops / 2 and params == 8 * 3 * 3 * 5 + 8
    embedding = nn.Embedding(100, 7)
    assert get_model_profile(embedding, args=[torch.tensor([1, 2])], print_profile=False, as_string=False) == (0.0, 0.0, 700)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = self.first
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, times: int = 2) -> torch.Tensor:
        for _ in range(times):
            x = self.first(x)
        return x @ torch.ones(4, 3)


def test_modules_called_twice_and_their_parents() -> None:
    model = Shared()
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(torch.ones(1, 4))
    assert profiler.module_flops(model.first) == 2 * 2 * 16
    assert profiler.module_flops(model) == 2 * 2 * 16 + 2 * 12 and profiler.module_flops(model.unused) == 0
    model(torch.ones(1, 4), times=1)
    assert profiler.module_flops(model.first) == 3 * 2 * 16
    profiler.reset_profile()
    assert profiler.get_total_flops() == 0
    profiler.start_profile(ignore_list=[nn.Linear])
    model(torch.ones(1, 4))
    profiler.stop_profile()
    model(torch.ones(1, 4))
    assert profiler.module_flops(model.first) == 0 and profiler.get_total_flops() == 2 * 2 * 16 + 2 * 12
    assert not model._forward_hooks and not model.first._forward_pre_hooks
    profiler.end_profile()
    with pytest.raises(ValueError, match="call start_profile"):
        profiler.get_total_flops()


def test_a_forward_that_fails_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(4, 4))
    with pytest.raises(RuntimeError):
        get_model_profile(model, (1, 3), warm_up=0)
    assert model.training and not model._forward_hooks and not model[0]._forward_hooks
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_inference_mode_counts_too() -> None:
    model = nn.Linear(3, 5)
    profiler = FlopsProfiler(model)
    with torch.inference_mode():
        profiler.start_profile()
        model(torch.ones(2, 3))
        profiler.stop_profile()
    assert profiler.get_total_flops() == 2 * 2 * 3 * 5


def test_generate_is_profiled() -> None:
    model = llama()
    ids = torch.zeros(1, 3, dtype=torch.long)
    one, two = (get_model_profile(model, kwargs={"input_ids": ids, "max_new_tokens": n, "do_sample": False, "eos_token_id": None,
                                                 "pad_token_id": 0}, mode="generate", print_profile=False, as_string=False)[0]
                for n in (1, 2))
    assert 0 < one < two


def test_misuse_is_named() -> None:
    model = nn.Linear(2, 2)
    for wrong, message in (({}, "got no input"), ({"input_shape": (1, 2), "args": [1]}, "one of the two"),
                           ({"input_shape": [1, 2]}, "expected a tuple"), ({"input_shape": (1, 2), "mode": "train"}, "mode: got 'train'")):
        with pytest.raises(ValueError, match=message):
            get_model_profile(model, **wrong)
    with pytest.raises(ValueError, match="recompute_fwd_factor: got 1.0"):
        FlopsProfiler(model, recompute_fwd_factor=1.0)
    with pytest.raises(ValueError, match="units: got 'X'"):
        flops_profiler.number_to_string(1.0, units="X")


def test_strings_are_deepspeeds() -> None:
    assert flops_profiler.flops_to_string(2.5e12) == "2.5 TFLOPS" and flops_profiler.macs_to_string(1234567) == "1.23 MMACs"
    assert flops_profiler.params_to_string(1500) == "1.5 K" and flops_profiler.duration_to_string(0.00123) == "1.23 ms"
    assert flops_profiler.flops_to_string(1e9, units="MFLOPS") == "1000.0 MFLOPS"
    assert get_model_profile(nn.Linear(1000, 1000, bias=False), (1, 1000), print_profile=False) == ("2.0 MFLOPS", "1.0 MMACs", "1.0 M")


def test_profile_prints_tree_and_top_modules(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    get_model_profile(llama(), args=[torch.zeros(1, TOKENS, dtype=torch.long)], top_modules=2)
    text = capsys.readouterr().out
    block = flops_profiler.macs_to_string(block_flops(1, 1.0) / 2)
    assert text.count(f", {block} = ") == LAYERS and "(1): LlamaDecoderLayer(" in text
    assert re.search(r"depth 3:\n    params      LlamaDecoderLayer: [0-9.]+ K, LlamaRMSNorm|depth 2:.*LlamaDecoderLayer", text, re.DOTALL)
    assert "Linear(" in text and "in_features=24, out_features=40, bias=False" in text
    file = tmp_path / "made" / "profile.txt"
    get_model_profile(llama(), args=[torch.zeros(1, TOKENS, dtype=torch.long)], detailed=False, module_depth=0, output_file=str(file))
    text = file.read_text()
    assert "depth 0:" in text and "depth 1:" not in text and "in_features" not in text
    assert capsys.readouterr().out == ""
