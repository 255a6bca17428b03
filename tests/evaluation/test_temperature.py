"""Temperature scaling: known optima, and against a grid."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hrm.evaluation import auroc, fit_temperature, log_loss
from hrm.evaluation.temperature import HIGHEST, LOWEST


def answers(right_of: dict[float, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and which answers are right: `{logit: (right, wrong)}`."""
    q = np.concatenate([np.full(sum(n), logit) for logit, n in right_of.items()])
    right = np.concatenate([np.arange(sum(n)) < n[0] for n in right_of.values()])
    return q, right


def test_a_known_optimum() -> None:
    # Told 2, right in 3 of 4: sigmoid(2 / T) = 3/4 where T = 2 / ln 3.
    q, right = answers({2.0: (3, 1)})
    assert fit_temperature(q, right) == pytest.approx(2 / math.log(3), rel=1e-6)
    # The same from the other side: told -2, right in 1 of 4.
    q, right = answers({2.0: (3, 1), -2.0: (1, 3)})
    assert fit_temperature(q, right) == pytest.approx(2 / math.log(3), rel=1e-6)
    # Honest already, in two places: sigmoid(ln 3) = 3/4 and sigmoid(ln 9) = 9/10.
    q, right = answers({math.log(3): (3, 1), math.log(9): (9, 1)})
    assert fit_temperature(q, right) == pytest.approx(1, rel=1e-6)


def test_a_head_that_doubts_too_much_is_sharpened() -> None:
    q, right = answers({0.5: (9, 1)})
    assert fit_temperature(q, right) == pytest.approx(0.5 / math.log(9), rel=1e-6)


def test_without_an_optimum_it_ends_at_its_bounds() -> None:
    assert fit_temperature(*answers({1.0: (5, 0), -1.0: (0, 5)})) == LOWEST
    assert fit_temperature(*answers({1.0: (0, 5), -1.0: (5, 0)})) == HIGHEST
    assert fit_temperature(*answers({3.0: (1, 1), -3.0: (1, 1)})) == HIGHEST


def test_log_loss_by_hand() -> None:
    q, right = np.array([math.log(3), math.log(3)]), np.array([True, False])
    assert log_loss(q, right) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    assert log_loss(2 * q, right, temperature=2.0) == pytest.approx(log_loss(q, right))
    assert log_loss(np.array([800.0, -800.0]), right) == 0
    assert log_loss(np.array([-800.0]), np.array([True])) == 800


@given(
    arrays.arrays(np.float32, (2, 6), elements=st.floats(-8, 8, width=16)),
    arrays.arrays(np.bool_, (2, 6)),
)
def test_no_other_temperature_is_better_and_the_order_stays(
    q: np.ndarray, right: np.ndarray
) -> None:
    best = fit_temperature(q, right)
    assert LOWEST <= best <= HIGHEST
    least = log_loss(q, right, best)
    for other in np.geomspace(LOWEST, HIGHEST, 40):
        assert least <= log_loss(q, right, other) + 1e-9
    assert auroc(q / best, right) == auroc(q, right)
