"""Overlap of classes: by hand, and what every pair of masks keeps to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.evaluation import (
    ClassCounts,
    class_counts,
    dice,
    dice_of,
    exactly_right,
    exactly_right_of,
    iou,
    iou_of,
    right_share,
    right_share_of,
)

N = -100


def test_two_classes_by_hand() -> None:
    labels = np.array(
        [
            [1, 1, 0, 0],  # one of two found, one too many: 1/3
            [0, 0, 0, 0],  # nothing there, nothing found: 1
            [0, 0, 0, 0],  # nothing there, one found: 0
            [1, 1, 1, N],  # all found; the pixel without a label says nothing
            [N, N, N, N],  # no label: left out of the mean
        ]
    )
    predictions = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    counts = class_counts(predictions, labels, 2)
    assert counts.hits[0].tolist() == [1, 1]
    assert counts.predicted[3].tolist() == [0, 3]
    np.testing.assert_allclose(iou_of(counts)[:4], [1 / 3, 1, 0, 1])
    np.testing.assert_allclose(dice_of(counts)[:4], [1 / 2, 1, 0, 1])
    assert iou(predictions, labels, 2) == pytest.approx((1 / 3 + 1 + 0 + 1) / 4)
    assert dice(predictions, labels, 2) == pytest.approx((1 / 2 + 1 + 0 + 1) / 4)


def test_several_classes_count_where_either_has_them() -> None:
    # Class 1: 1 of 2 (1/2). Class 2: only predicted (0). Class 3: neither has it.
    labels, predictions = np.array([[1, 1, 0, 0]]), np.array([[1, 2, 0, 0]])
    assert iou(predictions, labels, 4) == pytest.approx(1 / 4)
    assert dice(predictions, labels, 4) == pytest.approx((2 / 3 + 0) / 2)


def test_a_value_that_is_no_class_is_wrong_and_of_none() -> None:
    labels, predictions = np.array([[1, 1, 0, 0]]), np.array([[1, 7, 0, 0]])
    counts = class_counts(predictions, labels, 2)
    assert counts.predicted[0].tolist() == [2, 1]
    assert iou(predictions, labels, 2) == pytest.approx(1 / 2)
    assert right_share_of(counts)[0] == pytest.approx(3 / 4)


def test_no_image_has_a_label() -> None:
    with pytest.raises(UserError, match="none of the 2 rows"):
        iou(np.zeros((2, 3), dtype=int), np.full((2, 3), N), 2)


def masks(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shape = (6, 9)
    labels = generator.integers(0, classes, shape)
    labels[generator.random(shape) < 0.2] = N
    labels[0] = N
    return generator.integers(0, classes, (4, *shape)).astype(np.uint8), labels


@given(st.integers(0, 2**32 - 1))
def test_steps_are_read_one_by_one_and_agree_with_the_figures_of_tokens(seed: int) -> None:
    predictions, labels = masks(seed)
    counts = class_counts(predictions, labels, 3)
    for n, at in enumerate(predictions):
        alone = class_counts(at, labels, 3)
        np.testing.assert_array_equal(iou_of(counts)[n], iou_of(alone))
        np.testing.assert_array_equal(dice_of(counts)[n], dice_of(alone))
    np.testing.assert_allclose(right_share_of(counts), right_share(predictions, labels))
    np.testing.assert_array_equal(exactly_right_of(counts), exactly_right(predictions, labels))


@given(st.integers(0, 2**32 - 1))
def test_bounds_symmetry_and_the_relation_of_the_two(seed: int) -> None:
    predictions, labels = masks(seed, classes=2)
    at = predictions[0]
    counts = class_counts(at, labels, 2)
    overlap, doubled = iou_of(counts), dice_of(counts)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_allclose(doubled, 2 * overlap / (1 + overlap))
    # Exchanging label and prediction, where both are known, changes nothing.
    swapped = class_counts(np.where(labels == N, 0, labels), np.where(labels == N, N, at), 2)
    np.testing.assert_array_equal(iou_of(swapped), overlap)
    right = ClassCounts(counts.labelled, counts.labelled, counts.labelled)
    assert (iou_of(right) == 1).all()
    # What is not labelled does not matter.
    other = np.where(labels == N, 1 - at, at)
    np.testing.assert_array_equal(iou_of(class_counts(other, labels, 2)), overlap)
