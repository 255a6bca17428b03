"""Accuracy of tokens and rows, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrm.errors import UserError
from hrm.evaluation import (
    accuracy,
    accuracy_by_step,
    at_step,
    exact_accuracy,
    exactly_right,
    right_share,
)
from hrm.token_loss import correctness

# Row 0 has 4 labels, row 1 has 2, row 2 none.
LABELS = np.array([[2, 3, 4, 5], [2, -100, -100, 3], [-100] * 4])
STEP_1 = np.array([[2, 3, 0, 0], [2, 9, 9, 0], [1, 1, 1, 1]])
STEP_2 = np.array([[2, 3, 4, 0], [2, 9, 9, 3], [1, 1, 1, 1]])
STEP_3 = np.array([[2, 3, 4, 5], [0, 9, 9, 3], [1, 1, 1, 1]])
TRAJECTORY = np.stack([STEP_1, STEP_2, STEP_3])


def test_token_accuracy_weighs_each_row_the_same() -> None:
    assert right_share(STEP_2, LABELS).tolist() == [0.75, 1.0, 0.0]
    # Over tokens it would be 5 / 6.
    assert accuracy(STEP_2, LABELS) == pytest.approx((0.75 + 1.0) / 2)
    assert accuracy(STEP_1, LABELS) == pytest.approx((0.5 + 0.5) / 2)


def test_a_row_without_labels_is_neither_right_nor_counted() -> None:
    assert exactly_right(STEP_2, LABELS).tolist() == [False, True, False]
    assert exact_accuracy(STEP_2, LABELS) == 0.5
    assert exact_accuracy(STEP_2[1:], LABELS[1:]) == 1.0


def test_predicting_the_ignored_value_earns_nothing() -> None:
    assert right_share(LABELS, LABELS).tolist() == [1.0, 1.0, 0.0]


def test_accuracy_by_step() -> None:
    assert accuracy_by_step(TRAJECTORY, LABELS) == [0.0, 0.5, 0.5]


def test_leading_dimensions_are_averaged() -> None:
    assert exactly_right(TRAJECTORY, LABELS).shape == (3, 3)
    assert exact_accuracy(TRAJECTORY, LABELS) == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", [accuracy, exact_accuracy])
def test_no_label_at_all_is_refused(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="none of the 2 rows"):
        measure(np.zeros((2, 3), dtype=int), np.full((2, 3), -100))


def test_at_step_takes_each_row_at_its_own_step() -> None:
    values = np.arange(6).reshape(3, 2)
    assert at_step(values, np.array([3, 1], dtype=np.uint8)).tolist() == [4, 1]
    assert at_step(TRAJECTORY, np.array([1, 2, 3]))[0].tolist() == [2, 3, 0, 0]


@pytest.mark.parametrize("step", [0, -1, 4])
def test_at_step_refuses_steps_that_were_not_taken(step: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 3, got {step}"):
        at_step(np.zeros((3, 2)), np.array([1, step]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_narrow_predictions_compare_with_signed_labels(dtype: type) -> None:
    # 156 is -100 as uint8.
    predictions = np.array([[156, 2]]).astype(dtype)
    labels = np.array([[-100, 2]], dtype=np.int32)
    assert right_share(predictions, labels).tolist() == [1.0]


@given(st.integers(0, 2**32 - 1))
def test_equals_the_training_metric(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random((6, 3)) < 0.4, -100, generator.integers(0, 2, (6, 3)))
    logits = torch.from_numpy(generator.standard_normal((6, 3, 2)))
    share, exact, counted = correctness(logits, torch.from_numpy(labels))
    predictions = logits.argmax(-1).numpy()
    np.testing.assert_allclose(right_share(predictions, labels), share.numpy())
    assert (exactly_right(predictions, labels) == (exact & counted).numpy()).all()
