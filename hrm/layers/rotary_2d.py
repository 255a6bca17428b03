"""Rotary positions on a grid: half of a head turns by the row, half by the column.

Axial rotary embedding as in Heo et al. 2024, arXiv:2403.13298, on top of Su et al. 2021,
arXiv:2104.09864.
"""

from __future__ import annotations

import torch
from torch import nn

from hrm.layers.rotary import RotaryEmbedding


class RotaryEmbedding2d(RotaryEmbedding):
    """Tables for `apply_rotary` of a position without a place, which is not turned, and of
    `height * width` tokens row by row behind it.

    A query and a key meet at an angle that depends on the differences of their rows and columns
    only, so tables of any grid go with the same weights.
    """

    def __init__(self, head_dim: int, height: int, width: int, theta: float = 100.0) -> None:
        nn.Module.__init__(self)
        if head_dim % 4:
            raise ValueError(f"rotary positions of a grid need head_dim % 4 == 0, got {head_dim}")
        quarter = head_dim // 4
        frequencies = theta ** -(torch.arange(quarter, dtype=torch.float32) / quarter)
        rows, columns = (torch.arange(n, dtype=torch.float32) for n in (height, width))
        by_row = torch.outer(rows, frequencies).repeat_interleave(width, dim=0)
        by_column = torch.outer(columns, frequencies).repeat(height, 1)
        angles = torch.cat((by_row, by_column), dim=1)
        angles = torch.cat((torch.zeros(1, 2 * quarter), angles)).repeat(1, 2).unsqueeze(1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        sign = torch.cat((-torch.ones(2 * quarter), torch.ones(2 * quarter)))
        self.register_buffer("sin", angles.sin() * sign, persistent=False)
