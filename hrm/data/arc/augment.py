"""Other forms of a task: turned and mirrored, its colours exchanged, its grids moved.

A form keeps what the task asks for, if all its grids change alike. The square's eight symmetries
are numbered, and forms are named, as published:

    0 none   1, 2, 3 quarter turns to the left   4, 5 columns, rows reversed   6 transposed
    7 transposed along the other diagonal

`TASK|||t3|||0192837465` is TASK after three quarter turns, where colour 1 has become 1, 2 has
become 9, 3 has become 2, and so on. Colour 0, black, stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrm.data.arc.grids import COLOUR_0, EOS, LARGEST, PAD, VOCAB_SIZE, Tokens, bounds
from hrm.data.arc.tasks import Grid
from hrm.data.base import IGNORE, Metadata
from hrm.data.keys import Keys, draws
from hrm.errors import UserError

SYMMETRIES = 8
COLOURS = 10
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
"""The symmetry that undoes each."""

# A symmetry is a transposition, or none, and then a reversal of rows, columns, both or none.
_TRANSPOSES = np.isin(np.arange(SYMMETRIES), (1, 3, 6, 7))
_REVERSES_ROWS = np.isin(np.arange(SYMMETRIES), (1, 2, 5, 7))
_REVERSES_COLUMNS = np.isin(np.arange(SYMMETRIES), (2, 3, 4, 7))

_SEPARATOR = "|||"
# HRM's builder joins the parts by "_".
_NAME = re.compile(r"(.+)(?:\|\|\||_)t([0-7])(?:\|\|\||_)(0[1-9]{9})")

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """A symmetry and an exchange of colours."""

    symmetry: int = 0
    """0 to 7."""
    colours: tuple[int, ...] = tuple(range(COLOURS))
    """What each colour becomes; 0 stays 0."""

    def apply(self, grid: Grid) -> Grid:
        """`grid` in this form."""
        return turned(np.array(self.colours, dtype=np.uint8)[grid], self.symmetry)

    def undo(self, grid: Grid) -> Grid:
        """The inverse of `apply`."""
        return turned(np.argsort(self.colours).astype(np.uint8)[grid], INVERSE[self.symmetry])

    def name(self, task: str) -> str:
        """The published name of this form of `task`; `task` itself if nothing changes."""
        if self == Form():
            return task
        digits = "".join(map(str, self.colours))
        return f"{task}{_SEPARATOR}t{self.symmetry}{_SEPARATOR}{digits}"


def parse_name(name: str) -> tuple[str, Form]:
    """The task and the form that an identifier names; a name without a form is the task as it is.

    Reads the names of TRM's builder and of HRM's, `TASK_t3_0192837465`.
    """
    found = _NAME.fullmatch(name)
    if found is None or len(set(found[3])) != COLOURS:
        return name, Form()
    return found[1], Form(int(found[2]), tuple(map(int, found[3])))


def turned(grid: Grid, symmetry: int) -> Grid:
    """`grid` [rows, columns] after one of the eight symmetries: a view."""
    if _TRANSPOSES[symmetry]:
        grid = grid.T
    if _REVERSES_ROWS[symmetry]:
        grid = grid[::-1]
    if _REVERSES_COLUMNS[symmetry]:
        grid = grid[:, ::-1]
    return grid


def move(
    rows: Tokens,
    side: int,
    symmetry: Int64,
    token_to: Tokens,
    top: Int64 | int = 0,
    left: Int64 | int = 0,
) -> Tokens:
    """Many rows [n, side * side] at once, each in a form and at a place of its own.

    Equals `encode(form.apply(decode(row)), side, top, left)` row by row.

    Args:
        symmetry: [n], 0 to 7.
        token_to: [n, 12], what each token becomes (`tokens_to`).
        top, left: [n], where the new grid's first cell is; it must fit.
    """
    count, width = len(rows), side + 2
    old = bounds(rows, side)
    # After the square a line of EOS and a line of PAD, so that one look-up lays the border too.
    squares = np.zeros((count, width, width), dtype=np.uint8)
    squares[:, :side, :side] = rows.reshape(count, side, side)
    squares[:, side, :side] = squares[:, :side, side] = EOS
    swaps = _TRANSPOSES[symmetry]
    line = _old_lines(
        side,
        np.where(swaps, old.left, old.top),
        np.where(swaps, old.width, old.height),
        top,
        _REVERSES_ROWS[symmetry],
    )
    column = _old_lines(
        side,
        np.where(swaps, old.top, old.left),
        np.where(swaps, old.height, old.width),
        left,
        _REVERSES_COLUMNS[symmetry],
    )
    line *= np.where(swaps, 1, width)[:, None]
    column *= np.where(swaps, width, 1)[:, None]
    line += np.arange(count)[:, None] * width**2
    tokens = np.take(squares, line[:, :, None] + column[:, None, :]).reshape(count, side**2)
    return np.take(token_to, tokens + np.arange(0, count * VOCAB_SIZE, VOCAB_SIZE)[:, None])


def _old_lines(
    side: int, old_start: Int64, length: Int64, start: Int64 | int, reverses: NDArray[np.bool_]
) -> Int64:
    """Where each new line of the square [n, side] comes from: from the grid, or from the line of
    EOS if it is the one after the grid, or from that of PAD."""
    number = np.arange(side) - np.reshape(start, (-1, 1))
    length = length[:, None]
    lines = old_start[:, None] + np.where(reverses[:, None], length - 1 - number, number)
    lines[number == length] = side
    lines[(number < 0) | (number > length)] = side + 1
    return lines


def random_forms(keys: Keys) -> tuple[Int64, NDArray[np.uint8]]:
    """Of each key [n] a symmetry [n] and what each colour becomes [n, 10], all equally likely."""
    numbers = draws(keys, COLOURS)
    symmetry = (numbers[:, 0] % np.uint64(SYMMETRIES)).astype(np.int64)
    colours = np.zeros((len(keys), COLOURS), dtype=np.uint8)
    colours[:, 1:] = np.argsort(numbers[:, 1:], axis=1) + 1
    return symmetry, colours


def tokens_to(colours: NDArray[np.uint8]) -> Tokens:
    """What each colour becomes [n, 10] -> what each token becomes [n, 12]."""
    kept = np.broadcast_to(np.array([PAD, EOS], dtype=np.uint8), (len(colours), COLOUR_0))
    return np.concatenate([kept, colours + np.uint8(COLOUR_0)], axis=1)


def random_places(
    numbers: Keys, first: Tokens, second: Tokens, side: int, symmetry: Int64
) -> tuple[Int64, Int64]:
    """Where the pairs of rows `first` and `second` [n, side * side] may begin after `symmetry` [n],
    by two random numbers each [n, 2]: tops and lefts [n], all that fit equally likely.

    Both grids of a pair begin at the same cell, as published.
    """
    sizes = [np.stack(bounds(rows, side)[2:], axis=1) for rows in (first, second)]
    size = np.maximum(*sizes)
    size = np.where(_TRANSPOSES[symmetry][:, None], size[:, ::-1], size)
    places = (numbers % (side + 1 - size).astype(np.uint64)).astype(np.int64)
    return places[:, 0], places[:, 1]


class ArcAugment:
    """An `Augmenter`: a random form of each row, the same for its query and its demonstrations,
    each pair of which is moved to a random place in the square.

    Rows without demonstrations are moved only: there a puzzle's identifier stands for one form.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, columns: Mapping[str, Int32], keys: Keys) -> dict[str, Int32]:
        """A batch's columns and keys [n] -> the same columns, but for the identifiers."""
        labels = np.where(columns["labels"] == IGNORE, PAD, columns["labels"])
        first, second = [columns["inputs"]], [labels]
        row, number = np.arange(len(keys)), np.zeros(len(keys), dtype=np.int64)
        symmetry = np.zeros(len(keys), dtype=np.int64)
        colours = np.tile(np.arange(COLOURS, dtype=np.uint8), (len(keys), 1))
        shown = columns.get("demo_mask")
        if shown is not None:
            symmetry, colours = random_forms(keys)
            of_row, of_number = np.nonzero(shown)
            row = np.concatenate([row, of_row])
            number = np.concatenate([number, of_number + 1])
            first.append(columns["demo_inputs"][of_row, of_number])
            second.append(columns["demo_outputs"][of_row, of_number])
        inputs, outputs = (np.concatenate(part).astype(np.uint8) for part in (first, second))
        # The numbers after those of the form.
        numbers = draws(keys, COLOURS + 2 * (int(number.max(initial=0)) + 1))[:, COLOURS:]
        chosen = numbers[row[:, None], 2 * number[:, None] + np.arange(2)]
        top, left = random_places(chosen, inputs, outputs, self.side, symmetry[row])
        token_to = tokens_to(colours)[row]
        new_inputs, new_outputs = (
            move(part, self.side, symmetry[row], token_to, top, left).astype(np.int32)
            for part in (inputs, outputs)
        )
        count = len(keys)
        labels = np.where(new_outputs[:count] == PAD, np.int32(IGNORE), new_outputs[:count])
        new = {**columns, "inputs": new_inputs[:count], "labels": labels}
        if shown is not None:
            for name, moved in (("demo_inputs", new_inputs), ("demo_outputs", new_outputs)):
                new[name] = np.zeros_like(columns[name])
                new[name][of_row, of_number] = moved[count:]
        return new


def arc_augment(data: Metadata, path: str) -> ArcAugment:
    """The augmenter of a data set at `path`. Raises `UserError` if its rows are no grids of ARC."""
    side = math.isqrt(data.seq_len)
    fits = side <= LARGEST and side**2 == data.seq_len and data.vocab_size == VOCAB_SIZE
    if not fits or data.ignore_label_id != PAD:
        raise UserError(
            f"data.augment: arc needs squares of up to {LARGEST}x{LARGEST} tokens below "
            f"{VOCAB_SIZE} (hrm prepare arc), but {path} has {data.seq_len} tokens of "
            f"{data.vocab_size} values"
        )
    return ArcAugment(side)
