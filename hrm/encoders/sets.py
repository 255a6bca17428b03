"""The demonstrations of a task, a set without order, become context tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrm.encoders.blocks import EncoderBlock
from hrm.encoders.settings import EncoderSettings, NormStyle
from hrm.layers import rms_norm, trunc_normal_init_


class SetEncoder(nn.Module):
    """Learned queries read the demonstrations' vectors by cross-attention; what each has found goes
    through a linear map of its own.

    Without these maps all queries hear nearly the same, since a demonstration is a single vector,
    and a context of 16 tokens holds hardly more than one. A learned vector stands for the
    demonstrations of a task without any.
    """

    def __init__(self, settings: EncoderSettings, num_layers: int, norm_style: NormStyle) -> None:
        super().__init__()
        width, tokens = settings.hidden_size, settings.context_tokens
        self.queries = nn.Parameter(trunc_normal_init_(torch.empty(tokens, width)))
        self.maps = nn.Parameter(trunc_normal_init_(torch.empty(tokens, width, width), width**-0.5))
        self.eps = settings.rms_norm_eps
        self.nothing = nn.Parameter(trunc_normal_init_(torch.empty(width)))
        self.layers = nn.ModuleList([EncoderBlock(settings, norm_style) for _ in range(num_layers)])

    def forward(
        self, vectors: Float[Tensor, "slots demos width"], real: Bool[Tensor, "slots demos"]
    ) -> Float[Tensor, "slots tokens width"]:
        slots, dtype = len(vectors), vectors.dtype
        nothing = self.nothing.to(dtype).expand(slots, 1, -1)
        memory = torch.cat((vectors, nothing), dim=1)
        seen = torch.cat((real, ~real.any(1, keepdim=True)), dim=1)
        x = self.queries.to(dtype).expand(slots, -1, -1)
        for layer in self.layers:
            x = layer(x, seen, memory)
        return torch.einsum("stw,tvw->stv", rms_norm(x, self.eps), self.maps.to(dtype))


class MeanToTokens(nn.Module):
    """The mean of the demonstrations' latents, spread over the context tokens by one linear map.

    A learned latent stands for the mean of a task without any.
    """

    def __init__(self, settings: EncoderSettings, latent_dim: int) -> None:
        super().__init__()
        self.shape = (settings.context_tokens, settings.hidden_size)
        self.nothing = nn.Parameter(trunc_normal_init_(torch.empty(latent_dim)))
        std = latent_dim**-0.5
        self.weight = nn.Parameter(trunc_normal_init_(torch.empty(*self.shape, latent_dim), std))

    def forward(
        self, latents: Float[Tensor, "slots demos latent"], real: Bool[Tensor, "slots demos"]
    ) -> Float[Tensor, "slots tokens width"]:
        mean = masked_mean(latents, real)
        mean = torch.where(real.any(1, keepdim=True), mean, self.nothing).to(latents.dtype)
        return F.linear(mean, self.weight.flatten(0, 1).to(mean.dtype)).unflatten(1, self.shape)


def masked_mean(
    values: Float[Tensor, "slots demos *width"], real: Bool[Tensor, "slots demos"]
) -> Float[Tensor, " slots *width"]:
    """The float32 mean over the real ones; zeros without any, and what the others hold is lost."""
    flags = real.view(*real.shape, *(1,) * (values.ndim - 2))
    total = torch.where(flags, values, 0.0).to(torch.float32).sum(1)
    return total / flags.sum(1).clamp(min=1)
