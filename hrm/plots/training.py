"""A run over its updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from hrm.plots import drawing


def plot_training(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, exact accuracy and steps at halt over updates.

    Args:
        rows: of `metrics.jsonl`: `step` and any of `train/loss`, `train/lm_loss`,
            `train/exact_accuracy`, `eval/exact_accuracy`, `train/steps`. A key may be missing and a
            value None or not finite: that point is left out.
        path: the PNG file; its folder is made.
    """
    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, share, steps = figure.subplots(3, 1, sharex=True, height_ratios=[2, 2, 1])

    _curve(loss, rows, "train/loss", "loss", drawing.BLUE)
    _curve(loss, rows, "train/lm_loss", "token loss alone", drawing.ORANGE)
    if loss.lines and all(np.min(np.asarray(line.get_ydata())) > 0 for line in loss.lines):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter(NullFormatter())
    _finish(loss, "Loss (a row, a step)")

    _curve(share, rows, "train/exact_accuracy", "training rows, at halt", drawing.BLUE)
    _curve(share, rows, "eval/exact_accuracy", "evaluation", drawing.ORANGE, marker="o")
    share.set_ylim(-0.02, 1.02)
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(share, "Exactly right")

    _curve(steps, rows, "train/steps", "training rows", drawing.GREEN)
    steps.margins(y=0.2)
    steps.set_ylim(bottom=0)
    _finish(steps, "Mean steps at halt")
    steps.set_xlabel("Updates")
    drawing.save(figure, path)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and values of the rows that have a finite one."""
    points = [
        (row["step"], row[key])
        for row in rows
        if row.get(key) is not None and math.isfinite(row[key])
    ]
    steps, values = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _curve(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    label: str,
    color: str,
    marker: str = "",
) -> None:
    steps, values = _points(rows, key)
    if not len(steps):
        return
    if marker or len(steps) <= drawing.SMOOTH_FROM:
        # A curve of one point shows only as a marker.
        axes.plot(steps, values, color=color, label=label, marker=marker or ".", markersize=4)
        return
    axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.7)
    window = max(3, len(values) // 50)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(window, len(values) + 1)
    means = (sums[ends] - sums[ends - window]) / window
    axes.plot(steps[ends - 1], means, color=color, label=f"{label} (mean of {window} points)")


def _finish(axes: Axes, title: str) -> None:
    axes.set_ylabel(title)
    drawing.tidy(axes, "both")
    if axes.lines:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=drawing.GREY)
