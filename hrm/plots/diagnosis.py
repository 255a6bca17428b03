"""The recursion inside: residuals, changed predictions, truncated gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from hrm.plots import drawing

_LEVEL_COLORS = {"H": drawing.ORANGE, "L": drawing.BLUE}
_GROUPS = {
    "all": ("all parameters", drawing.GREY, "--"),
    "H_level": ("H level", drawing.ORANGE, "-"),
    "L_level": ("L level", drawing.BLUE, "-"),
    "embeddings": ("embeddings", drawing.GREEN, "-"),
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
        color = _LEVEL_COLORS.get(level, drawing.GREEN)
        axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
        marker = "o" if len(at) <= drawing.SMOOTH_FROM else ""
        axes.plot(
            at, middle, color=color, marker=marker, markersize=3.5, label=f"{level} level, median"
        )
    axes.fill_between(
        [], [], color=drawing.GREY, alpha=0.25, linewidth=0, label="10 to 90 % of sequences"
    )
    axes.set_yscale("log")
    axes.axhline(
        figures["tolerance"],
        color=drawing.GREY,
        linestyle=":",
        label=f"counts as a fixed point: {figures['tolerance']:g}",
    )
    axes.set_xlim(0, steps)
    axes.set_xlabel("Steps taken (a point is a cycle)")
    axes.set_ylabel("Residual |z_new - z_old| / |z_new|")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _mark_limit(axes, trained_steps, steps)
    drawing.tidy(axes, "both")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    drawing.save(figure, path)


def plot_prediction_changes(figures: Mapping[str, Any], path: Path, trained_steps: int) -> None:
    """Share of predictions that a step changes, and exact accuracy after it; arguments as above."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, figures["steps"] + 1)
    tokens = _numbers(figures["changed_tokens"]) / figures["seq_len"]
    for values, label, color in (
        (figures["accuracy_by_step"], "exactly right", drawing.BLUE),
        (_numbers(figures["changed_sequences"]), "sequences changed", drawing.ORANGE),
        (tokens, "tokens changed", drawing.GREEN),
    ):
        axes.plot(steps, values, color=color, marker="o", markersize=4, label=label, clip_on=False)
    axes.set_xlabel("Step")
    axes.set_ylabel("Share")
    axes.set_ylim(0, 1)
    axes.set_xlim(0.6, len(steps) + 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _mark_limit(axes, trained_steps, len(steps))
    drawing.tidy(axes, "both")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    drawing.save(figure, path)


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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        drawing.tidy(axes, "both")
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
    drawing.save(figure, path)


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
