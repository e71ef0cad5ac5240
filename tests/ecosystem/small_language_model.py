"""A small Llama and a tokenizer trained on the machine's own text, for the programs beside this file; nothing comes from a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = Path("/usr/share/common-licenses/GPL-3")  # on every Debian machine


def lines() -> list[str]:
    return [line.strip() for line in TEXT.read_text().splitlines() if len(line.split()) > 6]


def build_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines(), trainers.BpeTrainer(vocab_size=320, special_tokens=["<pad>", "<bos>", "<eos>"],
                                                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
                                   chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")


def build_config(vocabulary: int, **values: Any) -> LlamaConfig:
    return LlamaConfig(vocab_size=vocabulary, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2, **values)


def build_model(vocabulary: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(build_config(vocabulary))
