"""Puzzles with exactly one solution: a random full board, then cells blanked while it stays unique.

Full boards are not drawn uniformly: the solver fills an empty board and tries digits in a random
order. Every random number is keyed by the seed, the puzzle's index and the attempt, so that puzzle
i is the same whatever else is generated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hrm.data.keys import draws, keys_of
from hrm.data.sudoku.grid import Digits, Shape
from hrm.data.sudoku.solver import HAS_NUMBA, Solver
from hrm.errors import UserError

_ATTEMPTS = 200


def generate(
    shape: Shape,
    indices: NDArray[np.integer],
    *,
    seed: int,
    blanks: tuple[int, int],
    compiled: bool = HAS_NUMBA,
) -> tuple[Digits, Digits]:
    """Puzzles number `indices` [n] of this seed, and their solutions: uint8 [n, cells] each.

    Each has exactly one solution and a number of blanks drawn uniformly from `blanks` (both ends
    included). Raises `UserError` where so many blanks are out of reach: that is beyond 12, 27 and
    58 for sizes 4, 6 and 9.
    """
    low, high = blanks
    if not 0 <= low <= high < shape.cells:
        raise UserError(f"blanks {low}-{high} is no range within 0 to {shape.cells - 1}")
    solver = Solver(shape, compiled=compiled)
    puzzles = np.empty((len(indices), shape.cells), dtype=np.uint8)
    solutions = np.empty_like(puzzles)
    targets = low + draws(keys_of(seed, indices), 1)[:, 0] % np.uint64(high - low + 1)
    for row, (index, target) in enumerate(zip(indices.tolist(), targets.tolist(), strict=True)):
        for attempt in range(_ATTEMPTS):
            preference, order = _random_tables(shape, seed, index, attempt)
            solutions[row] = solver.random_solution(preference)
            puzzles[row] = _blank(solver, solutions[row], order, target)
            if np.count_nonzero(puzzles[row] == 0) == target:
                break
        else:
            raise UserError(
                f"blanks {target} is out of reach: {_ATTEMPTS} attempts at a {shape.n}x{shape.n} "
                "puzzle with one solution did not get there"
            )
    return puzzles, solutions


def _random_tables(
    shape: Shape, seed: int, index: int, attempt: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order of digits for each cell [cells, n], and an order of cells [cells]."""
    numbers = draws(keys_of(seed, index, attempt), shape.cells * (shape.n + 1))[0]
    digits = numbers[shape.cells :].reshape(shape.cells, shape.n)
    return np.argsort(digits, axis=1) + 1, np.argsort(numbers[: shape.cells])


def _blank(solver: Solver, solution: Digits, order: NDArray[np.int64], blanks: int) -> Digits:
    """Blank cells of `solution` in `order` where it stays unique, until `blanks` are blank."""
    puzzle = solution.copy()
    left = blanks
    for cell in order.tolist():
        if left == 0:
            break
        if solver.stays_unique(puzzle, cell):
            puzzle[cell] = 0
            left -= 1
    return puzzle
