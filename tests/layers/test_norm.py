"""`rms_norm` against its plain twin, forward and backward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hrm.layers.norm import rms_norm, rms_norm_plain


def run(norm: Callable[..., Tensor], x: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_() if x.is_contiguous() else x.detach().requires_grad_()
    y = norm(x, eps)
    (dx,) = torch.autograd.grad(y, x, grad)
    return y.detach(), dx


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)],
)
@pytest.mark.parametrize("shape", [(7,), (2, 5, 16)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_fast_equals_plain(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, ...], scale: float
) -> None:
    x, grad = (scale * torch.randn(shape)).to(dtype), torch.randn(shape).to(dtype)
    fast, plain = run(rms_norm, x, grad, 1e-5), run(rms_norm_plain, x, grad, 1e-5)
    for got, expected in zip(fast, plain, strict=True):
        assert got.dtype == dtype
        size = float(expected.abs().max())
        torch.testing.assert_close(got, expected, atol=tolerance * size, rtol=tolerance)


def test_strided_input_and_gradient() -> None:
    x, grad = torch.randn(3, 8, 5).transpose(1, 2), torch.randn(3, 8, 5).transpose(1, 2)
    assert not x.is_contiguous()
    fast, plain = run(rms_norm, x, grad, 1e-5), run(rms_norm_plain, x, grad, 1e-5)
    for got, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_gradient_against_finite_differences() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    # The norm computes in float32, hence the coarse step.
    assert torch.autograd.gradcheck(
        rms_norm, (x, 0.1), eps=1e-2, atol=1e-3, nondet_tol=0.0, check_undefined_grad=False
    )


def test_a_value_by_hand_and_zeros() -> None:
    # mean of squares 12.5, eps 3.5: the root is 4.
    assert rms_norm(torch.tensor([3.0, 4.0]), 3.5).tolist() == [0.75, 1.0]
    zeros = torch.zeros(2, 4, requires_grad=True)
    rms_norm(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
