"""Symmetries: augmentation stays inside them and reaches all, the invariant ignores them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data.keys import keys_of
from hrm.data.sudoku import (
    SHAPES,
    SudokuAugment,
    decode,
    encode,
    generate,
    invariant,
    keeps_givens,
    solved,
)

BLANKS = {4: (6, 10), 6: (18, 22), 9: (40, 55)}
PUZZLES = {n: generate(SHAPES[n], np.arange(40), seed=7, blanks=BLANKS[n]) for n in SHAPES}


def forms(size: int, boards: np.ndarray, seed: int) -> np.ndarray:
    tokens = encode(boards)
    keys = keys_of(seed, np.arange(len(boards)))
    return decode(SudokuAugment(SHAPES[size]).move(tokens, tokens, keys)[0])


@pytest.fixture(scope="module")
def all_4x4() -> np.ndarray:
    rows = list(itertools.permutations((1, 2, 3, 4)))
    boards = np.array(list(itertools.product(rows, repeat=4)), dtype=np.uint8).reshape(-1, 16)
    return boards[solved(SHAPES[4], boards)]


@settings(deadline=None, max_examples=30)
@given(size=st.sampled_from([4, 6, 9]), seed=st.integers(0, 2**63))
def test_question_and_answer_move_alike_and_obey_the_rules(size: int, seed: int) -> None:
    shape = SHAPES[size]
    puzzles, solutions = PUZZLES[size]
    keys = keys_of(seed, np.arange(len(puzzles)))
    inputs, labels = encode(puzzles).astype(np.int32), encode(solutions).astype(np.int32)
    new_inputs, new_labels = SudokuAugment(shape).move(inputs, labels, keys)
    assert (new_inputs.dtype, new_labels.dtype) == (np.int32, np.int32)
    assert solved(shape, decode(new_labels)).all()
    assert keeps_givens(decode(new_inputs), decode(new_labels)).all()
    assert np.array_equal((new_inputs == 1).sum(1), (inputs == 1).sum(1))
    assert np.array_equal(invariant(shape, decode(new_inputs)), invariant(shape, puzzles))
    assert np.array_equal(invariant(shape, decode(new_labels)), invariant(shape, solutions))


def test_a_row_depends_on_its_own_key_alone_and_inputs_are_kept() -> None:
    inputs, labels = (encode(boards) for boards in PUZZLES[9])
    before = inputs.copy()
    keys = keys_of(0, np.arange(len(inputs)))
    augment = SudokuAugment(SHAPES[9])
    whole = augment.move(inputs, labels, keys)
    part = augment.move(inputs[5:8], labels[5:8], keys[5:8])
    assert np.array_equal(whole[0][5:8], part[0])
    assert np.array_equal(whole[1][5:8], part[1])
    assert whole[0].dtype == np.uint8
    assert np.array_equal(inputs, before)
    assert (whole[0] != inputs).any(axis=1).all()


def test_pad_blank_and_ignored_labels_keep_their_values() -> None:
    inputs = np.array([[0] * 8 + [1] * 8], dtype=np.int32)
    labels = np.array([[-100] * 10 + [0, 1] * 3], dtype=np.int32)
    new_inputs, new_labels = SudokuAugment(SHAPES[4]).move(inputs, labels, keys_of(0, 0))
    assert sorted(new_inputs[0]) == sorted(inputs[0])
    assert sorted(new_labels[0]) == sorted(labels[0])


def test_4x4_boards_fall_into_the_two_known_classes(all_4x4: np.ndarray) -> None:
    assert len(all_4x4) == 288
    _, sizes = np.unique(invariant(SHAPES[4], all_4x4), return_counts=True)
    assert sorted(sizes) == [96, 192]


def test_augmentation_reaches_all_equivalents(all_4x4: np.ndarray) -> None:
    classes = invariant(SHAPES[4], all_4x4)
    for key in np.unique(classes):
        members = all_4x4[classes == key]
        reached = forms(4, np.repeat(members[:1], 4000, axis=0), seed=0)
        assert np.array_equal(np.unique(reached, axis=0), np.unique(members, axis=0))


@pytest.mark.parametrize(("size", "cells"), [(6, 36), (9, 81)])
def test_a_cell_goes_everywhere_and_a_digit_becomes_every_digit(size: int, cells: int) -> None:
    boards = np.zeros((6000, cells), dtype=np.uint8)
    boards[:, 0] = 1
    moved = forms(size, boards, seed=0)
    where, digit = np.argmax(moved, axis=1), moved.max(axis=1)
    counts = np.bincount(where, minlength=cells)
    assert counts.min() > 0.5 * 6000 / cells
    assert counts.max() < 1.6 * 6000 / cells
    assert np.bincount(digit, minlength=size + 1)[1:].min() > 0.8 * 6000 / size


def test_only_square_boxes_are_transposed() -> None:
    for size, expected in ((4, True), (6, False), (9, True)):
        boards = np.zeros((64, size, size), dtype=np.uint8)
        boards[:, 0, :] = np.arange(1, size + 1)
        moved = forms(size, boards.reshape(64, -1), seed=0).reshape(64, size, size)
        upright = np.any(np.all(moved > 0, axis=1), axis=1)  # the row has become a column
        assert upright.any() == expected
        assert not upright.all()


def test_inequivalent_4x4_puzzles_of_four_clues_are_told_apart(all_4x4: np.ndarray) -> None:
    # Exhaustion gives 13 classes with one solution; a board of each class stands for all.
    _, first = np.unique(invariant(SHAPES[4], all_4x4), return_index=True)
    masks = np.array(
        [[cell in clues for cell in range(16)] for clues in itertools.combinations(range(16), 4)]
    )
    puzzles = []
    for board in all_4x4[first]:
        differs = (all_4x4 != board)[(all_4x4 != board).any(axis=1)]
        unique = (masks.astype(np.int32) @ differs.T.astype(np.int32) > 0).all(axis=1)
        puzzles.append(np.where(masks[unique], board, 0))
    assert sum(map(len, puzzles)) == 140
    assert len(np.unique(invariant(SHAPES[4], np.concatenate(puzzles)))) == 13


@pytest.mark.parametrize("size", [6, 9])
def test_other_puzzles_have_other_invariants(size: int) -> None:
    puzzles, solutions = PUZZLES[size]
    assert len(np.unique(invariant(SHAPES[size], puzzles))) == len(puzzles)
    without = puzzles.copy()
    for row in without:
        row[np.flatnonzero(row)[0]] = 0
    assert not np.intersect1d(
        invariant(SHAPES[size], without), invariant(SHAPES[size], puzzles)
    ).size
    if size == 9:
        assert len(np.unique(invariant(SHAPES[9], solutions))) == len(solutions)


def test_rows_of_different_bands_must_not_be_exchanged() -> None:
    board = PUZZLES[9][1][:1].reshape(1, 9, 9)
    swapped = board.copy()
    swapped[:, [0, 3]] = swapped[:, [3, 0]]
    keys = invariant(SHAPES[9], np.concatenate([board, swapped]).reshape(2, 81))
    assert keys[0] != keys[1]


def test_an_invariant_does_not_depend_on_the_other_boards() -> None:
    puzzles = PUZZLES[9][0]
    many = np.tile(puzzles, (13, 1))  # more than one chunk
    keys = invariant(SHAPES[9], many)
    assert np.array_equal(keys[-40:], invariant(SHAPES[9], puzzles))
