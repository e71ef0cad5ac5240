"""Programs of Transformers, Accelerate, TRL, PEFT and Lightning that know nothing of Hydrofoil, on two ranks, against the same without DeepSpeed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.launcher import find_program

PROGRAMS = Path(__file__).resolve().parents[1] / "ecosystem"
ENGINE = "hydrofoil.engine.Engine"
DISTRIBUTIONS = ("deepspeed", "transformers", "accelerate", "trl", "peft", "datasets", "lightning")
pytestmark = [pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed: tools/setup.sh test installs it")
              for name in DISTRIBUTIONS]

Result = dict[str, Any]


def run(command: list[str], **environment: str) -> list[Result]:
    """What each rank printed behind RESULT, rank 0's first."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=PROGRAMS,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false", **environment})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    # torchrun's ranks write to one stream: two results may stand in a line.
    results = [json.JSONDecoder().raw_decode(part)[0] for part in done.stdout.split("RESULT ")[1:]]
    return sorted(results, key=lambda result: result["rank"])


def launch(program: str, *arguments: str, ranks: int = 2) -> list[Result]:
    return run([find_program(), "run", "--nproc", str(ranks), str(PROGRAMS / program), *arguments])


def run_cells(program: str, cells: list[dict[str, Any]], directory: Path, ranks: int = 2) -> dict[str, list[Result]]:
    file = directory / "cells.json"
    file.write_text(json.dumps(cells))
    results = launch(program, "--cells", str(file), ranks=ranks)
    return {cell["name"]: [result for result in results if result["cell"] == cell["name"]] for cell in cells}


def check_engine(results: list[Result], ranks: int = 2) -> None:
    assert [(result["rank"], result["ranks"], result["type"], result["engine"]) for result in results] == [
        (rank, ranks, "DEEPSPEED", ENGINE) for rank in range(ranks)]


def check_trained_alike(mine: Result, plain: Result) -> None:
    assert plain["type"] == "MULTI_CPU" and mine["trained"] == plain["trained"]
    assert mine["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert mine["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)


def config(directory: Path, stage: int, scheduler: bool = False, optimizer: bool = True) -> str:
    """"auto" wherever Transformers fills it in."""
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "train_batch_size": "auto", "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto",
                              "stage3_param_persistence_threshold": "auto", "stage3_gather_16bit_weights_on_model_save": True}}
    if optimizer:
        values["optimizer"] = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}}
    if scheduler:
        values["scheduler"] = {"type": "WarmupDecayLR", "params": {
            "warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto", "total_num_steps": "auto"}}
    path = directory / f"ds_{stage}_{scheduler}_{optimizer}.json"
    path.write_text(json.dumps(values))
    return str(path)


# -- Transformers ------------------------------------------------------------------------------------------------------
TRAINER_CELLS = ["stage 0", "stage 1", "stage 2", "stage 3", "own optimizer", "accumulation", "bf16", "resumed", "auto schedule", "adapters"]


@pytest.fixture(scope="module")
def trainer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainer")


@pytest.fixture(scope="module")
def trained(trainer_directory: Path) -> dict[str, list[Result]]:
    directory = trainer_directory

    def cell(name: str, **values: Any) -> dict[str, Any]:
        return {"name": name, "output": str(directory / name.replace(" ", "_")), **values}

    small = {"accumulation": 2, "batch": 1, "clip": 0.5}
    pretrained = str(directory / "plain" / "final")
    cells = [cell("plain", use_cpu=True), cell("plain accumulation", use_cpu=True, **small), cell("plain bf16", use_cpu=True, bf16=True),
             cell("plain adapters", use_cpu=True, pretrained=pretrained),
             *(cell(f"stage {stage}", deepspeed=config(directory, stage)) for stage in range(4)),
             cell("own optimizer", deepspeed=config(directory, 3, optimizer=False)), cell("accumulation", deepspeed=config(directory, 2), **small),
             cell("bf16", deepspeed=config(directory, 3), bf16=True, use_cpu=True),
             cell("resumed", deepspeed=config(directory, 3), resume=str(directory / "stage_3" / "checkpoint-3")),
             cell("auto schedule", deepspeed=config(directory, 2, scheduler=True)),
             cell("adapters", deepspeed=config(directory, 3), pretrained=pretrained)]
    return run_cells("trainer_program.py", cells, directory)


