"""Rows of a data set as votes: forms undone, test inputs kept apart, names that do not fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.arc import Form, arc_request, encode, prepare_arc
from hrm.data.base import PuzzleSplit, load_split, spread
from hrm.errors import UserError
from hrm.evaluation.voting import Ballots, pass_at, submission
from hrm.inference.voting import ballots_of, is_arc, read_identifiers

SIDE = 5
FORMS = 4


def pair(*numbers: int, known: bool = True) -> dict[str, Any]:
    """A grid without any symmetry, and the same with a row more."""
    first, second, third = numbers
    grid = [[first, second, third], [0, first, second]]
    return {"input": grid} | ({"output": [*grid, [third, 0, 0]]} if known else {})


TASKS = {
    "one": {"train": [pair(1, 2, 3), pair(2, 3, 4)], "test": [pair(3, 4, 5)]},
    "two": {"train": [pair(4, 5, 6), pair(6, 5, 4)], "test": [pair(5, 6, 7), pair(7, 6, 5)]},
}
UNKNOWN = {"train": [pair(1, 3, 5)], "test": [pair(2, 4, 6, known=False)]}


def other_pair(*numbers: int) -> dict[str, Any]:
    """One that is no form of any `pair`."""
    grid = [[*numbers, 0]]
    return {"input": grid, "output": [*grid, *grid]}


def made(root: Path, evaluation: dict[str, Any] = TASKS, **settings: Any) -> Path:
    """A data set of two training tasks, and these to evaluate."""
    training = {
        f"train_{i}": {"train": [other_pair(i, 8, 9)], "test": [other_pair(9, i, 8)]}
        for i in (1, 2)
    }
    source, out = root / "source", root / "data"
    for subset, tasks in (("training", training), ("evaluation", evaluation)):
        (source / subset).mkdir(parents=True)
        for name, task in tasks.items():
            (source / subset / f"{name}.json").write_text(json.dumps(task))
    chosen: dict[str, Any] = {"max_grid": SIDE, "augmentations": FORMS - 1, "val_groups": 0}
    prepare_arc(arc_request(source=str(source), out=out, **chosen | settings))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("voting"))


def voted(
    split: PuzzleSplit,
    rows: np.ndarray | None = None,
    *,
    wrong: np.ndarray | None = None,
    q: float = 1.0,
) -> Ballots:
    """All rows answer what is right, but for those at `wrong`, which answer their own input."""
    rows = np.arange(len(split)) if rows is None else rows
    predictions = np.array(split.labels[rows])
    if wrong is not None:
        predictions[wrong] = split.inputs[rows[wrong]]
    return ballots_of(split, rows, predictions, np.full(len(rows), q))


def test_right_answers_in_all_forms_agree(data: Path) -> None:
    split = load_split(data, "test")
    ballots = voted(split)
    assert {task: len(queries) for task, queries in ballots.items()} == {"one": 1, "two": 2}
    for task, queries in ballots.items():
        for query, asked in zip(queries, TASKS[task]["test"], strict=True):
            (only,) = query.candidates
            assert only.votes == FORMS
            assert only.mean_q == pytest.approx(1 / (1 + np.exp(-1)))
            assert only.grid.tolist() == asked["output"]
    assert pass_at(ballots, [1]) == {"tasks": 2, "pass@1": 1.0, "pass@1_whole_task": 1.0}
    assert submission(ballots)["two"][1]["attempt_2"] == TASKS["two"]["test"][1]["output"]


def test_the_majority_of_the_forms_decides(data: Path) -> None:
    split = load_split(data, "test")
    # The first test input of each task is wrong in three of four forms: a second attempt finds it.
    puzzles = np.arange(len(split.puzzle_identifiers))
    wrong = split.puzzle_indices[:-1][puzzles % FORMS > 0]
    figures = pass_at(voted(split, wrong=wrong), [1, 2])
    assert figures["pass@1"] == pytest.approx((0 + 1 / 2) / 2)
    assert figures["pass@1_whole_task"] == 0
    assert figures["pass@2"] == 1


def test_only_what_was_evaluated_counts(data: Path) -> None:
    split = load_split(data, "test")
    assert pass_at(voted(split.limit_groups(1)), [1])["tasks"] == 1
    # Of the task with two test inputs the second alone: the first keeps its place.
    two = read_identifiers(data).index("two")
    start = int(split.puzzle_indices[:-1][split.puzzle_identifiers == two][0])
    ballots = voted(split, np.array([start + 1]))
    assert pass_at(ballots, [1]) == {"tasks": 1, "pass@1": 1.0, "pass@1_whole_task": 1.0}
    assert [len(query.candidates) for query in ballots["two"]] == [0, 1]
    assert submission(ballots)["two"][0]["attempt_1"] == [[0, 0], [0, 0]]


def test_some_rows_spread_over_the_split(data: Path) -> None:
    split = load_split(data, "test")
    rows = spread(len(split), 5)
    ballots = voted(split, rows)
    votes = sum(c.votes for queries in ballots.values() for q in queries for c in q.candidates)
    assert votes == 5
    assert pass_at(ballots, [1])["pass@1"] == 1


def test_a_puzzle_without_predictions_is_not_solved(data: Path) -> None:
    split = load_split(data, "test")
    rows = np.arange(len(split))
    predictions = np.array(split.labels[rows])
    identifiers = split.row_identifiers
    names = read_identifiers(data)
    of_one = np.array([names[i].startswith("one") for i in identifiers])
    predictions[of_one] = 1  # EOS everywhere: no grid at all
    ballots = ballots_of(split, rows, predictions, np.zeros(len(rows)))
    assert [list(query.candidates) for query in ballots["one"]] == [[]]
    assert pass_at(ballots, [1, 9])["pass@9"] == 0.5


@pytest.mark.parametrize("fault", ["symmetry", "colours", "order"])
def test_forms_that_are_undone_wrongly_are_found(
    data: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    split = load_split(data, "test")
    if fault == "symmetry":  # a quarter turn undone by the same one again
        undo = lambda form, grid: Form(form.symmetry, form.colours).apply(grid)  # noqa: E731
    elif fault == "colours":  # exchanged again, not back
        right = Form.undo
        undo = lambda form, grid: right(  # noqa: E731
            Form(form.symmetry, tuple(np.argsort(form.colours).tolist())), grid
        )
    else:  # the names of two forms exchanged
        names = read_identifiers(data)
        of_forms = [i for i, name in enumerate(names) if "one|||" in name]
        names[of_forms[0]], names[of_forms[1]] = names[of_forms[1]], names[of_forms[0]]
        monkeypatch.setattr("hrm.inference.voting.read_identifiers", lambda root: names)
    if fault != "order":
        monkeypatch.setattr(Form, "undo", undo)
    with pytest.raises(UserError, match="undone it does not ask what other forms of that task do"):
        voted(split)


def test_names_of_hrms_builder(data: Path, tmp_path: Path) -> None:
    split = load_split(data, "test")
    names = [name.replace("|||", "_") for name in read_identifiers(data)]
    (tmp_path / "identifiers.json").write_text(json.dumps(names))
    moved = replace(split, path=tmp_path / "test")
    assert pass_at(voted(moved), [1])["tasks"] == 2


def test_grids_that_were_moved(tmp_path: Path) -> None:
    # Training rows begin anywhere in the square, and their puzzles have demonstrations among them.
    split = load_split(made(tmp_path, protocol="embedding"), "train")
    starts = {int(row.nonzero()[0][0]) for row in np.asarray(split.inputs)}
    assert starts - {0}
    ballots = voted(split)
    assert all(len(q.candidates) == 1 for queries in ballots.values() for q in queries)
    assert pass_at(ballots, [1])["pass@1"] == 1
    assert len(ballots["one"]) == 2


def test_demonstrations_that_are_asked_for_are_no_test_inputs(tmp_path: Path) -> None:
    training = {f"t{i}": {"train": [pair(i, 8, 9), pair(8, i, 9)], "test": [pair(9, i, 8)]}
                for i in (1, 2)}  # fmt: skip
    source = tmp_path / "source" / "training"
    source.mkdir(parents=True)
    for name, task in training.items():
        (source / f"{name}.json").write_text(json.dumps(task))
    request = arc_request(
        source=str(source.parent),
        out=tmp_path / "data",
        max_grid=SIDE,
        queries="leave_one_out",
        val_groups=0,
    )
    prepare_arc(request)
    split = load_split(tmp_path / "data", "train")
    assert len(split) == 6
    assert {task: len(queries) for task, queries in voted(split).items()} == {"t1": 1, "t2": 1}


def test_answers_that_nobody_knows(tmp_path: Path) -> None:
    split = load_split(made(tmp_path, evaluation={**TASKS, "unknown": UNKNOWN}), "test")
    answer = encode(np.array([[7]], dtype=np.uint8), SIDE)
    rows = np.arange(len(split))
    ballots = ballots_of(split, rows, np.tile(answer, (len(rows), 1)), np.zeros(len(rows)))
    assert ballots["unknown"][0].truth is None
    assert pass_at(ballots, [1])["tasks"] == 2
    assert submission(ballots)["unknown"][0].keys() == {"attempt_1", "attempt_2"}


def test_a_list_of_names_that_does_not_fit(data: Path, tmp_path: Path) -> None:
    split = load_split(data, "test")
    moved = replace(split, path=tmp_path / "test")
    with pytest.raises(UserError, match="cannot be read"):
        voted(moved)
    (tmp_path / "identifiers.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="is not a list of names"):
        voted(moved)
    (tmp_path / "identifiers.json").write_text('["<blank>", "one"]')
    with pytest.raises(UserError, match="has 2 names, but there are 17 puzzle identifiers"):
        voted(moved)


def test_what_rows_are_grids_of_arc(data: Path) -> None:
    metadata = load_split(data, "test").metadata
    assert is_arc(metadata)
    published = metadata.model_copy(update={"grid": None, "seq_len": 900})
    assert is_arc(published)
    sudoku = {"grid": None, "seq_len": 81, "vocab_size": 11}
    assert not is_arc(metadata.model_copy(update=sudoku))
