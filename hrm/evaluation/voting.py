"""Votes over a task's augmentations: ranked answers, pass@k, and the form of a submission.

An ARC task is asked in many forms: rotated, mirrored, its colours exchanged. Each form's answer is
turned back, so that all of them are grids of the same question and equal grids are votes for one
answer. Ranking follows TRM's published evaluator: most votes, then the highest mean chance of being
right (sigmoid of q_halt), then the one seen first. Two things differ. The denominator of pass@k is
the number of tasks that were evaluated, not of all tasks of the data set, since a run may look at
some of them only. And a prediction without any cell is no vote: it can never be right.

How a row's augmentation is undone, the caller knows; here are grids of colours 0 to 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hrm.errors import UserError
from hrm.evaluation.grids import Grid
from hrm.evaluation.halting import probability

ATTEMPTS = 2
"""Answers to a test input that a submission holds."""
NO_ANSWER = [[0, 0], [0, 0]]
"""What stands in a submission where there is no answer, as in the official sample."""

Submission = dict[str, list[dict[str, list[list[int]]]]]
"""By task, for each of its test inputs: `attempt_1`, `attempt_2` and their rows of colours."""


@dataclass(frozen=True)
class Candidate:
    """An answer that some forms of a test input agree on."""

    grid: Grid
    votes: int
    mean_q: float
    """Mean over its votes of the chance of being right, from 0 to 1."""


@dataclass(frozen=True)
class Query:
    """One test input of a task."""

    candidates: Sequence[Candidate]
    """The best first; none if nothing was predicted."""
    truth: Grid | None = None
    """The right answer; None where it is not known."""

    def solved(self, attempts: int) -> bool:
        """Whether one of the first `attempts` answers is right."""
        known = self.truth
        if known is None:
            return False
        return any(np.array_equal(c.grid, known) for c in self.candidates[:attempts])


Ballots = Mapping[str, Sequence[Query]]
"""By task, its test inputs in their order: all tasks that were evaluated, solved or not."""


def rank(grids: Iterable[Grid], q_halt: Iterable[float]) -> list[Candidate]:
    """The answers by votes, then by mean chance of being right, then in the order of the votes.

    Args:
        grids: one vote each, turned back to the task's own form; one without cells is no vote.
        q_halt: the logit of each vote.
    """
    found: dict[tuple[tuple[int, ...], bytes], tuple[Grid, list[float]]] = {}
    for grid, q in zip(grids, q_halt, strict=True):
        if grid.size:
            key = grid.shape, np.ascontiguousarray(grid).tobytes()
            found.setdefault(key, (grid, []))[1].append(q)
    candidates = [
        Candidate(grid, len(values), float(probability(np.array(values)).mean()))
        for grid, values in found.values()
    ]
    # Sorting keeps equal ones in order.
    return sorted(candidates, key=lambda c: (-c.votes, -c.mean_q))


def pass_at(ballots: Ballots, passes: Sequence[int]) -> dict[str, float]:
    """How many tasks are solved if the first k answers to each test input count.

    Returns:
        `tasks`, the denominator. For each k `pass@k`: the mean over tasks of the share of their
        test inputs that are solved, which is the official score and TRM's; and
        `pass@k_whole_task`: the share of tasks of which every test input is, which is HRM's. Test
        inputs whose answer is not known, and tasks that have no other, are left out. One without
        predictions is not solved.

    Raises:
        UserError: no answer is known, or a k is below 1.
    """
    if wrong := [k for k in passes if k < 1]:
        raise UserError(f"pass@{wrong[0]}: the number of attempts is at least 1")
    known = [[q for q in queries if q.truth is not None] for queries in ballots.values()]
    known = [queries for queries in known if queries]
    if not known:
        raise UserError("pass@k: of none of the tasks to evaluate the answer is known")
    figures: dict[str, float] = {"tasks": len(known)}
    for k in passes:
        solved = [[query.solved(k) for query in queries] for queries in known]
        figures[f"pass@{k}"] = sum(sum(task) / len(task) for task in solved) / len(known)
        figures[f"pass@{k}_whole_task"] = sum(all(task) for task in solved) / len(known)
    return figures


def submission(ballots: Ballots) -> Submission:
    """The official form: two attempts for every test input of every task that was evaluated.

    Where there is one answer only it stands twice, and where there is none `NO_ANSWER`, so that the
    test inputs after it keep their places.
    """
    return {
        task: [_attempts(query.candidates) for query in queries]
        for task, queries in ballots.items()
    }


def _attempts(candidates: Sequence[Candidate]) -> dict[str, list[list[int]]]:
    grids = [c.grid.tolist() for c in candidates[:ATTEMPTS]] or [NO_ANSWER]
    return {f"attempt_{i + 1}": grids[min(i, len(grids) - 1)] for i in range(ATTEMPTS)}
