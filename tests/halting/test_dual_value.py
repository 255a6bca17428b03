"""The two value functions: numbers by hand, gradients and their signs, a toy that is learned."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hrm.halting import (
    DualValue,
    Rollout,
    accumulate,
    at_step,
    costs,
    early_halting_loss,
    expected_loss,
    halting_distribution,
    late_halting_loss,
    log_halting_distribution,
    optimal_step,
    policy_step,
    reinforce_loss,
    scale_anchor,
    threshold_loss,
    threshold_target,
)
from hrm.halting.dual_value import ACCUMULATED
from hrm.rng import slot_states
from tests.halting import synthetic
from tests.halting.playing import CPU

LN3 = math.log(3.0)


def number(value: Tensor) -> float:
    return float(value.detach())


def columns(*slots: list[float]) -> Tensor:
    """A slot's values over the steps, each as a list, as `(steps, slots)`."""
    return torch.tensor(slots).T.contiguous()


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Contributions, thresholds and task losses `(steps, slots)`."""
    steps, slots = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    tau = 1e-3 + scale * torch.rand(steps, slots, generator=generator)
    o = 1e-3 + scale * steps * torch.rand(steps, slots, generator=generator)
    if draw(st.booleans()):
        tau, o = tau.ceil(), o.ceil()  # So that there are ties.
    return tau, o, torch.rand(steps, slots, generator=generator)


# The policy's step.


def test_the_policy_halts_at_the_first_step_above_and_not_at_a_tie() -> None:
    tau = columns([1.0, 0.5, 2.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0])
    s = accumulate(tau)
    assert s.T.tolist() == [[1, 1.5, 3.5], [1, 2, 3], [1, 2, 3], [2, 3, 4]]
    o = columns([1.0, 1.4, 9.0], [1.0, 2.0, 2.9], [9.0, 9.0, 9.0], [1.0, 9.0, 1.0])
    assert policy_step(s, o).tolist() == [2, 3, 3, 1]


@given(trajectories())
def test_policy_step_equals_a_slow_twin_and_is_the_same_on_every_scale(
    made: tuple[Tensor, Tensor, Tensor],
) -> None:
    tau, o, _ = made
    s = accumulate(tau)
    assert (s[1:] > s[:-1]).all()
    step = policy_step(s, o)
    for slot in range(tau.shape[1]):
        total, twin = torch.tensor(0.0), len(tau)
        for n in reversed(range(len(tau))):
            total = sum(tau[: n + 1, slot], torch.tensor(0.0))
            twin = n + 1 if total > o[n, slot] else twin
        assert step[slot] == twin
    for scale in (0.25, 8.0):  # Powers of two change no rounding.
        assert torch.equal(policy_step(accumulate(scale * tau), scale * o), step)


@given(trajectories())
def test_deciding_step_by_step_is_the_policy_on_the_trajectory(
    made: tuple[Tensor, Tensor, Tensor],
) -> None:
    tau, o, _ = made
    steps, slots = tau.shape
    policy = DualValue(steps)
    rng, extra = slot_states(0, slots), policy.fresh_extra(slots, CPU)
    found = torch.zeros(slots, dtype=torch.int64)
    for n in range(1, steps + 1):
        outputs = {"contribution": tau[n - 1], "threshold": o[n - 1]}
        margin, count = policy.margin(outputs, extra), torch.full((slots,), n, dtype=torch.int32)
        halted, rng, extra = policy.decide(
            outputs, count, rng, extra, training=False, adaptive=True
        )
        assert torch.equal(extra[ACCUMULATED], accumulate(tau)[n - 1])
        assert torch.equal(margin, accumulate(tau)[n - 1] - o[n - 1])
        if n < steps and steps > 1:
            assert torch.equal(halted, margin > 0)
        found = torch.where(halted & (found == 0), n, found)
    assert torch.equal(found, policy_step(accumulate(tau), o))


def test_evaluation_runs_to_the_limit_and_still_remembers() -> None:
    policy = DualValue(3)
    outputs = {"contribution": torch.tensor([2.0]), "threshold": torch.tensor([1.0])}
    extra = policy.fresh_extra(1, CPU)
    assert extra[ACCUMULATED].tolist() == [0.0]
    for n, ends in ((1, False), (2, False), (3, True)):
        count = torch.tensor([n], dtype=torch.int32)
        done = policy.decide(
            outputs, count, slot_states(0, 1), extra, training=False, adaptive=False
        )
        extra = done.extra
        assert done.halted.tolist() == [ends]
        assert extra[ACCUMULATED].tolist() == [2.0 * n]


# The best step.


def test_costs_and_the_best_step_by_hand() -> None:
    task = columns([1.0, 0.5, 0.45], [0.2, 0.2, 0.2], [3.0, 2.0, 1.0]).requires_grad_()
    cost = costs(task, 0.125)
    assert cost.T.tolist() == [
        pytest.approx([1.125, 0.75, 0.825]),
        pytest.approx([0.325, 0.45, 0.575]),
        pytest.approx([3.125, 2.25, 1.375]),
    ]
    assert not cost.requires_grad
    assert optimal_step(cost, 0.0).tolist() == [2, 1, 3]
    assert optimal_step(cost, 0.9).tolist() == [1, 1, 2]
    assert optimal_step(columns([2.0, 1.0, 1.0]), 0.0).tolist() == [2]
    assert optimal_step(columns([1.5, 1.0, 1.0]), 0.5).tolist() == [1]


# The threshold.


def test_the_threshold_learns_half_a_contribution_below_s_at_the_best_step() -> None:
    tau, best = columns([1.0, 0.5, 2.0], [1.0, 1.0, 1.0]), torch.tensor([2, 1])
    s = accumulate(tau)
    assert threshold_target(s, tau, best, "midpoint").tolist() == [1.25, 0.5]
    assert threshold_target(s, tau, best, "literal").tolist() == [1.5, 1.0]
    o = columns([9.0, 1.0, 9.0], [2.0, 9.0, 9.0])
    assert threshold_loss(tau, o, best, "midpoint").tolist() == [0.0625, 2.25]
    assert threshold_loss(tau, o, best, "literal").tolist() == [0.25, 1.0]


@given(trajectories(), st.data())
def test_a_perfect_threshold_halts_at_the_best_step_at_the_midpoint_only(
    made: tuple[Tensor, Tensor, Tensor], data: st.DataObject
) -> None:
    tau, _, _ = made
    steps, slots = tau.shape
    best = torch.tensor([data.draw(st.integers(1, steps)) for _ in range(slots)])
    s = accumulate(tau)
    midpoint = threshold_target(s, tau, best, "midpoint").expand(steps, slots)
    assert torch.equal(policy_step(s, midpoint), best)
    literal = threshold_target(s, tau, best, "literal").expand(steps, slots)
    assert torch.equal(policy_step(s, literal), (best + 1).clamp(max=steps))


def test_the_thresholds_loss_reaches_it_alone_and_at_the_best_step_alone() -> None:
    tau = columns([1.0, 0.5, 2.0]).requires_grad_()
    o = columns([9.0, 1.0, 9.0]).requires_grad_()
    threshold_loss(tau, o, torch.tensor([2]), "midpoint").sum().backward()
    assert tau.grad is None
    assert o.grad is not None
    assert o.grad.T.tolist() == [[0.0, -0.5, 0.0]]


def test_what_a_threshold_lacks_before_the_best_step_by_hand() -> None:
    tau = columns([1.0, 0.5, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [4.0, 1.0, 1.0, 1.0]).requires_grad_()
    # S is 1 1.5 3.5 4.5; halfway to the next 1.25 2.5 4.
    o = columns([1.0, 9.0, 3.0, 0.0], [0.5, 0.5, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]).requires_grad_()
    lacking = early_halting_loss(tau, o, torch.tensor([4, 3, 1]))
    assert lacking.tolist() == [0.25**2 + 1.0, 1.0 + 2.0**2, 0.0]
    lacking.sum().backward()
    assert tau.grad is None
    assert o.grad is not None
    assert o.grad.T.tolist() == [[-0.5, 0, -2.0, 0], [-2.0, -4.0, 0, 0], [0, 0, 0, 0]]


@given(trajectories(), st.data())
def test_a_threshold_that_lacks_nothing_never_halts_too_early(
    made: tuple[Tensor, Tensor, Tensor], data: st.DataObject
) -> None:
    tau, o, _ = made
    best = torch.tensor([data.draw(st.integers(1, len(tau))) for _ in range(tau.shape[1])])
    s = accumulate(tau)
    early = policy_step(s, o) < best
    assert (early_halting_loss(tau, o, best)[early] > 0).all()
    # The midpoint that k* asks for lacks nothing at any step before it.
    perfect = threshold_target(s, tau, best, "midpoint").expand(tau.shape)
    assert early_halting_loss(tau, perfect, best).tolist() == pytest.approx(
        [0.0] * len(best), abs=1e-6
    )


def test_halting_too_late_by_hand() -> None:
    tau = columns([1.0, 0.5, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [4.0, 1.0, 1.0, 1.0]).requires_grad_()
    # Halfway to S at k* = 1, 3 and 4: 0.5, 2.5 and 6.5.
    o = columns([9.0, 0.0, 0.75, 2.5], [9.0, 9.0, 9.0, 3.0], [9.0, 9.0, 9.0, 9.0]).requires_grad_()
    beyond = late_halting_loss(tau, o, torch.tensor([1, 3, 4]))
    assert beyond.tolist() == [0.25**2 + 2.0**2, 0.5**2, 0.0]
    beyond.sum().backward()
    assert tau.grad is None
    assert o.grad is not None
    assert o.grad.T.tolist() == [[0, 0, 0.5, 4.0], [0, 0, 0, 1.0], [0, 0, 0, 0]]


@given(trajectories(), st.data())
def test_a_threshold_that_asks_no_more_after_the_best_step_halts_at_the_next_one(
    made: tuple[Tensor, Tensor, Tensor], data: st.DataObject
) -> None:
    tau, o, _ = made
    best = torch.tensor([data.draw(st.integers(1, len(tau))) for _ in range(tau.shape[1])])
    step = policy_step(accumulate(tau), o)
    assert (late_halting_loss(tau, o, best)[step > best + 1] > 0).all()
    perfect = threshold_target(accumulate(tau), tau, best, "midpoint").expand(tau.shape)
    assert late_halting_loss(tau, perfect, best).tolist() == [0.0] * len(best)


# The contribution.


def test_the_soft_policys_chances_by_hand() -> None:
    s, o = columns([1.0, 1.0 + LN3, 7.0]), columns([1.0, 1.0, 1.0])
    for temperature, floor, by_hand in (
        (1.0, 0.0, [0.5, 0.375, 0.125]),  # h = 1/2, 3/4, 1
        (1.0, 0.1, [0.5, 0.35, 0.15]),  # 1/2, 0.1 + 0.8 * 3/4, 1
        (0.5, 0.0, [0.5, 0.45, 0.05]),  # 1/2, 9/10, 1
    ):
        chances = halting_distribution(s, o, temperature, floor)
        assert chances.T.tolist() == [pytest.approx(by_hand, rel=1e-5)]
    cost = columns([4.0, 2.0, 1.0])
    log_chances = log_halting_distribution(s, o, 1.0, 0.0)
    assert expected_loss(log_chances, cost).tolist() == pytest.approx([2.0 + 0.75 + 0.125])


@given(trajectories(), st.sampled_from([0.01, 1.0, 10.0]), st.sampled_from([0.0, 0.01, 0.3]))
def test_the_soft_policys_chances_sum_to_one(
    made: tuple[Tensor, Tensor, Tensor], temperature: float, floor: float
) -> None:
    tau, o, _ = made
    chances = halting_distribution(accumulate(tau), o, temperature, floor)
    torch.testing.assert_close(chances.sum(0), torch.ones(tau.shape[1]), rtol=0, atol=2e-6)
    assert (chances >= 0).all()
    # Until step K, halting and going on have the floor at least, each; there halting is certain.
    exponents = torch.arange(1, len(tau) + 1)
    exponents[-1] -= 1
    assert (chances >= 0.999 * (floor**exponents).unsqueeze(1)).all()


def test_with_a_cold_temperature_the_soft_policy_is_the_policy() -> None:
    torch.manual_seed(1)
    s, o = accumulate(torch.rand(6, 50)), 3 * torch.rand(6, 50)
    chances = halting_distribution(s, o, 1e-5, 0.0)
    assert torch.equal(chances.argmax(0) + 1, policy_step(s, o))


def test_the_floor_lets_steps_learn_that_are_never_reached() -> None:
    learned = {}
    for floor in (0.0, 0.05):
        s = columns([9.0, 9.5, 10.0]).requires_grad_()
        o = columns([1.0, 9.5, 1.0])
        log_chances = log_halting_distribution(s, o, 0.5, floor)
        expected_loss(log_chances, columns([3.0, 2.0, 1.0])).sum().backward()
        assert s.grad is not None
        learned[floor] = float(s.grad[1])
    assert learned[0.05] > 1e4 * learned[0.0]


def gradient(tau: Tensor, o: Tensor, task: Tensor, **settings: Any) -> Tensor:
    """Of the contribution's loss to `S`."""
    s = accumulate(tau).requires_grad_()
    log_chances = log_halting_distribution(s, o, settings.get("temperature", 1.0), 0.01)
    expected_loss(log_chances, costs(task, 0.1)).sum().backward()
    assert s.grad is not None
    return s.grad


