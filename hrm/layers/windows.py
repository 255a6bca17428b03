"""Attention within windows of a grid, half of the heads shifted by half a window.

After Swin (Liu et al. 2021, arXiv:2103.14030), which shifts the windows in every second layer. One
layer that is applied over and over has no second one, and a shift by the number of the step would
make every other step another function. So the first half of the heads looks at the plain windows
and the second half at the shifted ones, at every step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

UNSEEN = -1e30
"""Added to the score of a token that is not seen."""


def visible_tokens(
    height: int, width: int, window: int
) -> Bool[Tensor, "groups windows queries keys"]:
    """Who sees whom within a window: group 0 are the plain windows and 1 the shifted ones.

    The grid is padded to whole windows and rolled by half a window, so the last windows of the
    shifted group hold tokens of opposite edges, which do not see each other; padding is not seen.
    """
    shift = window // 2
    rows, columns = (math.ceil(n / window) * window for n in (height, width))
    row, column = torch.arange(rows).view(-1, 1), torch.arange(columns)
    padding = (row >= height) | (column >= width)
    wrapped = 2 * (row < shift).long() + (column < shift).long()
    groups = []
    for region, by in ((torch.zeros_like(wrapped), 0), (wrapped, shift)):
        region, unseen = (torch.roll(t, (-by, -by), (0, 1)) for t in (region, padding))
        cells = [
            t.view(rows // window, window, columns // window, window).transpose(1, 2).flatten(2)
            for t in (region, unseen)
        ]
        region, unseen = (t.flatten(0, 1) for t in cells)
        groups.append((region.unsqueeze(2) == region.unsqueeze(1)) & ~unseen.unsqueeze(1))
    return torch.stack(groups)


class WindowAttention(nn.Module):
    """Attention of tokens within windows of `window * window` and to a summary that sees all.

    Args:
        window: side of a window; at the edges of the grid smaller ones are left over.
    """

    bias: Tensor

    def __init__(self, height: int, width: int, window: int) -> None:
        super().__init__()
        self.height, self.width, self.window = height, width, window
        visible = visible_tokens(height, width, window).flatten(0, 1)
        # The summary, the last of the keys, is seen by all.
        visible = F.pad(visible, (0, 1), value=True)
        # Finite: an average of weights and buffers makes nan of two infinities.
        bias = torch.zeros(visible.shape).masked_fill_(~visible, UNSEEN).unsqueeze(1)
        self.register_buffer("bias", bias, persistent=False)

    def forward(
        self, qkv: Float[Tensor, "slots positions three_heads head_dim"]
    ) -> Float[Tensor, "slots positions heads head_dim"]:
        """Queries, keys and values of `heads` heads each; position 0 is the summary."""
        slots, _, heads, head_dim = qkv.shape
        heads //= 3
        half, side, grid = heads // 2, self.window, (self.height, self.width)
        q, k, v = (t.transpose(1, 2) for t in qkv.chunk(3, dim=2))
        summary = F.scaled_dot_product_attention(q[:, :, :1], k, v).transpose(1, 2)

        tokens = qkv[:, 1:].reshape(slots, *grid, 3, 2, half, head_dim)
        plain, shifted = tokens.unbind(4)
        pad = [-n % side for n in grid]
        if any(pad):
            edges = (0, 0, 0, 0, 0, 0, 0, pad[1], 0, pad[0])
            plain, shifted = F.pad(plain, edges), F.pad(shifted, edges)
        shift = side // 2
        both = torch.stack((plain, torch.roll(shifted, (-shift, -shift), (1, 2))), dim=1)
        down, across = ((n + p) // side for n, p in zip(grid, pad, strict=True))
        both = both.view(slots, 2, down, side, across, side, 3, half, head_dim)
        both = both.permute(6, 0, 1, 2, 4, 7, 3, 5, 8)
        both = both.reshape(3, slots, 2, down * across, half, side**2, head_dim)
        of_summary = qkv[:, 0].view(slots, 3, 2, half, head_dim)[:, 1:].transpose(0, 1)
        shape = (2, slots, 2, down * across, half, 1, head_dim)
        of_summary = of_summary.view(2, slots, 2, 1, half, 1, head_dim).expand(shape)
        queries = both[0].flatten(1, 3).flatten(0, 1)
        keys, values = torch.cat((both[1:], of_summary), dim=5).flatten(2, 4).flatten(1, 2)

        scores = torch.bmm(queries, keys.transpose(1, 2)).to(torch.float32) * head_dim**-0.5
        scores = scores.view(slots, -1, half, *scores.shape[1:]) + self.bias
        weights = scores.softmax(-1).to(values.dtype).flatten(0, 2)
        seen = torch.bmm(weights, values)

        seen = seen.view(slots, 2, down, across, half, side, side, head_dim)
        seen = seen.permute(0, 1, 2, 5, 3, 6, 4, 7)
        seen = seen.reshape(slots, 2, down * side, across * side, half, head_dim)
        plain, shifted = seen.unbind(1)
        shifted = torch.roll(shifted, (shift, shift), (1, 2))
        joined = torch.cat((plain, shifted), dim=3)[:, : self.height, : self.width]
        return torch.cat((summary, joined.reshape(slots, -1, heads, head_dim)), dim=1)

    def operations(self, width: int) -> int:
        """Multiply-adds of a slot whose heads are together `width` wide, projections not counted.

        Of windows at the edges the padding counts too.
        """
        windows, _, queries, keys = self.bias.shape
        return width * (windows * queries * keys + 2 * (1 + self.height * self.width))
