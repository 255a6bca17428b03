"""The two losses of HRM's halting by hand, and what the last-step case is for, on a known chain."""

import math

import pytest
import torch
from torch import Tensor

from hrm.halting import HaltOnly, QLearning, act_continue, act_halt, continue_target

LN3 = math.log(3.0)  # sigmoid(ln 3) = 3/4


def test_act_halt_is_half_the_cross_entropy_with_being_right() -> None:
    q_halt = torch.tensor([LN3, LN3, 0.0], requires_grad=True)
    losses = act_halt(q_halt, torch.tensor([True, False, True]))
    by_hand = [0.5 * math.log(4 / 3), 0.5 * math.log(4), 0.5 * math.log(2)]
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-6)
    losses.sum().backward()
    # 0.5 * (sigmoid(q) - target): up where right, down where wrong.
    assert q_halt.grad is not None
    assert q_halt.grad.tolist() == pytest.approx([-0.125, 0.375, -0.25], rel=1e-6)


def test_act_continue_in_both_cases_of_the_document() -> None:
    halt = torch.tensor([LN3, LN3, -LN3, -LN3], requires_grad=True)
    go_on = torch.tensor([0.0, 0.0, 0.0, 0.0], requires_grad=True)
    is_last = torch.tensor([True, False, True, False])
    target = continue_target(halt, go_on, is_last)
    # Last step: sigmoid(q_halt). Else the better of both, its own value for the fourth.
    assert target.tolist() == pytest.approx([0.75, 0.75, 0.25, 0.5], rel=1e-6)
    act_continue(go_on, target).sum().backward()
    assert go_on.grad is not None
    assert go_on.grad.tolist() == pytest.approx([-0.125, -0.125, 0.125, 0.0], rel=1e-6)
    assert halt.grad is None  # the target has no gradient


def test_a_target_with_a_graph_gets_no_gradient_either() -> None:
    q = torch.tensor([0.3], requires_grad=True)
    source = torch.tensor([0.6], requires_grad=True)
    act_continue(q, source * 1.0).sum().backward()
    assert source.grad is None
    assert q.grad is not None


@pytest.mark.parametrize(
    ("target", "needs"),
    [
        ("bootstrap", (True, False, False)),
        ("pseudocode", (True, True, False)),
        ("next_step", (False, False, True)),
    ],
)
def test_each_target_says_what_it_needs(target: str, needs: tuple[bool, ...]) -> None:
    policy = QLearning(4, target=target)
    assert (policy.looks_ahead, policy.learns_ahead, policy.looks_back) == needs


def test_a_policy_with_one_value_looks_nowhere() -> None:
    nobody = torch.tensor([False])
    assert not HaltOnly(4).looks_ahead
    assert not HaltOnly(4).looks_back
    with pytest.raises(NotImplementedError, match="HaltOnly does not look back"):
        HaltOnly(4).look_back({}, {}, nobody, nobody)
    with pytest.raises(NotImplementedError, match="HaltOnly does not look ahead"):
        HaltOnly(4).look_ahead({}, nobody)


def values(halt: list[float], go_on: list[float]) -> dict[str, Tensor]:
    return {"q_halt_logits": torch.tensor(halt), "q_continue_logits": torch.tensor(go_on)}


RIGHT = torch.tensor([True, True])
BOTH = torch.tensor([True, True])


def test_bootstrap_trains_this_steps_value_and_pseudocode_the_next_steps() -> None:
    now, ahead = values([0.0, 0.0], [0.0, LN3]), values([LN3, -LN3], [-LN3, 0.0])
    is_last = torch.tensor([False, True])
    # The targets are 3/4 (the better) and 1/4 (halting alone).
    for target, by_hand in (
        ("bootstrap", [math.log(2), -0.25 * math.log(3 / 4) - 0.75 * math.log(1 / 4)]),
        ("pseudocode", [-0.75 * math.log(1 / 4) - 0.25 * math.log(3 / 4), math.log(2)]),
    ):
        policy = QLearning(4, target=target)
        outputs = now | policy.look_ahead(ahead, is_last)
        assert outputs["target_q_continue"].tolist() == pytest.approx([0.75, 0.25], rel=1e-6)
        loss = policy.losses(outputs, RIGHT, BOTH)["q_continue_loss"]
        assert loss.item() == pytest.approx(0.5 * sum(by_hand), rel=1e-6)


def test_next_step_trains_the_value_of_the_step_before_where_there_was_one() -> None:
    policy = QLearning(4, target="next_step")
    before, now = values([9.0, 9.0, 9.0], [0.0, 0.0, -LN3]), values([LN3, LN3, 0.0], [0.0] * 3)
    now["q_continue_logits"] = torch.tensor([0.0, 0.0, LN3])
    is_first = torch.tensor([True, False, False])
    is_last = torch.tensor([False, False, True])
    outputs = now | policy.look_back(before, now, is_first, is_last)
    # The third slot is at its last step: q_halt alone, 1/2, though q_continue is higher.
    assert outputs["target_q_continue"].tolist() == pytest.approx([0.75, 0.75, 0.5], rel=1e-6)
    loss = policy.losses(outputs, torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    third = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4)
    assert loss["q_continue_loss"].item() == pytest.approx(0.5 * (math.log(2) + third), rel=1e-6)


# A Markov chain with a horizon: state 1, 2, 3 is the step; the answer of step n is right with
# RATES[n - 1]. Halting is worth that rate; going on from n is worth the best of step n + 1, and
# from the last step, since the published code looks one step beyond it, the rate of step 4.
RATES = torch.tensor([0.2, 0.6, 0.3, 0.3])
TRUE_GO_ON = [0.6, 0.3, 0.3]


def learn_chain(last_step_case: bool, start: float, noise: float = 0.0) -> Tensor:
    """Tabular values of going on from steps 1..3 after many small updates of both losses."""
    torch.manual_seed(0)
    q_halt = torch.zeros(4, requires_grad=True)
    q_continue = torch.full((4,), start, requires_grad=True)
    optimizer = torch.optim.SGD([q_halt, q_continue], lr=2.0)
    is_last = torch.tensor([False, False, last_step_case])
    samples = 64
    for _ in range(400):
        right = torch.rand(samples, 4) < RATES
        halting = act_halt(q_halt.repeat(samples), right.flatten()).sum() / samples
        # As a network does, values differ a little from state to state.
        shaken = q_continue[1:] + noise * torch.randn(3)
        target = continue_target(q_halt[1:], shaken, is_last)
        loss = halting + act_continue(q_continue[:3], target).sum()
        # Step 4 lies beyond the horizon: its own value of going on is that of step 3.
        loss = loss + act_continue(q_continue[3:], q_continue[2:3].sigmoid()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return q_continue[:3].detach().sigmoid()


@pytest.mark.parametrize("start", [-3.0, 0.0, 3.0])
def test_with_the_last_step_case_the_chains_true_values_are_learned(start: float) -> None:
    assert learn_chain(True, start).tolist() == pytest.approx(TRUE_GO_ON, abs=0.06)


def test_without_it_a_value_that_starts_too_high_stays_and_is_inherited() -> None:
    learned = learn_chain(False, 3.0)
    assert (learned > 0.9).all(), learned  # 0.3 and 0.6 are true


def test_without_it_the_maximum_pushes_the_value_up() -> None:
    """Noise of zero mean drifts the last value of going on upwards, and the case holds it."""
    held, drifting = learn_chain(True, -1.0, noise=1.0), learn_chain(False, -1.0, noise=1.0)
    assert held[2].item() == pytest.approx(0.3, abs=0.06)
    assert drifting[2] > held[2] + 0.1
