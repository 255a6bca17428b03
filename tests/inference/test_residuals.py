"""Residuals of a recursion whose fixed point is known, and of small models against plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from hrm.inference.loop import solve
from hrm.inference.residuals import (
    Convergence,
    joined,
    measure_convergence,
    relative_change,
    step_residuals,
    summarise_convergence,
)
from hrm.models import TRM, HRMACTv1
from hrm.models.base import Latents
from tests.models.helpers import small_batch, small_hrm, small_trm


def low(z: Latents, x: Tensor) -> Latents:
    """From 0 it gives 1, 1.5, 1.75, ...: after n cycles 2 - 2^(1 - n)."""
    return Latents(z.z_H, z.z_L / 2 + x)


def high(z: Latents, x: Tensor) -> Latents:
    """From 0 it gives 4 (1 - 4^-n)."""
    return Latents(z.z_H / 4 + 3 * x, z.z_L)


def test_a_contraction_has_its_exact_residuals() -> None:
    latents = Latents(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    x = torch.ones(2, 3, 4)
    levels, values = [], []
    for _ in range(2):
        latents, residuals = step_residuals([low, low, high], latents, x)
        levels += [r.level for r in residuals]
        values += [r.values for r in residuals]
    assert levels == ["L", "L", "H", "L", "L", "H"]
    # 2^(1 - n) / (2 - 2^(1 - n)) = 1 / (2^n - 1), and 3 / (4^n - 1).
    expected = torch.tensor([1, 1 / 3, 1, 1 / 7, 1 / 15, 3 / 15])
    torch.testing.assert_close(torch.stack(values), expected[:, None].expand(6, 2))
    torch.testing.assert_close(latents.z_L, torch.full((2, 3, 4), 2 - 2**-3))


def test_the_residual_at_a_fixed_point_is_zero() -> None:
    latents = Latents(torch.full((1, 2, 3), 4.0), torch.full((1, 2, 3), 2.0))
    after, residuals = step_residuals([low, high], latents, torch.ones(1, 2, 3))
    assert torch.equal(after.z_H, latents.z_H)
    assert [float(r.values) for r in residuals] == [0, 0]


def test_relative_change_by_hand() -> None:
    new = torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]], [[0.0], [5.0]]])
    old = torch.tensor([[[3.0], [0.0]], [[0.0], [0.0]], [[0.0], [4.0]]])
    torch.testing.assert_close(relative_change(new, old), torch.tensor([0.8, 0.0, 0.2]))


def test_relative_change_is_taken_in_float32() -> None:
    new, old = torch.tensor([[1.0, 256.0]]).bfloat16(), torch.tensor([[0.0, -1.0]]).bfloat16()
    expected = (1 + 257.0**2) ** 0.5 / (1 + 256.0**2) ** 0.5  # bfloat16 rounds 257 to 256
    torch.testing.assert_close(relative_change(new, old), torch.tensor([expected]))


def plain(model: HRMACTv1 | TRM, batch: dict[str, Tensor], steps: int) -> list[list[list[float]]]:
    """Residuals [steps][cycles][rows], from the networks themselves, a row at a time."""
    inner = model.inner
    upper = getattr(inner, "H_level", inner.L_level)
    found: list[list[list[float]]] = [
        [[] for _ in range(model.config.H_cycles * (model.config.L_cycles + 1))]
        for _ in range(steps)
    ]
    for row in range(len(batch["inputs"])):
        x = inner.embed({name: value[row : row + 1] for name, value in batch.items()})
        z_H, z_L = inner.H_init.expand_as(x), inner.L_init.expand_as(x)
        for step in range(steps):
            cycle = 0
            for _ in range(model.config.H_cycles):
                for _ in range(model.config.L_cycles):
                    old, z_L = z_L, inner.L_level(z_L, z_H + x, inner.rotary)
                    found[step][cycle].append(float((z_L - old).norm() / z_L.norm()))
                    cycle += 1
                old, z_H = z_H, upper(z_H, z_L, inner.rotary)
                found[step][cycle].append(float((z_H - old).norm() / z_H.norm()))
                cycle += 1
    return found


@pytest.mark.parametrize("make", [small_hrm, small_trm])
def test_a_models_residuals_are_those_of_a_plain_loop(make: Callable[..., HRMACTv1 | TRM]) -> None:
    model, batch = make(H_cycles=2, L_cycles=3).eval(), small_batch()
    measured = measure_convergence(model, batch, 2)
    assert measured.levels == ["L", "L", "L", "H"] * 2
    with torch.no_grad():
        expected = np.array(plain(model, batch, 2))
    np.testing.assert_allclose(measured.residuals, expected, rtol=1e-4)
    assert measured.of("H").shape == (2, 2, 4)
    np.testing.assert_allclose(measured.of("H"), expected[:, [3, 7]], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_predictions_are_those_of_solving(dtype: str) -> None:
    model, batch = small_hrm(forward_dtype=dtype, puzzle_emb_ndim=8), small_batch()
    batch["puzzle_identifiers"].zero_()
    measured = measure_convergence(model, batch, 3)
    np.testing.assert_array_equal(measured.predictions, solve(model, batch).predictions.numpy())


def test_steps_may_go_on_beyond_the_limit() -> None:
    model, batch = small_trm(), small_batch()
    short, long = (measure_convergence(model, batch, steps) for steps in (3, 7))
    np.testing.assert_array_equal(long.residuals[:3], short.residuals)
    np.testing.assert_array_equal(long.predictions[:3], short.predictions)
    assert len(long.predictions) == 7
    # Nothing starts again at the limit: the latents move less there than at the first step.
    assert (long.of("L")[3, 0] < long.of("L")[0, 0]).all()


def test_joined_batches_are_the_whole() -> None:
    model, batch = small_hrm(), small_batch()
    whole = measure_convergence(model, batch, 2)
    parts = [
        measure_convergence(model, {k: v[rows] for k, v in batch.items()}, 2)
        for rows in (slice(0, 1), slice(1, 4))
    ]
    both = joined(parts)
    assert both.levels == whole.levels
    np.testing.assert_allclose(both.residuals, whole.residuals, rtol=1e-4)
    np.testing.assert_array_equal(both.predictions, whole.predictions)


RESIDUALS = [  # [steps][cycles][rows]
    [[0.8, 0.4], [0.4, 0.5], [0.5, 0.0]],
    [[0.2, 0.6], [0.1, 0.5], [0.005, 0.002]],
]
PREDICTIONS = [[[1, 1, 1], [2, 2, 2]], [[1, 1, 2], [2, 2, 2]]]
LABELS = np.array([[1, 1, 2], [2, 2, -100]])


def example(steps: int = 2) -> Convergence:
    return Convergence(
        ["L", "L", "H"], np.array(RESIDUALS)[:steps], np.array(PREDICTIONS, np.int32)[:steps]
    )


def test_the_summary_by_hand() -> None:
    figures = summarise_convergence(example(), LABELS, tolerance=0.01)
    assert (figures["count"], figures["steps"], figures["cycles"]) == (2, 2, ["L", "L", "H"])
    np.testing.assert_allclose(figures["residuals"]["L"], [[0.6, 0.45], [0.4, 0.3]])
    np.testing.assert_allclose(figures["residuals"]["H"], [[0.25], [0.0035]])
    np.testing.assert_allclose(
        figures["residual_quantiles"]["L"]["q10"], [[0.44, 0.41], [0.24, 0.14]]
    )
    np.testing.assert_allclose(figures["residual_quantiles"]["L"]["median"][1], [0.4, 0.3])
    # Row 1 rises within step 1, and ends where it began over the steps.
    assert figures["falls_within_step"] == {"L": [0.5, 1.0], "H": [None, None]}
    assert figures["falls_over_steps"] == {"L": 0.5, "H": 0.5}
    assert figures["ratio_over_steps"]["L"] == pytest.approx((0.25 + 1) / 2)
    assert figures["ratio_over_steps"]["H"] == pytest.approx(0.01)  # row 1 began at 0
    assert figures["converged"] == {"L": 0, "H": 1}
    assert example().settled(0.11).tolist() == [True, False]
    assert example().settled(0.1).tolist() == [False, False]
    assert figures["changed_tokens"] == [None, 0.5]
    assert figures["changed_sequences"] == [None, 0.5]
    assert figures["accuracy_by_step"] == [0.5, 1.0]


def test_one_step_has_nothing_to_fall_from() -> None:
    figures = summarise_convergence(example(steps=1), LABELS, tolerance=0.6)
    assert figures["falls_over_steps"] == figures["ratio_over_steps"] == {"L": None, "H": None}
    assert figures["changed_tokens"] == figures["changed_sequences"] == [None]
    assert figures["converged"] == {"L": 1, "H": 1}
