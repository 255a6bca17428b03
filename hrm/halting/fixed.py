"""No learned halting: every sequence takes `max_steps` steps."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from hrm.halting.base import Unlearned


class Fixed(Unlearned):
    """Plain deep supervision; the Q-head is there and gets no gradient from halting."""

    learned = False

    def wants(self, outputs: dict[str, Tensor]) -> Bool[Tensor, " slots"]:
        return torch.zeros_like(outputs["q_halt_logits"], dtype=torch.bool)
