"""The C++ models (hydrofoil/models) against Transformers: the same files in, the same logits and gradients out."""

import os
import pathlib
import subprocess

import pytest
import torch

transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
from safetensors import safe_open  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4  # of logits absolutely, of gradients relative to the largest one of their tensor
SIZES = dict(vocab_size=53, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=16, initializer_range=0.2)
FACTORS = dict(short_factor=[1.0, 1.5, 2.0], long_factor=[2.0, 3.0, 4.0])
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}

LLAMAS = {
    "grouped": {},
    "tied": dict(tie_word_embeddings=True),
    "biases": dict(attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "one_key_head": dict(num_key_value_heads=1, head_dim=10, pad_token_id=3, hidden_act="gelu"),
    "linear": dict(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}),
    "dynamic": dict(rope_parameters={"rope_type": "dynamic", "factor": 3.0}),
    "yarn": dict(rope_parameters=YARN),
    "yarn_mscale": dict(rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False, "beta_fast": 16.0}),
    "yarn_factor": dict(rope_parameters={**YARN, "attention_factor": 1.3, "beta_slow": 2.0}),
    "longrope": dict(rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 8, **FACTORS}),
    "longrope_short": dict(rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 2.0, **FACTORS}),
    "llama3": dict(rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                    "original_max_position_embeddings": 12, "rope_theta": 500000.0}),
}
GPT2_SIZES = dict(vocab_size=53, bos_token_id=0, eos_token_id=0, n_embd=24, n_layer=2, n_head=4, n_positions=32, initializer_range=0.2)
GPT2S = {
    "plain": {},
    "untied": dict(tie_word_embeddings=False),
    "inner": dict(n_inner=36, activation_function="gelu"),
    "relu": dict(activation_function="relu"),
    "unscaled": dict(scale_attn_weights=False),
    "by_layer": dict(scale_attn_by_inverse_layer_idx=True, activation_function="gelu_pytorch_tanh"),
    "gelu_fast": dict(activation_function="gelu_fast"),
    "quick_gelu": dict(activation_function="quick_gelu"),
}


@pytest.fixture(scope="module")
def program():
    candidates = [os.environ.get("HYDROFOIL_MODEL_CHECK"), *(REPOSITORY / f"build/{preset}/tests/model_check" for preset in ("dev", "release"))]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    pytest.skip("no model_check program: set HYDROFOIL_MODEL_CHECK or build the target model_check")


def llama(**settings):
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **settings}))


def gpt2(**settings):
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT2_SIZES, **settings}))


def some_tokens(batch=3, length=21):
    return torch.randint(0, 53, (batch, length), generator=torch.Generator().manual_seed(2))


