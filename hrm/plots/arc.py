"""An ARC task being solved: demonstrations, query, the prediction after each step, halt values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hrm.display_arc import COLOURS
from hrm.evaluation.grids import Grid, verdict, wrong_cells
from hrm.plots import drawing

_MAP = ListedColormap(COLOURS)
_LINES = "#6b6b6b"
_COLUMNS, _LEAST_COLUMNS = 8, 5
_TILE, _TITLE, _VALUES = 1.5, 0.3, 2.3  # inches


def plot_task(
    demonstrations: Sequence[tuple[Grid, Grid]],
    query: Grid,
    answers: Sequence[Grid],
    path: Path,
    *,
    q_halt: Sequence[float],
    halted_at: int,
    truth: Grid | None = None,
    title: str = "",
) -> None:
    """A task on top, the answer after each step below it, and the halt values at the bottom.

    Args:
        demonstrations: pairs of input and output, colours 0 to 9.
        answers: the predicted grid after each step; one without cells is shown empty.
        q_halt: the logit of "the answer is right" after each step.
        halted_at: the step, from 1, at which the policy halted; later ones are drawn pale.
        truth: the right answer, where it is known: then wrong cells of the answers are crossed.
    """
    columns = max(len(demonstrations) + 1, min(_COLUMNS, len(answers)), _LEAST_COLUMNS)
    lines = -(-len(answers) // columns)
    heights = [2 * (_TILE + _TITLE) + 0.2, lines * (_TILE + 1.6 * _TITLE) + 0.2, _VALUES]
    figure = Figure(figsize=(columns * _TILE + 0.4, sum(heights)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize="large")
    above, middle, under = figure.subfigures(3, 1, squeeze=False, height_ratios=heights).ravel()
    _draw_task(above.subplots(2, columns), demonstrations, query, truth)
    tiles = middle.subplots(lines, columns, squeeze=False).ravel()
    _draw_answers(tiles, answers, truth, halted_at)
    _draw_values(under.subplots(), q_halt, halted_at)
    drawing.save(figure, path)


def _draw_task(
    tiles: np.ndarray,
    demonstrations: Sequence[tuple[Grid, Grid]],
    query: Grid,
    truth: Grid | None,
) -> None:
    """Inputs above, outputs below, the query last."""
    for tile in tiles.ravel():
        tile.set_axis_off()
    for i, (given, wanted) in enumerate(demonstrations):
        _tile(tiles[0, i], given, f"demonstration {i + 1}")
        _tile(tiles[1, i], wanted, "\N{DOWNWARDS ARROW}")
    last = len(demonstrations)
    _tile(tiles[0, last], query, "query", drawing.BLUE)
    if truth is None:
        _blank(tiles[1, last], "?", query.shape)
    else:
        _tile(tiles[1, last], truth, "\N{DOWNWARDS ARROW} right answer", drawing.BLUE)


def _draw_answers(
    tiles: Sequence[Axes], answers: Sequence[Grid], truth: Grid | None, halted_at: int
) -> None:
    # One scale for all, so that an answer of another size looks it.
    extent = np.max([(1, 1), *(grid.shape for grid in answers)], axis=0)
    for tile in tiles[len(answers) :]:
        tile.set_axis_off()
    for step, (tile, answer) in enumerate(zip(tiles, answers, strict=False), start=1):
        halts = step == halted_at
        told = [f"step {step}{': halt' if halts else ''}"]
        if truth is not None and answer.size:
            told.append(verdict(answer, truth))
        color = drawing.ORANGE if halts else None
        title = "\n".join(told)
        if not answer.size:
            _blank(tile, "no grid", extent)
            tile.set_title(title, fontsize="small", color=color or "black")
            continue
        _tile(tile, answer, title, color, extent, pale=step > halted_at)
        if truth is not None:
            _cross(tile, wrong_cells(answer, truth))


def _tile(
    axes: Axes,
    grid: Grid,
    title: str,
    frame: str | None = None,
    extent: Sequence[int] | np.ndarray | None = None,
    *,
    pale: bool = False,
) -> None:
    """A grid of cells; `extent` is the height and width that the axes leave room for."""
    height, width = grid.shape
    axes.imshow(grid, cmap=_MAP, vmin=0, vmax=9, interpolation="nearest", alpha=0.4 if pale else 1)
    rows, columns = np.arange(height + 1) - 0.5, np.arange(width + 1) - 0.5
    axes.hlines(rows, -0.5, width - 0.5, color=_LINES, linewidth=0.5)
    axes.vlines(columns, -0.5, height - 0.5, color=_LINES, linewidth=0.5)
    if frame:
        axes.plot(
            np.array([0, width, width, 0, 0]) - 0.5,
            np.array([0, 0, height, height, 0]) - 0.5,
            color=frame,
            linewidth=2.5,
        )
    _make_room(axes, grid.shape, grid.shape if extent is None else extent)
    axes.set_title(title, fontsize="small", color=frame or "black")


def _blank(axes: Axes, text: str, extent: Sequence[int] | np.ndarray) -> None:
    axes.set_aspect("equal")
    _make_room(axes, (1, 1), extent)
    axes.text(0, 0, text, ha="center", va="center", color=drawing.GREY)


def _make_room(axes: Axes, shape: Sequence[int], extent: Sequence[int] | np.ndarray) -> None:
    """A grid of this shape in the middle of so many cells, with room for the width of a frame."""
    height, width = np.asarray(extent) * 1.04
    row, column = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    axes.set_xlim(column - width / 2, column + width / 2)
    axes.set_ylim(row + height / 2, row - height / 2)
    axes.set_axis_off()


def _cross(axes: Axes, wrong: Bool[np.ndarray, "height width"]) -> None:
    """A cross on each of these cells, white with a black rim: seen on every colour."""
    rows, columns = np.nonzero(wrong)
    size = min(7.0, 50.0 / max(wrong.shape))
    rim = [patheffects.withStroke(linewidth=2.4, foreground="black")]
    axes.plot(
        columns,
        rows,
        linestyle="",
        marker="x",
        markersize=size,
        markeredgewidth=1.2,
        color="white",
        path_effects=rim,
    )


def _draw_values(axes: Axes, q_halt: Sequence[float], halted_at: int) -> None:
    at = np.arange(1, len(q_halt) + 1)
    chance = 0.5 * (1 + np.tanh(0.5 * np.asarray(q_halt, dtype=np.float64)))
    axes.plot(at, chance, color=drawing.BLUE, marker="o", markersize=4, clip_on=False, zorder=3)
    axes.axvline(halted_at, color=drawing.ORANGE, linestyle="--", label=f"halt: step {halted_at}")
    axes.set_xlim(0.5, len(q_halt) + 0.5)
    axes.set_ylim(0, 1)
    axes.set_xlabel("Step")
    axes.set_ylabel("Own chance of\nbeing right")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    drawing.tidy(axes, "y")
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
