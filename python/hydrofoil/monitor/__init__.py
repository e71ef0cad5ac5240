"""Monitors: the events of training in TensorBoard, W&B, Comet, CSV files and JSON lines. See docs/monitoring.md."""

from hydrofoil.monitor.master import MonitorMaster
from hydrofoil.monitor.writers import CometMonitor, JsonMonitor, Monitor, TensorBoardMonitor, WandbMonitor, csvMonitor

__all__ = ["CometMonitor", "JsonMonitor", "Monitor", "MonitorMaster", "TensorBoardMonitor", "WandbMonitor", "csvMonitor"]
