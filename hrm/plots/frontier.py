"""What is reached over mean steps: policies, fixed depths, and what bounds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hrm.plots import drawing

_STOPPER_LINES = {
    "q": (drawing.BLUE, "-"),
    "confirm": (drawing.BLUE, "--"),
    "lead": ("#7a4fa3", "-"),
    "convergence": (drawing.GREEN, "-"),
    "second_difference": (drawing.GREEN, "--"),
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
        drawing.tidy(axes, "both")
    whole.set_title("Accuracy over mean steps", fontsize="medium")
    whole.set_ylabel(f"Exactly right, of {record['count']:,} rows")
    whole.set_xlim(1 - 0.03 * record["max_steps"], 1.03 * record["max_steps"])
    near.set_title("Near the choice", fontsize="medium")
    _zoom(near, record)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    drawing.save(figure, path)


def _draw_frontiers(axes: Axes, record: Mapping[str, Any]) -> None:
    fixed = np.array(record["fixed_depth"])[:, 1:]
    axes.plot(*fixed.T, color=drawing.GREY, marker="s", markersize=4, label="fixed depth")
    for name, stopper in record["stoppers"].items():
        color, style = _STOPPER_LINES.get(name, ("black", "-."))
        points = np.array([point[1:] for point in stopper["frontier"]])
        marker = "." if len(points) <= record["max_steps"] else ""
        axes.plot(*points.T, linestyle=style, marker=marker, color=color, label=name)
    least = record["last_step"]["exact_accuracy"] - record["loss_points"] / 100
    allowed = f"{record['loss_points']:g} points lost"
    axes.axhline(least, color=drawing.GREY, linestyle=":", linewidth=1, label=allowed)
    chosen = f"chosen: {record['stopper']}"
    ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 2}
    for key, marker, color, label, shape in (
        ("before", "D", drawing.ORANGE, "as trained", {"markersize": 6}),
        ("oracle", "*", "black", "oracle", {"markersize": 11}),
        ("after", "o", drawing.ORANGE, chosen, ring),
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


_SERIES_LINES = {
    "policy": (drawing.ORANGE, "-", "o"),
    "fixed": (drawing.GREY, "-", "s"),
    "random": (drawing.BLUE, "--", "v"),
    "oracle": ("black", "-", "*"),
}
_OTHER_COLORS = (drawing.GREEN, "#7a4fa3", "#b03a5b", drawing.BLUE)


def plot_frontier(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    metric: str = "Intersection over union",
) -> None:
    """A task's metric over mean steps, a line for each way of halting.

    Args:
        series: by label the points (mean steps, metric), such as the policy's for several lambdas;
            they are joined by rising steps. A label that begins with policy, fixed, random or
            oracle always looks the same.
        metric: name of the vertical axis; a share from 0 to 1 is shown in percent.
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    others = 0
    for label, points in series.items():
        found = next((v for k, v in _SERIES_LINES.items() if label.startswith(k)), None)
        if found is None:
            found = (_OTHER_COLORS[others % len(_OTHER_COLORS)], "-.", "D")
            others += 1
        color, style, marker = found
        at = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
        size = 9 if marker == "*" else 5
        axes.plot(*at.T, style, color=color, marker=marker, markersize=size, label=label)
    if axes.lines:
        figure.legend(loc="outside right upper", frameon=False)
    else:
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center")
    values = [value for points in series.values() for _, value in points]
    if values and min(values) >= 0 and max(values) <= 1:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("Mean steps")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric} over mean steps", fontsize="medium")
    drawing.tidy(axes, "both")
    drawing.save(figure, path)
