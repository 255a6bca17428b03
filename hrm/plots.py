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


_LEVEL_COLORS = {"H": _ORANGE, "L": _BLUE}
_GROUPS = {
    "all": ("all parameters", _GREY, "--"),
    "H_level": ("H level", _ORANGE, "-"),
    "L_level": ("L level", _BLUE, "-"),
    "embeddings": ("embeddings", _GREEN, "-"),
}


def plot_residuals(figures: Mapping[str, Any], path: Path, trained_steps: int) -> None:
    """Residuals of both levels, cycle by cycle, on a logarithmic axis.

    Args:
        figures: of `hrm.inference.residuals.summarise_convergence`. A residual of 0 has no place on
            the axis and is left out.
        trained_steps: the model's step limit, marked where the figures go beyond it.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    cycles, steps = figures["cycles"], figures["steps"]
    for level, quantiles in sorted(figures["residual_quantiles"].items()):
        ends = [(i + 1) / len(cycles) for i, name in enumerate(cycles) if name == level]
        at = np.add.outer(np.arange(steps), ends).ravel()
        low, middle, high = (
            _positive(np.ravel(quantiles[name])) for name in ("q10", "median", "q90")
        )
        color = _LEVEL_COLORS.get(level, _GREEN)
        axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
        marker = "o" if len(at) <= _SMOOTH_FROM else ""
        axes.plot(
            at, middle, color=color, marker=marker, markersize=3.5, label=f"{level} level, median"
        )
    axes.fill_between([], [], color=_GREY, alpha=0.25, linewidth=0, label="10 to 90 % of sequences")
    axes.set_yscale("log")
    axes.axhline(
        figures["tolerance"],
        color=_GREY,
        linestyle=":",
        label=f"counts as a fixed point: {figures['tolerance']:g}",
    )
    axes.set_xlim(0, steps)
    axes.set_xlabel("Steps taken (a point is a cycle)")
    axes.set_ylabel("Residual |z_new - z_old| / |z_new|")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_limit(axes, trained_steps, steps)
    _tidy(axes, "both")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    _save(figure, path)


def plot_prediction_changes(figures: Mapping[str, Any], path: Path, trained_steps: int) -> None:
    """Share of predictions that a step changes, and exact accuracy after it; arguments as above."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, figures["steps"] + 1)
    tokens = _numbers(figures["changed_tokens"]) / figures["seq_len"]
    for values, label, color in (
        (figures["accuracy_by_step"], "exactly right", _BLUE),
        (_numbers(figures["changed_sequences"]), "sequences changed", _ORANGE),
        (tokens, "tokens changed", _GREEN),
    ):
        axes.plot(steps, values, color=color, marker="o", markersize=4, label=label, clip_on=False)
    axes.set_xlabel("Step")
    axes.set_ylabel("Share")
    axes.set_ylim(0, 1)
    axes.set_xlim(0.6, len(steps) + 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_limit(axes, trained_steps, len(steps))
    _tidy(axes, "both")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    _save(figure, path)


def plot_gradient_truncation(figures: Mapping[str, Any], path: Path, trained_steps: int) -> None:
    """Cosine of truncated to whole gradients: over cycles with gradient, and as trained over steps.

    Args:
        figures: of `hrm.training.gradient_truncation.gradient_truncation`.
        trained_steps: the model's step limit. Over cycles a line is the mean over the steps up to
            it and its band goes from the lowest of them to the highest.
    """
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    over_cycles, within, through = figure.subplots(1, 3, sharey=True)
    steps, column = np.asarray(figures["steps"]), figures["grad_cycles"] - 1
    for axes, reference in (
        (over_cycles, "to_all_cycles"),
        (within, "to_all_cycles"),
        (through, "to_all_steps"),
    ):
        for group, rows in figures[reference]["cosine"].items():
            label, color, style = _GROUPS[group]
            table = np.array([_numbers(row) for row in rows])
            if axes is over_cycles:
                table = table[steps <= trained_steps]
                at, values = np.arange(1, figures["cycles"] + 1), table.mean(0)
                axes.fill_between(
                    at, table.min(0), table.max(0), color=color, alpha=0.1, linewidth=0
                )
            else:
                at, values = steps, table[:, column]
            axes.plot(at, values, style, color=color, marker="o", markersize=4, clip_on=False)
            if axes is within:
                axes.lines[-1].set_label(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes, "both")
    # The axes share it, so it is set when all is drawn.
    over_cycles.set_ylim(min(0, over_cycles.get_ylim()[0]), 1)
    trained = f"as trained: the last {figures['grad_cycles']}"
    over_cycles.axvline(
        figures["grad_cycles"], color="black", linestyle=":", linewidth=1.2, label=trained
    )
    over_cycles.set_xlabel("Last cycles of a step with gradient")
    over_cycles.set_ylabel("Cosine")
    over_cycles.set_title("To all cycles of the step, by cycles", fontsize="medium")
    within.set_title("To all cycles of the step, as trained", fontsize="medium")
    through.set_title("To all steps from the first, as trained", fontsize="medium")
    for axes in (within, through):
        axes.set_xlabel("Step")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    _mark_limit(within, trained_steps, int(steps[-1]))
    if trained_steps < steps[-1]:
        through.axvline(trained_steps, color="black", linestyle="--", linewidth=1)
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    _save(figure, path)


def plot_diagnosis(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """The plots of `hrm diagnose`'s figures; returns the files."""
    limit = figures["halt_max_steps"]
    files = [folder / "residuals.png", folder / "prediction_changes.png"]
    plot_residuals(figures, files[0], limit)
    plot_prediction_changes(figures, files[1], limit)
    if figures["gradient"] is not None:
        files.append(folder / "gradient_truncation.png")
        plot_gradient_truncation(figures["gradient"], files[2], limit)
    return files


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """None becomes nan, which leaves a gap in a line."""
    return np.array([math.nan if value is None else value for value in values])


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, math.nan)


def _mark_limit(axes: Axes, limit: int, steps: int) -> None:
    if limit < steps:
        axes.axvline(
            limit, color="black", linestyle="--", linewidth=1, label=f"step limit: {limit}"
        )


_STOPPER_LINES = {
    "q": (_BLUE, "-"),
    "confirm": (_BLUE, "--"),
    "lead": ("#7a4fa3", "-"),
    "convergence": (_GREEN, "-"),
    "second_difference": (_GREEN, "--"),
    "unchanged": ("#b03a5b", ":"),
}


def plot_frontiers(record: Mapping[str, Any], path: Path) -> None:
    """Exact accuracy over mean steps: each stopper, fixed depths, the oracle, and what was chosen.

    On the left all of it, on the right where the choices lie.

    Args:
        record: of `hrm.inference.calibration.calibrate`.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    whole, near = figure.subplots(1, 2)
    for axes in (whole, near):
        _draw_frontiers(axes, record)
        axes.set_xlabel("Mean steps")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _tidy(axes, "both")
    whole.set_title("Accuracy over mean steps", fontsize="medium")
    whole.set_ylabel(f"Exactly right, of {record['count']:,} rows")
    whole.set_xlim(1 - 0.03 * record["max_steps"], 1.03 * record["max_steps"])
    near.set_title("Near the choice", fontsize="medium")
    _zoom(near, record)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)


def _draw_frontiers(axes: Axes, record: Mapping[str, Any]) -> None:
    fixed = np.array(record["fixed_depth"])[:, 1:]
    axes.plot(*fixed.T, color=_GREY, marker="s", markersize=4, label="fixed depth")
    for name, stopper in record["stoppers"].items():
        color, style = _STOPPER_LINES.get(name, ("black", "-."))
        points = np.array([point[1:] for point in stopper["frontier"]])
        marker = "." if len(points) <= record["max_steps"] else ""
        axes.plot(*points.T, linestyle=style, marker=marker, color=color, label=name)
    least = record["last_step"]["exact_accuracy"] - record["loss_points"] / 100
    allowed = f"{record['loss_points']:g} points lost"
    axes.axhline(least, color=_GREY, linestyle=":", linewidth=1, label=allowed)
    chosen = f"chosen: {record['stopper']}"
    ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 2}
    for key, marker, color, label, shape in (
        ("before", "D", _ORANGE, "as trained", {"markersize": 6}),
        ("oracle", "*", "black", "oracle", {"markersize": 11}),
        ("after", "o", _ORANGE, chosen, ring),
    ):
        at = record[key]["mean_steps"], record[key]["exact_accuracy"]
        axes.plot(*at, marker, color=color, label=label, zorder=4, **shape)


def _zoom(axes: Axes, record: Mapping[str, Any]) -> None:
    """To the oracle, the policy as trained and what each stopper would choose."""
    marked = [
        (record[key]["mean_steps"], record[key]["exact_accuracy"])
        for key in ("before", "after", "oracle")
    ]
    marked += [
        tuple(stopper["chosen"][1:])
        for stopper in record["stoppers"].values()
        if stopper["chosen"][0] is not None
    ]
    (left, low), (right, high) = np.min(marked, axis=0), np.max(marked, axis=0)
    margin, room = max(0.1 * (right - left), 0.05), max(0.15 * (high - low), 0.002)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(low - room, high + room)
