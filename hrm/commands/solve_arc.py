"""`hrm solve RUN TASK.json`, or a task's name: an ARC task, its answers after each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from hrm.commands.arguments import print_json
from hrm.data.arc import (
    VOCAB_SIZE,
    Form,
    Pair,
    Task,
    encode,
    parse_name,
    read_task,
    read_tasks,
    task_of,
)
from hrm.display_arc import arc_trace
from hrm.errors import UserError
from hrm.evaluation.grids import Grid, crop
from hrm.inference.loop import HaltingMode, on_device, solve
from hrm.inference.voting import read_identifiers
from hrm.models import ACTModel
from hrm.training.checkpoint import LoadedRun, read_json


class Solved(NamedTuple):
    """What the model made of one test input."""

    answers: list[Grid]
    """After each step that counts."""
    q_halt: list[float]
    """Logits after each of them."""
    q_continue: list[float]
    wants: list[bool]
    """The policy would halt there."""
    policy_steps: int
    """The first step at which it would, the last if nowhere."""


def solve_arc(
    loaded: LoadedRun,
    given: str,
    *,
    data: str | None,
    out: str | None,
    halting: HaltingMode,
    as_json: bool,
) -> int:
    """Solve all test inputs of a task and show them, draw them into `out` too; the exit status.

    Args:
        given: a file of an ARC task, or the name of a task or of a form of it.
        data: the data set that has the name, None: the run's own.

    Raises:
        UserError: there is no such task, the model cannot read it, or `out` cannot be written.
    """
    root = Path(data) if data is not None else loaded.data_root
    name, task = find_task(given, root)
    solved = solve_task(loaded.model, task, name, root, halting)
    files = _draw(task, name, solved, Path(out)) if out is not None else []
    limit = loaded.model.halting.max_steps
    if as_json:
        tests = [_result(pair, one) for pair, one in zip(task.tests, solved, strict=True)]
        print_json({"task": name, "tests": tests, "files": [str(path) for path in files]})
        return 0
    console = Console()
    for number, (pair, one) in enumerate(zip(task.tests, solved, strict=True), start=1):
        console.print(Text(_title(task, name, number), style="bold"))
        console.print(
            arc_trace(
                _shown(task),
                pair.input,
                one.answers,
                one.q_halt,
                len(one.answers),
                truth=pair.output,
                max_steps=limit,
                wants=one.wants if halting == "max_steps" else None,
            )
        )
    for path in files:
        console.print(f"picture: {path}", soft_wrap=True)
    return 0


def reads_grids(model: ACTModel) -> bool:
    """Whether the model reads squares of ARC's tokens."""
    config = model.config
    square = math.isqrt(config.seq_len) ** 2 == config.seq_len
    return square and config.vocab_size == VOCAB_SIZE and not hasattr(config, "height")


def find_task(given: str, root: Path) -> tuple[str, Task]:
    """A task of a file, or by its name in the data set `root`, in the form that the name says.

    Raises:
        UserError: there is none, or the file holds none.
    """
    path = Path(given)
    if path.suffix == ".json":
        return path.stem, read_task(path)
    if root == Path() or not root.is_dir():
        raise UserError(f"{given}: the data set that has this task is not here; give --data DIR")
    name, form = parse_name(given)
    task = _looked_up(name, root)
    if task is None:
        raise UserError(f"{given}: there is no task of this name in {root}")
    return given, _in_form(task, form)


def _looked_up(name: str, root: Path) -> Task | None:
    """Tasks of val and test lie in the data set, others in the source that it was made from."""
    for path in (root / f"{split}_puzzles.json" for split in ("test", "val")):
        if path.is_file():
            tasks = read_json(path)
            if name in tasks:
                return task_of(name, tasks[name], path)
    record = read_json(root / "prepare.json") if (root / "prepare.json").is_file() else {}
    if not any(name in names for names in record.get("tasks", {}).values()):
        return None
    everything = read_tasks(record["settings"]["source"])
    return next((t for tasks in everything.values() for t in tasks if t.name == name), None)


