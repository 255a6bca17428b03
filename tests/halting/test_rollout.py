"""Whole trajectories under policies that judge one step at a time."""

import pytest
import torch

from hrm.halting import Fixed, Halting, HaltOnly, QLearning, Rollout

RIGHT = torch.tensor([[False, False, True], [True, False, True]])
COUNTED = torch.tensor([True, True, False])


def rollout() -> Rollout:
    q = torch.tensor([[0.3, -1.0, 9.0], [2.0, -2.0, 9.0]], requires_grad=True)
    outputs = {"q_halt_logits": q, "q_continue_logits": torch.zeros(2, 3)}
    task_loss = torch.rand(2, 3, requires_grad=True)
    return Rollout(outputs, task_loss, RIGHT, COUNTED)


@pytest.mark.parametrize("kind", [Fixed, HaltOnly, QLearning])
def test_by_default_every_step_teaches_alike(kind: type[Halting]) -> None:
    made, policy = rollout(), kind(2)
    steps = [
        policy.losses({k: v[n] for k, v in made.outputs.items()}, RIGHT[n], COUNTED)
        for n in range(2)
    ]
    losses = policy.rollout_losses(made, 7)
    assert set(losses) == {"q_halt_loss"}
    mean = (steps[0]["q_halt_loss"] + steps[1]["q_halt_loss"]) / 2
    torch.testing.assert_close(losses["q_halt_loss"], mean)
    losses["q_halt_loss"].backward()  # Zero under Fixed, but on the graph.
    grad = made.outputs["q_halt_logits"].grad
    assert grad is not None
    assert (grad[:, 2] == 0).all()
    assert bool((grad[:, :2] != 0).all()) == (kind is not Fixed)


@pytest.mark.parametrize("kind", [Fixed, HaltOnly, QLearning])
def test_by_default_the_task_loss_is_its_mean_over_the_steps(kind: type[Halting]) -> None:
    policy, made = kind(2), rollout()
    weights = policy.task_weights(made)
    assert weights.tolist() == [[0.5] * 3] * 2
    assert not weights.requires_grad
    assert not policy.weighs
    assert policy.rollout_figures(made) == {}
