"""`deepspeed.accelerator`: one object that answers for the machine's device, CPU or CUDA, through torch."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator, Optional

import torch

from hydrofoil import _C

__all__ = ["Accelerator", "get_accelerator", "is_current_accelerator_supported", "set_accelerator"]


class _HostStream:
    """The stream of a CPU: everything is done in order at once."""

    def synchronize(self) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass


class _HostEvent(_HostStream):
    def record(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    wait = record


class Accelerator:
    """Facts and controls of the device that this process trains on. Memory is in bytes."""

    _name = "cpu"
    _communication_backend_name = "gloo"

    # -- identity --------------------------------------------------------------------------------------------------------
    def device_name(self, device_index: Optional[int] = None) -> str:
        return "cpu"

    def device(self, device_index: Optional[int] = None) -> Any:
        return contextlib.nullcontext()

    def current_device(self) -> Any:
        return 0

    def current_device_name(self) -> str:
        return "cpu"

    def set_device(self, device_index: int) -> None:
        """A rank of a CPU has one device."""

    def device_count(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)

    def is_available(self) -> bool:
        return True

    def is_synchronized_device(self) -> bool:
        return True

    use_host_timers = resolves_data_dependency = handles_memory_backpressure = is_synchronized_device

    def synchronize(self, device_index: Optional[int] = None) -> None:
        pass

    def communication_backend_name(self) -> str:
        return self._communication_backend_name

    def is_triton_supported(self) -> bool:
        return False

    prefer_triton_grouped_mm = is_triton_supported

    # -- random numbers --------------------------------------------------------------------------------------------------
    def random(self) -> Any:
        return torch.random

    def get_rng_state(self, device_index: Optional[int] = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, new_state: torch.Tensor, device_index: Optional[int] = None) -> None:
        torch.set_rng_state(new_state)

    def manual_seed(self, seed: int) -> Any:
        return torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def initial_seed(self) -> int:
        return torch.initial_seed()

    def default_generator(self, device_index: int = 0) -> torch.Generator:
        return torch.default_generator

    # -- streams ---------------------------------------------------------------------------------------------------------
    Stream, Event = _HostStream, _HostEvent

    def stream(self, stream: Any) -> Any:
        return contextlib.nullcontext()

    def current_stream(self, device_index: Optional[int] = None) -> Any:
        return _HostStream()

    default_stream = current_stream

    # -- memory ----------------------------------------------------------------------------------------------------------
    def empty_cache(self) -> None:
        _C.trim_heap()

    def memory_allocated(self, device_index: Optional[int] = None) -> int:
        return _C.resident_memory().rss_bytes

    memory_reserved = memory_cached = memory_allocated

    def max_memory_allocated(self, device_index: Optional[int] = None) -> int:
        return _C.resident_memory().peak_rss_bytes

    max_memory_reserved = max_memory_cached = max_memory_allocated

    def memory_stats(self, device_index: Optional[int] = None) -> dict[str, int]:
        return {"allocated_bytes.all.current": self.memory_allocated(), "allocated_bytes.all.peak": self.max_memory_allocated()}

    def reset_peak_memory_stats(self, device_index: Optional[int] = None) -> None:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # man 5 proc: the peak becomes what is resident now

    reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats

    def total_memory(self, device_index: Optional[int] = None) -> int:
        return _meminfo_bytes("MemTotal")

    def available_memory(self, device_index: Optional[int] = None) -> int:
        return _meminfo_bytes("MemAvailable")

    def pin_memory(self, tensor: torch.Tensor, align_bytes: int = 1) -> torch.Tensor:
        return tensor

    unpin_memory = pin_memory

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.is_pinned()

    def on_accelerator(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == self._name

    # -- dtypes ----------------------------------------------------------------------------------------------------------
    def is_bf16_supported(self) -> bool:
        return True

    is_fp16_supported = is_bf16_supported

    def supported_dtypes(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16, torch.float16]

    BFloat16Tensor, ByteTensor, DoubleTensor, FloatTensor = torch.BFloat16Tensor, torch.ByteTensor, torch.DoubleTensor, torch.FloatTensor
    HalfTensor, IntTensor, LongTensor = torch.HalfTensor, torch.IntTensor, torch.LongTensor

    # -- profiling, graphs -----------------------------------------------------------------------------------------------
    def range_push(self, message: str) -> None:
        self._ranges.append(torch.profiler.record_function(message))
        self._ranges[-1].__enter__()

    def range_pop(self) -> None:
        self._ranges.pop().__exit__(None, None, None)

    def lazy_call(self, callback: Any) -> Any:
        return callback()

    def create_graph(self) -> None:
        """No graphs are captured: None, as DeepSpeed's CPU."""

    @contextlib.contextmanager
    def capture_to_graph(self, graph: Any, pool: Any = None, stream: Any = None) -> Iterator[None]:
        yield

    def replay_graph(self, graph: Any) -> None:
        pass

    # -- operators, environment ------------------------------------------------------------------------------------------
    def op_builder_dir(self) -> str:
        return "deepspeed.ops.op_builder"

    def create_op_builder(self, class_name: str) -> Any:
        builder = self.get_op_builder(class_name)
        return builder() if builder is not None else None

    def get_op_builder(self, class_name: str) -> Any:
        from hydrofoil import ops

        return getattr(ops, class_name, None)

    def build_extension(self) -> Any:
        raise NotImplementedError("build_extension: Hydrofoil compiles nothing on the user's machine")

    def export_envs(self) -> list[str]:
        return ["NCCL"]

    def visible_devices_envs(self) -> list[str]:
        return ["CUDA_VISIBLE_DEVICES"]

    def set_visible_devices_envs(self, current_env: dict[str, str], local_accelerator_ids: list[Any]) -> None:
        for name in self.visible_devices_envs():
            current_env[name] = ",".join(map(str, local_accelerator_ids))

    def get_compile_backend(self) -> str:
        return self._compile_backend

    def set_compile_backend(self, backend: str) -> None:
        self._compile_backend = backend

    def __init__(self) -> None:
        self._ranges: list[Any] = []
        self._compile_backend = "inductor"


