"""Forms: symmetries by hand, every inverse, the fast path against the plain one, the augmenter."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrm.data import IGNORE, Metadata
from hrm.data.arc import (
    INVERSE,
    ArcAugment,
    Form,
    arc_augment,
    decode,
    encode,
    move,
    parse_name,
    random_forms,
    turned,
)
from hrm.data.arc.augment import tokens_to
from hrm.data.arc.tasks import Grid
from hrm.data.keys import keys_of
from hrm.errors import UserError

SIDE = 5
SHAPES = st.tuples(st.integers(1, SIDE), st.integers(1, SIDE))
GRIDS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 9)))
FORMS = st.builds(
    lambda symmetry, colours: Form(symmetry, (0, *colours)),
    st.integers(0, 7),
    st.permutations(range(1, 10)),
)


def test_the_eight_symmetries_by_hand() -> None:
    grid = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    assert [turned(grid, which).tolist() for which in range(8)] == [
        [[1, 2, 3], [4, 5, 6]],
        [[3, 6], [2, 5], [1, 4]],
        [[6, 5, 4], [3, 2, 1]],
        [[4, 1], [5, 2], [6, 3]],
        [[3, 2, 1], [6, 5, 4]],
        [[4, 5, 6], [1, 2, 3]],
        [[1, 4], [2, 5], [3, 6]],
        [[6, 3], [5, 2], [4, 1]],
    ]


def test_colours_go_where_the_digits_say() -> None:
    task, form = parse_name("007bbfb7|||t3|||0192837465")
    assert (task, form.symmetry) == ("007bbfb7", 3)
    grid = np.array([[0, 1, 2], [3, 4, 9]], dtype=np.uint8)
    # 0 1 2 3 4 9 become 0 1 9 2 8 5; three quarter turns to the left are one to the right.
    assert form.apply(grid).tolist() == [[2, 0], [8, 1], [5, 9]]
    assert form.undo(np.array([[2, 0], [8, 1], [5, 9]], dtype=np.uint8)).tolist() == grid.tolist()


@given(grid=GRIDS, form=FORMS)
def test_every_form_is_undone_and_named(grid: Grid, form: Form) -> None:
    there = form.apply(grid)
    assert there.dtype == np.uint8
    assert np.array_equal(form.undo(there), grid)
    assert np.array_equal(form.apply(form.undo(grid)), grid)
    assert np.array_equal(turned(turned(grid, form.symmetry), INVERSE[form.symmetry]), grid)
    assert np.array_equal(form.apply(grid) == 0, turned(grid == 0, form.symmetry))
    assert parse_name(form.name("a1")) == ("a1", form)
    assert parse_name(form.name("a_b").replace("|||", "_")) == ("a_b", form)  # HRM's builder.


@pytest.mark.parametrize(
    "name", ["007bbfb7", "<blank>", "a|||t8|||0123456789", "a|||t1|||0113456789"]
)
def test_a_name_without_a_form_is_the_task_as_it_is(name: str) -> None:
    assert parse_name(name) == (name, Form())
    assert Form().name(name) == name


@settings(deadline=None, max_examples=40)
@given(grids=st.lists(GRIDS, min_size=1, max_size=12), data=st.data())
def test_moving_many_rows_equals_moving_each(grids: list[Grid], data: st.DataObject) -> None:
    def place(grid: Grid) -> tuple[int, int]:
        top, left = (data.draw(st.integers(0, SIDE - size)) for size in grid.shape)
        return top, left

    rows = np.stack([encode(grid, SIDE, *place(grid)) for grid in grids])
    forms = [data.draw(FORMS) for _ in grids]
    changed = [form.apply(grid) for form, grid in zip(forms, grids, strict=True)]
    places = [place(grid) for grid in changed]
    expected = [encode(grid, SIDE, *at) for grid, at in zip(changed, places, strict=True)]
    before = rows.copy()
    got = move(
        rows,
        SIDE,
        np.array([form.symmetry for form in forms]),
        tokens_to(np.array([form.colours for form in forms], dtype=np.uint8)),
        *np.array(places).T,
    )
    assert got.dtype == np.uint8
    assert np.array_equal(got, np.stack(expected))
    assert np.array_equal(rows, before)


def test_rows_without_a_grid_stay_empty() -> None:
    plain = tokens_to(np.arange(10, dtype=np.uint8)[None])
    empty = np.zeros((1, 9), dtype=np.uint8)
    for which in range(8):
        assert not move(empty, 3, np.array([which]), plain, 1, 2).any()
    assert move(empty[:0], 3, np.zeros(0, dtype=np.int64), plain[:0]).shape == (0, 9)


def test_random_forms_are_all_equally_likely() -> None:
    symmetry, colours = random_forms(keys_of(0, np.arange(8000)))
    assert np.bincount(symmetry, minlength=8).min() > 850
    assert (colours[:, 0] == 0).all()
    assert (np.sort(colours, axis=1) == np.arange(10)).all()
    for colour in range(1, 10):
        counts = np.bincount(colours[:, colour], minlength=10)
        assert counts[0] == 0
        assert counts[1:].min() > 750


def columns_of(
    queries: list[tuple[Grid, Grid | None]], shown: list[list[tuple[Grid, Grid]]], room: int
) -> dict[str, np.ndarray]:
    """A batch as `PuzzleSplit.take` gives it."""
    count, length = len(queries), SIDE**2
    labels = np.stack([encode(answer, SIDE) for _, answer in queries]).astype(np.int32)
    labels[labels == 0] = IGNORE
    columns = {
        "inputs": np.stack([encode(question, SIDE) for question, _ in queries]).astype(np.int32),
        "labels": labels,
        "puzzle_identifiers": np.arange(count, dtype=np.int32),
        "demo_inputs": np.zeros((count, room, length), dtype=np.int32),
        "demo_outputs": np.zeros((count, room, length), dtype=np.int32),
        "demo_mask": np.zeros((count, room), dtype=np.int32),
    }
    for row, pairs in enumerate(shown):
        for number, (question, answer) in enumerate(pairs):
            columns["demo_inputs"][row, number] = encode(question, SIDE)
            columns["demo_outputs"][row, number] = encode(answer, SIDE)
            columns["demo_mask"][row, number] = 1
    return columns


def batch(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def grid() -> Grid:
        made: Grid = rng.integers(0, 10, size=rng.integers(1, SIDE + 1, size=2)).astype(np.uint8)
        return made

    queries = [(grid(), grid() if row % 5 else None) for row in range(rows)]
    shown = [[(grid(), grid()) for _ in range(rng.integers(0, 4))] for _ in range(rows)]
    return columns_of(queries, shown, room=4)


def grids_of(columns: Mapping[str, np.ndarray], row: int) -> list[Grid | None]:
    """All grids of a row: the query's, then the demonstrations'."""
    labels = columns["labels"][row]
    rows = [columns["inputs"][row], np.where(labels == IGNORE, 0, labels)]
    for number in np.flatnonzero(columns["demo_mask"][row]):
        rows += [columns["demo_inputs"][row, number], columns["demo_outputs"][row, number]]
    return [decode(tokens, SIDE) for tokens in rows]


def forms_between(before: list[Grid | None], after: list[Grid | None]) -> list[int]:
    """The symmetries that, with some exchange of colours, explain all of a row's grids."""
    possible = []
    for which in range(8):
        image: dict[int, int] = {0: 0}
        fits = True
        for old, new in zip(before, after, strict=True):
            if old is None or new is None:
                fits &= old is new
                continue
            form = turned(old, which)
            fits &= form.shape == new.shape
            if fits:
                for a, b in zip(form.ravel().tolist(), new.ravel().tolist(), strict=True):
                    fits &= image.setdefault(a, b) == b
        if fits and len(set(image.values())) == len(image):
            possible.append(which)
    return possible


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_row_changes_as_one_and_keeps_its_layout(seed: int) -> None:
    columns = batch(10, seed)
    before = {name: array.copy() for name, array in columns.items()}
    new = ArcAugment(SIDE)(columns, keys_of(seed, np.arange(10)))
    assert new.keys() == columns.keys()
    for name, array in new.items():
        assert (array.dtype, array.shape) == (np.int32, columns[name].shape), name
        assert np.array_equal(columns[name], before[name]), name
    for name in ("puzzle_identifiers", "demo_mask"):
        assert np.array_equal(new[name], columns[name])
    for row in range(10):
        after = grids_of(new, row)
        assert forms_between(grids_of(columns, row), after)
        # All that is not a grid and its border is padding, wherever the grid now begins.
        labels = np.where(new["labels"][row] == IGNORE, 0, new["labels"][row])
        numbers = np.flatnonzero(new["demo_mask"][row])
        tokens = [new["inputs"][row], labels]
        for number in numbers:
            tokens += [new["demo_inputs"][row, number], new["demo_outputs"][row, number]]
        for question, answer in zip(tokens[::2], tokens[1::2], strict=True):
            corners = set()
            for one in (question, answer):
                grid = decode(one, SIDE)
                if grid is None:
                    assert not one.any()
                    continue
                at = np.argwhere((one >= 2).reshape(SIDE, SIDE)).min(0)
                assert np.array_equal(encode(grid, SIDE, *at), one)
                corners.add(tuple(at.tolist()))
            assert len(corners) <= 1  # A pair moves together.
        assert not new["demo_inputs"][row, len(numbers) :].any()
        assert not new["demo_outputs"][row, len(numbers) :].any()


