"""A run's log as curves, and their running means.

Each logged row counts with the sequences that ended in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Clock = Literal["updates", "samples", "compute", "seconds"]
"""`compute`: counted multiply-adds, in units of 10^12, so that equal compute is equal work; seconds
are those of whatever machine it was, shared with whatever else ran there."""
CLOCKS: dict[Clock, str] = {
    "updates": "updates",
    "samples": "rows drawn",
    "compute": "10^12 multiply-adds",
    "seconds": "seconds of training",
}
"""Their units, in words."""
CLOCK_FORMS: dict[Clock, str] = {
    "updates": ".0f",
    "samples": ".0f",
    "compute": ".3g",
    "seconds": ".0f",
}
Floats = NDArray[np.float64]

SMOOTH = 0.02
"""Share of a run's updates over which a curve is a mean."""

CURVES = {
    "exact": "train/exact_accuracy",
    "accuracy": "train/accuracy",
    "loss": "train/loss",
    "lm_loss": "train/lm_loss",
    "q_halt_accuracy": "train/q_halt_accuracy",
    "steps": "train/steps",
    "encoder_share": "train/encoder_share",
    "kl": "train/kl",
    "count": "train/count",
    "held_exact": "eval/exact_accuracy",
    "held_accuracy": "eval/accuracy",
    "held_pass@2": "eval/pass@2",
}


def read_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """The log as arrays [rows]; nan where a row has no number."""
    clocks = {"updates": "step", "samples": "samples", "seconds": "time/train_s"}
    return {
        name: np.array([as_float(row.get(key)) for row in rows], dtype=np.float64)
        for name, key in (clocks | CURVES).items()
    }


def smoothed(curves: Mapping[str, Floats], key: str, share: float = SMOOTH) -> Floats:
    """At each row the mean over the last `share` of all updates, weighted by ended sequences."""
    updates, values = curves["updates"], curves[key]
    if not len(updates):
        return values
    weights = np.nan_to_num(curves["count"], nan=1.0)
    known = np.isfinite(values) & (weights > 0)
    weights = np.where(known, weights, 0.0)
    sums = np.cumsum(np.concatenate([[0.0], weights * np.where(known, values, 0.0)]))
    totals = np.cumsum(np.concatenate([[0.0], weights]))
    ends = np.arange(1, len(updates) + 1)
    starts = np.searchsorted(updates, updates - share * updates[-1], side="right")
    starts = np.minimum(starts, ends - 1)
    total = totals[ends] - totals[starts]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (sums[ends] - sums[starts]) / total, math.nan)


def number(value: object) -> float | None:
    """A finite number, or None."""
    found = as_float(value)
    return found if math.isfinite(found) else None


def as_float(value: object) -> float:
    """A number, or nan."""
    known = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    return float(value) if known else math.nan  # type: ignore[arg-type]


def any_known(values: Floats) -> bool:
    """Whether there is a number among them."""
    return bool(np.isfinite(values).any())


def last_known(values: Floats) -> float | None:
    """The last row's value, if it is a number."""
    known = np.flatnonzero(np.isfinite(values))
    return float(values[known[-1]]) if len(known) else None
