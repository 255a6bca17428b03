"""Make a data set of ARC-AGI: for models that read demonstrations, or for puzzle embeddings.

| split | protocol `encoder` | protocol `embedding` (published) |
|---|---|---|
| train | test pairs of training tasks | their test pairs, and the demonstrations of all tasks |
| val | test pairs of training tasks that are held out | the same |
| test | test pairs of evaluation tasks | the same |

Under `encoder` each row comes with its task's demonstrations, and no split shares a task with
another. Under `embedding` a row is a pair and the identifier of its task's form: a task can be
solved only if its demonstrations were trained on.

A group is an original task. Its puzzles are its forms, the first of them the task as it is. Which
tasks are held out and in which order tasks stand is decided by the seed and each task's name, so
that the first N groups of a set are those of a larger one. Tasks with a grid larger than `max_grid`
are left out, and so are training tasks that share a pair with a task held out or of evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hrm.data.arc.grids import LARGEST, VOCAB_SIZE
from hrm.data.arc.puzzles import Forms, Group, arrays_of, forms_of, order_key
from hrm.data.arc.tasks import Subset, Task, read_tasks
from hrm.data.arc.twins import twins
from hrm.data.base import SplitArrays, SplitName, check_target, write_dataset
from hrm.data.request import Report, checked, reporting
from hrm.errors import UserError


class ArcRequest(BaseModel):
    """What `prepare_arc` makes."""

    model_config = ConfigDict(extra="forbid")

    source: str = "arc_agi_1"
    """`arc_agi_1`, `arc_agi_2`, or a folder of the official JSON files (`read_tasks`)."""
    protocol: Literal["encoder", "embedding"] = "encoder"
    """What rows are, see above."""
    max_grid: int = Field(default=LARGEST, ge=1, le=LARGEST)
    """Side of the square; tasks with a larger grid are left out."""
    queries: Literal["test", "leave_one_out"] = "test"
    """What `encoder` asks for in training: test pairs (published), or each demonstration too, which
    is then not among those shown."""
    augmentations: int = Field(default=0, ge=0)
    """Other forms of each task that are stored with it. Published: 1000."""
    eval_augmentations: int | None = Field(default=None, ge=0)
    """Those of val and test, which vote. Default: `augmentations`."""
    translate: bool | None = None
    """Whether training pairs, all but one of each puzzle, begin anywhere in the square (published).
    Default: yes where forms are stored and under `embedding`; else augmenting at run time does."""
    max_train_groups: int | None = Field(default=None, ge=1)
    """Most training tasks. Default: all."""
    max_eval_groups: int | None = Field(default=None, ge=0)
    """Most evaluation tasks. Default: all; with 0 there is no test."""
    val_groups: int | None = Field(default=None, ge=0)
    """Training tasks for val. Default: a tenth. Published: 0."""
    leave_out_groups: int = Field(default=0, ge=0)
    """Training tasks that are left out: with the same seed those that are val where this is 0 and
    `val_groups` is so many, so that a model can be pretrained without having seen them."""
    seed: int = 0
    out: Path
    """A new or empty folder."""


def arc_request(**values: Any) -> ArcRequest:
    """A checked request; `UserError` names the first wrong field."""
    return checked(ArcRequest, "arc", values)


def prepare_arc(request: ArcRequest, progress: bool = False) -> dict[str, Any]:
    """Make the data set that `request` describes and return a summary.

    The summary has `out`, `source`, `protocol`, `max_grid`, `seed`, `left_out` (tasks with a larger
    grid, of `training` and `evaluation`), `twins` (training tasks left out because they share a
    pair with a task held out), `fewer_forms` (tasks with too few different forms), and for each
    split `groups`, `puzzles`, `rows` and `demonstrations`. It is also in `prepare.json`, with the
    names of each split's tasks. `val_puzzles.json` and `test_puzzles.json` hold those tasks in
    their official form. `progress` shows a bar on standard error. Raises `UserError`, and then
    leaves no files.
    """
    _check(request)
    check_target(request.out)
    with reporting(progress) as report:
        report("reading", 0, 1)
        chosen = _choose(request, read_tasks(request.source))
        report("reading", 1, 1)
        maker = _Maker(request, chosen, report)
        groups = maker.groups()
        splits = {
            name: arrays_of(some, request.max_grid, _place_seed(request, name))
            for name, some in groups.items()
        }
        summary: dict[str, Any] = {
            "source": request.source,
            "protocol": request.protocol,
            "max_grid": request.max_grid,
            "seed": request.seed,
            "left_out": chosen.left_out,
            "twins": chosen.twins,
            "fewer_forms": len(maker.fewer),
            **{name: _figures(arrays) for name, arrays in splits.items()},
        }
        report("writing", 0, 1)
        write_dataset(
            request.out,
            splits,
            vocab_size=VOCAB_SIZE,
            identifiers=maker.names,
            grid=request.max_grid,
            prepare={
                "task": "arc",
                "settings": request.model_dump(mode="json", exclude={"out"}),
                "summary": summary,
                "tasks": {
                    name: [group.forms.task.name for group in some] for name, some in groups.items()
                },
            },
            files={
                f"{name}_puzzles.json": {
                    group.forms.task.name: group.forms.task.to_json() for group in some
                }
                for name, some in groups.items()
                if name != "train"
            },
        )
        report("writing", 1, 1)
    return {"out": str(request.out), **summary}


def _check(request: ArcRequest) -> None:
    """Refuse settings that contradict one another."""
    if request.protocol == "encoder":
        return
    if request.queries != "test":
        raise UserError(
            f"queries is {request.queries!r}: protocol embedding trains on demonstrations anyway, "
            "so it may only be 'test'"
        )
    more = request.eval_augmentations
    if more is not None and more != request.augmentations:
        raise UserError(
            f"eval_augmentations is {more}: under protocol embedding a form must be trained, so it "
            f"may only be augmentations ({request.augmentations})"
        )


def _place_seed(request: ArcRequest, split: SplitName) -> int | None:
    """The seed of a split's places; None if its grids begin at the top left."""
    by_default = request.protocol == "embedding" or request.augmentations > 0
    translates = by_default if request.translate is None else request.translate
    return request.seed if translates and split == "train" else None


