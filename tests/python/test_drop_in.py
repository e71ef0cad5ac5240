"""The distribution `deepspeed`: its names, what is not built yet, stage 3 attributes, and that it does not replace the real one silently."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

COMPAT = Path(__file__).resolve().parents[2] / "python/compat"
sys.path.insert(0, str(COMPAT))  # the checkout's, also where an older one is installed

import deepspeed  # noqa: E402
from deepspeed._modules import resolve  # noqa: E402
from deepspeed._names import NAMES  # noqa: E402

import hydrofoil  # noqa: E402

needs_installation = pytest.mark.skipif(not any(d.version.endswith("+hydrofoil") for d in importlib.metadata.distributions(name="deepspeed")),
                                        reason="the distribution is not installed: pip install ./python/compat")


@pytest.mark.parametrize("module", NAMES)
def test_every_module_and_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)
    for name, target in NAMES[module].items():
        value = getattr(imported, name)
        if target.startswith("!"):
            with pytest.raises(NotImplementedError, match=f"{module}.{name}: {target[1:]}".replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")):
                value()
        else:
            assert value is resolve(module, name) or inspect.ismodule(value)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        imported.no_such_name


def test_not_built_names_can_be_checked_and_subclassed() -> None:
    from deepspeed.pipe import PipelineModule

    class Mine(PipelineModule):
        pass

    assert not isinstance(3, PipelineModule)
    with pytest.raises(NotImplementedError, match="pipeline parallelism is not built in Hydrofoil yet"):
        Mine(layers=[])
    with pytest.raises(NotImplementedError, match="the inference engine"):
        deepspeed.init_inference(None)


def test_names_are_those_of_hydrofoil() -> None:
    assert deepspeed.initialize is hydrofoil.initialize and deepspeed.zero.Init is hydrofoil.zero.Init
    assert deepspeed.DeepSpeedEngine is hydrofoil.Engine
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.utils import groups, logger

    assert DeepSpeedEngine is hydrofoil.Engine and logger is hydrofoil.utils.logger and groups.get_model_parallel_world_size() == 1
    from deepspeed.runtime.zero import partition_parameters

    original = partition_parameters.zero_wrapper_for_fp_tensor_constructor
    partition_parameters.zero_wrapper_for_fp_tensor_constructor = None  # Transformers patches it
    partition_parameters.zero_wrapper_for_fp_tensor_constructor = original


def test_operators_say_whether_they_are_built() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder, CPUAdamBuilder

    assert CPUAdamBuilder().is_compatible() and CPUAdamBuilder().load() is hydrofoil._C
    assert not AsyncIOBuilder().is_compatible()
    with pytest.raises(NotImplementedError, match="async_io"):
        AsyncIOBuilder().load()
    assert deepspeed.ops.__compatible_ops__["cpu_adam"]


def test_modules_that_programs_import_by_their_path() -> None:
    from deepspeed.profiling.flops_profiler.profiler import get_model_profile
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.utils import ZeRORuntimeException
    from deepspeed.utils.tensor_fragment import fragment_address

    from deepspeed.checkpoint.constants import OPTIMIZER_STATE_DICT, PARAM_SHAPES, ZERO_FILE_PREFIX
    from deepspeed.runtime.constants import ROUTE_TRAIN, TRAIN_MICRO_BATCH_SIZE_PER_GPU
    from deepspeed.runtime.zero.linear import LinearModuleForZeroStage3, zero3_linear_wrap

    assert (TRAIN_MICRO_BATCH_SIZE_PER_GPU, ROUTE_TRAIN) == ("train_micro_batch_size_per_gpu", "train")
    assert (OPTIMIZER_STATE_DICT, PARAM_SHAPES, ZERO_FILE_PREFIX) == ("optimizer_state_dict", "param_shapes", "zero_pp_rank_")
    layer, x = LinearModuleForZeroStage3(3, 2), torch.ones(1, 3)
    assert torch.equal(zero3_linear_wrap(x, layer.weight, layer.bias), layer(x))
    assert isinstance(LossScaler, type) and isinstance(fragment_address, type)  # for torch.serialization.add_safe_globals
    assert get_model_profile is hydrofoil.profiling.flops_profiler.get_model_profile and issubclass(ZeRORuntimeException, RuntimeError)
    assert deepspeed.utils.get_caller_func(1) == "test_modules_that_programs_import_by_their_path"


def test_a_model_has_no_mixture_of_experts() -> None:
    from deepspeed.moe import utils

    model = torch.nn.Linear(2, 2)
    assert utils.has_moe_layers(model) == (False, 0) and not any(map(utils.is_moe_param, model.parameters()))
    group = {"params": list(model.parameters()), "lr": 0.1}
    assert not utils.is_moe_param_group(group) and utils.is_moe_param_group({**group, "moe": True})
    for groups in (group, (group,), [group]):
        split = utils.split_params_into_different_moe_groups_for_optimizer(groups)
        assert isinstance(split, list) and len(split) == 1 and split[0] is group
    with pytest.raises((ValueError, TypeError), match="got int, expected parameter groups"):
        utils.split_params_into_different_moe_groups_for_optimizer(3)
    model.bias.allreduce = False
    assert utils.is_moe_param(model.bias)
    with pytest.raises(NotImplementedError, match="parameter group 0 .* mixture of experts"):
        utils.split_params_into_different_moe_groups_for_optimizer(group)


def test_versions() -> None:
    assert deepspeed.__version__.endswith("+hydrofoil")
    assert (deepspeed.__version_major__, deepspeed.__version_minor__) >= (0, 18)


@needs_installation
def test_distribution_and_console_scripts() -> None:
    distribution = importlib.metadata.distribution("deepspeed")
    scripts = {entry.name for entry in distribution.entry_points if entry.group == "console_scripts"}
    assert {"deepspeed", "ds", "ds_report", "ds_io", "zero_to_fp32.py"} <= scripts
    done = subprocess.run([str(Path(sys.executable).parent / "zero_to_fp32.py"), "a", "b"], capture_output=True, text=True)
    assert done.returncode == 1 and "fp32 consolidation of checkpoints is not built" in done.stderr


@needs_installation
def test_the_report_leaves_out_what_it_is_told_to() -> None:
    def said(*flags: str) -> str:
        done = subprocess.run([str(Path(sys.executable).parent / "ds_report"), *flags], capture_output=True, text=True,
                              env={**os.environ, "HYDROFOIL_CPU_ISA": "scalar"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    whole = said()
    assert "built in   cpu_adam\n" in whole and "not built  async_io\n" in whole and "warning  kernels" in whole
    assert "cpu_adam" not in said("--hide_operator_status")
    quiet = said("--hide_errors_and_warnings")
    assert "cpu_adam" in quiet and "warning  kernels" not in quiet and quiet.splitlines()[-1] == whole.splitlines()[-1]


@needs_installation
def test_the_command_deepspeed_runs_ranks(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text("import os\nprint('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n")
    done = subprocess.run([str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", "2", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 2" in done.stdout and "rank 1 of 2" in done.stdout


def test_it_does_not_replace_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("guarded_build", COMPAT / "guarded_build.py")
    assert spec is not None and spec.loader is not None
    backend: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    places = {name: str(tmp_path) for name in ("purelib", "platlib")}
    monkeypatch.setattr(backend.sysconfig, "get_paths", lambda: places)
    backend._check()
    metadata = tmp_path / "deepspeed-0.19.6.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.19.6\n")
    with pytest.raises(SystemExit, match="deepspeed 0.19.6, the real one, is installed in"):
        backend.build_wheel(str(tmp_path))
    monkeypatch.setenv("HYDROFOIL_REPLACE_DEEPSPEED", "1")
    backend._check()
    monkeypatch.delenv("HYDROFOIL_REPLACE_DEEPSPEED")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.19.6+hydrofoil\n")
    backend._check()
