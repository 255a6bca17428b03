"""Truncated gradients against autograd of plain loops, and by hand for a linear recursion."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from hrm.models import TRM, HRMACTv1, TRMConfig
from hrm.models.base import Inner, Latents, TokenModel
from hrm.token_loss import token_losses
from hrm.training.gradient_truncation import StepGradients, compare, gradient_truncation
from hrm.training.losses import step_loss
from tests.models.helpers import SMALL, awaken, small_batch, small_hrm, small_trm

Make = Callable[..., HRMACTv1 | TRM]


def test_compare_by_hand() -> None:
    gradient = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    reference = [torch.tensor([10.0]), torch.tensor([[0.0, 0.0]])]
    assert compare(gradient, reference) == {"cosine": 0.6, "norm_ratio": 0.5}
    assert compare(gradient, gradient) == {"cosine": 1, "norm_ratio": 1}
    assert compare(gradient, [-g for g in gradient]) == {"cosine": -1, "norm_ratio": 1}


def test_compare_with_nothing_is_undefined() -> None:
    something, nothing = [torch.tensor([3.0, 4.0])], [torch.zeros(2)]
    assert compare(nothing, something) == {"cosine": None, "norm_ratio": 0}
    assert compare(something, nothing) == {"cosine": None, "norm_ratio": None}


@pytest.mark.parametrize("settings", [{}, {"continue_target": "pseudocode"}, {"halting": "fixed"}])
@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_the_models_own_truncation_is_the_gradient_of_training(
    make: Make, settings: dict[str, Any]
) -> None:
    if make is small_trm and "continue_target" in settings:
        settings = settings | {"halting": "q_learning"}
    model, batch = make(**settings), small_batch()
    awaken(model)
    gradients = StepGradients(copy.deepcopy(model), batch, "softmax")
    carry = model.train().initial_carry(batch, seed=0)
    for step in (1, 2):
        carry, outputs = model(carry, batch)
        model.zero_grad()
        step_loss(outputs, carry, model.halting, "softmax").loss.backward()
        assert carry.steps.tolist() == [step] * 4
        measured = gradients.within_step(model.inner.default_grad_cycles())
        for (name, parameter), gradient in zip(
            model.inner.named_parameters(), measured, strict=True
        ):
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradient, expected, msg=name)
        gradients.advance()
        carry = replace(carry, halted=torch.zeros_like(carry.halted))


def plain(model: HRMACTv1 | TRM, batch: dict[str, Tensor], steps: int, *, detach: bool) -> Any:
    """The gradient of the last step's token loss, latents detached between steps or nowhere."""
    inner = model.inner
    high = getattr(inner, "H_level", inner.L_level)
    x = inner.embed(batch)
    z_H, z_L = inner.H_init.expand_as(x), inner.L_init.expand_as(x)
    for _ in range(steps):
        if detach:
            z_H, z_L = z_H.detach(), z_L.detach()
        for _ in range(2):
            for _ in range(2):
                z_L = inner.L_level(z_L, z_H + x, inner.rotary)
            z_H = high(z_H, z_L, inner.rotary)
    loss = token_losses(inner.lm_head(z_H), batch["labels"], "softmax").mean(-1).sum()
    return torch.autograd.grad(loss, list(inner.parameters()), materialize_grads=True)


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_whole_gradients_are_those_of_a_plain_loop(make: Make) -> None:
    model, batch = make(halting="fixed"), small_batch()
    gradients = StepGradients(copy.deepcopy(model), batch, "softmax")
    for step in (1, 2, 3):
        within, through = gradients.within_step(6), gradients.through_all_steps()
        torch.testing.assert_close(within, list(plain(model, batch, step, detach=True)))
        torch.testing.assert_close(through, list(plain(model, batch, step, detach=False)))
        assert all(map(torch.equal, within, through)) == (step == 1)
        gradients.advance()


class Rates(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.linspace(0.2, 1.1, width))


class LinearInner(Inner):
    """A step is three times `z_H <- rates * z_H + x`: its Jacobian is diag(rates)."""

    def make_levels(self, config: Any) -> None:
        self.H_level = Rates(config.hidden_size)

    def cycle(self, z: Latents, x: Tensor) -> Latents:
        return Latents(self.H_level.rates * z.z_H + x, z.z_L)

    def cycles(self) -> list[Callable[[Latents, Tensor], Latents]]:
        return [self.cycle] * 3

    def default_grad_cycles(self) -> int:
        return 1


class Linear(TokenModel):
    config_type: ClassVar[type[TRMConfig]] = TRMConfig
    inner_type: ClassVar[type[Inner]] = LinearInner


