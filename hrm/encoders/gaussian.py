"""A Gaussian latent: sampled in training, its mean at evaluation (Kingma and Welling 2014,
arXiv:1312.6114)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrm.layers import CastedLinear

LOG_VAR_LIMIT = 10.0
"""Log-variances are clamped to this either way: a deviation from 0.007 to 148."""
FIRST_LOG_VAR = -3.0
"""First bias of the log-variances, a deviation of 0.22: where the noise is as loud as the mean, a
decoder learns first of all not to listen."""


class Gaussian(nn.Module):
    """Mean and log-variance, linear in what is read; everything but the product is in float32."""

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = CastedLinear(width, latent_dim, bias=True)
        self.log_var = CastedLinear(width, latent_dim, bias=True)
        assert self.log_var.bias is not None
        nn.init.constant_(self.log_var.bias, FIRST_LOG_VAR)

    def forward(
        self, x: Float[Tensor, "*rows width"], noise: Float[Tensor, "*rows latent"] | None
    ) -> tuple[Float[Tensor, "*rows latent"], Float[Tensor, "*rows"]]:
        """A sample (`mean + deviation * noise`; without noise the mean) in the type of `x`, and
        the divergence of the distribution from N(0, 1), summed over the latent."""
        mean = self.mean(x).to(torch.float32)
        log_var = self.log_var(x).to(torch.float32).clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)
        latent = mean if noise is None else mean + torch.exp(0.5 * log_var) * noise
        return latent.to(x.dtype), divergence(mean, log_var)


def divergence(
    mean: Float[Tensor, "*rows latent"], log_var: Float[Tensor, "*rows latent"]
) -> Float[Tensor, "*rows"]:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats, summed over the last axis."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)
