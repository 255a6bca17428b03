"""How well a halt head knows whether its answer is right, and when sequences halt.

`q_halt` are logits of "the answer at this step is exactly right". `q_halt_accuracy` alone says
little: at 90 % right answers a head that always says yes has 0.9. Read it beside the base rate, the
AUROC (0.5 for a head that knows nothing) and the calibration error.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Integer

from hrm.evaluation.exact import check_steps


def probability(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The logistic function in float64, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def q_halt_accuracy(
    q_halt: Float[np.ndarray, "*shape"], correct: Bool[np.ndarray, "*shape"]
) -> float:
    """Share of answers of which `q_halt >= 0` says truly whether they are right."""
    return float(((q_halt >= 0) == correct).mean())


def base_rate(correct: Bool[np.ndarray, "*shape"]) -> float:
    """Share of right answers."""
    return float(correct.mean())


def constant_accuracy(correct: Bool[np.ndarray, "*shape"]) -> float:
    """The best `q_halt_accuracy` of a head that always says the same: max(p, 1 - p)."""
    return max(base_rate(correct), 1.0 - base_rate(correct))


def auroc(
    scores: Float[np.ndarray, "*shape"], positive: Bool[np.ndarray, "*shape"]
) -> float | None:
    """Chance that a positive scores above a negative, ties counting half; None without both.

    By ranks (Mann and Whitney 1947), ties sharing their mean rank.
    """
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_ranks[index.reshape(scores.shape)][positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def q_halt_auroc_all_steps(
    q_halt: Float[np.ndarray, "steps rows"],
    correct: Bool[np.ndarray, "steps rows"],
    stopped_at: Integer[np.ndarray, " rows"] | None = None,
) -> float | None:
    """AUROC over all (row, step) pairs: does q_halt at step n tell if the answer at n is right?

    Early steps are wrong even where the last is right for all rows, so that this has a value where
    the AUROC at the last step has none. Pairs after a row's `stopped_at` are left out.
    """
    if stopped_at is None:
        return auroc(q_halt, correct)
    ran = np.arange(1, len(q_halt) + 1)[:, None] <= stopped_at
    return auroc(q_halt[ran], correct[ran])


class CalibrationBin(TypedDict):
    """Answers whose chance of being right was told to be in [low, high)."""

    low: float
    high: float
    count: int
    probability: float | None
    """Mean chance told; None in an empty bin."""
    accuracy: float | None
    """Share of right answers; None in an empty bin."""


def calibration_bins(
    q_halt: Float[np.ndarray, "*shape"], correct: Bool[np.ndarray, "*shape"], bins: int = 10
) -> list[CalibrationBin]:
    """Answers in `bins` equally wide bins of sigmoid(q_halt); the last one includes 1."""
    told = probability(q_halt).ravel()
    index = np.minimum((told * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=told, minlength=bins)
    right = np.bincount(index, weights=correct.ravel(), minlength=bins)
    return [
        CalibrationBin(
            low=i / bins,
            high=(i + 1) / bins,
            count=int(counts[i]),
            probability=float(sums[i] / counts[i]) if counts[i] else None,
            accuracy=float(right[i] / counts[i]) if counts[i] else None,
        )
        for i in range(bins)
    ]


def calibration_error(bins: list[CalibrationBin]) -> float:
    """Expected calibration error: mean over answers of their bin's |chance told - share right|."""
    total = sum(b["count"] for b in bins)
    gaps = [
        b["count"] * abs(b["probability"] - b["accuracy"])
        for b in bins
        if b["probability"] is not None and b["accuracy"] is not None
    ]
    return sum(gaps) / total


def first_halt(wants: Bool[np.ndarray, "steps rows"]) -> Integer[np.ndarray, " rows"]:
    """The first step, from 1, at which a row's policy wants to halt; the last one if it never does.

    Turns a trajectory that ran to the last step into the policy's own step counts.
    """
    return np.where(wants.any(0), wants.argmax(0) + 1, len(wants))


def steps_histogram(steps: Integer[np.ndarray, " rows"], max_steps: int) -> list[int]:
    """How many rows halted at step 1, 2, ..., max_steps."""
    check_steps(steps, max_steps)
    return np.bincount(steps, minlength=max_steps + 1)[1:].tolist()


def share_below(steps: Integer[np.ndarray, " rows"], step: int = 2) -> float:
    """Share of rows that halted in fewer than `step` steps."""
    return float((steps < step).mean())
