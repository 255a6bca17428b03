"""Flood fill: labels and difficulties are those of a plain search, and boards are what they say."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data.scenes import Scenes, Task, eccentricities, make_flood_fill, orbit_keys, spread_from
from hrm.data.scenes.flood_fill import FREE, SEED, SHARE, WALL
from hrm.data.scenes.forest import forests
from hrm.errors import UserError
from tests.data.scenes.conftest import silent


def search(free: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """The slow twin: breadth-first over one board with a queue."""
    distance = np.full(free.shape, -1)
    distance[seed] = 0
    queue = deque([seed])
    while queue:
        row, column = queue.popleft()
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= r < free.shape[0] and 0 <= c < free.shape[1]
            if inside and free[r, c] and distance[r, c] < 0:
                distance[r, c] = distance[row, column] + 1
                queue.append((r, c))
    return distance


@settings(max_examples=40)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    walls=st.floats(0, 0.7),
    limit=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_spreading_equals_the_twin(
    height: int, width: int, walls: float, limit: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    free = rng.random((5, height, width)) >= walls
    places = [(int(rng.integers(height)), int(rng.integers(width))) for _ in free]
    seeds = np.zeros_like(free)
    for board, place in enumerate(places):
        free[board][place] = seeds[board][place] = True
    got = spread_from(free, seeds, limit)
    for board, place in enumerate(places):
        expected = search(free[board], place)
        if limit is not None:
            expected[expected > limit] = -1
        assert np.array_equal(got[board], expected)


def check(scenes: Scenes) -> None:
    assert scenes.difficulty is not None
    for image, label, hard in zip(
        scenes.images[:, 0], scenes.labels, scenes.difficulty, strict=True
    ):
        (place,) = np.argwhere(image == SEED)
        distance = search(image != WALL, tuple(place.tolist()))
        expected = np.where(image == WALL, 255, distance >= 0)
        assert np.array_equal(label, expected)
        assert hard == distance.max()
        assert set(np.unique(image)) <= {FREE, WALL, SEED}


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_labels_and_difficulties_are_the_twins(mazes: Task, name: str) -> None:
    check(mazes.splits[name])  # type: ignore[index]


@pytest.mark.parametrize("size", [8, 10, 32])
def test_other_sizes(size: int) -> None:
    scenes = make_flood_fill(size, {"train": 12, "val": 0, "test": 3}, 5, silent).splits
    assert set(scenes) == {"train", "test"}
    assert scenes["train"].images.shape == (12, 1, size, size)
    check(scenes["train"])


def test_at_64_boards_are_exact_and_distinct_and_have_several_components() -> None:
    splits = make_flood_fill(64, {"train": 4, "val": 0, "test": 2}, 0, silent).splits
    assert eccentricities(64) == (8, 160)
    for scenes in splits.values():
        check(scenes)
        for image in scenes.images[:, 0]:
            assert components(image != WALL) > 1
    assert splits["train"].difficulty is not None
    assert sorted(splits["train"].difficulty.tolist()) == [8, 46, 84, 122]
    keys = np.concatenate([orbit_keys(scenes.images) for scenes in splits.values()])
    assert len(np.unique(keys)) == 4 + 2


def components(free: np.ndarray) -> int:
    """How many parts of a board no move leads between."""
    found, left = 0, free.copy()
    while left.any():
        found += 1
        left &= search(free, tuple(np.argwhere(left)[0].tolist())) < 0
    return found


def test_difficulties_are_flat_in_every_split(mazes: Task) -> None:
    low, high = eccentricities(16)
    assert (low, high) == (2, 40)
    for split, each in zip(("train", "val", "test"), (10, 1, 2), strict=True):
        counts = np.bincount(mazes.splits[split].difficulty, minlength=high + 1)  # type: ignore
        assert counts[low:].tolist() == [each] * 39
        assert counts.sum() == counts[low:].sum()


def test_where_rows_do_not_divide_the_rest_is_spread() -> None:
    scenes = make_flood_fill(16, {"train": 50, "val": 0, "test": 7}, 1, silent).splits
    counts = np.bincount(scenes["train"].difficulty)[2:]  # type: ignore[arg-type]
    assert set(counts.tolist()) == {1, 2}
    few = np.sort(scenes["test"].difficulty)  # type: ignore[arg-type]
    assert few[0] <= 5
    assert few[-1] >= 33
    assert len(np.unique(few)) == 7


def test_there_are_several_components_and_no_answer_without_looking(mazes: Task) -> None:
    labels = mazes.splits["train"].labels
    share = (labels == 1).sum(axis=(1, 2)) / (labels < 255).sum(axis=(1, 2))
    assert share.min() >= SHARE[0]
    assert share.max() <= SHARE[1]
    assert share.std() > 0.1


def test_density_says_little_about_boards_that_are_not_easy(mazes: Task) -> None:
    scenes = mazes.splits["train"]
    assert scenes.difficulty is not None
    density = (scenes.labels < 255).mean(axis=(1, 2))
    hard = scenes.difficulty > 12
    assert abs(np.corrcoef(density[hard], scenes.difficulty[hard])[0, 1]) < 0.45


def test_no_board_is_there_twice(mazes: Task) -> None:
    keys = np.concatenate([orbit_keys(scenes.images) for scenes in mazes.splits.values()])
    assert len(np.unique(keys)) == 390 + 39 + 78


def test_a_seed_fixes_all_and_another_gives_others() -> None:
    counts = {"train": 20, "val": 5, "test": 5}
    first, again, other = (make_flood_fill(8, counts, seed, silent).splits for seed in (3, 3, 4))  # type: ignore[arg-type]
    for name in counts:
        assert np.array_equal(first[name].images, again[name].images)  # type: ignore[index]
        assert np.array_equal(first[name].labels, again[name].labels)  # type: ignore[index]
        assert not np.array_equal(first[name].images, other[name].images)  # type: ignore[index]


def test_too_few_different_boards_end_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hrm.data.scenes.flood_fill.orbit_keys",
        lambda images: np.zeros(len(images), dtype=np.uint64),
    )
    monkeypatch.setattr("hrm.data.scenes.flood_fill._BARREN", 2)
    with pytest.raises(UserError, match="only 1 of 5 different boards"):
        make_flood_fill(8, {"train": 5}, 0, silent)


@pytest.mark.parametrize("size", [6, 9, 15])
def test_odd_and_small_sizes_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"size is {size}.*even number from 8 on"):
        make_flood_fill(size, {"train": 5}, 0, silent)


@settings(max_examples=15)
@given(size=st.sampled_from([8, 12, 16]), seed=st.integers(0, 2**32))
def test_trees_are_connected_and_never_touch(size: int, seed: int) -> None:
    owners = forests(6, size, np.random.default_rng(seed))
    for owner in owners:
        for one, two in ((owner[1:], owner[:-1]), (owner[:, 1:], owner[:, :-1])):
            assert ((one == two) | (one < 0) | (two < 0)).all()
        for tree in np.unique(owner[owner >= 0]):
            place = tuple(np.argwhere(owner == tree)[0].tolist())
            assert np.array_equal(search(owner >= 0, place) >= 0, owner == tree)
