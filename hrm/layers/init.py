"""Truncated-normal initialisation whose result has the standard deviation that was asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Standard deviation of a unit normal cut at +-2: sqrt(1 - 2 * 2 * pdf(2) / (cdf(2) - cdf(-2))).
_CUT = 2.0
_PDF = math.exp(-(_CUT**2) / 2) / math.sqrt(2 * math.pi)
TRUNCATED_STD = math.sqrt(1 - 2 * _CUT * _PDF / math.erf(_CUT / math.sqrt(2)))


@torch.no_grad()
def trunc_normal_init_(tensor: Tensor, std: float = 1.0) -> Tensor:
    """Fill `tensor` from a normal cut at two (uncut) deviations, scaled so that its own is `std`.

    `torch.nn.init.trunc_normal_` alone gives 0.88 `std`; the correction is that of JAX's
    `variance_scaling`, which published HRM follows. `std = 0` fills with zeros.
    """
    if std == 0:
        return tensor.zero_()
    uncut = std / TRUNCATED_STD
    return nn.init.trunc_normal_(tensor, std=uncut, a=-_CUT * uncut, b=_CUT * uncut)