@pytest.mark.parametrize("name", TRAINER_CELLS)
def test_trainer_runs_on_the_engine(trained: dict[str, list[Result]], name: str) -> None:
    check_engine(trained[name])
    first, second = (set(result["samples"]) for result in trained[name])
    assert len(first) > 2 and not first & second
    assert trained[name][0]["losses"] == trained[name][1]["losses"]


@pytest.mark.parametrize("name, twin", [*((f"stage {stage}", "plain") for stage in range(4)), ("own optimizer", "plain"), ("accumulation", "plain accumulation"),
                                        ("adapters", "plain adapters")])
def test_trainer_gives_the_losses_of_plain_training(trained: dict[str, list[Result]], name: str, twin: str) -> None:
    check_trained_alike(trained[name][0], trained[twin][0])


def test_adapters_over_a_sharded_base_are_saved_as_plain_training_saves_them(trained: dict[str, list[Result]], trainer_directory: Path) -> None:
    from safetensors.torch import load_file

    mine, plain = (load_file(trainer_directory / name / "final" / "adapter_model.safetensors") for name in ("adapters", "plain_adapters"))
    assert any("lm_head" in name for name in plain) and sum("lora_" in name for name in plain) == 8
    assert mine.keys() == plain.keys()
    for name, tensor in plain.items():
        assert (mine[name] - tensor).abs().max() < 1e-5, name


def test_trainer_on_three_ranks(trainer_directory: Path) -> None:
    cells = [{"name": "plain", "use_cpu": True}, {"name": "stage 3", "deepspeed": config(trainer_directory, 3)}]
    results = run_cells("trainer_program.py", [{**cell, "output": str(trainer_directory / f"three {cell['name']}")} for cell in cells], trainer_directory, ranks=3)
    check_engine(results["stage 3"], ranks=3)
    assert len(set().union(*(result["samples"] for result in results["stage 3"]))) == sum(len(set(result["samples"])) for result in results["stage 3"])
    check_trained_alike(results["stage 3"][0], results["plain"][0])


def test_the_command_deepspeed_with_hf_argument_parser(trained: dict[str, list[Result]], tmp_path: Path) -> None:
    arguments = "--per_device_train_batch_size 2 --per_device_eval_batch_size 2 --max_steps 6 --learning_rate 1e-3 --logging_steps 1 --warmup_steps 2 " \
                "--report_to none --save_strategy no --disable_tqdm True --dataloader_pin_memory False"
    results = run([str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", "2", str(PROGRAMS / "arguments_program.py"),
                   "--deepspeed", config(tmp_path, 2), "--output_dir", str(tmp_path), *arguments.split()])
    check_engine(results)
    check_trained_alike(results[0], trained["plain"][0])


def test_trainer_in_bf16_stays_near_autocast(trained: dict[str, list[Result]]) -> None:
    assert trained["bf16"][0]["losses"] == pytest.approx(trained["plain bf16"][0]["losses"], rel=5e-3)


def test_trainer_resumes_with_equal_losses(trained: dict[str, list[Result]]) -> None:
    assert trained["resumed"][0]["losses"] == trained["stage 3"][0]["losses"][3:]
    assert trained["resumed"][0]["eval_loss"] == trained["stage 3"][0]["eval_loss"]


def test_from_pretrained_and_generate_under_stage_3(trained: dict[str, list[Result]], trainer_directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}))
    for result in launch("from_pretrained_program.py", "--model", str(trainer_directory / "stage_3" / "final"), "--deepspeed", str(path)):
        assert result["zero3"] and result["generated"] and result["same_logits"]
        assert result["statuses"] == ["NOT_AVAILABLE"] and 0 < result["shard_numel"] < result["numel"]


# -- Accelerate --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain_loop(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return launch("accelerate_program.py", "--plain", "--output", str(tmp_path_factory.mktemp("plain")))[0]


