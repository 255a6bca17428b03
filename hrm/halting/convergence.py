"""Halting where the recursion has settled: nothing is learned, so it serves any trained model.

By how far the high-level latent moves in a step, by how much that differs from the step before, and
by the predictions staying as they are, which is the patience of Zhou et al. 2020, arXiv:2006.04152.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hrm.errors import UserError
from hrm.halting.base import Exploration, Unlearned

CHANGE, PREDICTIONS, UNCHANGED = "change", "predictions", "unchanged_steps"
DEFAULT_TOLERANCE = 0.1


class Convergence(Unlearned):
    """Halts where every criterion that is given is met; without any, at a tolerance of 0.1.

    Args:
        tolerance: the latent's relative change in the step, `outputs["latent_change"]`, is below
            it.
        second_tolerance: this change differs from that of the step before by less; never met at a
            sequence's first step.
        unchanged_steps: the last so many steps have left the predictions as they were.
        seq_len: tokens of a sequence, needed for `unchanged_steps`.

    Raises:
        UserError: `unchanged_steps` without `seq_len`.
    """

    def __init__(
        self,
        max_steps: int,
        exploration_prob: float = 0.0,
        exploration: Exploration = "per_step",
        train_max_steps: int | None = None,
        tolerance: float | None = None,
        second_tolerance: float | None = None,
        unchanged_steps: int | None = None,
        seq_len: int | None = None,
    ) -> None:
        super().__init__(max_steps, exploration_prob, exploration, train_max_steps)
        if tolerance is None and second_tolerance is None and not unchanged_steps:
            tolerance = DEFAULT_TOLERANCE
        if unchanged_steps and seq_len is None:
            raise UserError("Convergence: unchanged_steps needs seq_len, the tokens of a sequence")
        self.tolerance, self.second_tolerance = tolerance, second_tolerance
        self.unchanged_steps, self.seq_len = unchanged_steps, seq_len
        self.wants_predictions = bool(unchanged_steps)
        self.wants_change = tolerance is not None or second_tolerance is not None

    def fresh_memory(self, slots: int, device: torch.device) -> dict[str, Tensor]:
        memory = {}
        if self.second_tolerance is not None:
            # Nothing is near infinity, and no token is -1: a first step meets neither criterion.
            memory[CHANGE] = torch.full((slots,), torch.inf, device=device)
        if self.unchanged_steps:
            assert self.seq_len is not None
            shape = (slots, self.seq_len)
            memory[PREDICTIONS] = torch.full(shape, -1, dtype=torch.int32, device=device)
            memory[UNCHANGED] = torch.zeros(slots, dtype=torch.int32, device=device)
        return memory

    def wish(
        self, outputs: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " slots"], dict[str, Tensor]]:
        settled = torch.ones_like(outputs["q_halt_logits"], dtype=torch.bool)
        if self.tolerance is not None:
            settled = settled & (outputs["latent_change"] < self.tolerance)
        if self.second_tolerance is not None:
            change = outputs["latent_change"]
            settled = settled & ((change - extra[CHANGE]).abs() < self.second_tolerance)
            extra = {**extra, CHANGE: change}
        if self.unchanged_steps:
            predictions = outputs["logits"].argmax(-1).to(torch.int32)
            count = unchanged(predictions, extra[PREDICTIONS], extra[UNCHANGED])
            settled = settled & (count >= self.unchanged_steps)
            extra = {**extra, PREDICTIONS: predictions, UNCHANGED: count}
        return settled, extra


def unchanged(
    predictions: Int[Tensor, "slots length"],
    before: Int[Tensor, "slots length"],
    count: Int[Tensor, " slots"],
) -> Int[Tensor, " slots"]:
    """For how many steps in a row the predictions have not changed: `count` and one, or 0."""
    return torch.where((predictions == before).all(-1), count + 1, 0).to(torch.int32)
