"""Attention against softmax written out."""

import math

import pytest
import torch

from hrm.layers import Attention, RotaryEmbedding, apply_rotary, attention
from hrm.layers.attention import explicit_attention, fused_attention


@pytest.mark.parametrize("with_rotary", [False, True])
def test_equals_softmax_written_out(with_rotary: bool) -> None:
    batch, positions, heads, width = 2, 5, 3, 12
    head_dim = width // heads
    layer = Attention(width, heads)
    rotary = RotaryEmbedding(head_dim, positions) if with_rotary else None
    x = torch.randn(batch, positions, width)

    q, k, v = (x @ layer.qkv_proj.weight.T).split(width, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, head_dim)) for t in (q, k, v))
    if rotary is not None:
        q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
    expected = torch.zeros(batch, positions, heads, head_dim)
    for b in range(batch):
        for h in range(heads):
            weights = torch.softmax(q[b, :, h] @ k[b, :, h].T / math.sqrt(head_dim), -1)
            expected[b, :, h] = weights @ v[b, :, h]
    expected = expected.flatten(2) @ layer.o_proj.weight.T
    torch.testing.assert_close(layer(x, rotary), expected, atol=1e-5, rtol=1e-4)


def test_without_positions_order_does_not_matter() -> None:
    layer, x = Attention(8, 2), torch.randn(1, 6, 8)
    order = torch.randperm(6)
    torch.testing.assert_close(layer(x[:, order], None), layer(x, None)[:, order])


def test_every_position_sees_every_other() -> None:
    layer = Attention(8, 2)
    x = torch.randn(1, 4, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x, None)[0, 0].sum(), x)
    assert (grad[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("positions", [2, 7, 81])
def test_explicit_attention_equals_the_fused_kernel(positions: int) -> None:
    shape = (2, positions, 3, 16)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        results = []
        for form in (explicit_attention, fused_attention):
            torch.manual_seed(0)
            q, k, v = (torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(3))
            out = form(q, k, v)
            out.backward(torch.randn(shape, dtype=dtype))
            results.append((out, q.grad, k.grad, v.grad))
        for got, expected in zip(*results, strict=True):
            assert got is not None
            assert expected is not None
            assert got.shape == expected.shape
            error = (got - expected).abs().max()
            assert error <= tolerance * expected.abs().max(), (dtype, float(error))


def test_half_precision_on_a_cpu_takes_the_explicit_form_up_to_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = []
    for name in ("explicit_attention", "fused_attention"):
        form = getattr(attention, name)
        monkeypatch.setattr(
            attention, name, lambda *a, name=name, form=form: (taken.append(name), form(*a))[1]
        )
    layer = Attention(8, 2)
    for positions, dtype in ((128, torch.bfloat16), (129, torch.bfloat16), (128, torch.float32)):
        layer(torch.randn(1, positions, 8, dtype=dtype), None)
    assert taken == ["explicit_attention", "fused_attention", "fused_attention"]
