"""Grids of ARC: out of the tokens of a row, and how an answer differs from the right one."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from hrm.errors import UserError

COLOUR_0, COLOURS = 2, 10
"""The token of colour 0, and how many colours there are; tokens below are PAD and EOS."""

Grid = UInt8[np.ndarray, "height width"]
"""Colours 0 to 9."""


def side_of(length: int) -> int:
    """The side of the square that so many tokens are. Raises `UserError` if they are none."""
    side = math.isqrt(length)
    if side * side != length:
        raise UserError(f"{length} tokens are no square, as a grid of ARC is laid out")
    return side


def crop(
    tokens: Integer[np.ndarray, "rows length"],
    corners: Integer[np.ndarray, "rows 2"] | None = None,
) -> list[Grid]:
    """The grid in each row of tokens: the largest rectangle of colours at its corner.

    A well-formed row is a rectangle of colours with EOS right of it and below, PAD elsewhere. Of a
    malformed one, as an untrained model predicts it, the largest rectangle that holds colours alone
    is taken, of equal ones the lower in height, and it may have no cell at all.

    Args:
        tokens: 0 PAD, 1 EOS, 2 .. 11 the colours 0 .. 9, each row a square; anything else is no
            colour.
        corners: row and column where each grid begins; None: all at the top left.
    """
    side = side_of(tokens.shape[1])
    squares = tokens.reshape(len(tokens), side, side)
    if corners is not None and corners.any():
        moved = np.zeros_like(squares)
        for into, square, (row, column) in zip(moved, squares, corners.tolist(), strict=True):
            into[: side - row, : side - column] = square[row:, column:]
        squares = moved
    colours = (squares >= COLOUR_0) & (squares < COLOUR_0 + COLOURS)
    # A rectangle is as wide as the shortest run of colours from the left among its rows.
    runs = np.logical_and.accumulate(colours, axis=2).sum(2)
    widths = np.minimum.accumulate(runs, axis=1)
    areas = widths * np.arange(1, side + 1)
    heights = areas.argmax(1) + 1
    return [
        (square[:height, : width[height - 1]] - COLOUR_0).astype(np.uint8)
        if width[0]
        else np.zeros((0, 0), dtype=np.uint8)
        for square, width, height in zip(squares, widths, heights.tolist(), strict=True)
    ]


def wrong_cells(answer: Grid, truth: Grid) -> Bool[np.ndarray, "height width"]:
    """Cells of `answer` that differ from those of `truth`, or lie where it has none."""
    wrong = np.ones(answer.shape, dtype=bool)
    rows, columns = np.minimum(answer.shape, truth.shape)
    wrong[:rows, :columns] = answer[:rows, :columns] != truth[:rows, :columns]
    return wrong


def verdict(answer: Grid, truth: Grid) -> str:
    """How an answer compares with the right one: `right`, `3 wrong`, `2x3, not 3x3`, `no grid`."""
    if not answer.size:
        return "no grid"
    if answer.shape != truth.shape:
        return "{}x{}, not {}x{}".format(*answer.shape, *truth.shape)
    wrong = int(wrong_cells(answer, truth).sum())
    return f"{wrong} wrong" if wrong else "right"