def test_a_row_depends_on_its_own_key_alone() -> None:
    columns, keys = batch(20, 3), keys_of(1, np.arange(20))
    whole = ArcAugment(SIDE)(columns, keys)
    part = ArcAugment(SIDE)({name: a[4:7] for name, a in columns.items()}, keys[4:7])
    for name, array in part.items():
        assert np.array_equal(whole[name][4:7], array), name


def test_all_places_and_forms_come_and_demonstrations_move_apart() -> None:
    grid = np.array([[1, 2]], dtype=np.uint8)
    rows = 3000
    columns = columns_of([(grid, grid)] * rows, [[(grid, grid)]] * rows, room=1)
    new = ArcAugment(SIDE)(columns, keys_of(0, np.arange(rows)))
    first = {name: (new[name] >= 2).reshape(rows, -1).argmax(1) for name in ("inputs", "labels")}
    shown = (new["demo_inputs"] >= 2).reshape(rows, -1).argmax(1)
    assert np.array_equal(first["inputs"], first["labels"])
    assert (first["inputs"] != shown).mean() > 0.9
    # 4 * 5 places of the lying form and as many of the standing one.
    lying = new["inputs"][np.arange(rows), np.minimum(first["inputs"] + 1, SIDE**2 - 1)] >= 2
    for form in (lying, ~lying):
        _, counts = np.unique(first["inputs"][form], return_counts=True)
        assert len(counts) == 20
        assert counts.min() > 0.5 * form.sum() / 20
    assert abs(lying.mean() - 0.5) < 0.05


def test_without_demonstrations_rows_only_move() -> None:
    columns = batch(60, 5)
    for name in ("demo_inputs", "demo_outputs", "demo_mask"):
        del columns[name]
    new = ArcAugment(SIDE)(columns, keys_of(2, np.arange(60)))
    columns["demo_mask"] = new["demo_mask"] = np.zeros((60, 0))
    for row in range(60):
        for old, moved in zip(grids_of(columns, row), grids_of(new, row), strict=True):
            assert (old is None) == (moved is None)
            assert old is None or np.array_equal(old, moved)
    assert (new["inputs"] != columns["inputs"]).any()


def test_data_that_are_no_grids_are_refused() -> None:
    sizes = {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 12,
        "seq_len": 900,
        "num_puzzle_identifiers": 3,
        "total_groups": 1,
        "mean_puzzle_examples": 1,
        "sets": ["all"],
    }
    assert arc_augment(Metadata(**sizes), "data/x").side == 30  # Built by the published tools.
    for change in ({"vocab_size": 11}, {"seq_len": 890}, {"seq_len": 31**2}):
        with pytest.raises(UserError, match=r"data\.augment: arc needs squares"):
            arc_augment(Metadata(**(sizes | change)), "data/x")
