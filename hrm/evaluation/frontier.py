"""Accuracy over mean steps: every threshold of a stopper, its best choice, and what bounds it.

A stopper is a score after each step: a row halts at the first step whose score is above the
threshold, at the last step otherwise. Sequences that ran to the last step show them all at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from hrm.evaluation.exact import at_step
from hrm.evaluation.halting import first_halt


@dataclass(frozen=True)
class Frontier:
    """All halting behaviours of a stopper on some rows, by rising threshold."""

    low: Float[np.ndarray, " points"]
    """A threshold from here on, the first -inf, gives the point."""
    high: Float[np.ndarray, " points"]
    """Up to here, not included; the last is inf: no row halts before the last step."""
    mean_steps: Float[np.ndarray, " points"]
    exact_accuracy: Float[np.ndarray, " points"]

    def threshold(self, point: int) -> float:
        """The middle of the point's thresholds; inf for the last, which never halts."""
        low, high = float(self.low[point]), float(self.high[point])
        if high == math.inf:
            return math.inf
        if low == -math.inf:
            return high - max(abs(high), 1.0)
        middle = (low + high) / 2
        return middle if low <= middle < high else low

    def cheapest(self, least_accuracy: float) -> int | None:
        """The point of fewest mean steps with at least that exact accuracy; None without any.

        Among equals the highest threshold, which is the last to halt on other rows.
        """
        good = np.flatnonzero(self.exact_accuracy >= least_accuracy - 1e-12)
        if not len(good):
            return None
        return int(good[::-1][self.mean_steps[good[::-1]].argmin()])

    def thinned(self, most: int) -> list[int]:
        """At most so many points, evenly spaced in log mean steps, both ends among them."""
        wanted = np.geomspace(self.mean_steps[0], self.mean_steps[-1], most)
        # The mean rises with the threshold: a row never halts earlier.
        found = np.searchsorted(self.mean_steps, wanted - 1e-12)
        last = len(self.mean_steps) - 1
        return sorted({0, last, *np.minimum(found, last).tolist()})


def frontier(
    scores: Float[np.ndarray, "steps rows"], right: Bool[np.ndarray, "steps rows"]
) -> Frontier:
    """Mean steps and exact accuracy for every threshold, in one sort.

    Args:
        scores: of each step; -inf where the stopper cannot halt. Those of the last step, at which
            every row ends, are not looked at.
        right: whether the answer after each step is.
    """
    steps, rows = right.shape
    running = np.maximum.accumulate(scores[:-1].astype(np.float64), axis=0)
    before = np.concatenate([np.full((1, rows), -np.inf), running])[:-1]
    # As the threshold rises past a running maximum, the row goes on to the step of the next one.
    halts = running > before
    onward = np.empty(halts.shape, dtype=np.int64)
    step = np.full(rows, steps)
    for i in range(steps - 2, -1, -1):
        onward[i] = step
        step = np.where(halts[i], i + 1, step)
    at, row = np.nonzero(halts)
    to = onward[at, row]
    passed, index = np.unique(running[at, row], return_inverse=True)
    more_steps, more_right = (
        np.bincount(index, weights=change, minlength=len(passed))
        for change in (to - (at + 1), right[to - 1, row].astype(np.int64) - right[at, row])
    )
    total_steps = step.sum() + np.cumsum(np.concatenate([[0.0], more_steps]))
    total_right = at_step(right, step).sum() + np.cumsum(np.concatenate([[0.0], more_right]))
    return Frontier(
        low=np.concatenate([[-np.inf], passed]),
        high=np.concatenate([passed, [np.inf]]),
        mean_steps=total_steps / rows,
        exact_accuracy=total_right / rows,
    )


def oracle_steps(right: Bool[np.ndarray, "steps rows"]) -> Integer[np.ndarray, " rows"]:
    """The first step at which a row's answer is right, the last one if it never is.

    No policy is more accurate: its accuracy is the share of rows that are right at any step, which
    may be above that of the last step. A row that is never right costs it all steps.
    """
    return first_halt(right)


def running_minimum(
    scores: Float[np.ndarray, "steps rows"], window: int
) -> Float[np.ndarray, "steps rows"]:
    """The score of a stopper confirmed for `window` steps: the least of the last so many.

    -inf where there are not yet as many.
    """
    least = np.full(scores.shape, -np.inf)
    for i in range(window - 1, len(scores)):
        least[i] = scores[i - window + 1 : i + 1].min(0)
    return least


def standard_error(share: float, rows: int) -> float:
    """Of a share of so many rows: binomial, and at least one row, which is all that can be seen."""
    return max(math.sqrt(share * (1 - share) / rows), 1 / rows)