def test_a_linear_recursion_by_hand() -> None:
    model, batch = Linear({**SMALL, "halting": "fixed"}), small_batch()
    inner = model.inner
    rates = inner.H_level.rates.detach()
    with torch.no_grad():
        x = inner.embed(batch)
        z = [inner.H_init.expand_as(x)]
        for _ in range(6):
            z.append(rates * z[-1] + x)

    def expected(last: int, cycles: int) -> Tensor:
        """d z_n / d rates through k cycles: sum over i < k of rates^i z_(n - 1 - i)."""
        z_H = z[last].clone().requires_grad_()
        loss = token_losses(inner.lm_head(z_H), batch["labels"], "softmax").mean(-1).sum()
        (v,) = torch.autograd.grad(loss, z_H)
        return sum(v * rates**i * z[last - 1 - i] for i in range(cycles)).sum((0, 1))  # type: ignore[union-attr]

    figures = gradient_truncation(model, [batch], "softmax", steps=[1, 2])
    assert (figures["cycles"], figures["grad_cycles"]) == (3, 1)
    for step in (1, 2):
        for name, reference in (("to_all_cycles", 3), ("to_all_steps", 3 * step)):
            whole = expected(3 * step, reference)
            for k in (1, 2, 3):
                short = expected(3 * step, k)
                cosine = float(short @ whole / short.norm() / whole.norm())
                got = {kind: v["H_level"][step - 1][k - 1] for kind, v in figures[name].items()}
                assert got["cosine"] == pytest.approx(cosine, abs=1e-5)
                ratio = float(short.norm() / whole.norm())
                assert got["norm_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert figures["to_all_steps"]["cosine"]["H_level"][1][2] < 0.999


def test_a_level_without_gradient_has_no_cosine() -> None:
    figures = gradient_truncation(small_hrm(), [small_batch()], "softmax", steps=[1, 2])
    within = figures["to_all_cycles"]
    assert figures["grad_cycles"] == 2
    assert list(within["cosine"]) == ["all", "embeddings", "H_level", "L_level"]
    for group in ("L_level", "embeddings"):  # one cycle is the high one
        assert [row[0] for row in within["cosine"][group]] == [None, None]
        assert [row[0] for row in within["norm_ratio"][group]] == [0, 0]
        assert all(-1 <= v < 1 for row in within["cosine"][group] for v in row[1:5])
    assert all(0 < row[0] < 1 for row in within["cosine"]["H_level"])


def test_all_cycles_are_compared_with_themselves() -> None:
    figures = gradient_truncation(small_trm(), [small_batch()], "stablemax", steps=[1, 2])
    within, through = figures["to_all_cycles"], figures["to_all_steps"]
    assert figures["grad_cycles"] == 3
    assert "H_level" not in within["cosine"]  # one network for both levels
    for kind in ("cosine", "norm_ratio"):
        for rows in within[kind].values():
            assert [row[-1] for row in rows] == pytest.approx([1, 1], abs=1e-12)
        for group, rows in through[kind].items():
            assert rows[0] == pytest.approx(within[kind][group][0], abs=1e-6)
            assert not math.isclose(rows[1][-1], 1, abs_tol=1e-4)


def test_grad_cycles_equal_to_all_truncate_nothing() -> None:
    model, batch = small_hrm(grad_cycles=99), small_batch()
    figures = gradient_truncation(model, [batch], "softmax", steps=[1])
    assert figures["grad_cycles"] == figures["cycles"] == 6


def test_steps_may_be_left_out_and_go_beyond_the_limit() -> None:
    model, batch = small_hrm(halt_max_steps=2), small_batch()
    every, some = (gradient_truncation(model, [batch], "softmax", s) for s in ([1, 2, 3], [1, 3]))
    assert some["steps"] == [1, 3]
    for reference in ("to_all_cycles", "to_all_steps"):
        for group, rows in some[reference]["cosine"].items():
            assert rows == every[reference]["cosine"][group][::2]


def test_batches_are_added_up() -> None:
    model, batch = small_hrm(), small_batch()
    parts = [{k: v[rows] for k, v in batch.items()} for rows in (slice(0, 1), slice(1, 4))]
    whole, both = (gradient_truncation(model, b, "softmax", [2]) for b in ([batch], parts))
    assert whole["count"] == both["count"] == 4
    for reference in ("to_all_cycles", "to_all_steps"):
        for group, rows in both[reference]["cosine"].items():
            assert rows[0][1:] == pytest.approx(whole[reference]["cosine"][group][0][1:], abs=1e-5)


def test_measuring_changes_nothing_and_repeats() -> None:
    model, batch = small_hrm(puzzle_emb_ndim=8, num_puzzle_identifiers=4).eval(), small_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done: list[int] = []
    first = gradient_truncation(model, [batch], "softmax", [1, 2], done.append)
    assert done == [1, 2]
    assert first == gradient_truncation(model, [batch], "softmax", [1, 2])
    assert model.config.grad_cycles is None
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
