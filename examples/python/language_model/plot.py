"""Draws the loss curve of a run as SVG and PNG. By hand: `python plot.py RUN_FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

TRAIN_COLOR, HELD_OUT_COLOR = "#2f6db3", "#d1495b"


def plot_loss(
    train: Sequence[Mapping[str, float]], held_out: Sequence[Mapping[str, float]], title: str, stem: Path
) -> tuple[Path, Path]:
    """Writes `stem`.svg and `stem`.png from rows with `tokens` and `bits_per_byte`; returns both paths.

    No rows make an empty plot.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    figure, axes = pyplot.subplots(figsize=(8, 4.8), dpi=150, layout="constrained")
    try:
        if train:
            tokens = [row["tokens"] for row in train]
            losses = [row["bits_per_byte"] for row in train]
            axes.plot(tokens, losses, color=TRAIN_COLOR, alpha=0.22, linewidth=0.8)
            axes.plot(tokens, smoothed(losses), color=TRAIN_COLOR, linewidth=1.8, label="training (smoothed)")
        if held_out:
            tokens = [row["tokens"] for row in held_out]
            losses = [row["bits_per_byte"] for row in held_out]
            axes.plot(tokens, losses, "o:", color=HELD_OUT_COLOR, markersize=5, linewidth=0.8, label="held out")
            axes.annotate(
                f"{losses[-1]:.2f}",
                (tokens[-1], losses[-1]),
                (0, 9),
                textcoords="offset points",
                color=HELD_OUT_COLOR,
                ha="center",
            )
        if train or held_out:
            axes.legend(frameon=False)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("tokens trained on (bytes)")
        axes.set_ylabel("loss (bits per byte)")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(color="0.9", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        paths = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
        for path in paths:
            figure.savefig(path)
    finally:
        pyplot.close(figure)
    return paths


def smoothed(values: Sequence[float], reach: int = 12) -> list[float]:
    """Mean over `reach` neighbours on either side; over fewer near the ends, so that the curve lags nowhere."""
    sums = [0.0, *accumulate(values)]
    means = []
    for index in range(len(values)):
        near = min(reach, index, len(values) - 1 - index)
        means.append((sums[index + near + 1] - sums[index - near]) / (2 * near + 1))
    return means


def main() -> int:
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} RUN_FOLDER", file=sys.stderr)
        return 2
    from report import read_csv

    run = Path(sys.argv[1])
    for path in plot_loss(read_csv(run / "loss.csv"), read_csv(run / "held_out.csv"), run.name, run / "loss"):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
