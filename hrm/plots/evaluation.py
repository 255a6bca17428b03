"""An evaluation: steps at halt, accuracy over steps, calibration of q_halt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hrm.evaluation.halting import CalibrationBin
from hrm.plots import drawing
from hrm.plots.segmentation import plot_histograms, plot_iou_by_step


def plot_steps_histogram(
    histogram: Sequence[int], path: Path, title: str = "Steps at halt"
) -> None:
    """How many rows halted at each step; `histogram[i]` counts those of step i + 1."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    steps, counts = np.arange(1, len(histogram) + 1), np.asarray(histogram, dtype=np.float64)
    total = counts.sum()
    shares = counts / max(total, 1)
    axes.bar(steps, shares, color=drawing.BLUE, width=0.8)
    if total:
        _mark_mean(axes, float((steps * shares).sum()))
    axes.set_xlabel("Step")
    axes.set_ylabel(f"Share of {int(total):,} rows")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.4, len(histogram) + 0.6)
    axes.set_title(title)
    drawing.tidy(axes, "y")
    drawing.save(figure, path)


def plot_accuracy_by_step(
    accuracy_by_step: Sequence[float], path: Path, mean_steps: float | None = None
) -> None:
    """Exact accuracy if all rows are stopped after step n; `mean_steps` at halt is marked."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(accuracy_by_step) + 1)
    final = f"{accuracy_by_step[-1]:.1%} after step {len(steps)}" if len(steps) else "no steps"
    axes.plot(
        steps,
        accuracy_by_step,
        color=drawing.BLUE,
        marker="o",
        clip_on=False,
        zorder=3,
        label=final,
    )
    axes.legend(frameon=False)
    if mean_steps is not None:
        _mark_mean(axes, mean_steps)
    axes.set_xlabel("Stopped after step")
    axes.set_ylabel("Exactly right")
    axes.set_ylim(0, 1)
    axes.set_xlim(0.6, len(accuracy_by_step) + 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title("Accuracy over steps", pad=12)
    drawing.tidy(axes, "y")
    drawing.save(figure, path)


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
    axes.plot([0, 1], [0, 1], color=drawing.GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(
        [b["probability"] for b in filled],
        [b["accuracy"] for b in filled],
        color=drawing.BLUE,
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
        color=drawing.BLUE,
    )
    # A head that is sure puts nearly all answers into the two outer bins.
    counts.set_yscale("symlog", linthresh=1)
    counts.set_ylabel("Answers")
    counts.set_xlabel("Chance told of being right")
    for each in (axes, counts):
        drawing.tidy(each, "both")
    drawing.save(figure, path)


def plot_evaluation(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """The three plots of `hrm.evaluation.summarise`'s dict; returns the files.

    Steps at halt are the policy's where the summary knows them. Of images (with `iou`) there are
    the histograms, and what is reached by each step where that is known.
    """
    if "iou" in summary:
        return _plot_images(summary, folder)
    policy = "policy_" if "policy_mean_steps" in summary else ""
    files = [
        folder / f"{name}.png" for name in ("steps_at_halt", "accuracy_by_step", "calibration")
    ]
    plot_steps_histogram(summary[f"{policy}steps_histogram"], files[0])
    plot_accuracy_by_step(summary["accuracy_by_step"], files[1], summary[f"{policy}mean_steps"])
    plot_calibration(summary["q_halt_calibration"], files[2], summary["q_halt_calibration_error"])
    return files


def _plot_images(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    files = [folder / "steps_at_halt.png"]
    plot_histograms(summary, files[0])
    if "iou_by_step" in summary:
        files.append(folder / "iou_by_step.png")
        plot_iou_by_step(summary, files[1])
    return files


def _mark_mean(axes: Axes, mean: float) -> None:
    axes.axvline(
        mean,
        color=drawing.ORANGE,
        linestyle="--",
        linewidth=1.5,
        label=f"mean step at halt {mean:.2f}",
    )
    axes.legend(frameon=False)