def check_loop(results: list[Result], plain: Result) -> None:
    check_engine(results)
    assert not set(results[0]["samples"]) & set(results[1]["samples"])
    for name in ("losses", "after_save"):
        assert results[0][name] == pytest.approx(plain[name], rel=1e-5)
    assert results[0]["after_load"] == results[0]["after_save"]
    assert results[0]["rates"] == pytest.approx(plain["rates"])
    assert results[0]["state"] == plain["state"] and results[0]["sum"] == pytest.approx(plain["sum"], rel=1e-6)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_accelerate_loop(plain_loop: Result, stage: int, tmp_path: Path) -> None:
    check_loop(launch("accelerate_program.py", "--output", str(tmp_path), "--stage", str(stage)), plain_loop)


def test_accelerate_with_a_config_file_and_a_second_model(plain_loop: Result, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": 2, "gradient_clipping": 0.1,
                                "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}}))
    results = launch("accelerate_program.py", "--output", str(tmp_path), "--config", str(path), "--teacher")
    check_engine(results)
    assert results[0]["losses"] == pytest.approx(plain_loop["losses"], rel=1e-5)
    assert results[0]["teacher"] == "Engine" and results[0]["taught"] == pytest.approx(plain_loop["taught"])


def test_accelerate_launch(plain_loop: Result, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "accelerate"), "launch", "--use_deepspeed", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", "0", "--zero_stage", "2", "--gradient_accumulation_steps", "2", "--gradient_clipping", "0.1",
               str(PROGRAMS / "accelerate_program.py"), "--output", str(tmp_path), "--plugin-from-launcher"]
    check_loop(run(command), plain_loop)


# -- TRL, PEFT ---------------------------------------------------------------------------------------------------------
TRL_CELLS = [*((trainer, stage, lora) for trainer in ("sft", "dpo", "grpo") for stage in (2, 3) for lora in (False, True) if stage == 3 or not lora),
             ("kto", 3, False), ("reward", 3, False)]


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    directory = tmp_path_factory.mktemp("trl")
    cells = [{"name": f"{trainer} plain {lora}", "trainer": trainer, "lora": lora, "output": str(directory)} for trainer, lora in
             dict.fromkeys((trainer, lora) for trainer, _, lora in TRL_CELLS)]
    cells += [{"name": f"{trainer} {stage} {lora}", "trainer": trainer, "lora": lora, "output": str(directory),
               "deepspeed": config(directory, stage, optimizer=False)} for trainer, stage, lora in TRL_CELLS]
    return run_cells("trl_program.py", cells, directory)


@pytest.mark.parametrize("trainer, stage, lora", TRL_CELLS)
def test_trl_trainers(trl: dict[str, list[Result]], trainer: str, stage: int, lora: bool) -> None:
    results, plain = trl[f"{trainer} {stage} {lora}"], trl[f"{trainer} plain {lora}"][0]
    check_engine(results)
    assert plain["type"] == "MULTI_CPU" and results[0]["trained"] == plain["trained"]
    assert len(results[0]["logs"]) == 4
    for mine, expected in zip(results[0]["logs"], plain["logs"]):
        assert mine == pytest.approx(expected, rel=2e-4, abs=2e-6)


# -- Lightning ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain_fit(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    return launch("lightning_program.py", "--output", str(tmp_path_factory.mktemp("lightning")))


@pytest.mark.parametrize("stage", [2, 3])
def test_lightning(plain_fit: list[Result], stage: int, tmp_path: Path) -> None:
    results = launch("lightning_program.py", "--output", str(tmp_path), "--stage", str(stage))
    for mine, plain in zip(results, plain_fit):
        assert mine["engine"] == ENGINE and plain["engine"].endswith("DistributedDataParallel")
        assert mine["ranks"] == 2 and mine["losses"] == pytest.approx(plain["losses"], rel=1e-5)
        assert mine["resumed"] == mine["losses"][len(mine["first"]):]
    assert results[0]["losses"] != results[1]["losses"]