class CudaAccelerator(Accelerator):
    _name = "cuda"
    _communication_backend_name = "nccl"

    def device_name(self, device_index: Optional[int] = None) -> str:
        return "cuda" if device_index is None else f"cuda:{device_index}"

    def current_device_name(self) -> str:
        return f"cuda:{torch.cuda.current_device()}"

    def is_synchronized_device(self) -> bool:
        return False

    use_host_timers = resolves_data_dependency = handles_memory_backpressure = is_synchronized_device

    def random(self) -> Any:
        return torch.random

    def default_generator(self, device_index: int = 0) -> torch.Generator:
        return torch.cuda.default_generators[device_index]

    def total_memory(self, device_index: Optional[int] = None) -> int:
        return torch.cuda.get_device_properties(device_index if device_index is not None else torch.cuda.current_device()).total_memory

    def available_memory(self, device_index: Optional[int] = None) -> int:
        return torch.cuda.mem_get_info(device_index)[0]

    def pin_memory(self, tensor: torch.Tensor, align_bytes: int = 1) -> torch.Tensor:
        return tensor.pin_memory()

    def is_fp16_supported(self) -> bool:
        return torch.cuda.get_device_capability()[0] >= 7

    def create_graph(self) -> Any:
        return torch.cuda.CUDAGraph()

    def capture_to_graph(self, graph: Any, pool: Any = None, stream: Any = None) -> Any:
        return torch.cuda.graph(graph, pool, stream)

    def replay_graph(self, graph: Any) -> None:
        graph.replay()


def _from_cuda(name: str, target: str) -> None:
    def method(self: CudaAccelerator, *args: Any, **kwargs: Any) -> Any:
        return getattr(torch.cuda, target)(*args, **kwargs)

    setattr(CudaAccelerator, name, method)


for _name in ("device", "set_device", "current_device", "device_count", "is_available", "synchronize", "set_rng_state", "get_rng_state", "manual_seed",
              "manual_seed_all", "initial_seed", "Stream", "stream", "current_stream", "default_stream", "Event", "empty_cache", "memory_allocated",
              "max_memory_allocated", "reset_max_memory_allocated", "memory_stats", "reset_peak_memory_stats", "memory_reserved", "max_memory_reserved",
              "is_bf16_supported"):
    _from_cuda(_name, _name)
for _name, _target in (("memory_cached", "memory_reserved"), ("max_memory_cached", "max_memory_reserved"), ("reset_max_memory_cached", "reset_peak_memory_stats")):
    _from_cuda(_name, _target)

_accelerator: Optional[Accelerator] = None


def get_accelerator() -> Accelerator:
    """That of set_accelerator; else by DS_ACCELERATOR (cpu or cuda); else CUDA where there is one."""
    global _accelerator
    if _accelerator is None:
        asked = os.environ.get("DS_ACCELERATOR")
        if asked not in (None, "cpu", "cuda"):
            raise ValueError(f"DS_ACCELERATOR: got {asked!r}, expected cpu or cuda")
        _accelerator = CudaAccelerator() if (asked or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda" else Accelerator()
    return _accelerator


def set_accelerator(accelerator: Accelerator) -> None:
    global _accelerator
    _accelerator = accelerator


def is_current_accelerator_supported() -> bool:
    return get_accelerator().device_name() in ("cpu", "cuda")


def _meminfo_bytes(key: str) -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":"))
