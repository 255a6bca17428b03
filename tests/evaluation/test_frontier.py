"""Accuracy over mean steps: by hand, and against every threshold tried one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hrm.evaluation import (
    at_step,
    first_halt,
    frontier,
    oracle_steps,
    running_minimum,
    standard_error,
)

NEVER = -math.inf

# Three rows over three steps; the first is right from step 2 on, the second always, the third only
# at step 1.
SCORES = np.array([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0], [9.0, 9.0, 9.0]])
RIGHT = np.array([[0, 1, 1], [1, 1, 0], [1, 1, 0]], dtype=bool)


def test_every_threshold_by_hand() -> None:
    found = frontier(SCORES, RIGHT)
    # Below 1 all halt at step 1; from 1 on row 0 goes to step 2; from 2 on row 2 does; from 3 on
    # row 2 and from 4 on row 0 goes to step 3, and from 5 on row 1 to step 3 too.
    assert found.low.tolist() == [NEVER, 1, 2, 3, 4, 5]
    assert found.high.tolist() == [1, 2, 3, 4, 5, math.inf]
    assert (3 * found.mean_steps).tolist() == [3, 4, 5, 6, 7, 9]
    np.testing.assert_allclose(3 * found.exact_accuracy, [2, 3, 2, 2, 2, 2])


def test_the_cheapest_point_for_an_accuracy_by_hand() -> None:
    found = frontier(SCORES, RIGHT)
    assert found.cheapest(1.0) == 1
    assert found.threshold(1) == 1.5
    assert found.cheapest(2 / 3) == 0
    assert found.threshold(0) == 0
    assert frontier(-SCORES, RIGHT).cheapest(1.0) is None


def test_among_equals_the_threshold_that_halts_last_is_taken() -> None:
    # Steps are the same for both rows exchanged: thresholds 1 and 2 give a mean of 1.5.
    right = np.ones((2, 2), dtype=bool)
    found = frontier(np.array([[1.0, 2.0], [0.0, 0.0]]), right)
    assert found.mean_steps.tolist() == [1, 1.5, 2]
    wrong_early = np.array([[True, False], [True, True]])
    found = frontier(np.array([[1.0, 1.0], [0.0, 0.0]]), wrong_early)
    assert (found.cheapest(1.0), found.threshold(1)) == (1, math.inf)
    same = frontier(np.array([[NEVER], [NEVER], [0.0]]), np.ones((3, 1), dtype=bool))
    assert (same.mean_steps.tolist(), same.threshold(0)) == ([3], math.inf)


def test_a_single_step_leaves_nothing_to_choose() -> None:
    found = frontier(np.zeros((1, 4)), np.array([[True, False, True, True]]))
    assert found.mean_steps.tolist() == [1]
    assert found.exact_accuracy.tolist() == [0.75]
    assert found.thinned(5) == [0]


trajectories = st.integers(1, 6).flatmap(
    lambda steps: st.tuples(
        arrays.arrays(
            np.float64, (steps, 4), elements=st.sampled_from([NEVER, -1.0, 0.0, 0.5, 1.0, 2.0])
        ),
        arrays.arrays(np.bool_, (steps, 4)),
    )
)


@given(trajectories)
def test_equals_trying_each_threshold(both: tuple[np.ndarray, np.ndarray]) -> None:
    scores, right = both
    found = frontier(scores, right)
    assert found.low[0] == NEVER
    assert found.high[-1] == math.inf
    assert (found.low[1:] == found.high[:-1]).all()
    for i in range(len(found.low)):
        for threshold in (found.threshold(i), found.low[i]):
            steps = first_halt(scores > threshold)
            assert found.mean_steps[i] == pytest.approx(steps.mean())
            assert found.exact_accuracy[i] == pytest.approx(at_step(right, steps).mean())
    assert (np.diff(found.mean_steps) > 0).all()


@given(trajectories, st.integers(2, 9))
def test_thinning_keeps_both_ends(both: tuple[np.ndarray, np.ndarray], most: int) -> None:
    found = frontier(*both)
    kept = found.thinned(most)
    last = len(found.low) - 1
    assert (kept[0], kept[-1]) == (0, last)
    assert kept == sorted(set(kept))
    assert len(kept) <= most + 2
    if most >= 9:
        assert len(kept) >= min(2, last + 1)


@given(trajectories)
def test_no_threshold_is_more_accurate_than_the_oracle(
    both: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, right = both
    best = at_step(right, oracle_steps(right)).mean()
    assert best == right.any(0).mean()
    assert (frontier(scores, right).exact_accuracy <= best + 1e-12).all()


def test_the_oracle_by_hand() -> None:
    right = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1]], dtype=bool)
    assert oracle_steps(right).tolist() == [3, 1, 2, 3]
    assert at_step(right, oracle_steps(right)).tolist() == [False, True, True, True]


def test_a_score_is_confirmed_by_its_least_over_the_window() -> None:
    scores = np.array([[1.0, 4.0], [3.0, 2.0], [2.0, 3.0]])
    assert running_minimum(scores, 1).tolist() == scores.tolist()
    assert running_minimum(scores, 2).tolist() == [[NEVER, NEVER], [1, 2], [2, 2]]
    assert running_minimum(scores, 4).tolist() == [[NEVER, NEVER]] * 3


def test_a_standard_error_is_at_least_a_row() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(0.96, 250) == pytest.approx(0.012394, abs=1e-6)
    assert standard_error(1.0, 250) == 1 / 250
