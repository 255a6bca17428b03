"""Plots of a run and of an evaluation, as PNG files.

Each file is written beside and renamed. No pyplot, so that no state is shared with the caller.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from hrm.errors import UserError
from hrm.evaluation.halting import CalibrationBin

_BLUE, _ORANGE, _GREEN, _GREY = "#3566a8", "#d2691e", "#3a8a4d", "#777777"
_SMOOTH_FROM = 60
"""With more points than this a curve is drawn faintly, with its running mean on top."""


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

    _curve(loss, rows, "train/loss", "loss", _BLUE)
    _curve(loss, rows, "train/lm_loss", "token loss alone", _ORANGE)
    if loss.lines and all(np.min(np.asarray(line.get_ydata())) > 0 for line in loss.lines):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter(NullFormatter())
    _finish(loss, "Loss (a row, a step)")

    _curve(share, rows, "train/exact_accuracy", "training rows, at halt", _BLUE)
    _curve(share, rows, "eval/exact_accuracy", "evaluation", _ORANGE, marker="o")
    share.set_ylim(-0.02, 1.02)
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(share, "Exactly right")

    _curve(steps, rows, "train/steps", "training rows", _GREEN)
    steps.margins(y=0.2)
    steps.set_ylim(bottom=0)
    _finish(steps, "Mean steps at halt")
    steps.set_xlabel("Updates")
    _save(figure, path)


def plot_steps_histogram(
    histogram: Sequence[int], path: Path, title: str = "Steps at halt"
) -> None:
    """How many rows halted at each step; `histogram[i]` counts those of step i + 1."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    steps, counts = np.arange(1, len(histogram) + 1), np.asarray(histogram, dtype=np.float64)
    total = counts.sum()
    shares = counts / max(total, 1)
    axes.bar(steps, shares, color=_BLUE, width=0.8)
    if total:
        _mark_mean(axes, float((steps * shares).sum()))
    axes.set_xlabel("Step")
    axes.set_ylabel(f"Share of {int(total):,} rows")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.4, len(histogram) + 0.6)
    axes.set_title(title)
    _tidy(axes, "y")
    _save(figure, path)


def plot_accuracy_by_step(
    accuracy_by_step: Sequence[float], path: Path, mean_steps: float | None = None
) -> None:
    """Exact accuracy if all rows are stopped after step n; `mean_steps` at halt is marked."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(accuracy_by_step) + 1)
    final = f"{accuracy_by_step[-1]:.1%} after step {len(steps)}" if len(steps) else "no steps"
    axes.plot(
        steps, accuracy_by_step, color=_BLUE, marker="o", clip_on=False, zorder=3, label=final
    )
    axes.legend(frameon=False)
    if mean_steps is not None:
        _mark_mean(axes, mean_steps)
    axes.set_xlabel("Stopped after step")
    axes.set_ylabel("Exactly right")
    axes.set_ylim(0, 1)
    axes.set_xlim(0.6, len(accuracy_by_step) + 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Accuracy over steps", pad=12)
    _tidy(axes, "y")
    _save(figure, path)


def plot_calibration(
    bins: Sequence[CalibrationBin], path: Path, error: float | None = None
) -> None:
    """Share of right answers over the chance told by q_halt, and how many answers each bin has.

    Args:
        bins: from `hrm.evaluation.calibration_bins`.
        error: expected calibration error, for the title.
    """
    figure = Figure(figsize=(5.5, 6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = [b for b in bins if b["count"]]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(
        [b["probability"] for b in filled],
        [b["accuracy"] for b in filled],
        color=_BLUE,
        marker="o",
        clip_on=False,
        zorder=3,
        label="measured",
    )
    axes.set_ylabel("Share that is right")
    axes.set_ylim(0, 1)
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, loc="upper left")
    told = "" if error is None else f" (expected error {error:.3f})"
    axes.set_title(f"Calibration of q_halt{told}", pad=12)
    counts.bar(
        [(b["low"] + b["high"]) / 2 for b in bins],
        [b["count"] for b in bins],
        width=[0.9 * (b["high"] - b["low"]) for b in bins],
        color=_BLUE,
    )
    # A head that is sure puts nearly all answers into the two outer bins.
    counts.set_yscale("symlog", linthresh=1)
    counts.set_ylabel("Answers")
    counts.set_xlabel("Chance told of being right")
    for each in (axes, counts):
        _tidy(each, "both")
    _save(figure, path)


def plot_evaluation(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """The three plots of `hrm.evaluation.summarise`'s dict; returns the files.

    Steps at halt are the policy's where the summary knows them.
    """
    policy = "policy_" if "policy_mean_steps" in summary else ""
    files = [
        folder / f"{name}.png" for name in ("steps_at_halt", "accuracy_by_step", "calibration")
    ]
    plot_steps_histogram(summary[f"{policy}steps_histogram"], files[0])
    plot_accuracy_by_step(summary["accuracy_by_step"], files[1], summary[f"{policy}mean_steps"])
    plot_calibration(summary["q_halt_calibration"], files[2], summary["q_halt_calibration_error"])
    return files


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
    if marker or len(steps) <= _SMOOTH_FROM:
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
    _tidy(axes, "both")
    if axes.lines:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", color=_GREY)


def _tidy(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def _mark_mean(axes: Axes, mean: float) -> None:
    axes.axvline(
        mean, color=_ORANGE, linestyle="--", linewidth=1.5, label=f"mean step at halt {mean:.2f}"
    )
    axes.legend(frameon=False)


def _save(figure: Figure, path: Path) -> None:
    """Write beside, then rename: a reader never sees half a picture."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(beside, format="png", dpi=120)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
