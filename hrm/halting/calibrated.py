"""A stopper by name and threshold: how a calibration stores the policy that it chose."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hrm.halting.base import Halting
from hrm.halting.combine import Confirm
from hrm.halting.convergence import Convergence
from hrm.halting.fixed import Fixed
from hrm.halting.halt_only import HaltOnly
from hrm.halting.q_learning import QLearning

Stopper = Literal["q", "lead", "confirm", "convergence", "second_difference", "unchanged"]

CONFIRM_STEPS = 2


class CalibratedHalting(BaseModel):
    """The chosen stopper. Other keys of a calibration's record are its measurements."""

    model_config = ConfigDict(extra="ignore")

    stopper: Stopper
    """`q`: halts above a chance of being right, `sigmoid(q_halt / temperature)`. `confirm`: where
    that has held for 2 steps in a row. `lead`: above a lead `q_halt - q_continue`. `convergence`:
    below a relative change of the latent. `second_difference`: below a difference of that to the
    step before. `unchanged`: when so many steps have left the predictions as they were."""
    threshold: float | None
    """In the stopper's own unit; None never halts before the last step."""
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> CalibratedHalting:
        if self.threshold is None or self.stopper == "lead":
            return self
        chance = self.stopper in ("q", "confirm")
        if self.threshold <= 0 or (chance and self.threshold >= 1):
            may_be = "between 0 and 1" if chance else "above 0"
            raise ValueError(
                f"threshold: {self.threshold} with stopper {self.stopper}, but it is {may_be}"
            )
        return self

    def make(self, max_steps: int, seq_len: int) -> Halting:
        """The policy, for sequences of `seq_len` tokens and at most `max_steps` steps."""
        at = self.threshold
        if at is None:
            return Fixed(max_steps)
        if self.stopper == "lead":
            return QLearning(max_steps, lead=at)
        if self.stopper == "convergence":
            return Convergence(max_steps, tolerance=at)
        if self.stopper == "second_difference":
            return Convergence(max_steps, second_tolerance=at)
        if self.stopper == "unchanged":
            return Convergence(max_steps, unchanged_steps=round(at), seq_len=seq_len)
        sure = HaltOnly(max_steps, threshold=at, temperature=self.temperature)
        return Confirm(sure, CONFIRM_STEPS) if self.stopper == "confirm" else sure
