"""Casted layers: float32 parameters, computation in another type, cast once a step."""

import pytest
import torch
from torch import nn

from hrm.layers import CastedEmbedding, CastedLinear, cast_once


def counted(layer: CastedLinear) -> list[torch.dtype]:
    """A list that grows at each cast of the layer's parameters."""
    casts: list[torch.dtype] = []
    original = layer.cast_to

    def cast_to(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        casts.append(dtype)
        return original(dtype)

    layer.cast_to = cast_to  # type: ignore[method-assign]
    return casts


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cast_once_casts_once_and_changes_nothing(dtype: torch.dtype, bias: bool) -> None:
    layer = CastedLinear(6, 4, bias=bias)
    x = torch.randn(3, 6).to(dtype)
    plain = layer(x) + layer(2 * x)
    plain.float().square().sum().backward()
    expected = {n: p.grad for n, p in layer.named_parameters()}
    layer.zero_grad()

    casts = counted(layer)
    with cast_once([layer], dtype):
        with torch.no_grad():
            layer(x)  # a cycle without gradient must not spoil the shared copy
        shared = layer(x) + layer(2 * x)
    shared.float().square().sum().backward()
    assert casts == [dtype]
    assert shared.dtype == dtype
    assert torch.equal(shared, plain)
    for name, parameter in layer.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        grad = expected[name]
        assert grad is not None
        # Two uses of one copy add up in `dtype`, two copies in float32.
        torch.testing.assert_close(parameter.grad, grad, rtol=2e-2, atol=2e-2)


def test_the_copy_ends_with_the_block_even_after_an_error() -> None:
    layer = CastedLinear(3, 3)
    with pytest.raises(RuntimeError, match="inside"), cast_once([layer], torch.bfloat16):
        raise RuntimeError("inside")
    assert layer.cast is None
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert layer(torch.ones(3)).tolist() == [3, 3, 3]


def test_linear_starts_lecun_normal_with_zero_bias() -> None:
    layer = CastedLinear(400, 300, bias=True)
    assert float(layer.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.detach().any()
    assert CastedLinear(4, 4).bias is None


@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
def test_embedding_looks_up_and_casts(ids_dtype: torch.dtype) -> None:
    table = CastedEmbedding(5, 3, 1.0, torch.bfloat16)
    ids = torch.tensor([[4, 0], [4, 2]], dtype=ids_dtype)
    rows = table(ids)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, table.embedding_weight[ids.long()].bfloat16())
    rows.sum().backward()
    grad = table.embedding_weight.grad
    assert grad is not None
    assert grad[:, 0].tolist() == [1, 0, 1, 0, 2]
    assert isinstance(table.embedding_weight, nn.Parameter)
