"""Grids as tokens: the published layout by hand, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm.data.arc import bounds, decode, encode
from hrm.data.arc.tasks import Grid

SIDE = 6
SHAPES = st.tuples(st.integers(1, SIDE), st.integers(1, SIDE))
GRIDS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 9)))


def grid(*rows: list[int]) -> Grid:
    return np.array(rows, dtype=np.uint8)


def test_a_grid_has_a_border_of_eos_without_its_corner() -> None:
    assert encode(grid([5, 6], [7, 8]), 4).reshape(4, 4).tolist() == [
        [7, 8, 1, 0],
        [9, 10, 1, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_the_first_grid_of_the_first_task_as_published() -> None:
    # 007bbfb7: black is token 2, colour 7 is token 9.
    square = encode(grid([0, 7, 7], [7, 7, 7], [0, 7, 7]), 30).reshape(30, 30)
    assert square[:5, :5].tolist() == [
        [2, 9, 9, 1, 0],
        [9, 9, 9, 1, 0],
        [2, 9, 9, 1, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert (square > 0).sum() == 15


def test_a_border_outside_the_square_is_cut_off() -> None:
    assert encode(grid([0, 1, 2]), 3).reshape(3, 3).tolist() == [[2, 3, 4], [1, 1, 1], [0, 0, 0]]
    assert encode(grid([0], [1], [9]), 3).tolist() == [2, 1, 0, 3, 1, 0, 11, 1, 0]
    assert encode(grid([3, 4], [5, 6]), 2).tolist() == [5, 6, 7, 8]


def test_a_moved_grid() -> None:
    assert encode(grid([1, 2], [3, 4]), 4, top=1, left=2).reshape(4, 4).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 3, 4],
        [0, 0, 5, 6],
        [0, 0, 1, 1],
    ]


@pytest.mark.parametrize(("top", "left"), [(0, 3), (2, 0)])
def test_a_grid_that_does_not_fit_is_refused(top: int, left: int) -> None:
    with pytest.raises(ValueError, match="leaves a square of 4"):
        encode(np.zeros((3, 2), dtype=np.uint8), 4, top, left)


@given(made=GRIDS, data=st.data())
def test_decoding_is_the_inverse_wherever_a_grid_stands(made: Grid, data: st.DataObject) -> None:
    top = data.draw(st.integers(0, SIDE - made.shape[0]))
    left = data.draw(st.integers(0, SIDE - made.shape[1]))
    row = encode(made, SIDE, top, left)
    assert row.dtype == np.uint8
    back = decode(row, SIDE)
    assert back is not None
    assert back.dtype == np.uint8
    assert np.array_equal(back, made)
    found = bounds(np.stack([row, np.zeros_like(row)]), SIDE)
    assert [int(value[0]) for value in found] == [top, left, *made.shape]
    assert found.height[1] == found.width[1] == 0


def test_nothing_is_a_row_of_padding() -> None:
    assert encode(None, 3).tolist() == [0] * 9
    assert decode(np.zeros(9, dtype=np.int32), 3) is None
