"""Data sets, end to end: what is in the splits, what is never in two of them, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.data import load_split
from hrm.data.keys import draws, keys_of
from hrm.data.sudoku import (
    SHAPES,
    Solver,
    SudokuAugment,
    decode,
    encode,
    generate,
    invariant,
    keeps_givens,
    prepare_sudoku,
    solved,
    sudoku_request,
    to_text,
)
from hrm.data.sudoku.prepare import allocate, reveal
from hrm.errors import UserError

NAMES = ("train", "val", "test")


def prepare(out: Path, **settings: Any) -> dict[str, Any]:
    return prepare_sudoku(sudoku_request(out=out, **settings))


def boards(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    split = load_split(root, name)  # type: ignore[arg-type]
    return decode(np.asarray(split.inputs)), decode(np.asarray(split.labels))


def write_csv(path: Path, puzzles: np.ndarray, solutions: np.ndarray) -> Path:
    rows = [
        f"s,{to_text(puzzle)},{to_text(solution)},{row}"
        for row, (puzzle, solution) in enumerate(zip(puzzles, solutions, strict=True))
    ]
    path.write_text("\n".join(["source,question,answer,rating", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def hard() -> tuple[np.ndarray, np.ndarray]:
    """60 9x9 puzzles of 29 to 31 clues, with their solutions."""
    return generate(SHAPES[9], np.arange(60), seed=0, blanks=(50, 52))


@pytest.mark.parametrize("size", [4, 6, 9])
def test_generated_splits_are_valid_and_hold_no_equivalents(tmp_path: Path, size: int) -> None:
    shape, out = SHAPES[size], tmp_path / "set"
    summary = prepare(out, size=size, count=60, val_count=20, test_count=30)
    assert [summary[name]["rows"] for name in NAMES] == [60, 20, 30]
    keys = []
    for name in NAMES:
        split = load_split(out, name)  # type: ignore[arg-type]
        assert (split.metadata.vocab_size, split.metadata.seq_len) == (size + 2, size * size)
        assert split.inputs.dtype == split.labels.dtype == np.uint8
        puzzles, solutions = boards(out, name)
        assert solved(shape, solutions).all()
        assert keeps_givens(puzzles, solutions).all()
        keys.append(invariant(shape, solutions if size == 9 else puzzles))
    assert len(np.unique(np.concatenate(keys))) == 110
    solver = Solver(shape)
    assert all(solver.solve(puzzle).count == 1 for puzzle in puzzles)


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> dict[str, bytes]:
        out = tmp_path / name
        prepare(out, size=4, count=30, val_count=5, test_count=5, augmentations=2, seed=seed)
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    first, again, other = content("a", 3), content("b", 3), content("c", 4)
    assert first == again
    assert first["train/all__inputs.npy"] != other["train/all__inputs.npy"]
    assert len(first) == 3 * 6 + 2


@pytest.mark.slow
def test_default_4x4_leaves_the_rest_to_training(tmp_path: Path) -> None:
    summary = prepare(tmp_path / "set", size=4)
    assert summary["test"]["puzzles"] == 500
    assert summary["val"]["puzzles"] == 250
    assert summary["train"]["puzzles"] == 1500
    assert summary["train"]["clues"]["min"] >= 4
    assert summary["train"]["clues"]["max"] == 10
    scarce = prepare(tmp_path / "scarce", size=4, blanks=12, val_count=2, test_count=4)
    assert 1 <= scarce["train"]["puzzles"] <= 13 - 6


def test_too_few_classes_are_an_error_that_says_how_many(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"only 1[0-3] inequivalent 4x4 puzzles with 12-12 blanks"):
        prepare(tmp_path / "set", size=4, blanks="12", count=20, val_count=0, test_count=1)
    with pytest.raises(UserError, match="only 2 inequivalent 4x4 solutions"):
        prepare(tmp_path / "set", size=4, split_by="solution", count=5)
    assert list(tmp_path.iterdir()) == []


def test_csv_puzzles_get_clues_revealed(
    tmp_path: Path, hard: tuple[np.ndarray, np.ndarray]
) -> None:
    path = write_csv(tmp_path / "a.csv", *hard)
    out = tmp_path / "set"
    summary = prepare(out, csv=path, count=40, val_count=5, test_count=10, clues=36)
    known = {to_text(solution): puzzle for puzzle, solution in zip(*hard, strict=True)}
    used = []
    for name in NAMES:
        assert summary[name]["clues"] == {"min": 36, "mean": 36.0, "max": 36}
        for puzzle, solution in zip(*boards(out, name), strict=True):
            used.append(to_text(solution))
            assert keeps_givens(known[used[-1]], puzzle)
            assert keeps_givens(puzzle, solution)
    assert len(set(used)) == len(used) == 55
    # Without clues the puzzles stay as they are.
    prepare(tmp_path / "plain", csv=path, count=40, val_count=0, test_count=10)
    for puzzle, solution in zip(*boards(tmp_path / "plain", "train"), strict=True):
        assert np.array_equal(puzzle, known[to_text(solution)])
    assert not (tmp_path / "plain" / "val").exists()


def test_equivalent_rows_of_a_csv_share_a_split(
    tmp_path: Path, hard: tuple[np.ndarray, np.ndarray]
) -> None:
    puzzles, solutions = (np.repeat(part[:12], 5, axis=0) for part in hard)
    keys = keys_of(0, np.arange(60))
    inputs, labels = SudokuAugment(SHAPES[9]).move(encode(puzzles), encode(solutions), keys)
    path = write_csv(tmp_path / "a.csv", decode(inputs), decode(labels))
    out = tmp_path / "set"
    prepare(out, csv=path, count=25, val_count=7, test_count=8, split_by="puzzle")
    classes = [set(invariant(SHAPES[9], boards(out, name)[0]).tolist()) for name in NAMES]
    assert [len(part) for part in classes] == [5, 2, 2]
    assert len(set.union(*classes)) == 9
    # Two classes of five are cut for val, two for test; 40 rows are left.
    with pytest.raises(UserError, match="has 60 puzzles, of which"):
        prepare(tmp_path / "x", csv=path, count=41, val_count=7, test_count=8)


def test_the_published_recipe(tmp_path: Path, hard: tuple[np.ndarray, np.ndarray]) -> None:
    puzzles, solutions = hard
    train = write_csv(tmp_path / "train.csv", puzzles[:40], solutions[:40])
    # Ten of the test file's 20 puzzles are other forms of training puzzles.
    keys = keys_of(1, np.arange(10))
    inputs, labels = SudokuAugment(SHAPES[9]).move(
        encode(puzzles[:10]), encode(solutions[:10]), keys
    )
    test = write_csv(
        tmp_path / "test.csv",
        np.concatenate([decode(inputs), puzzles[40:50]]),
        np.concatenate([decode(labels), solutions[40:50]]),
    )
    out = tmp_path / "set"
    request = {"csv": train, "test_csv": test, "augmentations": 7, "val_count": 4}
    prepare(out, **request, subsample=20, test_count=20)
    split = load_split(out, "train")
    assert (len(split), split.groups, split.metadata.total_puzzles) == (160, 20, 160)
    assert split.group_indices.tolist() == list(range(0, 161, 8))
    assert split.puzzle_indices.tolist() == list(range(161))
    assert not split.row_identifiers.any()
    train_boards, train_answers = boards(out, "train")
    assert solved(SHAPES[9], train_answers).all()
    assert keeps_givens(train_boards, train_answers).all()
    groups = invariant(SHAPES[9], train_boards).reshape(20, 8)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(train_boards, axis=0)) == 160
    originals = {to_text(puzzle) for puzzle in puzzles[10:40]}
    assert {to_text(puzzle) for puzzle in train_boards[::8]} <= originals
    tested = invariant(SHAPES[9], boards(out, "test")[0])
    assert len(tested) == 20
    assert not np.intersect1d(tested, groups).size
    with pytest.raises(UserError, match="lower count"):
        prepare(tmp_path / "x", **request, subsample=27, test_count=20)
    with pytest.raises(UserError, match="has 20 puzzles, test_count is 21"):
        prepare(tmp_path / "x", **request, subsample=20, test_count=21)


def test_min_rating_filters_and_small_files_get_small_splits(
    tmp_path: Path, hard: tuple[np.ndarray, np.ndarray]
) -> None:
    path = write_csv(tmp_path / "a.csv", *hard)  # rated 0 to 59
    summary = prepare(tmp_path / "set", csv=path, min_rating=20)
    assert [summary[name]["puzzles"] for name in NAMES] == [32, 4, 4]
    rated = {to_text(puzzle) for puzzle in hard[0][20:]}
    assert {to_text(puzzle) for puzzle in boards(tmp_path / "set", "train")[0]} <= rated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 5}, "size is 5"),
        ({"count": 0}, "count is 0"),
        ({"cout": 5}, "no 'cout'; did you mean 'count'"),
        ({"blanks": "many"}, "blanks is"),
        ({"blanks": "5-"}, None),
        ({"blanks": 5, "clues": 70}, "exclude each other"),
        ({"blanks": "9-5"}, "blanks is 9-5: it may be a range within 1-80"),
        ({"size": 4, "clues": 16}, "clues is 16: it may be 1 to 15"),
        ({"size": 6, "blanks": 32}, "32 is out of reach"),
        ({"subsample": 5}, "subsample needs csv"),
        ({"csv": "absent.csv"}, "No such file"),
        ({"csv": "absent.csv", "blanks": 40}, "with csv give clues"),
        ({"csv": "absent.csv", "count": 1, "subsample": 1}, "another name of count"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    tmp_path: Path, settings: dict[str, Any], message: str | None
) -> None:
    if message is None:  # an open range is its lower end
        assert sudoku_request(out=tmp_path, **settings).blanks == (5, 5)
        return
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "set", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        prepare(tmp_path, csv="absent.csv")


@settings(max_examples=60)
@given(
    keys=st.lists(st.integers(0, 8), max_size=40),
    sizes=st.lists(st.integers(0, 12), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_allocation_never_shares_a_class(keys: list[int], sizes: list[int], seed: int) -> None:
    table = np.array(keys, dtype=np.uint64)
    parts = allocate(table, sizes, np.random.default_rng(seed))
    rows = np.concatenate(parts)
    assert len(set(rows.tolist())) == len(rows)
    assert all(len(part) <= size for part, size in zip(parts, sizes, strict=True))
    classes = [set(table[part].tolist()) for part in parts]
    assert sum(map(len, classes)) == len(set.union(*classes))
    if len(set(keys)) == len(keys):  # nothing is left out where nothing is equivalent
        assert len(rows) == min(sum(sizes), len(keys))


@settings(max_examples=30)
@given(clues=st.integers(0, 81), seed=st.integers(0, 999))
def test_reveal_adds_clues_and_takes_none(
    hard: tuple[np.ndarray, np.ndarray], clues: int, seed: int
) -> None:
    puzzles, solutions = hard
    shown = reveal(puzzles, solutions, clues, draws(keys_of(seed, np.arange(60)), 81))
    assert keeps_givens(puzzles, shown).all()
    assert keeps_givens(shown, solutions).all()
    given_clues = np.count_nonzero(puzzles, axis=1)
    assert np.array_equal(np.count_nonzero(shown, axis=1), np.maximum(given_clues, clues))


def test_progress_goes_to_standard_error_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = sudoku_request(size=4, count=5, val_count=1, test_count=1, out=tmp_path / "set")
    prepare_sudoku(request, progress=True)
    assert capsys.readouterr().out == ""
