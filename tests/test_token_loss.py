"""The loss of tokens and their correctness, by definition and by hand."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from hrm.token_loss import correctness, log_stablemax_weights, token_losses


def stablemax_by_definition(logits: Tensor, labels: Tensor) -> Tensor:
    """-log of s(x_label) / sum s(x) in float64; s(x) = x + 1 or 1 / (1 - x) below 0."""
    x = logits.double()
    s = torch.where(x < 0, 1 / (1 - x), x + 1)
    return -(s / s.sum(-1, keepdim=True)).log().gather(-1, labels.long()[..., None])[..., 0]


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_stablemax_is_its_definition(scale: float) -> None:
    labels = torch.randint(0, 11, (4, 9))
    logits = (scale * torch.randn(4, 9, 11)).requires_grad_()
    with torch.no_grad():
        logits[0] = 0.0
        logits[1, :, :6] = 0.0
    wide = logits.detach().double().requires_grad_()
    expected = stablemax_by_definition(wide, labels)
    got = token_losses(logits, labels, "stablemax")
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=1e-6)
    (grad,) = torch.autograd.grad(got.sum(), logits)
    (expected_grad,) = torch.autograd.grad(expected.sum(), wide)
    torch.testing.assert_close(grad.double(), expected_grad, atol=1e-6, rtol=1e-5)


def test_stablemax_weights_have_slope_one_at_zero() -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 1.0], requires_grad=True)
    y = log_stablemax_weights(x)
    torch.testing.assert_close(y.exp(), torch.tensor([0.5, 1.0, 1.0, 2.0]))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 1, 1, 0.5]


def test_softmax_is_cross_entropy() -> None:
    logits, labels = torch.randn(2, 3, 5), torch.randint(0, 5, (2, 3), dtype=torch.int32)
    expected = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels.long(), reduction="none"
    )
    torch.testing.assert_close(token_losses(logits, labels, "softmax"), expected)


@pytest.mark.parametrize("kind", ["stablemax", "softmax"])
def test_ignored_tokens_cost_nothing(kind: Literal["stablemax", "softmax"]) -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    losses = token_losses(logits, torch.tensor([[1, -100, 2]]), kind)
    assert losses[0, 1] == 0
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert not grad[0, 1].any()
    assert grad[0, 0].any()


def test_token_losses_are_float32_for_any_type() -> None:
    logits = torch.randn(1, 3, 5).bfloat16()
    labels = torch.zeros(1, 3, dtype=torch.int32)
    got = token_losses(logits, labels, "stablemax")
    assert got.dtype == torch.float32
    assert torch.equal(got, token_losses(logits.float(), labels, "stablemax"))


def test_correctness_by_hand() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2], [1, 2], [1, 2]]), 3).float()
    labels = torch.tensor([[1, 0], [1, -100], [-100, -100]])
    accuracy, exact, counted = correctness(logits, labels)
    assert accuracy.tolist() == [0.5, 1.0, 0.0]
    assert exact[:2].tolist() == [False, True]
    assert counted.tolist() == [True, True, False]
