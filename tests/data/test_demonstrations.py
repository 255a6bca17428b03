"""Demonstrations on disk and in a batch: what a row is shown, views of groups, broken files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data import Demonstrations, PuzzleSplit, SplitArrays, load_split, write_dataset
from hrm.data.base import batches
from hrm.errors import UserError


def arrays(left_out: list[int] | None = None) -> SplitArrays:
    """Puzzles of 2, 0 and 3 demonstrations and 2, 1 and 1 rows, in groups of one and two puzzles.

    Row r holds the token r + 1, demonstration d the tokens d + 3 and d + 4.
    """
    rows = np.repeat(np.arange(1, 5, dtype=np.uint8)[:, None], 4, axis=1)
    shown = np.repeat(np.arange(3, 8, dtype=np.uint8)[:, None], 4, axis=1)
    return SplitArrays(
        inputs=rows,
        labels=rows,
        puzzle_identifiers=np.array([1, 2, 3], dtype=np.int32),
        puzzle_indices=np.array([0, 2, 3, 4], dtype=np.int32),
        group_indices=np.array([0, 1, 3], dtype=np.int32),
        demonstrations=Demonstrations(
            inputs=shown,
            outputs=shown + 1,
            indices=np.array([0, 2, 2, 5], dtype=np.int32),
            left_out=None if left_out is None else np.array(left_out, dtype=np.int32),
        ),
    )


def write(root: Path, *splits: SplitArrays) -> Path:
    names = ("train", "test")
    write_dataset(
        root,
        dict(zip(names, splits, strict=False)),  # type: ignore[arg-type]
        vocab_size=9,
        identifiers=["<blank>", "a", "b", "c"],
        grid=2,
    )
    return root


def shown(split: PuzzleSplit, rows: list[int]) -> list[list[tuple[int, int]]]:
    """The demonstrations of rows by their first tokens, after a check of the padding."""
    columns = split.take(np.array(rows, dtype=np.int64))
    mask = columns["demo_mask"]
    assert (np.diff(mask, axis=1) <= 0).all()  # Real ones come first.
    for name in ("demo_inputs", "demo_outputs"):
        assert columns[name].shape == (len(rows), split.metadata.demonstrations, 4)
        assert (columns[name][mask == 0] == 0).all()
        assert (columns[name] == columns[name][:, :, :1]).all()
    assert {array.dtype for array in columns.values()} == {np.dtype(np.int32)}
    first, second = (columns[name][:, :, 0] for name in ("demo_inputs", "demo_outputs"))
    return [
        list(zip(a[m == 1].tolist(), b[m == 1].tolist(), strict=True))
        for a, b, m in zip(first, second, mask, strict=True)
    ]


def test_each_row_has_its_puzzles_demonstrations(tmp_path: Path) -> None:
    split = load_split(write(tmp_path / "set", arrays()), "train")
    assert split.metadata.demonstrations == 3
    assert split.metadata.grid == 2
    first, last = [(3, 4), (4, 5)], [(5, 6), (6, 7), (7, 8)]
    assert shown(split, [0, 1, 2, 3]) == [first, first, [], last]
    assert shown(split, [3, 0, 3]) == [last, first, last]
    assert shown(split, []) == []
    assert split.demonstrations is not None
    assert isinstance(split.demonstrations.inputs.base, np.memmap)


def test_a_row_that_is_a_demonstration_is_not_shown_with_itself(tmp_path: Path) -> None:
    split = load_split(write(tmp_path / "set", arrays([-1, 0, -1, 1])), "train")
    assert shown(split, [0, 1, 2, 3]) == [[(3, 4), (4, 5)], [(4, 5)], [], [(5, 6), (7, 8)]]
    last = load_split(write(tmp_path / "last", arrays([1, 0, -1, 2])), "train")
    assert shown(last, [0, 1, 2, 3]) == [[(3, 4)], [(4, 5)], [], [(5, 6), (6, 7)]]


def test_the_room_is_the_most_of_all_splits(tmp_path: Path) -> None:
    few = replace(arrays(), puzzle_indices=np.array([0, 4]), group_indices=np.array([0, 1]))
    few = replace(
        few,
        puzzle_identifiers=np.array([1]),
        demonstrations=Demonstrations(few.inputs[:1], few.labels[:1], np.array([0, 1])),
    )
    root = write(tmp_path / "set", arrays(), few)
    assert load_split(root, "test").take(np.array([0]))["demo_mask"].tolist() == [[1, 0, 0]]
    with pytest.raises(ValueError, match="some splits have demonstrations"):
        write(tmp_path / "other", arrays(), replace(arrays(), demonstrations=None))


def test_padding_has_every_column_and_nothing_in_it(tmp_path: Path) -> None:
    split = load_split(write(tmp_path / "set", arrays()), "train")
    padding, taken = split.padding(4), split.take(np.arange(4))
    assert padding.keys() == taken.keys()
    for name, array in padding.items():
        assert (array.dtype, array.shape) == (taken[name].dtype, taken[name].shape)
        assert (array == (-100 if name == "labels" else 0)).all(), name


def test_several_sets_are_concatenated(tmp_path: Path) -> None:
    train = write(tmp_path / "set", arrays([-1, 0, -1, 1])) / "train"
    for path in list(train.glob("all__*.npy")):
        (train / path.name.replace("all", "more")).write_bytes(path.read_bytes())
    (train / "more__demo_left_out.npy").unlink()
    describe(train, sets=["all", "more"], total_groups=4)
    split = load_split(tmp_path / "set", "train")
    first, last = [(3, 4), (4, 5)], [(5, 6), (6, 7), (7, 8)]
    assert shown(split, [1, 4, 5, 6, 7]) == [[(4, 5)], first, first, [], last]


def test_the_first_groups_are_views(tmp_path: Path) -> None:
    root = write(tmp_path / "set", arrays([-1, 0, -1, 1]))
    split = load_split(root, "train")
    some = split.limit_groups(1)
    assert (len(some), some.groups, some.metadata.total_groups) == (2, 1, 1)
    assert (some.metadata.total_puzzles, some.metadata.mean_puzzle_examples) == (1, 2)
    assert some.metadata.num_puzzle_identifiers == 4
    assert np.shares_memory(some.inputs, split.inputs)
    assert some.demonstrations is not None
    assert len(some.demonstrations.inputs) == 2
    for name, array in some.take(np.array([1, 0])).items():
        assert np.array_equal(array, split.take(np.array([1, 0]))[name]), name
    assert [where for where, _ in batches(some, np.arange(2), 8)] == [slice(0, 2)]
    for whole in (None, 2, 99):
        assert split.limit_groups(whole) is split
    with pytest.raises(UserError, match="limit of 0 groups"):
        split.limit_groups(0)


def test_without_demonstrations_nothing_has_changed(tmp_path: Path) -> None:
    plain = replace(arrays(), demonstrations=None)
    names = ["<blank>", "a", "b", "c"]
    write_dataset(tmp_path / "set", {"train": plain}, vocab_size=9, identifiers=names)
    assert set(json.loads((tmp_path / "set" / "train" / "dataset.json").read_text())) == {
        "pad_id",
        "ignore_label_id",
        "blank_identifier_id",
        "vocab_size",
        "seq_len",
        "num_puzzle_identifiers",
        "total_groups",
        "mean_puzzle_examples",
        "sets",
        "total_puzzles",
    }
    assert len(list((tmp_path / "set" / "train").glob("*.npy"))) == 5
    split = load_split(tmp_path / "set", "train")
    assert split.demonstrations is None
    assert list(split.take(np.array([0]))) == ["inputs", "labels", "puzzle_identifiers"]
    assert list(split.padding(2)) == ["inputs", "labels", "puzzle_identifiers"]
    assert split.limit_groups(1).take(np.array([1]))["inputs"].tolist() == [[2] * 4]


def describe(train: Path, **changes: Any) -> None:
    path = train / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change(field: str, f: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(train: Path) -> None:
        path = train / f"all__demo_{field}.npy"
        np.save(path, f(np.load(path)))

    return apply


def put(value: int, where: Any) -> Callable[[np.ndarray], np.ndarray]:
    def apply(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.int64)
        array[where] = value
        return array

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda t: (t / "all__demo_inputs.npy").unlink(), "demo_inputs.npy is missing"),
        (lambda t: (t / "all__demo_indices.npy").unlink(), "demo_indices.npy is missing"),
        (change("inputs", put(9, (2, 1))), "demo_inputs.npy has the token 9 in row 2"),
        (change("outputs", put(-1, (0, 0))), "demo_outputs.npy has the token -1 in row 0"),
        (change("inputs", lambda a: a[:4]), r"shape \(4, 4\) instead of \(5, 4\)"),
        (change("outputs", lambda a: a[:, :3]), r"shape \(5, 3\) instead of \(5, 4\)"),
        (change("indices", put(4, -1)), r"shape \(5, 4\) instead of \(4, 4\)"),
        (change("indices", put(1, 0)), "must have 4 and never fall"),
        (change("indices", put(1, 2)), "must have 4 and never fall"),
        (change("indices", lambda a: a[:-1]), "must have 4 and never fall"),
        (lambda t: describe(t, demonstrations=2), "a puzzle with 3 demonstrations"),
        (change("left_out", lambda a: a[:3]), "3 entries for 4 rows"),
        (change("left_out", put(2, 1)), "has 2 in row 1, whose puzzle has 2 demonstrations"),
        (change("left_out", put(0, 2)), "has 0 in row 2, whose puzzle has 0"),
        (change("left_out", put(-2, 0)), "has -2 in row 0"),
        (lambda t: describe(t, grid=3), "seq_len is 4, but grid is 3"),
        (lambda t: describe(t, demonstrations=0), "demonstrations"),
    ],
)
def test_broken_demonstrations_are_refused_by_name(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(write(tmp_path / "set", arrays([-1, 0, -1, 1])) / "train")
    with pytest.raises(UserError, match=message) as caught:
        load_split(tmp_path / "set", "train")
    assert "\n" not in str(caught.value)
