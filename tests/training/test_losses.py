"""The loss of a step, by definition and by hand."""

import math

import pytest
import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.halting import Fixed, HaltOnly, QLearning
from hrm.models.base import Latents
from hrm.training.losses import step_loss

LN3 = math.log(3.0)


def make_step(labels: list[list[int]], halted: list[bool]) -> tuple[dict[str, Tensor], Carry]:
    """Three slots of two tokens; both tokens are predicted as 1, with probability 3/4."""
    logits = torch.tensor([-LN3, 0.0]).expand(3, 2, 2)
    outputs = {
        "logits": logits.clone().requires_grad_(),
        "q_halt_logits": torch.tensor([LN3, -LN3, LN3]).requires_grad_(),
        "q_continue_logits": torch.tensor([0.0, LN3, 0.0]).requires_grad_(),
        "target_q_continue": torch.tensor([0.5, 0.0, 1.0]),
    }
    nothing = torch.zeros(3)
    carry = Carry(
        inner_carry=Latents(nothing, nothing),
        steps=torch.tensor([2, 3, 5], dtype=torch.int32),
        halted=torch.tensor(halted),
        current_data={"labels": torch.tensor(labels)},
        rng=torch.zeros(3, dtype=torch.int64),
    )
    return outputs, carry


# Slot 0 is right, slot 1 has one of two tokens wrong, slot 2 has no label.
LABELS = [[1, 1], [0, 1], [-100, -100]]
TOKENS = math.log(4 / 3) + (math.log(4) + math.log(4 / 3)) / 2
HALT = 0.5 * (2 * math.log(4 / 3))
GO_ON = 0.5 * (math.log(2) + math.log(4))


def test_loss_by_hand() -> None:
    outputs, carry = make_step(LABELS, [True, True, True])
    loss, sums = step_loss(outputs, carry, QLearning(8), "softmax")
    assert loss.item() == pytest.approx(TOKENS + HALT + GO_ON, rel=1e-6)
    assert float(sums["lm_loss"]) == pytest.approx(TOKENS, rel=1e-6)
    assert float(sums["q_halt_loss"]) == pytest.approx(2 * HALT, rel=1e-6)
    assert float(sums["q_continue_loss"]) == pytest.approx(2 * GO_ON, rel=1e-6)
    assert float(sums["loss"]) == loss.item()
    assert not any(value.requires_grad for value in sums.values())
    halt_only, _ = step_loss(outputs, carry, HaltOnly(8), "softmax")
    assert halt_only.item() == pytest.approx(TOKENS + HALT, rel=1e-6)
    fixed, _ = step_loss(outputs, carry, Fixed(8), "softmax")
    assert fixed.item() == pytest.approx(TOKENS, rel=1e-6)


def test_stablemax_loss_by_hand() -> None:
    outputs, carry = make_step(LABELS, [True, True, True])
    weight = 1 / (1 + LN3)  # of the logit -ln 3; that of 0 is 1
    right, wrong = math.log(1 + weight), math.log((1 + weight) / weight)
    _, sums = step_loss(outputs, carry, HaltOnly(8), "stablemax")
    assert float(sums["lm_loss"]) == pytest.approx(right + (right + wrong) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("halted", "expected"),
    [
        ([True, True, True], (2, 1.5, 1, 2, 5)),
        ([True, False, True], (1, 1.0, 1, 1, 2)),
        ([False, True, False], (1, 0.5, 0, 1, 3)),
        ([False, False, True], (0, 0.0, 0, 0, 0)),
    ],
)
def test_metrics_count_labelled_slots_that_halted(
    halted: list[bool], expected: tuple[float, ...]
) -> None:
    outputs, carry = make_step(LABELS, halted)
    _, sums = step_loss(outputs, carry, QLearning(8), "softmax")
    names = ("count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps")
    assert tuple(float(sums[name]) for name in names) == expected


def test_q_halt_accuracy_compares_with_zero() -> None:
    outputs, carry = make_step([[1, 1], [1, 1], [0, 0]], [True, True, True])
    # q_halt says right, wrong, right; the truth is right, right, wrong.
    _, sums = step_loss(outputs, carry, QLearning(8), "softmax")
    assert sums["q_halt_accuracy"] == 1


def test_a_row_without_labels_gives_no_gradient() -> None:
    outputs, carry = make_step(LABELS, [True, True, True])
    step_loss(outputs, carry, QLearning(8), "softmax").loss.backward()
    for name in ("logits", "q_halt_logits", "q_continue_logits"):
        grad = outputs[name].grad
        assert grad is not None
        assert not grad[2].any(), name
        assert grad[1].any(), name


def test_labels_are_those_of_the_slot_and_not_of_the_next_row() -> None:
    outputs, carry = make_step(LABELS, [False, False, False])
    first = step_loss(outputs, carry, QLearning(8), "softmax").loss
    carry.current_data["labels"] = torch.tensor([[0, 0], [0, 0], [0, 0]])
    assert step_loss(outputs, carry, QLearning(8), "softmax").loss > first
