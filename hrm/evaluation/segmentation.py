"""Overlap of predicted and true classes of pixels: intersection over union, and Dice.

Of each image over its pixels with a label, the mean over the classes above 0 that the prediction or
the label has; with two classes that is the foreground alone. An image of which neither has any
foreground counts as 1: nothing was there and nothing was found. The mean over images follows, those
without a label left out. Both figures come from the same three counts, which are all that must be
kept of a prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from hrm.data.base import IGNORE
from hrm.evaluation.exact import labelled_rows


class ClassCounts(NamedTuple):
    """Pixels with a label, by class: what a prediction shares with the label, and each alone."""

    hits: Integer[np.ndarray, "*steps rows classes"]
    """Predicted and labelled so."""
    predicted: Integer[np.ndarray, "*steps rows classes"]
    labelled: Integer[np.ndarray, "*steps rows classes"]


def class_counts(
    predictions: Integer[np.ndarray, "*steps rows pixels"],
    labels: Integer[np.ndarray, "rows pixels"],
    classes: int,
) -> ClassCounts:
    """The counts of each image, `labelled` repeated over the steps. int32.

    A predicted value that is no class is a wrong answer, and none of any class.
    """
    counted = labels != IGNORE
    by_class = []
    for value in range(classes):
        said, true = (predictions == value) & counted, labels == value
        parts = (said & true).sum(-1), said.sum(-1), np.broadcast_to(true.sum(-1), said.shape[:-1])
        by_class.append([part.astype(np.int32) for part in parts])
    return ClassCounts(*(np.stack(column, axis=-1) for column in zip(*by_class, strict=True)))


def iou_of(counts: ClassCounts) -> Float[np.ndarray, "*steps rows"]:
    """Intersection over union of each image, from 0 to 1."""
    return _mean_over_classes(counts.hits, counts.predicted + counts.labelled - counts.hits)


def dice_of(counts: ClassCounts) -> Float[np.ndarray, "*steps rows"]:
    """Twice the intersection over the sum of both areas of each image, from 0 to 1."""
    return _mean_over_classes(2 * counts.hits, counts.predicted + counts.labelled)


def right_share_of(counts: ClassCounts) -> Float[np.ndarray, "*steps rows"]:
    """Share of an image's labelled pixels that are right, of all classes."""
    return counts.hits.sum(-1) / np.maximum(counts.labelled.sum(-1), 1)


def exactly_right_of(counts: ClassCounts) -> Bool[np.ndarray, "*steps rows"]:
    """Whether all labelled pixels of an image are right; False without any."""
    total = counts.labelled.sum(-1)
    return (counts.hits.sum(-1) == total) & (total > 0)


def iou(
    predictions: Integer[np.ndarray, "rows pixels"],
    labels: Integer[np.ndarray, "rows pixels"],
    classes: int,
) -> float:
    """Mean over images with a label of `iou_of`. Raises `UserError` when there are none."""
    rows = labelled_rows(labels)
    return float(iou_of(class_counts(predictions[rows], labels[rows], classes)).mean())


def dice(
    predictions: Integer[np.ndarray, "rows pixels"],
    labels: Integer[np.ndarray, "rows pixels"],
    classes: int,
) -> float:
    """Mean over images with a label of `dice_of`. Raises `UserError` when there are none."""
    rows = labelled_rows(labels)
    return float(dice_of(class_counts(predictions[rows], labels[rows], classes)).mean())


def _mean_over_classes(
    part: Integer[np.ndarray, "*steps rows classes"],
    whole: Integer[np.ndarray, "*steps rows classes"],
) -> Float[np.ndarray, "*steps rows"]:
    """Mean of the ratios of the classes above 0 whose `whole` is not 0; 1 if there are none."""
    part, whole = part[..., 1:], whole[..., 1:]
    present = (whole > 0).sum(-1)
    total = (part / np.maximum(whole, 1)).sum(-1)
    return np.where(present > 0, total / np.maximum(present, 1), 1.0)
