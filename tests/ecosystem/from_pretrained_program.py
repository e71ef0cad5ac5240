"""from_pretrained under zero.Init (HfDeepSpeedConfig), generate() under stage 3, against the same model as it is."""

from __future__ import annotations

import argparse
import json

import deepspeed
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations import HfDeepSpeedConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--deepspeed", required=True)
    arguments = parser.parse_args()
    plain = AutoModelForCausalLM.from_pretrained(arguments.model)
    config = json.load(open(arguments.deepspeed))
    kept = HfDeepSpeedConfig(config)  # must live while the model is built
    deepspeed.init_distributed()
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    shards = [p.ds_tensor.numel() for p in model.parameters()]
    statuses = {p.ds_status.name for p in model.parameters()}
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.module.eval()
    prompt = torch.tensor([[72, 101, 108, 108, 111]])
    with torch.no_grad():
        expected = plain.generate(prompt, max_new_tokens=12, do_sample=False)
        generated = engine.module.generate(prompt, max_new_tokens=12, do_sample=False, synced_gpus=True)
        logits = engine(prompt).logits
        same = torch.equal(logits, plain(prompt).logits)
    print("RESULT " + json.dumps({
        "rank": torch.distributed.get_rank(), "generated": generated.tolist() == expected.tolist(), "same_logits": same, "statuses": sorted(statuses),
        "shard_numel": sum(shards), "numel": sum(p.ds_numel for p in engine.module.parameters()), "zero3": kept.is_zero3()}), flush=True)


if __name__ == "__main__":
    main()
