"""The on-disk format: published folders load, ours load there, and broken ones are refused."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data import IGNORE, SplitArrays, has_split, load_split, write_dataset
from hrm.data.base import batches
from hrm.errors import UserError

PUBLISHED: dict[str, Any] = {
    "pad_id": 0,
    "ignore_label_id": 0,
    "blank_identifier_id": 0,
    "vocab_size": 11,
    "seq_len": 4,
    "num_puzzle_identifiers": 3,
    "total_groups": 2,
    "mean_puzzle_examples": 5 / 3,
    "sets": ["all"],
}


def published(root: Path) -> Path:
    """A folder as the published builders write it: 5 rows, 3 puzzles, 2 groups, test like train."""
    arrays: dict[str, np.ndarray] = {
        "inputs": np.arange(20, dtype=np.uint8).reshape(5, 4) % 11,
        "labels": (np.arange(20, dtype=np.uint8).reshape(5, 4) + 3) % 11,
        "puzzle_identifiers": np.array([1, 0, 2], dtype=np.int32),
        "puzzle_indices": np.array([0, 2, 3, 5], dtype=np.int32),
        "group_indices": np.array([0, 1, 3], dtype=np.int32),
    }
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for field, array in arrays.items():
            np.save(root / split / f"all__{field}.npy", array)
        (root / split / "dataset.json").write_text(json.dumps(PUBLISHED))
    (root / "identifiers.json").write_text('["<blank>", "a", "b"]')
    return root


def test_a_published_folder_loads(tmp_path: Path) -> None:
    split = load_split(published(tmp_path), "train")
    assert (len(split), split.groups) == (5, 2)
    assert split.row_identifiers.tolist() == [1, 1, 0, 2, 2]
    batch = split.take(np.array([4, 2]))
    assert batch["inputs"].tolist() == [[5, 6, 7, 8], [8, 9, 10, 0]]
    assert batch["labels"].tolist() == [[8, 9, 10, IGNORE], [IGNORE, 1, 2, 3]]
    assert batch["puzzle_identifiers"].tolist() == [2, 0]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
    assert not has_split(tmp_path, "val")
    with pytest.raises(UserError, match="no split 'val'"):
        load_split(tmp_path, "val")


def test_taken_rows_can_be_changed_without_touching_the_file(tmp_path: Path) -> None:
    split = load_split(published(tmp_path), "train")
    split.take(np.array([0]))["inputs"][:] = 7
    assert split.take(np.array([0]))["inputs"].tolist() == [[0, 1, 2, 3]]


def test_batches_are_the_rows_in_order_and_the_last_may_be_short(tmp_path: Path) -> None:
    split = load_split(published(tmp_path), "train")
    rows = np.array([4, 2, 0, 1, 3])
    taken = list(batches(split, rows, 2))
    assert [where for where, _ in taken] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    for where, batch in taken:
        for name, values in split.take(rows[where]).items():
            assert np.array_equal(batch[name], values), name
    assert list(batches(split, rows[:0], 2)) == []


def test_several_sets_are_concatenated(tmp_path: Path) -> None:
    train = published(tmp_path) / "train"
    for path in list(train.glob("all__*.npy")):
        np.save(train / path.name.replace("all", "more"), np.load(path).astype(np.int64))
    metadata = PUBLISHED | {"sets": ["all", "more"], "total_groups": 4, "builder": "x"}
    (train / "dataset.json").write_text(json.dumps(metadata))
    split = load_split(tmp_path, "train")
    assert split.puzzle_indices.tolist() == [0, 2, 3, 5, 7, 8, 10]
    assert split.group_indices.tolist() == [0, 1, 3, 4, 6]
    assert split.row_identifiers.tolist() == [1, 1, 0, 2, 2] * 2
    assert split.take(np.array([9]))["inputs"].tolist() == [[5, 6, 7, 8]]


def replace(field: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(train: Path) -> None:
        path = train / f"all__{field}.npy"
        np.save(path, change(np.load(path)))

    return apply


def put(value: int, where: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[where] = value
        return array

    return change


def describe(**changes: Any) -> Callable[[Path], None]:
    def apply(train: Path) -> None:
        (train / "dataset.json").write_text(json.dumps(PUBLISHED | changes))

    return apply


def truncate(train: Path) -> None:
    path = train / "all__labels.npy"
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda train: (train / "all__labels.npy").unlink(), "all__labels.npy is missing"),
        (truncate, "all__labels.npy is truncated"),
        (lambda train: (train / "all__inputs.npy").write_bytes(b""), "inputs.npy is truncated"),
        (lambda train: (train / "dataset.json").write_text("{"), "dataset.json is not a data set"),
        (describe(vocab_size="many"), "vocab_size"),
        (describe(sets=["../all"]), "no plain name"),
        (describe(seq_len=5), r"inputs.npy has shape \(5, 4\) instead of \(5, 5\)"),
        (describe(total_groups=3), "total_groups=3, but the index files have 2"),
        (describe(vocab_size=10), "the token 10 in row 2: it may be 0 to 9"),
        (replace("labels", put(11, (3, 1))), "the label 11 in row 3: it may be 0 to 10"),
        (replace("labels", lambda a: a[:4]), r"labels.npy has shape \(4, 4\) instead of \(5, 4\)"),
        (replace("inputs", lambda a: a / 2), "float64"),
        (replace("puzzle_identifiers", put(3, 0)), "identifier 3 in row 0: it may be 0 to 2"),
        (replace("puzzle_identifiers", put(-1, 1)), "identifier -1 in row 1"),
        (replace("puzzle_identifiers", lambda a: a[:2]), "2 entries for 3 puzzles"),
        (replace("puzzle_indices", put(6, -1)), "must rise from 0 to 5"),
        (replace("puzzle_indices", put(3, 1)), "must rise from 0 to 5"),
        (replace("group_indices", put(1, 0)), "must rise from 0 to 3"),
    ],
)
def test_a_broken_folder_is_refused_by_name(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(published(tmp_path) / "train")
    with pytest.raises(UserError, match=message) as caught:
        load_split(tmp_path, "train")
    assert "\n" not in str(caught.value)
    load_split(tmp_path, "test")


def test_the_ignored_label_may_lie_outside_the_vocabulary(tmp_path: Path) -> None:
    train = published(tmp_path) / "train"
    describe(ignore_label_id=-100)(train)
    replace("labels", lambda a: np.where(a == 4, -100, a.astype(np.int16)))(train)
    labels = load_split(tmp_path, "train").take(np.array([0]))["labels"]
    assert labels.tolist() == [[3, -100, 5, 6]]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_split(tmp_path / "absent", "train")


def small() -> SplitArrays:
    inputs = np.array([[1, 2], [2, 1], [1, 1], [2, 2]], dtype=np.uint8)
    return SplitArrays.from_rows(inputs, inputs[::-1].copy(), group_size=2)


def test_what_is_written_loads_and_has_the_published_layout(tmp_path: Path) -> None:
    root = tmp_path / "new" / "set"
    write_dataset(root, {"train": small(), "val": small()}, vocab_size=3, prepare={"seed": 1})
    split = load_split(root, "val")
    assert split.inputs.dtype == np.uint8
    assert split.labels.tolist() == small().labels.tolist()
    assert split.group_indices.tolist() == [0, 2, 4]
    assert json.loads((root / "identifiers.json").read_text()) == ["<blank>"]
    assert json.loads((root / "prepare.json").read_text()) == {"seed": 1}
    metadata = json.loads((root / "train" / "dataset.json").read_text())
    assert metadata == {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": 3,
        "seq_len": 2,
        "num_puzzle_identifiers": 1,
        "total_groups": 2,
        "mean_puzzle_examples": 1.0,
        "sets": ["all"],
        "total_puzzles": 4,
    }
    assert [path.name for path in root.parent.iterdir()] == ["set"]


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        write_dataset(tmp_path, {"train": small()}, vocab_size=3)
    with pytest.raises(UserError, match="is a file"):
        write_dataset(tmp_path / "mine.txt", {"train": small()}, vocab_size=3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = np.save, []

    def full(path: Path, array: np.ndarray) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left"):
        write_dataset(tmp_path / "set", {"train": small()}, vocab_size=3)
    assert len(calls) == 4
    assert list(tmp_path.iterdir()) == []
