"""Grids out of tokens, well-formed and not, and how answers differ from the right one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.evaluation.grids import crop, side_of, verdict, wrong_cells


def tokens(text: str) -> np.ndarray:
    """A square of one row of tokens: digits are colours, `.` is PAD and `e` is EOS."""
    meaning = {".": 0, "e": 1} | {str(c): c + 2 for c in range(10)}
    return np.array([[meaning[t] for t in text if t != " "]])


def cropped(text: str, corner: tuple[int, int] | None = None) -> list[list[int]]:
    corners = None if corner is None else np.array([corner])
    return crop(tokens(text), corners)[0].tolist()


def test_a_well_formed_grid() -> None:
    assert cropped("12e. 34e. ee.. ....") == [[1, 2], [3, 4]]
    assert cropped("0e.. ee.. .... ....") == [[0]]
    assert cropped("0123 4567 8901 2345") == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 0, 1],
        [2, 3, 4, 5],
    ]
    assert crop(tokens("12e. 34e. ee.. ...."))[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # No border at all: PAD ends it as well as EOS does.
        ("12.. 34.. .... ....", [[1, 2], [3, 4]]),
        # EOS inside: 1 x 4 is the largest without it.
        ("1234 5e67 8901 2345", [[1, 2, 3, 4]]),
        # 4 x 1 and 2 x 2 hold as many cells: the lower one.
        ("12e. 34e. 5e.. 6e..", [[1, 2], [3, 4]]),
        # A third row makes 3 x 2 of it, though the first is wider.
        ("123e 45ee 67e. ....", [[1, 2], [4, 5], [6, 7]]),
        # A corner that is no colour: nothing.
        (".123 4567 8901 2345", []),
        ("e... .... .... ....", []),
    ],
)
def test_malformed_grids(text: str, expected: list[list[int]]) -> None:
    assert cropped(text) == expected


def test_what_is_no_token_is_no_colour() -> None:
    square = np.array([[3, 12, 3, 3], [3, -100, 3, 3]])
    assert [g.tolist() for g in crop(square)] == [[[1], [1]], [[1], [1]]]


def test_a_grid_that_was_moved_begins_at_its_corner() -> None:
    assert cropped(".... .12e .34e .ee.", (1, 1)) == [[1, 2], [3, 4]]
    # Whatever was predicted elsewhere.
    assert cropped("55.. .1.. .... ....", (1, 1)) == [[1]]
    assert cropped("55.. 5... .... ....", (1, 1)) == []


def test_tokens_that_are_no_square() -> None:
    with pytest.raises(UserError, match="10 tokens are no square"):
        side_of(10)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_every_grid_comes_back(side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, side + 1, size=2)
    row, column = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    grid = rng.integers(0, 10, (height, width)).astype(np.uint8)
    square = np.zeros((side, side), dtype=np.int32)
    square[row : row + height + 1, column : column + width] = 1
    square[row : row + height, column : column + width + 1] = 1
    square[row : row + height, column : column + width] = grid + 2
    corner = np.array([[row, column]])
    np.testing.assert_array_equal(crop(square.reshape(1, -1), corner)[0], grid)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_largest_rectangle_by_trying_all(side: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 5, (3, side * side))
    for tokens_, grid in zip(rows.reshape(3, side, side), crop(rows), strict=True):
        sizes = [
            (h * w, -h)
            for h in range(1, side + 1)
            for w in range(1, side + 1)
            if (tokens_[:h, :w] >= 2).all()
        ]
        area, lower = max(sizes, default=(0, 0))
        assert grid.size == area
        assert grid.shape[0] == -lower
        np.testing.assert_array_equal(grid + 2, tokens_[: grid.shape[0], : grid.shape[1]])


def grid(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def test_how_an_answer_differs() -> None:
    truth = grid([1, 2], [3, 4])
    assert verdict(truth, truth) == "right"
    assert verdict(grid([1, 2], [3, 5]), truth) == "1 wrong"
    assert verdict(grid([1, 2, 2]), truth) == "1x3, not 2x2"
    assert verdict(np.zeros((0, 0), dtype=np.uint8), truth) == "no grid"
    # Cells outside of the right answer are wrong; those it has beyond are not there to mark.
    assert wrong_cells(grid([1, 3, 2]), truth).tolist() == [[False, True, True]]
    assert wrong_cells(np.zeros((0, 0), dtype=np.uint8), truth).shape == (0, 0)
