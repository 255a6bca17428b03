"""Sudoku boards: their geometry, their text, their tokens, their rules.

A board is an array of digits [n * n], row by row, 0 for a blank. Its tokens are digit + 1, so that
0 is free for padding: pad 0, blank 1, digit d -> d + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hrm.errors import UserError

Digits = NDArray[np.uint8]

_BLANKS = ".0_"


@dataclass(frozen=True)
class Shape:
    """An n x n board of boxes with `box_rows` rows and `box_cols` columns."""

    n: int
    box_rows: int
    box_cols: int

    @property
    def cells(self) -> int:
        return self.n * self.n

    @property
    def vocab_size(self) -> int:
        """Pad, blank and n digits."""
        return self.n + 2

    @property
    def square(self) -> bool:
        """Whether boxes are square, so that a transposed board is a board."""
        return self.box_rows == self.box_cols

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Cells of each row, then of each column, then of each box: [3n, n]."""
        cells = np.arange(self.cells).reshape(self.n, self.n)
        boxes = cells.reshape(
            self.n // self.box_rows, self.box_rows, self.n // self.box_cols, self.box_cols
        )
        boxes = boxes.swapaxes(1, 2)
        units = [cells, cells.T, boxes.reshape(self.n, self.n)]
        return np.concatenate(units).astype(np.int64)

    @cached_property
    def units_of(self) -> NDArray[np.int64]:
        """The row, column and box of each cell, as indices into `units`: [n * n, 3]."""
        of = np.empty((self.cells, 3), dtype=np.int64)
        for index, unit in enumerate(self.units):
            of[unit, index // self.n] = index
        return of


SHAPES = {4: Shape(4, 2, 2), 6: Shape(6, 2, 3), 9: Shape(9, 3, 3)}
"""By size. 6x6 boxes have two rows and three columns."""


def shape_of(seq_len: int, vocab_size: int) -> Shape | None:
    """The board whose cells and tokens a data set or model has; None if it is no Sudoku's."""
    fits = (s for s in SHAPES.values() if (s.cells, s.vocab_size) == (seq_len, vocab_size))
    return next(fits, None)


def parse_puzzle(text: str) -> tuple[Shape, Digits]:
    """The board that `text` spells: 16, 36 or 81 characters, digits and `.`, `0` or `_` for blanks.

    White space is ignored. Raises `UserError` for another length, another character or givens that
    clash.
    """
    characters = "".join(text.split())
    shape = next((s for s in SHAPES.values() if s.cells == len(characters)), None)
    if shape is None:
        raise UserError(
            f"the puzzle has {len(characters)} characters: "
            "it must have 16 (4x4), 36 (6x6) or 81 (9x9)"
        )
    digits = np.zeros(shape.cells, dtype=np.uint8)
    for cell, character in enumerate(characters):
        if character in _BLANKS:
            continue
        if character not in "123456789"[: shape.n]:
            raise UserError(
                f"the puzzle has '{character}' at row {cell // shape.n + 1}, column "
                f"{cell % shape.n + 1}: it may be 1 to {shape.n}, or '.', '0' or '_' for a blank"
            )
        digits[cell] = int(character)
    clashes = violations(shape, digits)
    if clashes:
        raise UserError(f"the puzzle's givens clash: {clashes[0]}")
    return shape, digits


def to_text(digits: NDArray[np.integer]) -> str:
    """One line, `.` for a blank: the inverse of `parse_puzzle`."""
    return "".join(str(digit) if digit else "." for digit in digits.tolist())


def format_board(shape: Shape, digits: NDArray[np.integer]) -> str:
    """The board as text with lines between its boxes, `.` for a blank."""
    bar = "+".join(["-" * (2 * shape.box_cols + 1)] * (shape.n // shape.box_cols))
    lines = []
    for row, values in enumerate(digits.reshape(shape.n, shape.n).tolist()):
        if row and row % shape.box_rows == 0:
            lines.append(bar)
        stacks = [values[c : c + shape.box_cols] for c in range(0, shape.n, shape.box_cols)]
        lines.append("|".join(" " + " ".join(str(v or ".") for v in s) + " " for s in stacks))
    return "\n".join(lines)


def violations(shape: Shape, digits: NDArray[np.integer]) -> list[str]:
    """Each repetition of a digit in a row, column or box, in words. Blanks break no rule."""
    found = []
    for index, unit in enumerate(shape.units):
        counts = np.bincount(digits[unit], minlength=shape.n + 1)
        name = f"{('row', 'column', 'box')[index // shape.n]} {index % shape.n + 1}"
        found += [
            f"{name} has {counts[digit]} times the digit {digit}"
            for digit in range(1, shape.n + 1)
            if counts[digit] > 1
        ]
    return found


def solved(shape: Shape, boards: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each board of [rows, cells] holds every digit once in each row, column and box."""
    bits = np.left_shift(1, boards.astype(np.int32))
    present = np.bitwise_or.reduce(bits[:, shape.units], axis=-1)
    complete = present == (1 << (shape.n + 1)) - 2
    return np.asarray(complete.all(axis=-1))


def consistent(shape: Shape, boards: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether no digit repeats in a row, column or box, for each board of [rows, cells]."""
    bits = np.where(boards > 0, np.left_shift(1, boards.astype(np.int32)), 0)[:, shape.units]
    # A sum of distinct bits equals their union; a repeated bit carries.
    distinct = bits.sum(axis=-1) == np.bitwise_or.reduce(bits, axis=-1)
    return np.asarray(distinct.all(axis=-1))


def keeps_givens(puzzles: NDArray[np.integer], answers: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each answer repeats its puzzle's givens: [..., cells] twice -> [...]."""
    return np.asarray(((puzzles == 0) | (puzzles == answers)).all(axis=-1))


def encode(digits: NDArray[np.integer]) -> Digits:
    """Digits, 0 for a blank, to tokens."""
    return (digits + 1).astype(np.uint8)


def decode(tokens: NDArray[np.integer]) -> Digits:
    """Tokens to digits; pad and blank both become 0."""
    return np.maximum(tokens.astype(np.int64) - 1, 0).astype(np.uint8)
