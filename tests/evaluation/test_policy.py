"""Figures of a halting policy whose costs are known: by hand, and of policies one knows."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.evaluation import (
    agreement,
    agreement_within_1,
    by_difficulty,
    fixed_depth_costs,
    gap_closed,
    gap_closed_error,
    mean_steps,
    policy_figures,
    random_halting,
    regret,
    spearman,
    steps_std,
)

# Three steps, four rows; k* is 1, 2, 3, 3.
COST = np.array([[1.0, 5.0, 9.0, 9.0], [2.0, 4.0, 8.0, 7.0], [3.0, 6.0, 7.0, 5.0]])
BEST = np.array([1, 2, 3, 3])
STEPS = np.array([1, 3, 1, 3])


def test_by_hand() -> None:
    figures = policy_figures(COST, STEPS, BEST, np.array([2, 4, 8, 6]))
    assert figures["agreement"] == 0.5
    assert figures["agreement_within_1"] == 0.75
    assert figures["cost"] == pytest.approx((1 + 6 + 9 + 5) / 4)
    assert figures["oracle_cost"] == pytest.approx((1 + 4 + 7 + 5) / 4)
    assert figures["regret"] == pytest.approx((0 + 2 + 2 + 0) / 4)
    assert figures["fixed_depth_costs"] == pytest.approx([6, 5.25, 5.25])
    # The best fixed depth: 5.25 - 4.25 = 1 above the oracle; the policy is 1 above it too.
    assert figures["gap_closed"] == pytest.approx(0)
    assert figures["random_cost"] == pytest.approx((6 + 5.25) / 2)
    assert figures["mean_steps"] == 2.0
    assert figures["steps_std"] == 1.0
    # Ranks 1.5, 3.5, 1.5, 3.5 and 1, 2, 4, 3: deviations (-1, 1, -1, 1), (-1.5, -.5, 1.5, .5).
    assert figures["spearman"] == pytest.approx(0.0)


def test_rank_correlation_by_hand() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: covariance 4.5, spreads 4.5 and 5.
    expected = 4.5 / np.sqrt(4.5 * 5)
    assert spearman(np.array([1, 2, 2, 9]), np.array([10, 30, 20, 40])) == pytest.approx(expected)
    assert spearman(np.array([1, 2, 3]), np.array([1, 10, 100])) == pytest.approx(1)
    assert spearman(np.array([3, 2, 1]), np.array([1.5, 10.0, 100.0])) == pytest.approx(-1)


def test_a_constant_policy_is_shown_for_what_it_is() -> None:
    constant = np.full(4, 2)
    assert spearman(constant, np.arange(4)) is None
    assert spearman(np.arange(4), constant) is None
    assert steps_std(constant) == 0
    assert mean_steps(constant) == 2
    # One of the two best depths: it closes nothing, and chance does as well.
    assert gap_closed(COST, constant) == 0
    assert random_halting(COST, constant) == pytest.approx(COST[1].mean())


def test_where_one_depth_is_best_for_all_there_is_no_gap() -> None:
    cost = np.array([[2.0, 2.0], [1.0, 1.0]])
    assert gap_closed(cost, np.array([1, 2])) is None
    assert regret(cost, np.array([1, 2])) == 0.5


def test_the_error_of_the_gap_closed_by_hand() -> None:
    # Depth 2 is best: rows cost 2 and 1 there, 0 and 4 where the policy halts, 0 and 1 at best.
    cost, steps = np.array([[0.0, 4.0], [2.0, 1.0]]), np.array([1, 1])
    assert gap_closed(cost, steps) == (2 - 3) / (2 + 0)
    # Saved minus -1/2 of the gap: 2 + 1 and -3 + 0.
    assert gap_closed_error(cost, steps) == pytest.approx(np.sqrt(9 + 9) / 2)
    assert gap_closed_error(cost, cost.argmin(0) + 1) == 0  # The oracle is one on any rows.
    assert gap_closed_error(np.array([[2.0, 2.0], [1.0, 1.0]]), steps) is None
    assert gap_closed_error(cost[:, :1], steps[:1]) is None


def test_the_error_of_the_gap_closed_is_that_of_drawing_rows_again() -> None:
    generator = np.random.default_rng(0)
    left = generator.integers(1, 9, 400) - np.arange(1, 9)[:, None]
    cost = 0.2 * np.maximum(left, 0) + 0.05 * np.arange(1, 9)[:, None]
    steps = (cost.argmin(0) + 1 + (generator.random(400) < 0.2)).clip(max=8)
    steps[:4] = 1  # A few rows that go badly wrong.
    drawn = [generator.integers(0, 400, 400) for _ in range(2000)]
    again = np.std([gap_closed(cost[:, rows], steps[rows]) for rows in drawn])
    assert gap_closed_error(cost, steps) == pytest.approx(again, rel=0.1)


def test_a_step_out_of_range() -> None:
    with pytest.raises(ValueError, match="1 to 3, got 4"):
        policy_figures(COST, np.array([1, 4, 1, 1]), BEST)


def test_groups_of_difficulty() -> None:
    groups = by_difficulty(
        np.array([1, 1, 3, 5, 5, 6]), np.array([2, 2, 2, 7, 8, 9]), np.array([1, 2, 3, 4, 5, 6]), 2
    )
    first, second = groups
    # The median is 7 by its upper value, and equals stay together.
    assert (first["low"], first["high"], first["count"]) == (2, 7, 4)
    assert (second["low"], second["high"], second["count"]) == (8, 9, 2)
    assert second["mean_steps"] == 5.5
    assert second["mean_optimal_steps"] == 5.5
    assert by_difficulty(np.array([1, 2]), np.array([3, 3]))[0]["mean_optimal_steps"] is None


@st.composite
def costs(draw: st.DrawFn) -> np.ndarray:
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    return generator.integers(0, 9, shape) / 4 + generator.random(shape) / 100


@given(costs(), st.integers(0, 2**32 - 1))
def test_known_policies(cost: np.ndarray, seed: int) -> None:
    steps, rows = cost.shape
    best = cost.argmin(0) + 1
    oracle = policy_figures(cost, best, best)
    assert oracle["agreement"] == oracle["agreement_within_1"] == 1
    assert oracle["regret"] == 0
    assert oracle["gap_closed"] in (1, None)
    depth = int(fixed_depth_costs(cost).argmin()) + 1
    fixed = policy_figures(cost, np.full(rows, depth), best)
    assert fixed["gap_closed"] in (0, None)
    assert (fixed["gap_closed"] is None) == (oracle["gap_closed"] is None)
    assert fixed["random_cost"] == pytest.approx(fixed["cost"])

    generator = np.random.default_rng(seed)
    taken = generator.integers(1, steps + 1, rows)
    hard = generator.integers(0, 5, rows)
    figures = policy_figures(cost, taken, best, hard)
    json.dumps(figures, allow_nan=False)
    assert figures["regret"] >= 0
    assert figures["cost"] == pytest.approx(figures["oracle_cost"] + figures["regret"])
    assert figures["agreement"] <= agreement_within_1(taken, best)
    assert agreement(taken, best) == figures["agreement"]
    rank = figures["spearman"]
    assert rank is None or -1 - 1e-12 <= rank <= 1 + 1e-12
    assert (rank is None) == (steps_std(taken) == 0 or np.ptp(hard) == 0)
    # Only order counts, and the order of the rows does not.
    order = generator.permutation(rows)
    moved = spearman(taken[order] * 3, np.exp(hard[order].astype(float)))
    assert moved is None if rank is None else moved == pytest.approx(rank)
    groups = by_difficulty(taken, hard, best, bins=3)
    assert sum(g["count"] for g in groups) == rows
    assert sum(g["count"] * g["mean_steps"] for g in groups) == pytest.approx(taken.sum())
    assert all(a["high"] < b["low"] for a, b in pairwise(groups))
    # Dealing the same steps by chance costs their mean over all deals; two rows show it.
    if rows == 2:
        deals = [regret(cost, taken), regret(cost, taken[::-1])]
        expected = np.mean(deals) + figures["oracle_cost"]
        assert figures["random_cost"] == pytest.approx(expected)