@dataclass(frozen=True)
class _Chosen:
    train: list[Task]
    val: list[Task]
    test: list[Task]
    left_out: dict[str, int]
    twins: list[str]

    def tasks(self, split: SplitName) -> list[Task]:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    @property
    def count(self) -> int:
        return len(self.train) + len(self.val) + len(self.test)


def _choose(request: ArcRequest, tasks: Mapping[Subset, list[Task]]) -> _Chosen:
    """Which tasks stand in which split, in their order."""
    fitting = {
        name: sorted(
            (task for task in some if task.side <= request.max_grid),
            key=lambda task: order_key(task, request.seed),
        )
        for name, some in tasks.items()
    }
    training, evaluation = fitting["training"], fitting["evaluation"]
    if not training:
        raise UserError(
            f"max_grid is {request.max_grid}: no training task of {request.source} is so small"
        )
    double = twins(training, evaluation)
    free = [task for task in training if task.name not in double]
    val = len(training) // 10 if request.val_groups is None else request.val_groups
    held = val + request.leave_out_groups
    if held >= len(free):
        raise UserError(
            f"val_groups ({val}) and leave_out_groups ({request.leave_out_groups}) take all of the "
            f"{len(free)} training tasks that there are"
        )
    rest, kept_out = free[: len(free) - held], free[len(free) - held :]
    again = twins(rest, kept_out)
    rest = [task for task in rest if task.name not in again]
    return _Chosen(
        train=rest[: request.max_train_groups],
        val=kept_out[:val],
        test=evaluation[: request.max_eval_groups],
        left_out={name: len(tasks[name]) - len(some) for name, some in fitting.items()},
        twins=sorted([*double, *again]),
    )


class _Maker:
    """Groups of a request's splits; identifiers are numbered as they come."""

    def __init__(self, request: ArcRequest, chosen: _Chosen, report: Report) -> None:
        self.request, self.chosen, self.report = request, chosen, report
        self.names = ["<blank>"]
        self.fewer: list[str] = []
        self.done = 0

    def groups(self) -> dict[SplitName, list[Group]]:
        """Of each split, none where it is empty."""
        made: dict[SplitName, list[Group]] = {"train": [], "val": [], "test": []}
        for name in made:
            for task in self.chosen.tasks(name):
                forms, first = self._forms(task, name)
                shown, pairs = len(task.demonstrations), len(task.pairs)
                demonstrations, tests = range(shown), range(shown, pairs)
                if self.request.protocol == "embedding":
                    rows = range(pairs if name == "train" else shown)
                    made["train"].append(Group(forms, first, rows))
                    if name != "train":
                        made[name].append(Group(forms, first, tests))
                    continue
                asks = name == "train" and self.request.queries == "leave_one_out" and shown > 1
                rows_asked = [*tests, *demonstrations] if asks else tests
                made[name].append(Group(forms, first, rows_asked, demonstrations))
        return {name: groups for name, groups in made.items() if groups}

    def _forms(self, task: Task, split: SplitName) -> tuple[Forms, int]:
        """A task's forms, and the identifier of the first of them."""
        request, copies = self.request, self.request.augmentations
        if split != "train" and request.eval_augmentations is not None:
            copies = request.eval_augmentations
        forms = forms_of(task, copies, request.seed)
        if len(forms) <= copies:
            self.fewer.append(task.name)
        first = len(self.names)
        self.names += forms.names
        self.done += 1
        self.report("augmenting", self.done, self.chosen.count)
        return forms, first


def _figures(arrays: SplitArrays) -> dict[str, int]:
    shown = arrays.demonstrations
    return {
        "groups": len(arrays.group_indices) - 1,
        "puzzles": len(arrays.puzzle_identifiers),
        "rows": len(arrays.inputs),
        "demonstrations": 0 if shown is None else len(shown.inputs),
    }
