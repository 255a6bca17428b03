"""Generated puzzles: one solution, the blanks asked for, the same whatever else is generated."""

import numpy as np
import pytest

from hrm.data.sudoku import SHAPES, Solver, generate, keeps_givens, solved
from hrm.data.sudoku.solver import HAS_NUMBA
from hrm.errors import UserError


@pytest.mark.parametrize(
    ("size", "blanks"), [(4, (6, 12)), (6, (20, 20)), (9, (40, 50))], ids=["4", "6", "9"]
)
def test_puzzles_have_one_solution_and_the_blanks_asked_for(
    size: int, blanks: tuple[int, int]
) -> None:
    shape = SHAPES[size]
    puzzles, solutions = generate(shape, np.arange(60), seed=5, blanks=blanks)
    counts = np.count_nonzero(puzzles == 0, axis=1)
    assert (counts.min(), counts.max()) == blanks
    assert solved(shape, solutions).all()
    assert keeps_givens(puzzles, solutions).all()
    solver = Solver(shape)
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        outcome = solver.solve(puzzle)
        assert outcome.count == 1
        assert np.array_equal(outcome.solution, solution)  # type: ignore[arg-type]
    assert len(np.unique(solutions, axis=0)) > 40


def test_a_puzzle_depends_on_seed_and_index_alone() -> None:
    whole = generate(SHAPES[6], np.arange(30), seed=1, blanks=(10, 20))
    part = generate(SHAPES[6], np.array([17, 3]), seed=1, blanks=(10, 20))
    other = generate(SHAPES[6], np.arange(30), seed=2, blanks=(10, 20))
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[[17, 3]], b)
    assert (whole[1] != other[1]).any(axis=1).all()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is absent")
@pytest.mark.parametrize("size", [4, 6, 9])
def test_numba_changes_nothing(size: int) -> None:
    blanks = {4: (6, 11), 6: (20, 24), 9: (45, 50)}[size]
    fast = generate(SHAPES[size], np.arange(8), seed=3, blanks=blanks, compiled=True)
    plain = generate(SHAPES[size], np.arange(8), seed=3, blanks=blanks, compiled=False)
    assert np.array_equal(fast[0], plain[0])
    assert np.array_equal(fast[1], plain[1])


def test_what_cannot_be_reached_is_refused() -> None:
    # No 4x4 puzzle with three clues has one solution.
    with pytest.raises(UserError, match="13 is out of reach"):
        generate(SHAPES[4], np.arange(1), seed=0, blanks=(13, 13))
    with pytest.raises(UserError, match="no range within 0 to 15"):
        generate(SHAPES[4], np.arange(1), seed=0, blanks=(3, 16))
