"""SwiGLU: published inner widths, and the formula."""

import pytest
import torch

from hrm.layers import SwiGLU, inner_width


@pytest.mark.parametrize(
    ("width", "expansion", "multiple", "inner"),
    [
        (512, 4.0, 256, 1536),  # published: 1365.3 -> 1365 -> 1536
        (256, 4.0, 256, 768),
        (384, 4.0, 256, 1024),  # exactly 1024: not rounded up further
        (512, 2.6667, 256, 1024),
        (97, 4.0, 256, 512),  # TRM-MLP's mixing of 81 + 16 positions
        (32, 4.0, 16, 96),
        (3, 1.0, 1, 2),
    ],
)
def test_inner_width(width: int, expansion: float, multiple: int, inner: int) -> None:
    assert inner_width(width, expansion, multiple) == inner


def test_published_shapes() -> None:
    layer = SwiGLU(512, 4.0)
    assert layer.gate_up_proj.weight.shape == (2 * 1536, 512)
    assert layer.down_proj.weight.shape == (512, 1536)


def test_formula() -> None:
    layer, x = SwiGLU(6, 4.0, 8), torch.randn(2, 3, 6)
    gate_weight, up_weight = layer.gate_up_proj.weight.split(16)
    gate, up = x @ gate_weight.T, x @ up_weight.T
    expected = (gate / (1 + torch.exp(-gate)) * up) @ layer.down_proj.weight.T
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
