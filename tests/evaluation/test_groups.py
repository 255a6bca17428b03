"""Figures by group, computed by hand."""

import numpy as np
import pytest

from hrm.evaluation.groups import by_group


def test_each_group_has_the_means_of_its_rows() -> None:
    right_at = np.array([[0, 0, 1], [1, 0, 0], [1, 0, 1]], dtype=bool)
    found = by_group(
        np.array([4, 1, 4]),
        right_at,
        np.array([1.0, 0.25, 0.5]),
        np.array([3, 3, 3]),
        np.array([2, 3, 1]),
    )
    assert [g["group"] for g in found] == [1, 4]
    lost, won = found
    assert lost["count"] == 1
    assert lost["exact_accuracy"] == 0
    assert lost["accuracy"] == 0.25
    assert lost["first_right_step"] == 4  # Never right in 3 steps.
    assert won["count"] == 2
    assert won["exact_accuracy"] == 1
    assert won["accuracy"] == 0.75
    assert won["policy_mean_steps"] == 1.5
    assert won["first_right_step"] == 1.5  # Right at step 2, and at step 1.


def test_what_stands_after_a_rows_end_is_not_looked_at() -> None:
    right_at = np.array([[0], [1]], dtype=bool)
    (group,) = by_group(np.zeros(1, dtype=int), right_at, np.zeros(1), np.array([1]), np.array([1]))
    assert group["exact_accuracy"] == 0
    assert group["first_right_step"] == 3


def test_a_step_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be 1 to 1"):
        by_group(
            np.zeros(1, dtype=int),
            np.zeros((1, 1), dtype=bool),
            np.zeros(1),
            np.array([2]),
            np.array([1]),
        )
