"""Whether a run's layers go through `torch.compile`: by setting, device, or a short measurement."""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Mapping

from torch import Tensor

from hrm.config import ExperimentConfig, planned_updates
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss
from hrm.training.losses import step_loss

WORTH_S = 600.0
"""A run on a CPU shorter than this is over before compiling has paid."""
WORTH_UPDATES = 1000
"""A shorter run is not even measured."""
GAIN = 1.1
"""Compiled layers have to be so many times as fast."""


def compiles(
    config: ExperimentConfig, model: ACTModel, batch: Mapping[str, Tensor], rows: int | None
) -> bool:
    """What `config.compile` means here, for a run over `rows` rows (None: without end)."""
    if not model.compilable:
        return False
    if config.compile != "auto":
        return config.compile
    updates, seconds = planned_updates(config, rows), config.stop_after_s or math.inf
    return decide_compile(model, batch, config.loss, updates, seconds)


def decide_compile(
    model: ACTModel, batch: Mapping[str, Tensor], loss: TokenLoss, updates: float, seconds: float
) -> bool:
    """Whether compiled layers pay in a run of so many updates, or seconds, whichever ends first.

    Args:
        batch: rows of the shape that training will see; their content does not matter.
    """
    if next(model.parameters()).device.type == "cuda":
        return True
    if updates < WORTH_UPDATES:
        return False
    plain = _Timed(model, batch, loss)
    plain()
    if min(plain.seconds(1) * updates, seconds) < WORTH_S:
        return False
    compiled = _Timed(model, batch, loss)
    compiled.model.compile_layers()
    try:
        compiled()
    except Exception as error:  # No compiler, or one that fails: the run goes on without.
        warnings.warn(f"compile=auto: not used ({type(error).__name__})", stacklevel=2)
        return False
    # Side by side, so that a busy moment hits both.
    ratios = [plain.seconds(1) / compiled.seconds(1) for _ in range(3)]
    return statistics.median(ratios) >= GAIN


class _Timed:
    """Forward and backward of one step on a copy of the model, from a carry of its own."""

    def __init__(self, model: ACTModel, batch: Mapping[str, Tensor], loss: TokenLoss) -> None:
        self.model, self.batch, self.loss = copy.deepcopy(model), batch, loss
        self.carry = self.model.initial_carry(batch, seed=0)

    def __call__(self) -> None:
        carry, outputs = self.model(self.carry, self.batch)
        step_loss(outputs, carry, self.model.halting, self.loss).loss.backward()

    def seconds(self, times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            self()
        return (time.perf_counter() - started) / times
