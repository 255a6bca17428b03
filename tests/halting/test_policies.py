"""Stoppers: who halts, exploration against its exact distribution, and losses by hand."""

import math

import pytest
import torch
from torch import Tensor

from hrm.halting import Fixed, Halting, HaltOnly, QLearning, continue_target
from hrm.rng import slot_states

LN3 = math.log(3.0)
SLOTS = 40000


def outputs(q_halt: list[float], q_continue: list[float] | None = None) -> dict[str, Tensor]:
    go_on = q_continue if q_continue is not None else [-5.0] * len(q_halt)
    return {"q_halt_logits": torch.tensor(q_halt), "q_continue_logits": torch.tensor(go_on)}


def halted(policy: Halting, q: dict[str, Tensor], steps: list[int], **mode: bool) -> list[bool]:
    slots = len(steps)
    extra = policy.fresh_extra(slots, torch.device("cpu"))
    mode = {"training": True, "adaptive": False, **mode}
    count = torch.tensor(steps, dtype=torch.int32)
    return policy.decide(q, count, slot_states(0, slots), extra, **mode).halted.tolist()


def halting_steps(policy: Halting) -> Tensor:
    """Shares of the halting steps 1..max_steps where the policy always wants to halt."""
    q = {"q_halt_logits": torch.ones(SLOTS), "q_continue_logits": torch.zeros(SLOTS)}
    rng, extra = slot_states(1, SLOTS), policy.fresh_extra(SLOTS, torch.device("cpu"))
    running, counts = torch.ones(SLOTS, dtype=torch.bool), []
    for step in range(1, policy.max_steps + 1):
        steps = torch.full((SLOTS,), step, dtype=torch.int32)
        decision = policy.decide(q, steps, rng, extra, training=True, adaptive=False)
        rng, extra = decision.rng, decision.extra
        counts.append(int((running & decision.halted).sum()))
        running &= ~decision.halted
    assert not running.any()
    return torch.tensor(counts, dtype=torch.float64) / SLOTS


def exact(exploration: str, p: float, limit: int) -> Tensor:
    """The same shares, exactly."""
    if exploration == "per_episode":
        return torch.tensor([1 - p] + [p / (limit - 1)] * (limit - 1), dtype=torch.float64)
    shares, left = [], 1.0
    for n in range(1, limit + 1):
        halts = 1 - p + p * (n - 1) / (limit - 1)  # no exploration, or a minimum of 2..n
        shares.append(left * halts)
        left *= 1 - halts
    return torch.tensor(shares, dtype=torch.float64)


@pytest.mark.parametrize("exploration", ["per_step", "per_episode"])
@pytest.mark.parametrize(("p", "limit"), [(0.1, 4), (0.5, 8), (1.0, 5), (0.3, 2)])
@pytest.mark.parametrize("kind", [QLearning, HaltOnly])
def test_exploration_has_its_exact_distribution(
    kind: type[Halting], exploration: str, p: float, limit: int
) -> None:
    got = halting_steps(kind(limit, p, exploration))
    expected = exact(exploration, p, limit)
    four_sigma = 4 * (expected * (1 - expected) / SLOTS).sqrt() + 1e-9
    assert ((got - expected).abs() <= four_sigma).all(), (got, expected)


def test_the_two_ways_to_explore_differ() -> None:
    difference = exact("per_step", 0.5, 8) - exact("per_episode", 0.5, 8)
    assert difference.abs().max() > 0.05


@pytest.mark.parametrize("exploration", ["per_step", "per_episode"])
def test_more_exploration_means_more_steps(exploration: str) -> None:
    numbers = torch.arange(1, 9, dtype=torch.float64)
    means = [
        float(halting_steps(QLearning(8, p, exploration)) @ numbers) for p in (0.0, 0.2, 0.5, 1.0)
    ]
    assert means[0] == 1
    assert means == sorted(set(means))


def test_per_episode_draws_anew_for_the_next_sequence() -> None:
    policy = QLearning(4, 0.5, "per_episode")
    q = {"q_halt_logits": torch.ones(2000), "q_continue_logits": torch.zeros(2000)}
    steps = torch.ones(2000, dtype=torch.int32)
    first = policy.decide(
        q,
        steps,
        slot_states(0, 2000),
        policy.fresh_extra(2000, torch.device("cpu")),
        training=True,
        adaptive=False,
    )
    again = policy.decide(q, steps, first.rng, first.extra, training=True, adaptive=False)
    agree = (first.halted == again.halted).double().mean()
    assert 0.45 < agree < 0.55


