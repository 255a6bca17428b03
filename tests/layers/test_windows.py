"""Attention on a grid: windows against a slow twin, what a token sees, relative positions."""

from __future__ import annotations

import pytest
import torch

from hrm.layers import (
    GridAttention,
    GridDepthwise,
    RotaryEmbedding2d,
    WindowAttention,
    apply_rotary,
    visible_tokens,
)

GRIDS = [(8, 8, 4), (5, 7, 3), (4, 6, 2), (3, 9, 4), (6, 6, 1)]


def window_of(place: int, window: int, shift: int) -> int:
    """The number of the window along an axis; shifted ones begin `shift` further on."""
    return (place - shift) // window


def sees(one: tuple[int, int], other: tuple[int, int], window: int, shift: int) -> bool:
    return all(
        window_of(a, window, shift) == window_of(b, window, shift)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("height", "width", "window"), GRIDS)
def test_windows_equal_masked_attention_of_all(height: int, width: int, window: int) -> None:
    heads, head_dim, count = 4, 4, height * width
    qkv = torch.randn(2, 1 + count, 3 * heads, head_dim)
    mine = WindowAttention(height, width, window)(qkv)
    q, k, v = (t.transpose(1, 2) for t in qkv.chunk(3, dim=2))
    places = [divmod(i, width) for i in range(count)]
    mask = torch.ones(heads, 1 + count, 1 + count, dtype=torch.bool)
    for head in range(heads):
        shift = 0 if head < heads // 2 else window // 2
        for i, one in enumerate(places):
            for j, other in enumerate(places):
                mask[head, 1 + i, 1 + j] = sees(one, other, window, shift)
    twin = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(mine, twin.transpose(1, 2))


def test_a_token_sees_its_windows_and_the_summary_only() -> None:
    height, width, window = 6, 8, 4
    attention = GridAttention(16, 2, height, width, window)
    x = torch.randn(1, 1 + height * width, 16, requires_grad=True)
    for place in [(0, 0), (3, 5), (5, 7), (2, 3)]:
        (grad,) = torch.autograd.grad(
            attention(x)[0, 1 + place[0] * width + place[1]].sum(), x, retain_graph=True
        )
        seen = grad[0].abs().sum(-1) > 0
        assert seen[0]
        for i in range(height * width):
            other = divmod(i, width)
            expected = any(sees(place, other, window, shift) for shift in (0, window // 2))
            assert bool(seen[1 + i]) == expected, (place, other)
    (grad,) = torch.autograd.grad(attention(x)[0, 0].sum(), x)
    assert (grad[0].abs().sum(-1) > 0).all()


def test_padding_is_seen_by_nobody() -> None:
    visible = visible_tokens(5, 7, 4)
    assert visible.shape == (2, 4, 16, 16)
    # Group by group each token is seen once by each token that sees it.
    assert visible[0].any(1).sum() == 5 * 7


def test_a_window_as_large_as_the_grid_is_no_window() -> None:
    assert GridAttention(16, 2, 4, 3, 4).windows is None
    assert GridAttention(16, 2, 4, 5, 4).windows is not None


def test_rotary_positions_depend_on_differences_only() -> None:
    height, width = 5, 6
    rotary = RotaryEmbedding2d(8, height, width)
    q, k = torch.randn(2, 8).unbind(0)
    turned = [
        apply_rotary(t.expand(1, 1 + height * width, 1, 8), rotary)[0, 1:, 0].view(height, width, 8)
        for t in (q, k)
    ]
    products = torch.einsum("ijd,kld->ijkl", *turned)
    for down, across in [(0, 0), (1, 0), (0, 1), (2, 3), (3, -2)]:
        values = torch.stack(
            [
                products[i, j, i + down, j + across]
                for i in range(height - down)
                for j in range(max(0, -across), width - max(0, across))
            ]
        )
        torch.testing.assert_close(values, values[:1].expand_as(values))
    # Neither axis is lost.
    assert not torch.isclose(products[0, 0, 1, 0], products[0, 0, 0, 1])
    assert torch.unique(products[0, 0].round(decimals=4)).numel() == height * width
    # The summary is not turned.
    whole = apply_rotary(q.expand(1, 1 + height * width, 1, 8), rotary)
    torch.testing.assert_close(whole[0, 0, 0], q)


def test_tables_go_with_any_grid() -> None:
    small, large = RotaryEmbedding2d(8, 2, 3), RotaryEmbedding2d(8, 4, 5)
    torch.testing.assert_close(small.cos[1:4], large.cos[1:4])
    assert small.state_dict() == {}
    with pytest.raises(ValueError, match="head_dim % 4 == 0"):
        RotaryEmbedding2d(6, 2, 2)


def test_a_depthwise_convolution_sees_neighbours_and_leaves_the_summary() -> None:
    near = GridDepthwise(4, 4, 5)
    x = torch.randn(1, 21, 4, requires_grad=True)
    y = near(x)
    torch.testing.assert_close(y[:, 0], x[:, 0])
    (grad,) = torch.autograd.grad(y[0, 1 + 2 * 5 + 2, 1], x)
    seen = grad[0, 1:].abs().view(4, 5, 4)
    assert seen[..., [0, 2, 3]].eq(0).all()
    assert (seen[1:4, 1:4, 1] > 0).all()
    assert int((seen[..., 1] > 0).sum()) == 9
