"""An exact solver: bit masks, naked and hidden singles, then a guess where fewest digits fit.

`search` is written so that numba compiles it; without numba the same function runs as plain Python
on lists, about twenty times slower.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrm.data.sudoku.grid import Digits, Shape

try:
    _njit: Any = importlib.import_module("numba").njit
except ImportError:
    _njit = None

HAS_NUMBA = _njit is not None


def _search(
    board: Any,
    units: Any,
    units_of: Any,
    preference: Any,
    limit: int,
    banned_cell: int,
    banned_digit: int,
    used: Any,
    candidates: Any,
    trail: Any,
    untried: Any,
    solution: Any,
) -> tuple[int, int]:
    """Count solutions of `board` up to `limit`; return (count, guesses before the first one).

    All tables are integers: board [cells], units [3n, n], units_of [cells, 3], preference
    [cells, n] (digits in the order to try them). `banned_cell` (or -1) must not get `banned_digit`.
    Work space: used [3n], candidates, trail, untried [cells]. `solution` [cells] gets the first
    solution. `board` is changed.
    """
    cells = len(board)
    n = len(units[0])
    full = (1 << n) - 1
    for unit in range(3 * n):
        used[unit] = 0
    for cell in range(cells):
        if board[cell]:
            bit = 1 << (board[cell] - 1)
            row, column, box = units_of[cell][0], units_of[cell][1], units_of[cell][2]
            if (used[row] | used[column] | used[box]) & bit:
                return 0, 0
            used[row] |= bit
            used[column] |= bit
            used[box] |= bit

    count = 0
    guesses = 0
    first_guesses = 0
    depth = 0
    while True:
        # The cell with fewest candidates: none is a dead end, one is a naked single.
        chosen = -1
        options = 0
        fewest = n + 1
        for cell in range(cells):
            mask = 0
            if board[cell] == 0:
                of = units_of[cell]
                mask = full & ~(used[of[0]] | used[of[1]] | used[of[2]])
                if cell == banned_cell:
                    mask &= ~(1 << (banned_digit - 1))
                size = 0
                rest = mask
                while rest:
                    rest &= rest - 1
                    size += 1
                if size < fewest:
                    chosen, options, fewest = cell, mask, size
                    if size == 0:
                        break
            candidates[cell] = mask

        # A digit with one place left in a unit is a hidden single, with none a dead end.
        if chosen >= 0 and fewest > 1:
            for unit in range(3 * n):
                once = 0
                twice = 0
                for cell in units[unit]:
                    mask = candidates[cell]
                    twice |= once & mask
                    once |= mask
                if (once | used[unit]) != full:
                    fewest = 0
                    break
                single = once & ~twice
                if single and fewest > 1:
                    options = single & -single
                    fewest = 1
                    for cell in units[unit]:
                        if candidates[cell] & options:
                            chosen = cell

        if chosen == -1:
            count += 1
            if count == 1:
                first_guesses = guesses
                for cell in range(cells):
                    solution[cell] = board[cell]
            if count == limit:
                return count, first_guesses
        if chosen >= 0 and fewest > 0:
            trail[depth] = chosen
            untried[depth] = options
            depth += 1
        else:
            # Back to the last cell with an untried digit.
            while depth > 0:
                cell = trail[depth - 1]
                bit = 1 << (board[cell] - 1)
                of = units_of[cell]
                used[of[0]] &= ~bit
                used[of[1]] &= ~bit
                used[of[2]] &= ~bit
                board[cell] = 0
                if untried[depth - 1]:
                    break
                depth -= 1
            if depth == 0:
                return count, first_guesses if count else guesses

        # Place the preferred untried digit of the cell on top of the trail.
        cell = trail[depth - 1]
        left = untried[depth - 1]
        digit = 0
        for digit in preference[cell]:
            if left & (1 << (digit - 1)):
                break
        bit = 1 << (digit - 1)
        untried[depth - 1] = left & ~bit
        if left != bit:
            guesses += 1
        board[cell] = digit
        of = units_of[cell]
        used[of[0]] |= bit
        used[of[1]] |= bit
        used[of[2]] |= bit


def _compiled() -> Any:
    try:
        return _njit(cache=True)(_search)
    except RuntimeError:  # no folder that a compiled function could be kept in
        return _njit()(_search)


search: Callable[..., tuple[int, int]] = _compiled() if HAS_NUMBA else _search


@dataclass(frozen=True)
class Outcome:
    """What the solver found."""

    count: int
    """Solutions, counted up to the limit."""
    guesses: int
    """This project's own rating: digits tried in the search for the first solution at cells where
    others were left to try. 0: singles suffice. Not comparable with other solvers' ratings."""
    solution: Digits | None
    """The first solution, uint8 [cells]; None if there is none."""


class Solver:
    """Solves boards of one shape. `compiled` chooses numba (default: if it is installed)."""

    def __init__(self, shape: Shape, *, compiled: bool = HAS_NUMBA) -> None:
        if compiled and not HAS_NUMBA:
            raise ValueError("numba is not installed")
        self.shape = shape
        self.compiled = compiled
        self._search: Callable[..., tuple[int, int]] = search if compiled else _search
        self._ascending = self._table(np.tile(np.arange(1, shape.n + 1), (shape.cells, 1)))
        self._tables = (self._table(shape.units), self._table(shape.units_of))
        self._work = [
            self._table(np.zeros(size, dtype=np.int64))
            for size in (3 * shape.n, shape.cells, shape.cells, shape.cells)
        ]
        self._solution = self._table(np.zeros(shape.cells, dtype=np.int64))

    def solve(self, puzzle: NDArray[np.integer], *, limit: int = 2) -> Outcome:
        """Solutions of `puzzle` [cells], up to `limit`; none if its givens clash."""
        return self._outcome(puzzle, self._ascending, limit)

    def random_solution(self, preference: NDArray[np.integer]) -> Digits:
        """A full board: the first one when cell c tries its digits in the order preference[c].

        `preference` is [cells, n], each row a permutation of 1..n.
        """
        empty = np.zeros(self.shape.cells, dtype=np.int64)
        solution = self._outcome(empty, self._table(preference), 1).solution
        assert solution is not None
        return solution

    def stays_unique(self, puzzle: NDArray[np.integer], cell: int) -> bool:
        """Whether `puzzle`, known to have one solution, still has one when `cell` is blanked.

        It does if and only if there is no solution with another digit there, which is found out
        far sooner than by counting to two.
        """
        digit = int(puzzle[cell])
        board = puzzle.astype(np.int64)
        board[cell] = 0
        count, _ = self._run(board, self._ascending, 1, cell, digit)
        return count == 0

    def _outcome(self, puzzle: NDArray[np.integer], preference: Any, limit: int) -> Outcome:
        count, guesses = self._run(puzzle, preference, limit, -1, 1)
        solution = np.array(self._solution, dtype=np.uint8) if count else None
        return Outcome(count, guesses, solution)

    def _run(
        self, puzzle: NDArray[np.integer], preference: Any, limit: int, cell: int, digit: int
    ) -> tuple[int, int]:
        board = self._table(puzzle)
        return self._search(
            board, *self._tables, preference, limit, cell, digit, *self._work, self._solution
        )

    def _table(self, array: NDArray[np.integer]) -> Any:
        """A copy for `search`: int64 for numba, lists otherwise, which Python indexes faster."""
        return array.astype(np.int64) if self.compiled else array.tolist()