def _in_form(task: Task, form: Form) -> Task:
    shown, asked = (
        tuple(
            Pair(form.apply(pair.input), None if pair.output is None else form.apply(pair.output))
            for pair in pairs
        )
        for pairs in (task.demonstrations, task.tests)
    )
    return Task(task.name, shown, asked)


def solve_task(
    model: ACTModel, task: Task, name: str, root: Path, halting: HaltingMode
) -> list[Solved]:
    """Each test input of `task`, whose identifier `name` has in the data set `root`.

    Raises:
        UserError: the grids are too large for the model, or it knows tasks by a puzzle embedding
            and has none for this one.
    """
    side = math.isqrt(model.config.seq_len)
    if task.side > side:
        raise UserError(f"{name}: has a grid of {task.side}, but the model reads up to {side}")
    inputs = np.stack([encode(pair.input, side) for pair in task.tests])
    count = len(inputs)
    batch: dict[str, np.ndarray] = {
        "inputs": inputs.astype(np.int32),
        "puzzle_identifiers": np.full(count, _identifier(model, name, root), dtype=np.int32),
    }
    if "demo_inputs" in model.columns:
        shown = [(pair.input, pair.output) for pair in task.demonstrations]
        rows = np.array([[encode(grid, side) for grid in pair] for pair in shown], dtype=np.int32)
        batch["demo_inputs"], batch["demo_outputs"] = (
            np.repeat(rows[None, :, i], count, axis=0) for i in (0, 1)
        )
        batch["demo_mask"] = np.ones((count, len(shown)), dtype=np.int32)
    done = solve(model, on_device(model, batch), halting)
    predictions = done.predictions.cpu().numpy()
    found = []
    for i, last in enumerate(done.stopped_at.tolist()):
        q_halt, q_continue, wants = (
            values[:last, i].tolist() for values in (done.q_halt, done.q_continue, done.wants)
        )
        steps = int(done.policy_steps[i])
        found.append(Solved(crop(predictions[:last, i]), q_halt, q_continue, wants, steps))
    return found


def _identifier(model: ACTModel, name: str, root: Path) -> int:
    """That of the puzzle embedding; 0, the blank one, where the model has none."""
    if "puzzle_identifiers" not in model.columns:
        return 0
    names = read_identifiers(root) if (root / "identifiers.json").is_file() else []
    if name not in names:
        raise UserError(
            f"{name}: the model knows tasks by an embedding of each, and {root} has none of this "
            "name; a model with arch=etrm reads demonstrations"
        )
    return names.index(name)


def _draw(task: Task, name: str, solved: Sequence[Solved], folder: Path) -> list[Path]:
    """A picture of each test input; the files."""
    from hrm.plots import plot_task

    files = []
    for number, (pair, one) in enumerate(zip(task.tests, solved, strict=True), start=1):
        several = f"_test_{number}" if len(solved) > 1 else ""
        files.append(folder / f"{_file_name(name)}{several}.png")
        plot_task(
            _shown(task),
            pair.input,
            one.answers,
            files[-1],
            q_halt=one.q_halt,
            halted_at=one.policy_steps,
            truth=pair.output,
            title=_title(task, name, number),
        )
    return files


def _file_name(name: str) -> str:
    """That of a form without characters that a shell reads: `TASK_t3_0192837465`."""
    return name.replace("|||", "_")


def _title(task: Task, name: str, number: int) -> str:
    return f"task {name}" + (f", test input {number}" if len(task.tests) > 1 else "")


def _shown(task: Task) -> list[tuple[Grid, Grid]]:
    return [(p.input, p.output) for p in task.demonstrations if p.output is not None]


def _result(pair: Pair, solved: Solved) -> dict[str, Any]:
    """A test input for JSON; values are logits after each step."""
    answer, truth = solved.answers[-1], pair.output
    return {
        "answer": answer.tolist(),
        "valid": None if truth is None else np.array_equal(answer, truth),
        "steps": len(solved.answers),
        "policy_steps": solved.policy_steps,
        "q_halt": solved.q_halt,
        "q_continue": solved.q_continue,
    }
