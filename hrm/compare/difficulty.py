"""Do sequences of easy tasks halt sooner? Tasks ranked by what they cost other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hrm.compare.figures import ExperimentFigures, RunFigures
from hrm.evaluation.policy import spearman

FEWEST_TASKS = 8


def easy_task_correlation(
    groups: Sequence[Mapping[str, Any]], others: Sequence[RunFigures]
) -> tuple[float, int] | None:
    """Spearman correlation of a run's steps by task with the tasks' difficulty in other runs, and
    over how many tasks. None where fewer than `FEWEST_TASKS` differ in difficulty.
    """
    pairs = _pairs(groups, others)
    if len({hard for _, hard in pairs}) < FEWEST_TASKS:
        return None
    steps, hard = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    rho = spearman(steps, hard)
    return (0.0 if rho is None else rho), len(pairs)  # Constant steps follow nothing.


def difficulties_told(found: ExperimentFigures, others: Sequence[RunFigures]) -> str:
    """What `easy_task_correlation` lacks, of all seeds."""
    if not any(run.groups for run in found.finished):
        return f"no record by task of {found.name}"
    if not any(run.groups for run in others):
        return "no record by task of other experiments"
    pairs = max((_pairs(run.groups, others) for run in found.finished), key=len)
    return (
        f"{len({hard for _, hard in pairs})} different difficulties among {len(pairs)} tasks, and "
        f"{FEWEST_TASKS} are needed"
    )


def _pairs(
    groups: Sequence[Mapping[str, Any]], others: Sequence[RunFigures]
) -> list[tuple[float, float]]:
    """Of each task that `others` had too the steps and the difficulty."""
    difficulty = task_difficulty(others)
    return [
        (group["policy_mean_steps"], difficulty[task_of(group)])
        for group in groups
        if task_of(group) in difficulty
    ]


def task_of(group: Mapping[str, Any]) -> str:
    """What a task is called, in all runs alike: its name, or else its number in the data."""
    return str(group.get("task", group["group"]))


def task_difficulty(runs: Sequence[RunFigures]) -> dict[str, float]:
    """By task (`task_of`) the mean over `runs` of the step of its first right answers."""
    seen: dict[str, list[float]] = {}
    for run in runs:
        for group in run.groups:
            seen.setdefault(task_of(group), []).append(group["first_right_step"])
    return {task: sum(steps) / len(steps) for task, steps in seen.items()}
