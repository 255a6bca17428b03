"""Figures of the halt head, against numbers worked out by hand and against slow twins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.evaluation import (
    auroc,
    base_rate,
    calibration_bins,
    calibration_error,
    constant_accuracy,
    first_halt,
    q_halt_accuracy,
    q_halt_auroc_all_steps,
    share_below,
    steps_histogram,
)
from hrm.evaluation.halting import probability

# Few distinct scores, so that ties are common.
SCORED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40)


def arrays(scored: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = zip(*scored, strict=True)
    return np.array(scores, dtype=np.float64), np.array(positive)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_q_halt_accuracy_counts_zero_as_yes() -> None:
    q = np.array([0.0, 2.0, -1.0, -0.1])
    assert q_halt_accuracy(q, np.array([True, False, False, True])) == 0.5
    assert q_halt_accuracy(q, np.array([True, True, False, False])) == 1.0


@pytest.mark.parametrize(("right", "rate", "constant"), [(1, 0.25, 0.75), (3, 0.75, 0.75)])
def test_base_rate_and_what_a_constant_reaches(right: int, rate: float, constant: float) -> None:
    correct = np.arange(4) < right
    assert base_rate(correct) == rate
    assert constant_accuracy(correct) == constant
    best = max(q_halt_accuracy(np.full(4, q), correct) for q in (-1.0, 1.0))
    assert best == constant


def test_auroc_by_hand() -> None:
    # Positives 0.9, 0.4; negatives 0.1, 0.4, 0.5: 3 + (1 + 0.5) of 6 pairs.
    scores = np.array([0.9, 0.4, 0.1, 0.4, 0.5])
    assert auroc(scores, np.array([1, 1, 0, 0, 0], dtype=bool)) == pytest.approx(4.5 / 6)


def test_auroc_needs_both_classes() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert auroc(np.array([1.0, 2.0]), np.array([False, False])) is None
    assert auroc(np.zeros(4), np.array([True, False, True, False])) == 0.5


@given(SCORED)
def test_auroc_equals_counting_pairs(scored: list[tuple[int, bool]]) -> None:
    scores, positive = arrays(scored)
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[positive]
        for n in scores[~positive]
    ]
    value = auroc(scores, positive)
    if pairs:
        assert value == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    else:
        assert value is None


@given(SCORED, st.randoms(use_true_random=False))
def test_auroc_is_of_the_order_alone(scored: list[tuple[int, bool]], random) -> None:  # type: ignore[no-untyped-def]
    scores, positive = arrays(scored)
    value = auroc(scores, positive)
    assert auroc(np.exp(scores / 2) * 7 - 3, positive) == value
    random.shuffle(scored)
    assert auroc(*arrays(scored)) == pytest.approx(value)
    if value is not None:
        assert auroc(-scores, positive) == pytest.approx(1 - value)
        assert auroc(scores, ~positive) == pytest.approx(1 - value)


def test_auroc_over_all_steps() -> None:
    # Row 0 right from step 2, row 1 from step 3: at the last step one class only.
    correct = np.array([[False, False], [True, False], [True, True]])
    q = np.array([[-2.0, -3.0], [1.0, 2.0], [4.0, 5.0]])
    assert auroc(q[-1], correct[-1]) is None
    # Right: 1, 4, 5; wrong: -2, -3, 2; of 9 pairs only (1, 2) is the wrong way round.
    assert q_halt_auroc_all_steps(q, correct) == pytest.approx(8 / 9)
    # Row 1 stopped after its first step: its other pairs are gone, and with them the fault.
    assert q_halt_auroc_all_steps(q, correct, np.array([3, 1])) == 1.0
    # Stopped after its second: the fault is one of 6 pairs.
    assert q_halt_auroc_all_steps(q, correct, np.array([3, 2])) == pytest.approx(5 / 6)


def test_probability_never_overflows() -> None:
    logits = np.array([-1e4, -np.inf, 0.0, np.log(3), 1e4, np.inf])
    np.testing.assert_allclose(probability(logits), [0, 0, 0.5, 0.75, 1, 1])


def test_calibration_by_hand() -> None:
    # Bin [0.1, 0.2): told 0.1 and 0.19, one of two right; the last: told 0.99, 1.0, both right.
    q = np.array([logit(0.11), logit(0.19), logit(0.99), 800.0])
    bins = calibration_bins(q, np.array([True, False, True, True]))
    assert [b["count"] for b in bins] == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins[0]["probability"] is None
    assert bins[0]["accuracy"] is None
    assert bins[1]["probability"] == pytest.approx(0.15)
    assert bins[1]["accuracy"] == 0.5
    assert (bins[1]["low"], bins[1]["high"]) == (0.1, 0.2)
    assert calibration_error(bins) == pytest.approx((2 * 0.35 + 2 * 0.005) / 4)


@given(SCORED, st.integers(1, 12))
def test_calibration_bins_hold_every_answer(scored: list[tuple[int, bool]], number: int) -> None:
    scores, right = arrays(scored)
    bins = calibration_bins(scores, right, number)
    assert len(bins) == number
    assert sum(b["count"] for b in bins) == len(scored)
    assert sum(b["count"] * (b["accuracy"] or 0) for b in bins) == pytest.approx(right.sum())
    for b in bins:
        if b["probability"] is not None:
            assert b["low"] - 1e-12 <= b["probability"] <= b["high"] + 1e-12
    # One bin: the error is the gap of the means. More bins can only find more of it.
    overall = abs(probability(scores).mean() - right.mean())
    assert calibration_error(bins) >= overall - 1e-12
    if number == 1:
        assert calibration_error(bins) == pytest.approx(overall)


def test_first_halt() -> None:
    wants = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]], dtype=bool)
    assert first_halt(wants).tolist() == [2, 1, 3, 3]


def test_steps_histogram_counts_from_step_1() -> None:
    assert steps_histogram(np.array([1, 3, 3, 4]), 5) == [1, 0, 2, 1, 0]
    assert share_below(np.array([1, 3, 3, 4])) == 0.25
    assert share_below(np.array([1, 3, 3, 4]), 4) == 0.75


@pytest.mark.parametrize("step", [0, 6])
def test_steps_histogram_refuses_other_steps(step: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 5, got {step}"):
        steps_histogram(np.array([2, step]), 5)


@given(st.lists(st.integers(1, 8), min_size=1))
def test_steps_histogram_keeps_count_and_mean(steps: list[int]) -> None:
    histogram = steps_histogram(np.array(steps), 8)
    assert sum(histogram) == len(steps)
    assert sum((i + 1) * n for i, n in enumerate(histogram)) == sum(steps)