def test_the_contributions_loss_reaches_neither_the_threshold_nor_the_task() -> None:
    torch.manual_seed(2)
    tau, o = torch.rand(4, 3).requires_grad_(), torch.rand(4, 3).requires_grad_()
    task = torch.rand(4, 3).requires_grad_()
    log_chances = log_halting_distribution(accumulate(tau), o, 1.0, 0.01)
    expected_loss(log_chances, task).sum().backward()
    assert tau.grad is not None
    assert (tau.grad[:3] != 0).all()
    assert o.grad is None
    assert task.grad is None


def test_s_falls_where_halting_is_too_early_and_rises_where_it_is_too_late() -> None:
    tau, o = torch.ones(4, 2), torch.full((4, 2), 2.5)
    # Work pays in the first sample at every step, in the second at none.
    task = columns([4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    assert optimal_step(costs(task, 0.1), 0.0).tolist() == [4, 1]
    assert policy_step(accumulate(tau), o).tolist() == [3, 3]
    for kind in ("expected", "reinforce"):
        learning = tau.clone().requires_grad_()
        made = Rollout(
            {"contribution": learning, "threshold": o},
            task,
            torch.zeros(4, 2, dtype=torch.bool),
            torch.ones(2, dtype=torch.bool),
        )
        policy = DualValue(
            4, step_penalty=0.1, contribution_loss=kind, alternate_every=0, anchor_weight=0.0
        )
        updates = 1 if kind == "expected" else 100
        sum(policy.rollout_losses(made, u)["contribution_loss"] for u in range(updates)).backward()  # type: ignore[union-attr]
        assert learning.grad is not None
        after = accumulate(tau - 0.1 / updates * learning.grad)
        before = accumulate(tau)
        assert (after[:3, 0] < before[:3, 0]).all(), kind
        assert (after[:3, 1] > before[:3, 1]).all(), kind


@given(trajectories())
def test_the_sign_is_right_at_every_step_where_costs_only_fall_or_only_rise(
    made: tuple[Tensor, Tensor, Tensor],
) -> None:
    tau, o, task = made
    if len(tau) == 1:
        return
    tau, o = tau / tau.max(), o / o.max()
    falling = (1 + task).flip(0).cumsum(0).flip(0)  # By 1 at least, and a step costs 0.1.
    assert (gradient(tau, o, falling)[:-1] > 0).all()
    assert (gradient(tau, o, -0.0 * falling)[:-1] < 0).all()
    assert (gradient(tau, o, falling)[-1] == 0).all()


def test_the_sampled_gradient_has_the_expected_ones_mean() -> None:
    torch.manual_seed(3)
    tau, o, cost = torch.rand(5, 1), 2 * torch.rand(5, 1), torch.rand(5, 1)
    samples = 200_000
    draws = torch.rand(samples, generator=torch.Generator().manual_seed(4))
    exact = tau.clone().requires_grad_()
    expected_loss(log_halting_distribution(accumulate(exact), o, 0.7, 0.02), cost).sum().backward()
    sampled = tau.clone().requires_grad_()
    log_chances = log_halting_distribution(accumulate(sampled), o, 0.7, 0.02)
    many = reinforce_loss(log_chances.expand(5, samples), cost.expand(5, samples), draws)
    many.mean().backward()
    assert exact.grad is not None
    assert sampled.grad is not None
    assert exact.grad[:4].abs().min() > 0.01
    torch.testing.assert_close(sampled.grad, exact.grad, rtol=0, atol=0.003)


def test_the_baseline_makes_the_sampled_gradient_blind_to_a_constant_cost() -> None:
    torch.manual_seed(5)
    tau, o, cost, draws = torch.rand(5, 9), 2 * torch.rand(5, 9), torch.rand(5, 9), torch.rand(9)
    losses = []
    for constant in (0.0, 7.0):
        log_chances = log_halting_distribution(accumulate(tau), o, 0.7, 0.02)
        losses.append(reinforce_loss(log_chances, cost + constant, draws))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_the_anchor_by_hand() -> None:
    tau = columns([1.0, 3.0], [4.0, 2 * math.e - 8 + 2 * math.e], [torch.nan, torch.nan])
    both = torch.tensor([True, True, False])
    assert number(scale_anchor(tau, both)) == pytest.approx(1.0, rel=1e-6)  # Their mean is e.
    first = torch.tensor([True, False, False])
    assert number(scale_anchor(tau, first)) == pytest.approx(math.log(2) ** 2, rel=1e-6)
    small = torch.full((2, 3), 0.01).requires_grad_()
    scale_anchor(small, both).backward()
    assert small.grad is not None
    assert (small.grad[:, :2] < 0).all()
    assert (small.grad[:, 2] == 0).all()
    assert number(scale_anchor(small, torch.zeros(3, dtype=torch.bool))) == 0.0


# The policy as a whole: K = 3, step penalty 0.125, three samples.

TAU = [[1.0, 0.5, 2.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
"""S is 1 1.5 3.5, 1 2 3, 1 2 3."""
THRESHOLD = [[9.0, 2.0, 1.0], [0.5, 1.0, 1.0], [9.0, 1.0, 1.0]]
"""So the policy halts at 3, 1, 2."""
TASK = [[1.0, 0.5, 0.5], [0.25, 0.25, 0.25], [2.0, 1.0, 0.0]]
"""Costs are 1.125 0.75 0.875, 0.375 0.5 0.625, 2.125 1.25 0.375, so k* is 2, 1, 3."""


def rollout(counted: list[bool] | None = None) -> Rollout:
    return Rollout(
        {
            "contribution": columns(*TAU).requires_grad_(),
            "threshold": columns(*THRESHOLD).requires_grad_(),
        },
        columns(*TASK).requires_grad_(),
        torch.zeros(3, 3, dtype=torch.bool),
        torch.tensor(counted or [True] * 3),
    )


def policy_of(**settings: Any) -> DualValue:
    return DualValue(3, **{"step_penalty": 0.125, "early_weight": 0.0, **settings})


def test_only_samples_where_the_policy_is_wrong_teach_and_their_sum_is_the_loss() -> None:
    # Midpoints 1.25, 0.5 and 2.5; o there is 2, 0.5 and 1.
    squares = [0.75**2, 0.0, 1.5**2]
    losses = policy_of().rollout_losses(rollout(), 0)
    assert set(losses) == {"threshold_loss"}
    assert number(losses["threshold_loss"]) == pytest.approx(sum(squares))
    shifted = rollout()
    shifted.outputs["threshold"].data[0, 1] = 0.75  # The second policy step is 1, as before.
    for conditional, more in ((True, 0.0), (False, 0.25**2)):
        loss = policy_of(conditional=conditional).rollout_losses(shifted, 0)["threshold_loss"]
        assert number(loss) == pytest.approx(sum(squares) + more)


def test_halting_too_early_counts_for_the_threshold_where_it_is_asked_for() -> None:
    made = rollout()
    assert set(policy_of(early_weight=0.5).rollout_losses(made, 50)) == {
        "contribution_loss",
        "anchor_loss",
    }
    # Halfway to the next S are 1.25, 2.25 before k* = 2 and 1.5, 2.5 before k* = 3.
    made.outputs["threshold"].data = columns([1.0, 2.0, 1.0], [0.5, 1.0, 1.0], [9.0, 1.0, 1.0])
    for counted, by_hand in (([True] * 3, 0.25**2 + 1.5**2), ([True, True, False], 0.25**2)):
        made.counted[:] = torch.tensor(counted)
        losses = policy_of(early_weight=0.5).rollout_losses(made, 0)
        assert set(losses) == {"threshold_loss", "early_loss"}
        assert number(losses["early_loss"]) == pytest.approx(0.5 * by_hand)
    # A right sample teaches nothing, as elsewhere: the first now halts at its k*, 2.
    made.outputs["threshold"].data[:, 0] = torch.tensor([1.0, 1.25, 1.0])
    assert number(policy_of(early_weight=1.0).rollout_losses(made, 0)["early_loss"]) == 0
    unconditional = policy_of(early_weight=1.0, conditional=False)
    assert number(unconditional.rollout_losses(made, 0)["early_loss"]) == pytest.approx(0.25**2)


def test_a_threshold_that_is_right_at_the_best_step_alone_is_taught_to_wait() -> None:
    tau = columns([0.001, 0.001, 0.001, 1.0])
    task = columns([1.0, 0.9, 0.8, 0.0])
    for early_weight, halts in ((0.0, 1.0), (1.0, 4.0)):
        o = columns([0.0, 0.0, 0.0, 0.503]).requires_grad_()
        policy = DualValue(4, alternate_every=0, anchor_weight=0.0, early_weight=early_weight)
        for _ in range(40):
            made = synthetic.rollout_of({"contribution": tau, "threshold": o}, task)
            losses = policy.rollout_losses(made, 0)
            del losses["contribution_loss"]
            o.grad = None
            torch.stack(list(losses.values())).sum().backward()
            assert o.grad is not None
            o.data -= 0.2 * o.grad
        assert number(policy.rollout_figures(made)["policy_steps"]) == halts, early_weight


def test_a_threshold_that_missed_the_best_step_is_taught_to_halt_at_the_next() -> None:
    tau, task = columns([1.0, 1.0, 0.001, 0.001]), columns([1.0, 0.0, 0.0, 0.0])
    for late_weight, halts in ((0.0, 4.0), (1.0, 3.0)):
        # At k* = 2 it stays above S, as where it can't tell.
        o = columns([9.0, 9.0, 9.0, 9.0])
        policy = DualValue(4, alternate_every=0, anchor_weight=0.0, late_weight=late_weight)
        for _ in range(40):
            o.requires_grad_().grad = None
            made = synthetic.rollout_of({"contribution": tau, "threshold": o}, task)
            losses = policy.rollout_losses(made, 0)
            del losses["contribution_loss"], losses["threshold_loss"]
            torch.stack(list(losses.values())).sum().backward()
            assert o.grad is not None
            o = (o - 0.2 * o.grad).detach()
        made.outputs["threshold"] = o
        assert number(policy.rollout_figures(made)["policy_steps"]) == halts, late_weight


@pytest.mark.parametrize("kind", ["expected", "reinforce"])
def test_the_contribution_learns_from_the_same_samples(kind: Any) -> None:
    for conditional in (True, False):
        made = rollout()
        policy = policy_of(conditional=conditional, contribution_loss=kind, anchor_weight=0.0)
        total = sum(
            policy.rollout_losses(made, update)["contribution_loss"] for update in range(50, 80)
        )
        total.backward()  # type: ignore[union-attr]
        grad = made.outputs["contribution"].grad
        assert grad is not None
        assert grad.abs().sum(0).gt(0).tolist() == [True, not conditional, True]


def test_the_expected_cost_of_the_whole_policy_by_hand() -> None:
    made = rollout([True, False, False])
    policy = policy_of(temperature=(2.0, 2.0), floor=0.0, alternate_every=0, anchor_weight=0.0)
    h_1, h_2 = 1 / (1 + math.exp(4.0)), 1 / (1 + math.exp(0.25))
    by_hand = h_1 * 1.125 + (1 - h_1) * (h_2 * 0.75 + (1 - h_2) * 0.875)
    loss = policy.rollout_losses(made, 0)["contribution_loss"]
    assert number(loss) == pytest.approx(by_hand, rel=1e-6)


def test_uncounted_samples_leave_no_trace() -> None:
    made = rollout([True, True, False])
    made.task_loss.data[:, 2] = torch.nan
    policy = policy_of(alternate_every=0)
    losses = policy.rollout_losses(made, 0)
    assert number(losses["threshold_loss"]) == pytest.approx(0.75**2)
    torch.stack(list(losses.values())).sum().backward()
    for name in ("contribution", "threshold"):
        grad = made.outputs[name].grad
        assert grad is not None
        assert (grad[:, 2] == 0).all()
        assert grad.isfinite().all()
    assert made.task_loss.grad is None
    assert number(policy.rollout_figures(made)["agreement"]) == 1.0


def test_a_rollout_without_any_label_teaches_nothing() -> None:
    made = rollout([False] * 3)
    losses = policy_of(alternate_every=0).rollout_losses(made, 0)
    assert all(number(loss) == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    grad = made.outputs["contribution"].grad
    assert grad is not None
    assert (grad == 0).all()


def test_the_heads_take_turns_after_the_warm_up() -> None:
    policy = policy_of(warmup_updates=5, alternate_every=3)
    turns = [policy.learning(update) for update in range(14)]
    assert turns == [()] * 5 + [("threshold",)] * 3 + [("contribution",)] * 3 + [("threshold",)] * 3
    assert policy.rollout_losses(rollout(), 4) == {}
    for update, learns, rests, names in (
        (5, "threshold", "contribution", {"threshold_loss"}),
        (8, "contribution", "threshold", {"contribution_loss", "anchor_loss"}),
    ):
        made = rollout()
        losses = policy.rollout_losses(made, update)
        assert set(losses) == names
        torch.stack(list(losses.values())).sum().backward()
        assert made.outputs[learns].grad is not None
        assert made.outputs[rests].grad is None
        assert made.task_loss.grad is None
    together = policy_of(warmup_updates=5, alternate_every=0)
    assert together.learning(4) == ()
    assert set(together.learning(5)) == {"threshold", "contribution"}


def test_the_temperature_falls_geometrically_after_the_warm_up() -> None:
    policy = policy_of(temperature=(1.0, 0.01), anneal_updates=10, warmup_updates=5)
    got = [policy.temperature_at(update) for update in (0, 5, 10, 15, 99)]
    assert got == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.01])
    assert policy_of(temperature=(1.0, 0.1), anneal_updates=0).temperature_at(0) == 0.1


def test_the_temperature_is_the_updates_own() -> None:
    policy = policy_of(
        alternate_every=0, temperature=(2.0, 0.5), anneal_updates=2, anchor_weight=0.0
    )
    got = [number(policy.rollout_losses(rollout(), u)["contribution_loss"]) for u in (0, 1, 2, 3)]
    assert len({round(loss, 5) for loss in got[:3]}) == 3
    assert got[2] == got[3]


def test_the_anchor_counts_once_per_counted_slot() -> None:
    policy = policy_of(alternate_every=0, anchor_weight=0.5)
    made = rollout([True, False, True])
    mean = (3.5 + 3.0) / 6
    loss = policy.rollout_losses(made, 0)["anchor_loss"]
    assert number(loss) == pytest.approx(0.5 * 2 * math.log(mean) ** 2, rel=1e-5)
    assert "anchor_loss" not in policy_of(anchor_weight=0.0).rollout_losses(made, 50)


def test_a_sampled_step_depends_on_the_update_alone() -> None:
    policy = policy_of(alternate_every=0, contribution_loss="reinforce", temperature=(2.0, 2.0))
    losses = [number(policy.rollout_losses(rollout(), u)["contribution_loss"]) for u in range(30)]
    again = [number(policy.rollout_losses(rollout(), u)["contribution_loss"]) for u in range(30)]
    assert losses == again
    assert len(set(losses)) > 3


def test_figures_by_hand() -> None:
    figures = policy_of().rollout_figures(rollout())
    assert {name: number(value) for name, value in figures.items()} == {
        "agreement": 1.0,
        "regret": 0.125 + 0.0 + 0.875,
        "policy_steps": 6.0,
        "optimal_steps": 6.0,
    }
    assert not any(value.requires_grad for value in figures.values())
    near = policy_of(optimum_tolerance=0.5).rollout_figures(rollout([True, False, False]))
    assert number(near["optimal_steps"]) == 1.0
    assert number(near["regret"]) == 0.125  # Above the lowest cost, not above that of k*.


def test_the_task_is_learned_at_all_steps_and_one_step_alone_teaches_nothing() -> None:
    policy = policy_of()
    assert policy.task_weights(rollout()).tolist() == [[pytest.approx(1 / 3)] * 3] * 3
    with pytest.raises(NotImplementedError, match="train it on rollouts"):
        policy.losses({}, torch.tensor([True]), torch.tensor([True]))


def test_at_step_picks_each_slots_own() -> None:
    values = columns([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert at_step(values, torch.tensor([3, 1])).tolist() == [3.0, 4.0]


# Learning: a hidden difficulty, costs whose best step is spread over 1 to 8.

SHORT: dict[str, Any] = {"updates": 300, "batch": 64, "lr": 6e-3}


WHOLE = [pytest.param(s, {}, 0.9, 0.02, marks=pytest.mark.slow) for s in range(3)]


@pytest.mark.parametrize(
    ("seed", "length", "agreement", "regret"), [(0, SHORT, 0.88, 0.05), *WHOLE]
)
@pytest.mark.parametrize("early_weight", [0.0, 1.0])
def test_it_learns_where_to_halt(
    early_weight: float, seed: int, length: dict[str, Any], agreement: float, regret: float
) -> None:
    figures = synthetic.train(seed, early_weight=early_weight, **length)
    assert figures.agreement > agreement, figures
    assert figures.regret < regret * figures.fixed_regret, figures
    assert figures.spread > 1.5, figures
    assert 0.7 < figures.mean_contribution < 1.4, figures


def test_a_frozen_contribution_and_the_wrong_sign_do_not() -> None:
    # With the loss on halting too early the threshold alone would make up for some of it.
    alone: dict[str, Any] = {"early_weight": 0.0, **SHORT}
    frozen = synthetic.train(0, frozen=True, **alone)
    assert frozen.agreement < 0.4, frozen
    assert frozen.regret > frozen.fixed_regret, frozen
    wrong = synthetic.train(0, sign=-1.0, **alone)
    assert wrong.agreement < 0.2, wrong
    assert wrong.regret > wrong.fixed_regret, wrong


def test_two_runs_agree() -> None:
    short: dict[str, Any] = {"updates": 30, "batch": 16, "contribution_loss": "reinforce"}
    assert synthetic.train(0, **short) == synthetic.train(0, **short)
