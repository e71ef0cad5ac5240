"""PyTorch Lightning without a GPU: its DeepSpeedStrategy, which refuses anything but CUDA, without that check.

    from hydrofoil.lightning import CPUDeepSpeedStrategy

    lightning.Trainer(accelerator="cpu", devices=2, strategy=CPUDeepSpeedStrategy(stage=3))
"""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

__all__ = ["CPUDeepSpeedStrategy"]


class CPUDeepSpeedStrategy(DeepSpeedStrategy):
    """DeepSpeedStrategy on the ranks of a machine without a GPU; on GPUs use DeepSpeedStrategy itself."""

    strategy_name = "deepspeed_cpu"

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)  # what DeepSpeedStrategy calls behind its check

    def setup_distributed(self) -> None:
        self.set_world_ranks()
        self._init_deepspeed_distributed()
