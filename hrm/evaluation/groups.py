"""Figures by group, a puzzle with all its forms: which tasks are easy, and which take long."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Integer

from hrm.evaluation.exact import check_steps


class GroupFigures(TypedDict):
    """What became of one group's rows."""

    group: int
    """Its number in the split."""
    task: NotRequired[str]
    """Its name, where it has one."""
    count: int
    """Rows."""
    accuracy: float
    """Mean over rows of the share of right tokens in the answer taken."""
    exact_accuracy: float
    """Share of rows whose answer taken is right."""
    policy_mean_steps: float
    """Mean step at which the policy halts."""
    first_right_step: float
    """Mean step after which the answer is right for the first time; one more than all steps where
    it never is. Tells of difficulty what no policy decides."""


def by_group(
    groups: Integer[np.ndarray, " rows"],
    right_at: Bool[np.ndarray, "steps rows"],
    right_share: Float[np.ndarray, " rows"],
    stopped_at: Integer[np.ndarray, " rows"],
    policy_steps: Integer[np.ndarray, " rows"],
) -> list[GroupFigures]:
    """The figures of each group that has rows, by its number.

    Args:
        groups: the group of each row.
        right_at: whether the answer after each step is exactly right; what stands after
            `stopped_at` is not looked at.
        right_share: of the answer taken, the share of right tokens.
        stopped_at: the step, from 1, at which each row's answer was taken.
        policy_steps: the step, from 1, at which the policy halts each row.

    Raises:
        ValueError: a step is outside of 1 to the number of steps.
    """
    steps = len(right_at)
    check_steps(stopped_at, steps)
    check_steps(policy_steps, steps)
    ran = np.arange(1, steps + 1)[:, None] <= stopped_at
    seen = right_at & ran
    first = np.where(seen.any(0), seen.argmax(0) + 1, steps + 1)
    right = right_at[stopped_at.astype(np.int64) - 1, np.arange(len(groups))]
    found: list[GroupFigures] = []
    for group in np.unique(groups):
        rows = groups == group
        found.append(
            GroupFigures(
                group=int(group),
                count=int(rows.sum()),
                accuracy=float(right_share[rows].mean()),
                exact_accuracy=float(right[rows].mean()),
                policy_mean_steps=float(policy_steps[rows].mean()),
                first_right_step=float(first[rows].mean()),
            )
        )
    return found
