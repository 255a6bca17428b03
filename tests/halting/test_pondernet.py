"""PonderNet: the distribution of the halting step, the divergence from its prior, its median."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hrm.halting import (
    PonderNet,
    Rollout,
    log_geometric,
    median_step,
    pondernet_log_weights,
    prior_divergence,
)
from hrm.rng import slot_states
from tests.halting.playing import CPU

CHANCES = [[0.5, 0.5, 0.5], [0.25, 0.5, 0.9], [0.125, 0.125, 0.125], [0.75, 0.5, 0.5]]
"""Of halting at each of K = 3 steps."""
WEIGHTS = [[0.5, 0.25, 0.25], [0.25, 0.375, 0.375], [0.125, 7 / 64, 49 / 64], [0.75, 0.125, 0.125]]


def columns(*slots: list[float]) -> Tensor:
    return torch.tensor(slots).T.contiguous()


def rollout(counted: list[bool] | None = None) -> Rollout:
    return Rollout(
        {"halt_logits": columns(*CHANCES).logit().requires_grad_()},
        torch.rand(3, 4).requires_grad_(),
        torch.zeros(3, 4, dtype=torch.bool),
        torch.tensor(counted or [True] * 4),
    )


def test_the_distribution_by_hand_and_the_last_step_takes_the_rest() -> None:
    weights = PonderNet(3).task_weights(rollout())
    assert weights.T.tolist() == [pytest.approx(row, rel=1e-5) for row in WEIGHTS]


def test_the_prior_is_a_geometric_distribution_cut_off() -> None:
    prior = log_geometric(torch.zeros(3, 2), 0.5).exp()
    assert prior.squeeze(1).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_the_divergence_by_hand() -> None:
    log_weights = pondernet_log_weights(columns([0.5, 0.5, 0.5]).logit())
    prior = [4 / 7, 2 / 7, 1 / 7]
    by_hand = sum(p * math.log(p / q) for p, q in zip(WEIGHTS[0], prior, strict=True))
    assert prior_divergence(log_weights, 0.5).tolist() == pytest.approx([by_hand], rel=1e-5)


@given(st.floats(0.05, 0.95), st.integers(1, 8))
def test_the_divergence_is_zero_at_the_prior_alone(prior: float, steps: int) -> None:
    at = log_geometric(torch.zeros(steps, 1), prior)
    assert prior_divergence(at, prior).abs().max() < 1e-5
    if steps > 1:
        other = log_geometric(torch.zeros(steps, 1), 1 - 0.8 * prior)
        same = abs(1 - 0.8 * prior - prior) < 0.05
        assert same or prior_divergence(other, prior).min() > 1e-5


def test_the_loss_is_weighted_and_summed_over_counted_slots() -> None:
    made, policy = rollout([True, False, True, False]), PonderNet(3, prior=0.5, beta=0.25)
    losses = policy.rollout_losses(made, 0)
    assert set(losses) == {"prior_loss"}
    prior = [4 / 7, 2 / 7, 1 / 7]
    by_hand = [sum(p * math.log(p / q) for p, q in zip(w, prior, strict=True)) for w in WEIGHTS]
    assert float(losses["prior_loss"].detach()) == pytest.approx(
        0.25 * (by_hand[0] + by_hand[2]), rel=1e-5
    )


def test_gradients_of_the_expected_task_loss_by_hand() -> None:
    """To lambda_1: what halting there costs over going on; to the last one, nothing."""
    made, policy = rollout(), PonderNet(3)
    made.task_loss.data.copy_(torch.tensor([[4.0], [2.0], [1.0]]).expand(3, 4))
    (policy.task_weights(made) * made.task_loss).sum().backward()
    grad = made.outputs["halt_logits"].grad
    assert grad is not None
    lambdas = columns(*CHANCES)
    slope = lambdas * (1 - lambdas)
    first = 4 - (lambdas[1] * 2 + (1 - lambdas[1]) * 1)
    torch.testing.assert_close(grad[0], slope[0] * first)
    torch.testing.assert_close(grad[1], slope[1] * (1 - lambdas[0]) * (2 - 1))
    assert (grad[2] == 0).all()
    torch.testing.assert_close(made.task_loss.grad, policy.task_weights(made).detach())
    assert policy.weighs


def test_it_halts_at_the_median_strictly() -> None:
    logits = columns(*CHANCES).logit()
    assert median_step(logits).tolist() == [2, 2, 3, 1]
    figures = PonderNet(3).rollout_figures(rollout([True, True, False, True]))
    assert float(figures["policy_steps"]) == 5.0
    expected = sum(n * p for row in (0, 1, 3) for n, p in enumerate(WEIGHTS[row], start=1))
    assert float(figures["expected_steps"]) == pytest.approx(expected, rel=1e-5)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([1.0, 30.0]))
def test_weights_sum_to_one_and_deciding_step_by_step_is_the_median(
    steps: int, slots: int, seed: int, scale: float
) -> None:
    logits = scale * torch.randn(steps, slots, generator=torch.Generator().manual_seed(seed))
    weights = pondernet_log_weights(logits).exp()
    torch.testing.assert_close(weights.sum(0), torch.ones(slots))
    assert prior_divergence(pondernet_log_weights(logits), 0.2).isfinite().all()
    policy = PonderNet(steps)
    rng, extra = slot_states(0, slots), policy.fresh_extra(slots, CPU)
    found = torch.zeros(slots, dtype=torch.int64)
    for n in range(1, steps + 1):
        halted, rng, extra = policy.decide(
            {"halt_logits": logits[n - 1]},
            torch.full((slots,), n, dtype=torch.int32),
            rng,
            extra,
            training=False,
            adaptive=True,
        )
        found = torch.where(halted & (found == 0), n, found)
    assert torch.equal(found, median_step(logits))
    cumulative = weights.double().cumsum(0)
    clear = ((cumulative - 0.5).abs() > 1e-5).all(0)
    twin = torch.where(cumulative > 0.5, 1, 0).argmax(0) + 1
    assert torch.equal(found[clear], twin[clear])


def test_one_step_alone_teaches_nothing() -> None:
    with pytest.raises(NotImplementedError, match="train it on rollouts"):
        PonderNet(3).losses({}, torch.tensor([True]), torch.tensor([True]))


def test_it_learns_where_a_sample_is_solved() -> None:
    """Slot i is solved at step i: the median follows."""
    logits = torch.full((6, 6), -1.0).requires_grad_()
    task = (torch.arange(1, 7).unsqueeze(1) < torch.arange(1, 7)).float()
    right = torch.zeros(6, 6, dtype=torch.bool)
    policy, optimizer = PonderNet(6, prior=0.5, beta=0.1), torch.optim.Adam([logits], 0.1)
    for update in range(300):
        made = Rollout({"halt_logits": logits}, task, right, right[0] | True)
        loss = (policy.task_weights(made) * task).sum()
        loss = loss + policy.rollout_losses(made, update)["prior_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert median_step(logits.detach()).tolist() == [1, 2, 3, 4, 5, 6]
