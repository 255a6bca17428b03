"""Accuracy of predicted tokens: per token, per row, and over steps.

A row without any label counts as nothing, neither right nor wrong, as in the training metric.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from hrm.data.base import IGNORE
from hrm.errors import UserError


def labelled_rows(labels: Integer[np.ndarray, "rows length"]) -> Bool[np.ndarray, " rows"]:
    """Rows with any label. Raises `UserError` when there is none, as no mean exists then."""
    return not_none((labels != IGNORE).any(-1))


def not_none(labelled: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Which rows have a label, as given. Raises `UserError` when none has."""
    if not labelled.any():
        raise UserError(f"none of the {len(labelled)} rows to evaluate has a label")
    return labelled


def right_share(
    predictions: Integer[np.ndarray, "*steps rows length"],
    labels: Integer[np.ndarray, "rows length"],
) -> Float[np.ndarray, "*steps rows"]:
    """Share of a row's labelled tokens that are right; 0 for a row without labels."""
    # A token never equals IGNORE, but an out-of-range prediction must not count either.
    right = (predictions == labels) & (labels != IGNORE)
    return right.sum(-1) / np.maximum((labels != IGNORE).sum(-1), 1)


def exactly_right(
    predictions: Integer[np.ndarray, "*steps rows length"],
    labels: Integer[np.ndarray, "rows length"],
) -> Bool[np.ndarray, "*steps rows"]:
    """Whether all labelled tokens of a row are right; False for a row without labels."""
    labelled = labels != IGNORE
    return ((predictions == labels) | ~labelled).all(-1) & labelled.any(-1)


def accuracy(
    predictions: Integer[np.ndarray, "*steps rows length"],
    labels: Integer[np.ndarray, "rows length"],
) -> float:
    """Mean over rows of the share of right tokens: each row weighs the same."""
    return float(right_share(predictions, labels)[..., labelled_rows(labels)].mean())


def exact_accuracy(
    predictions: Integer[np.ndarray, "*steps rows length"],
    labels: Integer[np.ndarray, "rows length"],
) -> float:
    """Share of rows of which every labelled token is right."""
    return float(exactly_right(predictions, labels)[..., labelled_rows(labels)].mean())


def accuracy_by_step(
    predictions: Integer[np.ndarray, "steps rows length"],
    labels: Integer[np.ndarray, "rows length"],
) -> list[float]:
    """Exact accuracy if every row were stopped after step 1, 2, ..."""
    # Step by step: the comparison of a whole trajectory at once is as large as the trajectory.
    return [exact_accuracy(at, labels) for at in predictions]


def check_steps(steps: Integer[np.ndarray, " rows"], max_steps: int) -> None:
    """Raises `ValueError` for a step outside of 1 to `max_steps`."""
    wrong = steps[(steps < 1) | (steps > max_steps)]
    if wrong.size:
        raise ValueError(f"steps must be 1 to {max_steps}, got {int(wrong[0])}")


def at_step(
    values: Shaped[np.ndarray, "steps rows *rest"], steps: Integer[np.ndarray, " rows"]
) -> Shaped[np.ndarray, " rows *rest"]:
    """Each row's value at its own step, counted from 1."""
    check_steps(steps, len(values))
    return values[steps.astype(np.int64) - 1, np.arange(values.shape[1])]
