"""The symmetries of Sudoku: other forms of a puzzle, and a number that all its forms share.

Symmetries are relabelling of digits, moves of rows within a band, of bands, of columns within a
stack, of stacks, and transposition where boxes are square. They map a puzzle with one solution to
one with one solution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm.data.keys import Keys, draws, mix
from hrm.data.sudoku.grid import Shape

Tokens = TypeVar("Tokens", bound=np.integer)

_ROUNDS = 4
_CHUNK = 256
# Odd multipliers that keep apart what a cell hears from each side.
_ROW, _COLUMN, _BOX, _MINI, _DIGIT, _EDGE = mix(np.arange(1, 7, dtype=np.uint64)) | np.uint64(1)


class SudokuAugment:
    """An `Augmenter`: a random symmetry of each row, applied to question and answer alike."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        n, bands, stacks = shape.n, shape.n // shape.box_rows, shape.n // shape.box_cols
        sizes = [n, bands, n, stacks, n, 1]
        self._cuts = np.cumsum(sizes)[:-1]
        self._count = sum(sizes)

    def __call__(
        self, columns: Mapping[str, NDArray[np.int32]], keys: Keys
    ) -> dict[str, NDArray[np.int32]]:
        """A batch's columns and keys [rows] -> the same with other `inputs` and `labels`."""
        inputs, labels = self.move(columns["inputs"], columns["labels"], keys)
        return {**columns, "inputs": inputs, "labels": labels}

    def move(
        self, inputs: NDArray[Tokens], labels: NDArray[Tokens], keys: Keys
    ) -> tuple[NDArray[Tokens], NDArray[Tokens]]:
        """Tokens [rows, cells] of questions and answers, keys [rows] -> the same in other forms.

        Pad, blank and negative labels keep their values; dtypes stay.
        """
        shape, rows = self.shape, len(keys)
        digits, bands, in_band, stacks, in_stack, flip = np.split(
            draws(keys, self._count), self._cuts, axis=1
        )
        row_from = _line_order(bands, in_band)
        column_from = _line_order(stacks, in_stack)
        cell_from = row_from[:, :, None] * shape.n + column_from[:, None, :]
        if shape.square:
            flipped = (flip & np.uint64(1)).astype(bool)[:, :, None]
            cell_from = np.where(flipped, cell_from.swapaxes(1, 2), cell_from)
        cell_from = cell_from.reshape(rows, shape.cells)

        token_to = np.empty((rows, shape.vocab_size), dtype=inputs.dtype)
        token_to[:, :2] = (0, 1)
        token_to[:, 2:] = np.argsort(digits, axis=1) + 2
        new_inputs = np.take_along_axis(inputs, cell_from, axis=1)
        new_labels = np.take_along_axis(labels, cell_from, axis=1)
        return (
            np.take_along_axis(token_to, new_inputs, axis=1),
            np.where(
                new_labels < 0,
                new_labels,
                np.take_along_axis(token_to, np.maximum(new_labels, 0), axis=1),
            ),
        )


def _line_order(groups: Keys, lines: Keys) -> NDArray[np.int64]:
    """Random numbers of bands [rows, bands], lines [rows, n] -> source of each line [rows, n]."""
    rows, bands = groups.shape
    group = np.argsort(groups, axis=1)
    line = np.argsort(lines.reshape(rows, bands, -1), axis=2)
    source: NDArray[np.int64] = group[:, :, None] * line.shape[2] + line
    return source.reshape(rows, -1)


def invariant(shape: Shape, boards: NDArray[np.integer]) -> Keys:
    """A hash of each board of [rows, cells] (digits, 0 for a blank), equal for equivalent boards.

    Colours of cells are refined by the sums of colours in their row, column, box, row within the
    box, and digit (Weisfeiler and Lehman's colour refinement), and a digit also hears how often it
    shares a row or a column of a box with each other: without that, all cells of a full board
    would look alike.
    Boards that are not equivalent may, rarely, share a hash: a split by it is then merely coarser.
    """
    values = np.empty(len(boards), dtype=np.uint64)
    for start in range(0, len(boards), _CHUNK):
        chunk = boards[start : start + _CHUNK].reshape(-1, shape.n, shape.n)
        value = _refine(shape, chunk)
        if shape.square:
            value = value + _refine(shape, chunk.swapaxes(1, 2))
        values[start : start + _CHUNK] = mix(value)
    return values


def _refine(shape: Shape, boards: NDArray[np.integer]) -> Keys:
    """As `invariant`, but for transposition; boards are [rows, n, n]."""
    n, bands, stacks = shape.n, shape.n // shape.box_rows, shape.n // shape.box_cols
    count = len(boards)
    boxed = (count, bands, shape.box_rows, stacks, shape.box_cols)
    is_digit = boards[:, None] == np.arange(1, n + 1)[:, None, None]  # [rows, digit, n, n]

    parts = is_digit.reshape(count, n, *boxed[1:])
    in_row = parts.any(axis=5).reshape(count, n, -1).astype(np.float32)
    in_column = parts.any(axis=3).reshape(count, n, -1).astype(np.float32)
    shared_rows = in_row @ in_row.swapaxes(1, 2)  # [rows, digit, digit]
    shared_columns = in_column @ in_column.swapaxes(1, 2)
    edges = mix((shared_rows * 64 + shared_columns).astype(np.uint64) * _EDGE + _EDGE)

    flat_is_digit = is_digit.reshape(count, n, -1)
    digit_of = boards.reshape(count, -1).astype(np.int64)
    heard = np.zeros((count, n + 1), dtype=np.uint64)  # by digit; blanks hear nothing there
    colours = mix((boards > 0).astype(np.uint64))
    for _ in range(_ROUNDS):
        by_box = colours.reshape(boxed)
        row = mix(colours.sum(axis=2) * _ROW)[:, :, None]
        column = mix(colours.sum(axis=1) * _COLUMN)[:, None, :]
        box = mix(by_box.sum(axis=(2, 4)) * _BOX)[:, :, None, :, None]
        mini = mix(by_box.sum(axis=4) * _MINI)[..., None]
        units = (np.broadcast_to(box, boxed) + mini).reshape(boards.shape) + row + column
        flat = colours.reshape(count, 1, -1)
        digit = np.where(flat_is_digit, flat, np.uint64(0)).sum(axis=2)
        heard[:, 1:] = mix(digit * _DIGIT) + mix(edges + digit[:, None, :]).sum(axis=2)
        said = np.take_along_axis(heard, digit_of, axis=1).reshape(boards.shape)
        colours = mix(mix(colours) + units + said)
    return mix(colours.sum(axis=(1, 2)))