def test_q_learning_halts_on_a_strict_lead_only() -> None:
    q = outputs([1.0, -5.0, -6.0, -4.0], [0.0, -5.0, -5.0, 9.0])
    assert halted(QLearning(8), q, [1, 1, 1, 1]) == [True, False, False, False]
    assert halted(QLearning(8), q, [8, 8, 8, 9]) == [True] * 4


def test_q_learning_may_ask_for_another_lead() -> None:
    q = outputs([1.0, 1.0, -1.0, -3.0], [0.0, 0.5, 0.0, -2.5])
    assert halted(QLearning(8, lead=0.5), q, [1] * 4) == [True, False, False, False]
    assert halted(QLearning(8, lead=-0.75), q, [1] * 4) == [True, True, False, True]


def test_halt_only_compares_with_threshold_and_temperature() -> None:
    q = outputs([0.0, 0.01, LN3, LN3 + 0.01, 2 * LN3 + 0.01])
    assert halted(HaltOnly(8), q, [1] * 5) == [False, True, True, True, True]
    strict = HaltOnly(8, threshold=0.75)
    assert halted(strict, q, [1] * 5) == [False, False, False, True, True]
    cool = HaltOnly(8, threshold=0.75, temperature=2.0)
    assert halted(cool, q, [1] * 5) == [False, False, False, False, True]


@pytest.mark.parametrize("kind", [QLearning, HaltOnly, Fixed])
def test_evaluation_runs_to_the_limit(kind: type[Halting]) -> None:
    q = outputs([9.0, 9.0])
    policy = kind(3, 1.0)
    assert halted(policy, q, [2, 3], training=False) == [False, True]
    adaptive = halted(policy, q, [2, 3], training=False, adaptive=True)
    assert adaptive == [kind is not Fixed, True]  # without exploration


def test_fixed_never_halts_early() -> None:
    assert halted(Fixed(3, 0.5), outputs([9.0, 9.0, 9.0]), [1, 2, 3]) == [False, False, True]


@pytest.mark.parametrize("kind", [QLearning, HaltOnly])
def test_a_limit_of_one_step_halts_despite_exploration(kind: type[Halting]) -> None:
    assert halted(kind(1, 1.0), outputs([-9.0, 9.0]), [1, 1]) == [True, True]


def test_training_may_have_a_lower_limit() -> None:
    policy, q = QLearning(8, 1.0, train_max_steps=3), outputs([-9.0, -9.0, 9.0])
    assert halted(policy, q, [2, 3, 3]) == [False, True, True]
    assert halted(policy, q, [3, 7, 8], training=False) == [False, False, True]
    adaptive = halted(policy, q, [3, 7, 3], training=False, adaptive=True)
    assert adaptive == [False, False, True]
    # Exploration keeps below it: every draw lies in 2..3.
    eager = outputs([9.0] * 200)
    assert all(halted(policy, eager, [3] * 200))
    assert set(halted(policy, eager, [2] * 200)) == {True, False}
    assert halted(QLearning(8, 1.0, train_max_steps=1), q, [1, 1, 1]) == [True] * 3


def test_continue_target_by_hand() -> None:
    target = continue_target(
        torch.tensor([0.0, LN3, 0.0, -LN3]),
        torch.tensor([LN3, 0.0, LN3, 9.0]),
        torch.tensor([False, False, True, True]),
    )
    # sigmoid(ln 3) = 3/4; the last two look at q_halt alone: 1/2 and 1/4.
    torch.testing.assert_close(target, torch.tensor([0.75, 0.75, 0.5, 0.25]))


def test_losses_by_hand_without_uncounted_slots() -> None:
    q = outputs([LN3, LN3, 7.0], [0.0, -LN3, 7.0])
    q["target_q_continue"] = torch.tensor([0.5, 1.0, 0.0])
    right, counted = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    losses = QLearning(4).losses(q, right, counted)
    halt = 0.5 * (-math.log(3 / 4) - math.log(1 / 4))
    assert float(losses["q_halt_loss"]) == pytest.approx(halt, rel=1e-6)
    go_on = 0.5 * (math.log(2) - math.log(1 / 4))
    assert float(losses["q_continue_loss"]) == pytest.approx(go_on, rel=1e-6)
    assert set(HaltOnly(4).losses(q, right, counted)) == {"q_halt_loss"}
    assert float(HaltOnly(4).losses(q, right, counted)["q_halt_loss"]) == pytest.approx(halt)
    assert float(Fixed(4).losses(q, right, counted)["q_halt_loss"]) == 0
