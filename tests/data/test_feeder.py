"""The feeder: every row once, in an order that only the seed and the count of rows fix."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data import IGNORE, Feeder, PuzzleSplit, SplitArrays, load_split, write_dataset
from hrm.data.keys import Keys, draws
from hrm.errors import UserError

ROWS = 23


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PuzzleSplit:
    """23 rows; row r has the inputs [r + 1, r + 1] and the labels [r + 2, r + 2]."""
    inputs = np.repeat(np.arange(1, ROWS + 1, dtype=np.uint8)[:, None], 2, axis=1)
    root = tmp_path_factory.mktemp("split") / "set"
    write_dataset(root, {"train": SplitArrays.from_rows(inputs, inputs + 1)}, vocab_size=30)
    return load_split(root, "train")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> PuzzleSplit:
    """Groups of rows {0, 1, 2}, {3}, {4, 5}: the second group's puzzle, and one of two rows."""
    inputs = np.repeat(np.arange(1, 7, dtype=np.uint8)[:, None], 2, axis=1)
    arrays = SplitArrays(
        inputs=inputs,
        labels=inputs,
        puzzle_identifiers=np.array([1, 2, 3, 4]),
        puzzle_indices=np.array([0, 1, 3, 4, 6]),
        group_indices=np.array([0, 2, 3, 4]),
    )
    root = tmp_path_factory.mktemp("grouped") / "set"
    names = ["<blank>", "a", "b", "c", "d"]
    write_dataset(root, {"train": arrays}, vocab_size=9, identifiers=names)
    return load_split(root, "train")


def drawn(feeder: Feeder, halted: np.ndarray) -> list[int]:
    """The rows that `fill` gives to the halted slots, read from the batch itself."""
    return (feeder.fill(halted)["inputs"][halted, 0] - 1).tolist()


def jumble(columns: Mapping[str, np.ndarray], keys: Keys) -> dict[str, np.ndarray]:
    """An augmenter that writes its key's first number into the row."""
    number = (draws(keys, 1) >> np.uint64(34)).astype(np.int32)
    moved = {name: columns[name] + number for name in ("inputs", "labels")}
    return {**columns, **moved}


ALL = np.ones(4, dtype=bool)
MASKS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(masks=MASKS, seed=st.integers(-(2**40), 2**40))
def test_order_does_not_depend_on_how_rows_are_asked_for(
    split: PuzzleSplit, masks: list[list[bool]], seed: int
) -> None:
    total = sum(sum(mask) for mask in masks)
    one = Feeder(split, slots=1, seed=seed, augment=jumble)
    expected = [one.fill(np.array([True]))["inputs"].tolist()[0] for _ in range(total)]
    feeder = Feeder(split, slots=4, seed=seed, augment=jumble)
    got = []
    for mask in masks:
        halted = np.array(mask)
        got += feeder.fill(halted)["inputs"][halted].tolist()
    assert got == expected
    assert feeder.admitted == total


