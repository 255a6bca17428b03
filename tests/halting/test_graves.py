"""Graves' halting: steps, weights and the ponder cost by hand, and the paper's gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hrm.halting import Graves, Rollout, graves_step, graves_weights
from hrm.rng import slot_states
from tests.halting.playing import CPU


def columns(*slots: list[float]) -> Tensor:
    return torch.tensor(slots).T.contiguous()


CHANCES = [[0.5, 0.25, 0.5, 0.9], [0.995, 0.5, 0.5, 0.5], [0.125, 0.25, 0.125, 0.25]]
"""Over K = 4 steps they reach 1 at step 3, at 1, and never."""


def rollout(chances: Tensor, counted: list[bool] | None = None) -> Rollout:
    steps, slots = chances.shape
    return Rollout(
        {"halt_logits": chances.logit().requires_grad_()},
        torch.rand(steps, slots).requires_grad_(),
        torch.zeros(steps, slots, dtype=torch.bool),
        torch.tensor(counted or [True] * slots),
    )


def test_steps_weights_and_remainders_by_hand() -> None:
    chances = columns(*CHANCES)
    step = graves_step(chances, 0.01)
    assert step.tolist() == [3, 1, 4]
    weights, remainder = graves_weights(chances, step)
    assert remainder.tolist() == [0.25, 1.0, 0.5]
    assert weights.T.tolist() == [[0.5, 0.25, 0.25, 0], [1, 0, 0, 0], [0.125, 0.25, 0.125, 0.5]]
    # Without the slack one step is never enough; with more of it fewer are.
    assert graves_step(chances, 0.0).tolist() == [3, 2, 4]
    assert graves_step(chances, 0.25).tolist() == [2, 1, 4]


def test_the_ponder_cost_is_steps_and_remainder_of_counted_slots() -> None:
    made = rollout(columns(*CHANCES), [True, False, True])
    losses = Graves(4, ponder_cost=0.5).rollout_losses(made, 0)
    assert set(losses) == {"ponder_loss"}
    assert float(losses["ponder_loss"].detach()) == pytest.approx(0.5 * (3.25 + 4.5), rel=1e-6)
    figures = Graves(4).rollout_figures(made)
    assert {name: float(value) for name, value in figures.items()} == {"policy_steps": 7.0}


def test_gradients_are_the_papers() -> None:
    """Of `N + R`: -1 to each chance before N. Of `sum p_n l_n`: `l_n - l_N` there, else nothing."""
    chances = columns(*CHANCES).requires_grad_()
    _, remainder = graves_weights(chances, graves_step(chances, 0.01))
    (grad,) = torch.autograd.grad(remainder.sum(), chances)
    assert grad.T.tolist() == [[-1, -1, 0, 0], [0, 0, 0, 0], [-1, -1, -1, 0]]
    task = columns([4.0, 2.0, 1.0, 9.0], [1.0, 9.0, 9.0, 9.0], [8.0, 4.0, 2.0, 1.0])
    weights, _ = graves_weights(chances, graves_step(chances, 0.01))
    (grad,) = torch.autograd.grad((weights * task).sum(), chances)
    assert grad.T.tolist() == [[3, 1, 0, 0], [0, 0, 0, 0], [7, 3, 1, 0]]


def test_a_ponder_cost_makes_it_halt_sooner() -> None:
    logits = torch.full((6, 1), -1.5).requires_grad_()
    made = Rollout(
        {"halt_logits": logits},
        torch.ones(6, 1),
        torch.zeros(6, 1, dtype=torch.bool),
        torch.tensor([True]),
    )
    before = graves_step(logits.sigmoid(), 0.01)
    Graves(6, ponder_cost=10.0).rollout_losses(made, 0)["ponder_loss"].backward()
    assert logits.grad is not None
    assert graves_step((logits - logits.grad).sigmoid(), 0.01) < before


@given(
    st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([-3.0, 0.0, 3.0])
)
def test_weights_sum_to_one_and_deciding_step_by_step_is_the_same(
    steps: int, slots: int, seed: int, bias: float
) -> None:
    logits = 2 * torch.randn(steps, slots, generator=torch.Generator().manual_seed(seed)) + bias
    policy = Graves(steps)
    made = rollout(logits.sigmoid())
    made.outputs["halt_logits"].data.copy_(logits)
    weights = policy.task_weights(made)
    torch.testing.assert_close(weights.sum(0), torch.ones(slots))
    assert (weights >= 0).all()
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
    assert torch.equal(found, graves_step(logits.sigmoid(), 0.01))


def test_reaching_the_bound_is_enough() -> None:
    policy, half = Graves(4, slack=0.5), torch.zeros(1)  # A chance of exactly 1/2.
    wanted, memory = policy.wish({"halt_logits": half}, policy.fresh_memory(1, CPU))
    assert wanted.tolist() == [True]
    assert [float(value) for value in memory.values()] == [0.5]
    assert graves_step(torch.full((4, 1), 0.5), 0.5).tolist() == [1]


def test_it_weighs_trajectories_with_gradient() -> None:
    made, policy = rollout(columns(*CHANCES)), Graves(4)
    assert policy.weighs
    (policy.task_weights(made) * made.task_loss).sum().backward()
    assert made.outputs["halt_logits"].grad is not None
    assert made.task_loss.grad is not None
    torch.testing.assert_close(made.task_loss.grad, policy.task_weights(made).detach())
    with pytest.raises(NotImplementedError, match="train it on rollouts"):
        policy.losses({}, torch.tensor([True]), torch.tensor([True]))


def test_it_learns_where_a_sample_is_solved() -> None:
    """Slot i is solved at step i, and the steps follow.

    From the low start: at a step before the one that solves it nothing tells that going on pays.
    """
    logits = torch.full((6, 6), -3.0).requires_grad_()
    task = (torch.arange(1, 7).unsqueeze(1) < torch.arange(1, 7)).float()
    right = torch.zeros(6, 6, dtype=torch.bool)
    policy, optimizer = Graves(6, ponder_cost=0.1), torch.optim.Adam([logits], 0.1)
    for update in range(300):
        made = Rollout({"halt_logits": logits}, task, right, right[0] | True)
        loss = (policy.task_weights(made) * task).sum()
        loss = loss + policy.rollout_losses(made, update)["ponder_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    step = graves_step(logits.detach().sigmoid(), 0.01)
    assert step.tolist() == [1, 2, 3, 4, 5, 6]
