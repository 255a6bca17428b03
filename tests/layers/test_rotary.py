"""Rotary positions as the rotation of complex numbers that they are."""

import pytest
import torch

from hrm.layers import RotaryEmbedding, apply_rotary


@pytest.mark.parametrize("theta", [10000.0, 50.0])
def test_each_pair_is_a_complex_number_turned_by_its_position(theta: float) -> None:
    positions, heads, width = 5, 3, 8
    x = torch.randn(2, positions, heads, width)
    # Component i is the real and component i + width / 2 the imaginary part.
    z = torch.complex(x[..., : width // 2], x[..., width // 2 :]).to(torch.complex128)
    frequency = theta ** -(2 * torch.arange(width // 2, dtype=torch.float64) / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    turned = z * torch.polar(torch.ones_like(angle), angle)[:, None, :]
    expected = torch.cat((turned.real, turned.imag), -1).float()
    got = apply_rotary(x, RotaryEmbedding(width, positions, theta))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_products_depend_on_the_distance_alone() -> None:
    rotary = RotaryEmbedding(6, 9)
    q, k = torch.randn(2, 1, 6)
    turned_q = apply_rotary(q.expand(9, 1, 6), rotary)[:, 0]
    turned_k = apply_rotary(k.expand(9, 1, 6), rotary)[:, 0]
    products = turned_q @ turned_k.T
    for distance in range(-8, 9):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=1e-5)


def test_type_is_kept_and_tables_stay_out_of_the_state() -> None:
    rotary = RotaryEmbedding(4, 3)
    x = torch.randn(1, 3, 2, 4).bfloat16()
    got = apply_rotary(x, rotary)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, apply_rotary(x.float(), rotary).bfloat16())
    assert rotary.state_dict() == {}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
def test_gradients_are_those_of_the_rotation_written_plainly(
    dtype: torch.dtype, tolerance: float
) -> None:
    rotary = RotaryEmbedding(8, 5)
    values, g = torch.randn(2, 2, 5, 3, 8)
    x = values.to(dtype, copy=True).requires_grad_()
    apply_rotary(x, rotary).backward(g.to(dtype))
    plain = values.clone().requires_grad_()
    (plain * rotary.cos + plain.roll(4, -1) * rotary.sin).backward(g)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad.float(), plain.grad, rtol=tolerance, atol=tolerance)


def test_an_odd_head_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="even head dimension, got 5"):
        RotaryEmbedding(5, 3)
