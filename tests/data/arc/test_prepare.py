"""Data sets of ARC: what stands in which split, nothing twice, and both protocols' layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.commands.train import augmenter, load_data
from hrm.config import ExperimentConfig, compose
from hrm.data import IGNORE, Feeder, PuzzleSplit, load_split
from hrm.data.arc import ArcAugment, arc_request, decode, encode, parse_name, prepare_arc
from hrm.errors import UserError
from tests.conftest import Run
from tests.data.arc.small import small_folder, task, write_folder

SIDE = 7
"""Holds every task of `small_folder`."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("official"))


def prepare(source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    defaults = {"source": str(source), "max_grid": SIDE, "val_groups": 1}
    return prepare_arc(arc_request(**{**defaults, **settings}, out=out))


def identifiers(root: Path) -> list[str]:
    names: list[str] = json.loads((root / "identifiers.json").read_text())
    return names


def grids(split: PuzzleSplit, row: int) -> tuple[Any, Any]:
    both = (decode(tokens[row], SIDE) for tokens in (split.inputs, split.labels))
    first, second = (None if grid is None else grid.tolist() for grid in both)
    return first, second


def tasks_of(root: Path, split: str) -> set[str]:
    rows = load_split(root, split)  # type: ignore[arg-type]
    names = identifiers(root)
    return {parse_name(names[i])[0] for i in rows.puzzle_identifiers}


def test_splits_share_no_task_and_rows_are_test_pairs(source: Path, tmp_path: Path) -> None:
    summary = prepare(source, tmp_path / "set", augmentations=3)
    root = tmp_path / "set"
    parts = {name: tasks_of(root, name) for name in ("train", "val", "test")}
    assert len(parts["train"]) == 4
    assert len(parts["val"]) == 1
    assert parts["train"] | parts["val"] == set("abcde")
    assert parts["test"] == {"x", "y"}
    record = json.loads((root / "prepare.json").read_text())
    assert {name: set(tasks) for name, tasks in record["tasks"].items()} == parts
    assert record["settings"]["protocol"] == "encoder"
    assert summary["test"] == {"groups": 2, "puzzles": 8, "rows": 8, "demonstrations": 28}
    split, names = load_split(root, "test"), identifiers(root)
    assert split.metadata.grid == SIDE
    assert split.metadata.demonstrations == 4
    assert len(names) == 1 + 4 * 7
    official = json.loads((root / "test_puzzles.json").read_text())
    for row in range(len(split)):
        name, form = parse_name(names[split.row_identifiers[row]])
        pair = official[name]["test"][0]
        formed = [form.apply(np.array(pair[key], dtype=np.uint8)) for key in ("input", "output")]
        assert np.array_equal(split.inputs[row], encode(formed[0], SIDE))
        assert np.array_equal(split.labels[row], encode(formed[1], SIDE))
        columns = split.take(np.array([row]))
        shown = official[name]["train"]
        assert columns["demo_mask"].tolist() == [[1] * len(shown) + [0] * (4 - len(shown))]
        for number, pair in enumerate(shown):
            formed = [form.apply(np.array(pair[k], dtype=np.uint8)) for k in ("input", "output")]
            assert np.array_equal(columns["demo_inputs"][0, number], encode(formed[0], SIDE))
            assert np.array_equal(columns["demo_outputs"][0, number], encode(formed[1], SIDE))


def test_leave_one_out_never_shows_its_own_answer(source: Path, tmp_path: Path) -> None:
    summary = prepare(source, tmp_path / "set", queries="leave_one_out", translate=False)
    split = load_split(tmp_path / "set", "train")
    counted = {
        name: (2 if name == "b" else 1, 2 if name == "c" else 3)
        for name in tasks_of(tmp_path / "set", "train")
    }
    assert summary["train"]["rows"] == sum(map(sum, counted.values()))
    columns = split.take(np.arange(len(split)))
    seen_alone = 0
    for row in range(len(split)):
        shown = int(columns["demo_mask"][row].sum())
        pairs = [
            (columns["demo_inputs"][row, i].tolist(), columns["demo_outputs"][row, i].tolist())
            for i in range(shown)
        ]
        assert (split.inputs[row].tolist(), split.labels[row].tolist()) not in pairs
        assert len({str(pair) for pair in pairs}) == shown
        puzzle = np.searchsorted(split.puzzle_indices, row, side="right") - 1
        assert split.demonstrations is not None
        of_puzzle = int(np.diff(split.demonstrations.indices)[puzzle])
        seen_alone += shown < of_puzzle
        assert shown in (of_puzzle, of_puzzle - 1)
    assert seen_alone == sum(shown for _, shown in counted.values())
    # Held out tasks are asked for their test pairs alone.
    assert summary["val"]["rows"] == len(load_split(tmp_path / "set", "val"))
    assert load_split(tmp_path / "set", "test").demonstrations.left_out is None  # type: ignore[union-attr]


def test_the_embedding_protocol_is_the_published_one(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    prepare(source, root, protocol="embedding", augmentations=2, val_groups=0)
    train, test = load_split(root, "train"), load_split(root, "test")
    assert not (root / "val").exists()
    names = identifiers(root)
    assert tasks_of(root, "train") == set("abcdexy")
    assert tasks_of(root, "test") == {"x", "y"}
    assert set(test.puzzle_identifiers) <= set(train.puzzle_identifiers)
    assert "demonstrations" not in json.loads((root / "train" / "dataset.json").read_text())
    assert set(train.take(np.arange(2))) == {"inputs", "labels", "puzzle_identifiers"}
    # Rows of a puzzle: all demonstrations, and the test pairs of training tasks.
    rows = dict(zip(train.puzzle_identifiers, np.diff(train.puzzle_indices), strict=True))
    expected = {"a": 4, "b": 5, "c": 3, "d": 4, "e": 4, "x": 4, "y": 3}
    assert {names[i]: n for i, n in rows.items() if "|" not in names[i]} == expected
    assert all(n == expected[parse_name(names[i])[0]] for i, n in rows.items())
    for row in range(len(test)):
        mine = np.flatnonzero(train.row_identifiers == test.row_identifiers[row])
        assert grids(test, row) not in [grids(train, r) for r in mine]


def test_val_of_embedding_keeps_its_test_pairs_out_of_train(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    summary = prepare(source, root, protocol="embedding", val_groups=2, max_eval_groups=0)
    assert "test" not in summary
    assert tasks_of(root, "train") == set("abcde")
    train, val = load_split(root, "train"), load_split(root, "val")
    assert len(train) == sum((4, 5, 3, 4, 4)) - len(val)
    for row in range(len(val)):
        mine = np.flatnonzero(train.row_identifiers == val.row_identifiers[row])
        assert len(mine)
        assert grids(val, row) not in [grids(train, r) for r in mine]


def test_tasks_left_out_are_anothers_val_and_first_groups_are_the_same(
    source: Path, tmp_path: Path
) -> None:
    prepare(source, tmp_path / "a", val_groups=2)
    prepare(source, tmp_path / "b", val_groups=0, leave_out_groups=2, protocol="embedding")
    prepare(source, tmp_path / "c", val_groups=2, max_train_groups=2, max_eval_groups=1)
    assert tasks_of(tmp_path / "b", "train") == tasks_of(tmp_path / "a", "train") | {"x", "y"}
    assert tasks_of(tmp_path / "c", "val") == tasks_of(tmp_path / "a", "val")
    whole, some = load_split(tmp_path / "a", "train"), load_split(tmp_path / "c", "train")
    assert (whole.groups, some.groups) == (3, 2)
    assert np.array_equal(whole.limit_groups(2).inputs, some.inputs)
    assert len(tasks_of(tmp_path / "c", "test")) == 1


def test_large_tasks_are_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    summary = prepare(source, tmp_path / "set", max_grid=4, val_groups=0)
    # Outputs have as many rows as the task's number and one more: e has 5, x 6, y 7.
    assert summary["left_out"] == {"training": 1, "evaluation": 2}
    assert tasks_of(tmp_path / "set", "train") == set("abcd")
    assert load_split(tmp_path / "set", "train").metadata.seq_len == 16
    with pytest.raises(UserError, match="max_grid is 1: no training task"):
        prepare(source, tmp_path / "none", max_grid=1)


def test_twins_of_tasks_held_out_are_not_trained_on(tmp_path: Path) -> None:
    turned = task(5)
    for pair in turned["train"] + turned["test"]:
        for key in ("input", "output"):
            pair[key] = [[c and 9 - c for c in row] for row in zip(*pair[key], strict=True)]
    training = {"a": task(0), "b": task(1), "twin": turned}
    folder = write_folder(tmp_path / "official", training, {"x": task(5)})
    summary = prepare(folder, tmp_path / "set", val_groups=0)
    assert summary["twins"] == ["twin"]
    assert tasks_of(tmp_path / "set", "train") == {"a", "b"}
    # Two training tasks that share a pair are not divided between train and val either.
    (folder / "evaluation" / "x.json").unlink()
    (folder / "training" / "double.json").write_text(json.dumps(task(5)))
    for seed in range(8):
        root = tmp_path / str(seed)
        prepare(folder, root, val_groups=1, seed=seed)
        train, val = tasks_of(root, "train"), tasks_of(root, "val")
        assert len({"twin", "double"} & train) in (0, 2)
        assert not (val & {"twin", "double"} and train & {"twin", "double"})


def test_two_runs_are_alike_and_another_seed_is_not(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(source, tmp_path / name, augmentations=2, seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.npy"))
    assert len(files) == 3 * 8

    def content(name: str) -> list[bytes]:
        return [(tmp_path / name / file).read_bytes() for file in files]

    assert content("a") == content("b")
    assert content("a") != content("c")


def test_only_what_is_held_out_votes(source: Path, tmp_path: Path) -> None:
    summary = prepare(source, tmp_path / "set", eval_augmentations=4)
    assert (summary["train"]["puzzles"], summary["val"]["puzzles"]) == (4, 5)
    assert summary["test"]["puzzles"] == 10
    assert summary["fewer_forms"] == 0


def test_answers_that_are_not_known_count_nowhere(tmp_path: Path) -> None:
    asked = task(5)
    del asked["test"][0]["output"]
    folder = write_folder(tmp_path / "official", {"a": task(0), "b": task(1)}, {"x": asked})
    prepare(folder, tmp_path / "set", val_groups=0)
    columns = load_split(tmp_path / "set", "test").take(np.array([0]))
    assert (columns["labels"] == IGNORE).all()
    assert columns["demo_mask"].sum() == 3


def test_the_feeder_augments_and_pads_demonstrations(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "set")
    split = load_split(tmp_path / "set", "train")
    feeder = Feeder(split, slots=6, seed=0, epochs=1, augment=ArcAugment(SIDE), shuffle=False)
    batch = feeder.fill(np.ones(6, dtype=bool))
    rows = len(split)
    assert batch["demo_mask"].sum(1).tolist() == [
        *split.take(np.arange(rows))["demo_mask"].sum(1).tolist(),
        *[0] * (6 - rows),
    ]
    assert not batch["demo_inputs"][rows:].any()
    assert (batch["labels"][rows:] == IGNORE).all()
    first = {name: array[0].copy() for name, array in batch.items()}
    alone = Feeder(split, slots=1, seed=0, augment=ArcAugment(SIDE), shuffle=False)
    for name, array in alone.fill(np.array([True])).items():
        assert np.array_equal(array[0], first[name]), name


def config(path: Path, source: Path, *more: str) -> ExperimentConfig:
    plain = compose(["experiment=sudoku_4x4", f"data.path={path}", "data.prepare=null", *more])
    made = {"kind": "arc", "source": str(source), "max_grid": SIDE, "val_groups": 1}
    data = {"path": str(path), "prepare": made, "augment": "arc"}
    return ExperimentConfig.model_validate({**plain.model_dump(), "data": data})


def test_a_training_run_prepares_limits_and_augments(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("max_train_groups=2", "max_eval_groups=1", "eval_split=test")
    settings = config(tmp_path / "set", source, *limits)
    train, held_out = load_data(settings)
    assert "preparing" in capsys.readouterr().err
    assert (train.groups, held_out.groups, held_out.name) == (2, 1, "test")
    assert isinstance(augmenter(settings, train.metadata), ArcAugment)
    assert load_data(config(tmp_path / "set", source))[0].groups == 4


def test_the_command(hrm: Run, source: Path, tmp_path: Path) -> None:
    words = ("--source", source, "--max-grid", SIDE, "--val-groups", 1, "--no-translate")
    status, out, err = hrm("prepare", "arc", *map(str, words), "--out", tmp_path / "a", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["train"]["groups"] == 4
    status, out, err = hrm("prepare", "arc", *map(str, words), "--out", tmp_path / "b")
    assert (status, err) == (0, "")
    assert "train 4 tasks, 4 puzzles" in out
    status, out, _ = hrm("prepare", "--help")
    assert "hrm prepare arc" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "nowhere"], "source is 'nowhere': it may be arc_agi_1"),
        (["--protocol", "both"], "protocol is 'both'"),
        (["--max-grid", "31"], "max_grid is 31"),
        (["--protocol", "embedding", "--queries", "leave_one_out"], "queries is 'leave_one_out'"),
        (["--protocol", "embedding", "--eval-augmentations", "2"], "eval_augmentations is 2"),
        (["--val-groups", "3", "--leave-out-groups", "2"], r"val_groups (3) and leave_out_groups"),
        (["--max-train-groups", "0"], "max_train_groups is 0"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(
    hrm: Run, source: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    given = words if "--source" in words else [*words, "--source", str(source)]
    status, out, err = hrm("prepare", "arc", *given, "--out", tmp_path / "x")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