def randomize(model):
    """Biases and norms start from zeros and ones, which would hide one that is not used."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def run(program, directory, tokens, tmp_path, *arguments):
    safetensors_torch.save_file({"tokens": tokens}, tmp_path / "in.safetensors")
    command = [program, directory, tmp_path / "in.safetensors", tmp_path / "out.safetensors", *arguments]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, env={**os.environ, **threads})
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip())
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
    return safetensors_torch.load_file(tmp_path / "out.safetensors"), metadata


def expected_of(model, tokens, seed=None):
    model.zero_grad(set_to_none=True)
    model.train(seed is not None)
    results = {"logits": model(tokens, use_cache=False).logits.detach()}
    if seed is not None:
        torch.manual_seed(seed)
    loss = model(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    results["loss"] = loss.detach()
    results.update({f"grad.{name}": parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    return results


def compare(got, expected, record_property, tolerance=TOLERANCE):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(value.abs().max().item(), 1e-6) if name.startswith("grad.") else 1.0
        error = (got[name].double() - value.double()).abs().max().item()
        assert error <= tolerance * scale, f"{name}: off by {error}"
    different = [name for name, value in expected.items() if not torch.equal(got[name], value)]
    record_property("identical_bits", not different)
    print("identical bits" if not different else f"other bits in {len(different)} of {len(expected)}: {different[:4]}")


def check(program, model, tmp_path, record_property, tokens=None, **saving):
    tokens = some_tokens() if tokens is None else tokens
    randomize(model).save_pretrained(tmp_path / "model", **saving)
    got, metadata = run(program, tmp_path / "model", tokens, tmp_path)
    compare(got, expected_of(model, tokens), record_property)
    assert metadata["modules"].split("\n")[:-1] == [name for name, _ in model.named_modules()]
    assert metadata["parameters"].split("\n")[:-1] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("name", LLAMAS)
def test_llama_computes_what_transformers_does(name, program, tmp_path, record_property):
    check(program, llama(**LLAMAS[name]), tmp_path, record_property)


@pytest.mark.parametrize("name", GPT2S)
def test_gpt2_computes_what_transformers_does(name, program, tmp_path, record_property):
    check(program, gpt2(**GPT2S[name]), tmp_path, record_property)


@pytest.mark.parametrize("length", [1, 2])
def test_short_sequences(length, program, tmp_path, record_property):
    tokens = some_tokens(1, length)
    model = llama()
    if length == 1:  # no position has a target: the mean is 0 / 0
        randomize(model).save_pretrained(tmp_path / "model")
        got, _ = run(program, tmp_path / "model", tokens, tmp_path)
        assert got["loss"].isnan()
        compare({"logits": got["logits"]}, {"logits": model(tokens).logits.detach()}, record_property)
    else:
        check(program, model, tmp_path, record_property, tokens)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_sharded_weights(make, program, tmp_path, record_property):
    check(program, make(), tmp_path, record_property, max_shard_size="6KB")
    assert len(list((tmp_path / "model").glob("model-*-of-*.safetensors"))) > 2


@pytest.mark.parametrize("make", [llama, gpt2])
def test_bfloat16(make, program, tmp_path, record_property):
    randomize(make()).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    # Not the model that was cast: to() rounds the frequencies of its rotary embedding, too.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    got, _ = run(program, tmp_path / "model", some_tokens(), tmp_path, "bfloat16")
    compare(got, expected_of(model, some_tokens()), record_property, tolerance=2e-2)


@pytest.mark.parametrize("make, settings", [(llama, dict(attention_dropout=0.2)), (gpt2, {})], ids=["llama", "gpt2"])
def test_dropout_draws_the_same_numbers(make, settings, program, tmp_path, record_property):
    model = randomize(make(**settings))
    model.save_pretrained(tmp_path / "model")
    got, _ = run(program, tmp_path / "model", some_tokens(), tmp_path, "float32", "7")
    expected = expected_of(model, some_tokens(), seed=7)
    del got["logits"], expected["logits"]  # of an earlier forward, before the seed
    compare(got, expected, record_property)


def test_the_old_form_of_rope(program, tmp_path, record_property):
    """rope_scaling and rope_theta, as files of Transformers 4 have them."""
    model = randomize(llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}))
    model.save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    start = text.index('"rope_parameters"')
    end = text.index("}", start) + 1
    config.write_text(text[:start] + '"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500' + text[end:])
    got, _ = run(program, tmp_path / "model", some_tokens(), tmp_path)
    compare(got, expected_of(model, some_tokens()), record_property)


def test_weights_that_do_not_fit_are_named(program, tmp_path):
    model = llama(attention_bias=True)
    model.save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"attention_bias": true', '"attention_bias": false'))
    with pytest.raises(RuntimeError, match=r"tensor 'model.layers.0.self_attn.k_proj.bias': got one that the model"):
        run(program, tmp_path / "model", some_tokens(), tmp_path)
    config.write_text(config.read_text().replace('"attention_bias": false', '"attention_bias": 2'))
    with pytest.raises(RuntimeError, match="attention_bias: got 2, expected true or false"):
        run(program, tmp_path / "model", some_tokens(), tmp_path)


def test_a_token_outside_the_vocabulary_is_an_error(program, tmp_path):
    llama().save_pretrained(tmp_path / "model")
    with pytest.raises(RuntimeError, match="index out of range"):
        run(program, tmp_path / "model", torch.full((1, 4), 53), tmp_path)
