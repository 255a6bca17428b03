"""The solver, against exhaustive counts and against its plain twin."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data.sudoku import SHAPES, Solver, generate, parse_puzzle, solved, to_text
from hrm.data.sudoku.solver import HAS_NUMBA

FAMOUS = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
FAMOUS_ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = "98.7..6..75..4......3..8.7.5....7.3...94.........2.1..3.......1.9...5.8...52....6"
HARD_ANSWER = "981752643752643819463198275514867932629431758837529164348976521296315487175284396"

MODES = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(not HAS_NUMBA, reason="numba is absent")),
]


@pytest.fixture(scope="module")
def all_4x4() -> np.ndarray:
    """Every full 4x4 board, found without the solver: [288, 16]."""
    rows = list(itertools.permutations((1, 2, 3, 4)))
    boards = np.array(list(itertools.product(rows, repeat=4)), dtype=np.uint8).reshape(-1, 16)
    return boards[solved(SHAPES[4], boards)]


@pytest.mark.parametrize("compiled", MODES)
def test_known_puzzles(compiled: bool) -> None:
    solver = Solver(SHAPES[9], compiled=compiled)
    easy = solver.solve(parse_puzzle(FAMOUS)[1])
    hard = solver.solve(parse_puzzle(HARD)[1])
    assert easy.solution is not None
    assert hard.solution is not None
    assert (easy.count, to_text(easy.solution), easy.guesses) == (1, FAMOUS_ANSWER, 0)
    assert (hard.count, to_text(hard.solution)) == (1, HARD_ANSWER)
    assert hard.guesses > 10


@pytest.mark.parametrize("compiled", MODES)
def test_an_empty_4x4_board_has_288_solutions(compiled: bool) -> None:
    solver = Solver(SHAPES[4], compiled=compiled)
    empty = np.zeros(16, dtype=np.uint8)
    assert solver.solve(empty, limit=1000).count == 288
    assert solver.solve(empty, limit=100).count == 100
    assert solver.solve(empty).count == 2


@pytest.mark.parametrize("compiled", MODES)
def test_boards_without_solution(compiled: bool) -> None:
    solver = Solver(SHAPES[4], compiled=compiled)
    clash = parse_puzzle("1" + "." * 15)[1]
    clash[3] = 1
    dead = parse_puzzle("123." + "...4" + "." * 8)[1]  # row 1 needs a 4 where column 4 has one
    for board in (clash, dead):
        outcome = solver.solve(board)
        assert (outcome.count, outcome.solution) == (0, None)


def test_hand_counted_guesses() -> None:
    # Two digits are exchangeable in a rectangle: one guess, one of two solutions.
    board = parse_puzzle("..34" + "34.." + "..43" + "43..")[1]
    outcome = Solver(SHAPES[4]).solve(board, limit=10)
    assert (outcome.count, outcome.guesses) == (4, 2)


@settings(deadline=None, max_examples=150)
@given(index=st.integers(0, 287), mask=st.integers(0, 2**16 - 1))
def test_counts_are_those_of_exhaustion(all_4x4: np.ndarray, index: int, mask: int) -> None:
    shown = (mask >> np.arange(16)) & 1 > 0
    puzzle = np.where(shown, all_4x4[index], 0)
    expected = int(((all_4x4 == puzzle) | ~shown).all(axis=1).sum())
    outcome = Solver(SHAPES[4]).solve(puzzle, limit=1000)
    assert outcome.count == expected


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is absent")
@settings(deadline=None, max_examples=25)
@given(size=st.sampled_from([4, 6, 9]), seed=st.integers(0, 10**6), share=st.floats(0.35, 0.8))
def test_the_compiled_solver_agrees_with_its_plain_twin(size: int, seed: int, share: float) -> None:
    shape = SHAPES[size]
    rng = np.random.default_rng(seed)
    fast, plain = Solver(shape), Solver(shape, compiled=False)
    order = np.argsort(rng.random((shape.cells, size)), axis=1) + 1
    full = fast.random_solution(order)
    assert np.array_equal(full, plain.random_solution(order))
    assert solved(shape, full[None])[0]
    puzzle = np.where(rng.random(shape.cells) < share, full, 0)
    a, b = fast.solve(puzzle), plain.solve(puzzle)
    assert (a.count, a.guesses) == (b.count, b.guesses)
    assert np.array_equal(a.solution, b.solution)  # type: ignore[arg-type]


@pytest.mark.parametrize("compiled", MODES)
def test_stays_unique_agrees_with_counting_to_two(compiled: bool) -> None:
    solver = Solver(SHAPES[6], compiled=compiled)
    puzzles, _ = generate(SHAPES[6], np.arange(4), seed=0, blanks=(16, 22))
    answers = []
    for puzzle in puzzles:
        for cell in np.flatnonzero(puzzle):
            without = puzzle.copy()
            without[cell] = 0
            answers.append(solver.stays_unique(puzzle, int(cell)))
            assert answers[-1] == (solver.solve(without).count == 1)
    assert {True, False} == set(answers)


def test_the_solver_leaves_its_puzzle_alone() -> None:
    puzzle = parse_puzzle(FAMOUS)[1]
    before = puzzle.copy()
    solver = Solver(SHAPES[9])
    solver.solve(puzzle)
    solver.stays_unique(puzzle, 0)
    assert np.array_equal(puzzle, before)
