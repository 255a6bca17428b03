"""Image models: an answer step by step, and at which steps a policy halts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hrm.plots import drawing

_CLASS_COLORS = (drawing.BLUE, drawing.GREEN, "#7a4fa3", "#b03a5b", "#c9a227", drawing.GREY)
_COLUMNS = 7
_TILE = 1.55  # inches


def plot_steps(
    image: Float[np.ndarray, "height width rgb"],
    predictions: Integer[np.ndarray, "steps height width"],
    path: Path,
    *,
    halted_at: int,
    values: Mapping[str, Sequence[float]],
    shown: Bool[np.ndarray, "height width"] | None = None,
) -> None:
    """An image and its prediction after each step, and below what the policy looked at.

    Args:
        image: red, green and blue from 0 to 1.
        predictions: classes of the pixels; those above 0 are painted over the image.
        halted_at: the step, from 1, at which the policy halted; later ones are drawn pale.
        values: by name a number after each step. `contribution` is drawn as bars, `accumulated` and
            `threshold` as lines; without these `q_halt`.
        shown: where predictions are painted; None: everywhere.
    """
    steps = len(predictions)
    columns = min(_COLUMNS, steps + 1)
    lines = -(-(steps + 1) // columns)
    below = 2.6
    size = (max(columns * _TILE, 6.5), lines * (_TILE + 0.25) + below)
    figure = Figure(figsize=size, layout="constrained")
    heights = [size[1] - below, below]
    above, under = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
    tiles = above.subplots(lines, columns, squeeze=False).ravel()
    for tile in tiles:
        tile.set_axis_off()
    _tile(tiles[0], image, "input")
    where = np.ones(predictions.shape[1:], dtype=bool) if shown is None else shown
    for step, prediction in enumerate(predictions, start=1):
        halts = step == halted_at
        picture = painted(image, np.where(where, prediction, 0))
        if step > halted_at:
            picture = 1 - 0.5 * (1 - picture)
        title = f"step {step}: halt" if halts else f"step {step}"
        _tile(tiles[step], picture, title, drawing.ORANGE if halts else None)
    _draw_values(under.subplots(), values, steps, halted_at)
    drawing.save(figure, path)


def painted(
    image: Float[np.ndarray, "height width rgb"], mask: Integer[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width rgb"]:
    """The image in pale colours with the classes above 0 of `mask` painted over it."""
    picture = 0.35 + 0.65 * image.astype(np.float64)
    for value in np.unique(mask[mask > 0]).tolist():
        color = np.array(to_rgb(_CLASS_COLORS[(value - 1) % len(_CLASS_COLORS)]))
        of_class = mask == value
        picture[of_class] = 0.7 * color + 0.3 * image[of_class]
    return picture


def _tile(axes: Axes, picture: np.ndarray, title: str, frame: str | None = None) -> None:
    axes.set_axis_on()
    axes.imshow(picture, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize="small", color=frame or "black")
    for spine in axes.spines.values():
        spine.set_color(frame or "#bbbbbb")
        spine.set_linewidth(2.5 if frame else 0.8)


def _draw_values(
    axes: Axes, values: Mapping[str, Sequence[float]], steps: int, halted_at: int
) -> None:
    at = np.arange(1, steps + 1)
    if "contribution" in values:
        axes.bar(at, values["contribution"], width=0.6, color="#b9cbe4", label="contribution")
        for name, label, color in (
            ("accumulated", "accumulated contribution S", drawing.BLUE),
            ("threshold", "threshold", drawing.GREEN),
        ):
            axes.plot(at, values[name], color=color, marker="o", markersize=4, label=label)
        axes.set_ylim(bottom=0)
    else:
        axes.plot(
            at, values["q_halt"], color=drawing.BLUE, marker="o", markersize=4, label="q_halt"
        )
    axes.axvline(halted_at, color=drawing.ORANGE, linestyle="--", label=f"halt: step {halted_at}")
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_xlabel("Step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    drawing.tidy(axes, "y")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_histograms(figures: Mapping[str, Any], path: Path) -> None:
    """How many rows halt at each step beside how many should, and both over the difficulty.

    Args:
        figures: with `steps_histogram` and, where they are known, `optimal_steps_histogram` and
            `by_difficulty`, as `hrm.inference.segmentation.segmentation_summary` gives them.
    """
    groups = figures.get("by_difficulty")
    figure = Figure(figsize=(10.5 if groups else 6, 4), layout="constrained")
    plots = figure.subplots(1, 2 if groups else 1, squeeze=False).ravel()
    policy, best = figures["steps_histogram"], figures.get("optimal_steps_histogram")
    shares = plots[0]
    at, width = np.arange(1, len(policy) + 1), 0.8 if best is None else 0.4
    for counts, label, color, side in (
        (policy, "policy", drawing.ORANGE, -1),
        (best, "optimal step k*", drawing.BLUE, 1),
    ):
        if counts is not None:
            offset = 0 if best is None else side * width / 2
            height = np.asarray(counts) / max(sum(counts), 1)
            shares.bar(at + offset, height, width=width, color=color, label=label)
    shares.set_xlabel("Step")
    shares.set_ylabel(f"Share of {sum(policy):,} images")
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    shares.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    shares.set_title("Steps at halt", fontsize="medium")
    if groups:
        _draw_by_difficulty(plots[1], groups, len(policy))
    for axes in plots:
        drawing.tidy(axes, "y")
        axes.legend(frameon=False, fontsize="small")
    drawing.save(figure, path)


def _draw_by_difficulty(axes: Axes, groups: Sequence[Mapping[str, Any]], max_steps: int) -> None:
    at = np.arange(len(groups))
    for key, label, color in (
        ("mean_steps", "policy", drawing.ORANGE),
        ("mean_optimal_steps", "optimal step k*", drawing.BLUE),
    ):
        if groups[0][key] is not None:
            means = [group[key] for group in groups]
            axes.plot(at, means, color=color, marker="o", markersize=5, label=label)
    axes.set_xticks(at, [_range_of(group) for group in groups], fontsize="small", rotation=30)
    axes.set_ylim(0, max_steps * 1.04)
    axes.set_xlabel("Difficulty")
    axes.set_ylabel("Mean steps")
    axes.set_title("Steps by difficulty", fontsize="medium")


def _range_of(group: Mapping[str, Any]) -> str:
    low, high = f"{group['low']:g}", f"{group['high']:g}"
    return low if low == high else f"{low}-{high}"


def plot_iou_by_step(figures: Mapping[str, Any], path: Path) -> None:
    """Intersection over union and the task's loss if all rows stop after step n, and the policy.

    Args:
        figures: with `iou_by_step`, `loss_by_step`, `halting/mean_steps` and `halting/iou`.
    """
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    losses = axes.twinx()
    at = np.arange(1, len(figures["iou_by_step"]) + 1)
    axes.plot(at, figures["iou_by_step"], color=drawing.BLUE, marker="o", label="all at step n")
    losses.plot(at, figures["loss_by_step"], color=drawing.GREY, linestyle="--", label="loss")
    axes.plot(
        figures["halting/mean_steps"],
        figures["halting/iou"],
        "D",
        color=drawing.ORANGE,
        markersize=8,
        label="policy, at its mean step",
    )
    axes.set_xlabel("Stopped after step")
    axes.set_ylabel("Intersection over union")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses.set_ylabel("Task loss", color=drawing.GREY)
    drawing.tidy(axes, "both")
    losses.spines[["top"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    drawing.save(figure, path)