def test_an_epoch_is_every_row_once_and_no_two_epochs_are_alike(split: PuzzleSplit) -> None:
    feeder = Feeder(split, slots=4, seed=0)
    rows: list[int] = []
    rng = np.random.default_rng(0)
    while len(rows) < 3 * ROWS:
        rows += drawn(feeder, rng.random(4) < 0.4)
    epochs = [rows[i * ROWS : (i + 1) * ROWS] for i in range(3)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = Feeder(split, slots=ROWS, seed=1)
    assert drawn(other, np.ones(ROWS, dtype=bool)) != epochs[0]


def test_running_slots_cost_no_rows_and_keep_their_rows(split: PuzzleSplit) -> None:
    feeder = Feeder(split, slots=4, seed=0, shuffle=False)
    assert drawn(feeder, ALL) == [0, 1, 2, 3]
    batch = feeder.fill(np.array([False, True, False, True]))
    assert (batch["inputs"][:, 0] - 1).tolist() == [0, 4, 2, 5]
    assert (batch["labels"][:, 1] - 2).tolist() == [0, 4, 2, 5]
    assert feeder.rows.tolist() == [0, 4, 2, 5]
    assert feeder.fill(np.zeros(4, dtype=bool))["inputs"].shape == (4, 2)
    assert feeder.admitted == 6


def test_after_the_last_epoch_slots_get_padding(split: PuzzleSplit) -> None:
    feeder = Feeder(split, slots=4, seed=0, epochs=2, shuffle=False)
    assert feeder.planned == 46
    for _ in range(11):
        feeder.fill(ALL)
    assert (feeder.admitted, feeder.epoch, feeder.exhausted) == (44, 1, False)
    batch = feeder.fill(ALL)
    assert batch["inputs"].tolist() == [[22, 22], [23, 23], [0, 0], [0, 0]]
    assert batch["labels"].tolist() == [[23, 23], [24, 24], [IGNORE] * 2, [IGNORE] * 2]
    assert feeder.rows.tolist() == [21, 22, -1, -1]
    assert (feeder.admitted, feeder.epoch, feeder.exhausted) == (46, 2, True)
    assert (feeder.fill(ALL)["labels"] == IGNORE).all()
    assert feeder.admitted == 46


def test_without_epochs_there_is_no_end(split: PuzzleSplit) -> None:
    feeder = Feeder(split, slots=4, seed=0)
    for _ in range(50):
        feeder.fill(ALL)
    assert (feeder.admitted, feeder.epoch, feeder.planned) == (200, 8, None)
    assert not feeder.exhausted


@pytest.mark.parametrize("sampling", ["rows", "groups"])
@pytest.mark.parametrize("stop", [0, 1, 5, 6, 13])
def test_resuming_is_exact(grouped: PuzzleSplit, sampling: str, stop: int) -> None:
    def make() -> Feeder:
        return Feeder(grouped, slots=3, seed=9, sampling=sampling, augment=jumble)  # type: ignore[arg-type]

    rng = np.random.default_rng(1)
    masks = [rng.random(3) < 0.5 for _ in range(30)]
    whole, first, second = make(), make(), make()
    for mask in masks[:stop]:
        whole.fill(mask)
        first.fill(mask)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for mask in masks[stop:]:
        expected, got = whole.fill(mask), second.fill(mask)
        for name in expected:
            assert np.array_equal(expected[name][mask], got[name][mask])
    assert whole.state_dict() == second.state_dict()


def test_a_state_of_other_data_or_another_order_is_refused(
    split: PuzzleSplit, grouped: PuzzleSplit
) -> None:
    state = Feeder(split, slots=4, seed=0).state_dict()
    with pytest.raises(UserError, match="seed=0, this run has 1"):
        Feeder(split, slots=4, seed=1).load_state_dict(state)
    with pytest.raises(UserError, match="rows_per_epoch=23, this run has 6"):
        Feeder(grouped, slots=4, seed=0).load_state_dict(state)
    with pytest.raises(UserError, match="lacks 'admitted'"):
        Feeder(split, slots=4, seed=0).load_state_dict({})


def test_an_epoch_of_groups_is_one_row_of_each(grouped: PuzzleSplit) -> None:
    feeder = Feeder(grouped, slots=3, seed=0, epochs=200, sampling="groups")
    assert feeder.planned == 600
    group_of = np.array([0, 0, 0, 1, 2, 2])
    identifier_of = np.array([1, 2, 2, 3, 4, 4])
    seen = np.zeros(6, dtype=int)
    for _ in range(200):
        batch = feeder.fill(np.ones(3, dtype=bool))
        rows = batch["inputs"][:, 0] - 1
        assert sorted(group_of[rows]) == [0, 1, 2]
        assert np.array_equal(batch["puzzle_identifiers"], identifier_of[rows])
        seen[rows] += 1
    # A puzzle has half of its group's draws, whatever its number of rows.
    assert seen[3] == 200
    assert abs(seen[0] - 100) < 30
    assert abs(seen[1] - 50) < 25
    assert abs(seen[4] - 100) < 30


def test_augmented_labels_move_with_inputs_and_other_seeds_give_others(split: PuzzleSplit) -> None:
    batches = []
    for seed in (0, 1):
        feeder = Feeder(split, slots=4, seed=seed, augment=jumble, shuffle=False)
        batch = feeder.fill(ALL)
        assert np.array_equal(batch["labels"], batch["inputs"] + 1)
        batches.append(batch["inputs"].copy())
    assert (batches[0] != batches[1]).all()


@settings(deadline=None, max_examples=25)
@given(masks=MASKS, epochs=st.sampled_from([None, 1, 3]), ahead=st.booleans())
def test_feeders_that_share_the_slots_give_out_the_rows_of_one(
    split: PuzzleSplit, masks: list[list[bool]], epochs: int | None, ahead: bool
) -> None:
    shares = [np.array([True, False, False, True]), np.array([False, True, True, False])]
    whole, *parts = (
        Feeder(split, slots=4, seed=5, epochs=epochs, augment=jumble, ahead=ahead, mine=mine)
        for mine in (None, *shares)
    )
    for mask in masks:
        halted = np.array(mask)
        expected = whole.fill(halted)
        for part, mine in zip(parts, shares, strict=True):
            got = part.fill(halted)
            assert part.rows.tolist() == whole.rows.tolist()
            assert part.state_dict() == whole.state_dict()
            for name, values in expected.items():
                assert np.array_equal(values[halted & mine], got[name][halted & mine])


def test_a_mask_of_another_length_is_refused(split: PuzzleSplit) -> None:
    with pytest.raises(ValueError, match="4 slots"):
        Feeder(split, slots=4, seed=0).fill(np.ones(3, dtype=bool))


@settings(deadline=None, max_examples=25)
@given(masks=MASKS, epochs=st.sampled_from([None, 1, 3]), back=st.integers(0, 29))
def test_rows_made_ahead_are_the_same_rows(
    split: PuzzleSplit, masks: list[list[bool]], epochs: int | None, back: int
) -> None:
    plain, ahead = (
        Feeder(split, slots=4, seed=5, epochs=epochs, augment=jumble, ahead=a)
        for a in (False, True)
    )
    states = []
    for mask in masks:
        states.append(plain.state_dict())
        assert ahead.state_dict() == states[-1]
        halted = np.array(mask)
        expected, got = plain.fill(halted), ahead.fill(halted)
        assert plain.rows.tolist() == ahead.rows.tolist()
        for name, values in expected.items():
            assert np.array_equal(values[halted], got[name][halted])
    # What was made for another place is not used.
    for feeder in (plain, ahead):
        feeder.load_state_dict(states[back % len(states)])
    assert np.array_equal(plain.fill(ALL)["inputs"], ahead.fill(ALL)["inputs"])


def test_easy_rows_come_first_in_the_first_epoch(tmp_path: Path) -> None:
    inputs = np.repeat(np.arange(1, ROWS + 1, dtype=np.uint8)[:, None], 2, axis=1)
    difficulty = np.arange(ROWS)[::-1] // 2  # Row 0 is the hardest; most come in pairs.
    arrays = SplitArrays.from_rows(inputs, inputs, difficulty=difficulty)
    write_dataset(tmp_path / "set", {"train": arrays}, vocab_size=30)
    split = load_split(tmp_path / "set", "train")

    def epochs(share: float) -> list[list[int]]:
        feeder = Feeder(split, slots=ROWS, seed=0, easy_first=share)
        return [drawn(feeder, np.ones(ROWS, dtype=bool)) for _ in range(2)]

    strict = epochs(1.0)
    assert [difficulty[row] for row in strict[0]] == sorted(difficulty)
    assert strict[1] == epochs(0.0)[1], "later epochs are in the order of chance"
    half = epochs(0.5)[0]
    assert sorted(half) == list(range(ROWS)), "every row once"
    ranks = [float(np.corrcoef(np.arange(ROWS), difficulty[e])[0, 1]) for e in (half, epochs(0)[0])]
    assert 0.99 > ranks[0] > max(0.5, ranks[1])


def test_easy_first_needs_to_know_what_is_easy(split: PuzzleSplit) -> None:
    with pytest.raises(UserError, match=r"easy_first is 0\.5: it must be 0 unless"):
        Feeder(split, slots=2, seed=0, easy_first=0.5)
    with pytest.raises(UserError, match="easy_first is 2: it may be 0 to 1"):
        Feeder(split, slots=2, seed=0, easy_first=2)
