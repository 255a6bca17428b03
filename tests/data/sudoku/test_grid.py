"""Boards: geometry, text, tokens, rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.data.sudoku import (
    SHAPES,
    consistent,
    decode,
    encode,
    format_board,
    keeps_givens,
    parse_puzzle,
    solved,
    to_text,
    violations,
)
from hrm.errors import UserError

FOUR = "1234341221434321"
SIX = "123456456123231564564231312645645312"


def board(text: str) -> np.ndarray:
    return np.array([int(character) for character in text], dtype=np.uint8)


def test_boxes_of_6x6_have_two_rows_and_three_columns() -> None:
    boxes = SHAPES[6].units[12:].tolist()
    assert boxes[0] == [0, 1, 2, 6, 7, 8]
    assert boxes[1] == [3, 4, 5, 9, 10, 11]
    assert boxes[5] == [27, 28, 29, 33, 34, 35]
    assert SHAPES[9].units[18 + 4].tolist() == [30, 31, 32, 39, 40, 41, 48, 49, 50]
    assert SHAPES[6].units_of[9].tolist() == [1, 6 + 3, 12 + 1]


def test_parsing_takes_every_blank_and_ignores_white_space() -> None:
    shape, digits = parse_puzzle(" 1.0_\n_.34\t2143 4321\r\n")
    assert shape.n == 4
    assert digits.tolist() == [1, 0, 0, 0, 0, 0, 3, 4, 2, 1, 4, 3, 4, 3, 2, 1]
    assert to_text(digits) == "1.....3421434321"
    assert parse_puzzle("." * 36)[0] == SHAPES[6]
    assert parse_puzzle("." * 81)[0] == SHAPES[9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("123", "3 characters: it must have 16"),
        ("", "0 characters"),
        ("5" + "." * 15, "'5' at row 1, column 1: it may be 1 to 4"),
        ("." * 37 + "x" + "." * 43, "'x' at row 5, column 2: it may be 1 to 9"),
        ("." * 15 + "²", "'²' at row 4, column 4"),
        ("1..1" + "." * 12, "row 1 has 2 times the digit 1"),
        ("1" + "." * 4 + "1" + "." * 10, "box 1 has 2 times the digit 1"),
    ],
)
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        parse_puzzle(text)


@given(st.lists(st.integers(0, 6), min_size=36, max_size=36))
def test_text_and_tokens_go_both_ways(values: list[int]) -> None:
    digits = np.array(values, dtype=np.uint8)
    tokens = encode(digits)
    assert tokens.tolist() == [value + 1 for value in values]
    assert decode(tokens).tolist() == values
    assert [0 if c == "." else int(c) for c in to_text(digits)] == values


def test_format() -> None:
    digits = board("123400" + SIX[6:])
    lines = format_board(SHAPES[6], digits).splitlines()
    assert lines[:3] == [" 1 2 3 | 4 . . ", " 4 5 6 | 1 2 3 ", "-------+-------"]
    assert len(lines) == 6 + 2


def test_violations_name_each_repetition() -> None:
    digits = board("1000" + "0000" + "1000" + "0110")
    assert violations(SHAPES[4], digits) == [
        "row 4 has 2 times the digit 1",
        "column 1 has 2 times the digit 1",
        "box 3 has 2 times the digit 1",
    ]
    assert violations(SHAPES[4], board(FOUR)) == []


@given(st.lists(st.integers(0, 4), min_size=16, max_size=16))
def test_consistent_agrees_with_violations(values: list[int]) -> None:
    digits = np.array(values, dtype=np.uint8)
    assert consistent(SHAPES[4], digits[None])[0] == (not violations(SHAPES[4], digits))


def test_solved_needs_every_digit_in_every_unit() -> None:
    good = board(SIX)
    blank, swapped = good.copy(), good.copy()
    blank[7] = 0
    swapped[[0, 1]] = swapped[[1, 0]]  # row 1 still holds every digit
    boxes_only = np.tile(board("1234"), 4)
    assert solved(SHAPES[6], np.stack([good, blank, swapped])).tolist() == [True, False, False]
    assert not solved(SHAPES[4], boxes_only[None])[0]


def test_keeps_givens() -> None:
    answer = board(FOUR)
    puzzle = answer * (np.arange(16) % 3 == 0)
    other = answer.copy()
    other[3] = 1
    assert keeps_givens(puzzle[None].repeat(2, 0), np.stack([answer, other])).tolist() == [1, 0]
