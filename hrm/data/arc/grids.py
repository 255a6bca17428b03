"""Grids as rows of tokens: a square of which a grid fills a rectangle, with a border of EOS.

Tokens and layout are the published ones of HRM and TRM: 0 PAD, 1 EOS, 2 .. 11 the colours 0 .. 9.
EOS stands in the cells right of the grid and below it, as far as the square has any, and not in the
corner between. A 2x2 grid of the colours 5 6 / 7 8 at the top left of a 4x4 square:

    7  8  1  0
    9 10  1  0
    1  1  0  0
    0  0  0  0
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hrm.data.arc.tasks import Grid

PAD, EOS, COLOUR_0 = 0, 1, 2
VOCAB_SIZE = 12
LARGEST = 30
"""No grid of ARC has a longer side."""

Tokens = NDArray[np.uint8]


class Bounds(NamedTuple):
    """Where the grid of each row lies in its square, each [n]; a row without one has height 0."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]


def encode(grid: Grid | None, side: int, top: int = 0, left: int = 0) -> Tokens:
    """The row of `grid` with its first cell at (`top`, `left`): tokens [side * side].

    All PAD for None. Raises ValueError if it does not fit.
    """
    square = np.zeros((side, side), dtype=np.uint8)
    if grid is None:
        return square.reshape(-1)
    bottom, right = top + grid.shape[0], left + grid.shape[1]
    if bottom > side or right > side:
        raise ValueError(f"a {grid.shape} grid at ({top}, {left}) leaves a square of {side}")
    square[top:bottom, left:right] = grid + COLOUR_0
    square[bottom : bottom + 1, left:right] = EOS
    square[top:bottom, right : right + 1] = EOS
    return square.reshape(-1)


def decode(row: NDArray[np.integer], side: int) -> Grid | None:
    """The grid in a row [side * side] that `encode` made, wherever it stands; None if all PAD.

    Of predictions, which may be no such row, see `hrm.evaluation.grids.crop`.
    """
    top, left, height, width = (int(value[0]) for value in bounds(row[None], side))
    if not height:
        return None
    square = row.reshape(side, side)[top : top + height, left : left + width]
    return (square - COLOUR_0).astype(np.uint8)


def bounds(rows: NDArray[np.integer], side: int) -> Bounds:
    """Of rows [n, side * side]."""
    coloured = (rows >= COLOUR_0).reshape(len(rows), side, side)
    lines, columns = coloured.any(2), coloured.any(1)
    return Bounds(lines.argmax(1), columns.argmax(1), lines.sum(1), columns.sum(1))
