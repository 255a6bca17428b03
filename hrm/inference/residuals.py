"""Whether the recursion nears a fixed point: residuals by cycle, predictions by step.

HRM's 1-step gradient is derived at a fixed point of its levels (Wang et al. 2025, arXiv:2506.21734,
after deep equilibrium models, Bai et al. 2019, arXiv:1909.01377). A cycle `z <- f(z)` measures how
far from one it is: the residual `||f(z) - z|| / ||f(z)||` is 0 there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from hrm.evaluation import accuracy_by_step
from hrm.models import ACTModel
from hrm.models.base import Latents, relative_change, token_model

QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}


class Residual(NamedTuple):
    """What one cycle did to the latent that it updates."""

    level: str
    """`H` or `L`."""
    values: Float[Tensor, " rows"]


@dataclass
class Convergence:
    """Residuals and predictions of a batch over K steps of C cycles."""

    levels: list[str]
    """Which level each of a step's cycles updates, in order: L, L, H, L, L, H for two and two."""
    residuals: Float[np.ndarray, "steps cycles rows"]
    predictions: Int[np.ndarray, "steps rows length"]

    def of(self, level: str) -> Float[np.ndarray, "steps level_cycles rows"]:
        """The residuals of the cycles that update `level`."""
        return self.residuals[:, [i for i, name in enumerate(self.levels) if name == level]]

    def settled(self, tolerance: float) -> Bool[np.ndarray, " rows"]:
        """Rows at a fixed point: the last residual of each level is below `tolerance`."""
        last = [self.of(level)[-1, -1] for level in sorted(set(self.levels))]
        return np.max(last, axis=0) < tolerance


def step_residuals(
    cycles: Sequence[Callable[[Latents, Tensor], Latents]], latents: Latents, x: Tensor
) -> tuple[Latents, list[Residual]]:
    """One step, cycle by cycle: the latents after it and each cycle's residual."""
    residuals = []
    for cycle in cycles:
        after = cycle(latents, x)
        for name, new, old in zip(after._fields, after, latents, strict=True):
            if new is not old:  # A cycle hands on what it leaves alone.
                residuals.append(Residual(name.removeprefix("z_"), relative_change(new, old)))
        latents = after
    return latents, residuals


@torch.inference_mode()
def measure_convergence(model: ACTModel, batch: Mapping[str, Tensor], steps: int) -> Convergence:
    """`steps` steps of every row from the initial latents; nothing halts, so it may exceed K.

    In the model's own type: in bfloat16 residuals end at its rounding, some 0.003.

    Args:
        batch: `inputs` `(rows, length)` and `puzzle_identifiers` `(rows,)`.
    """
    model.eval()
    whole = token_model(model)
    inner = whole.inner
    empty = model.initial_carry(batch, seed=0)
    latents = inner.reset_latents(empty.inner_carry, empty.halted)
    taken, predictions = [], []
    with inner.casted():
        x = whole.input_of(batch)
        for _ in range(steps):
            latents, residuals = step_residuals(inner.cycles(), latents, x)
            taken.append(torch.stack([r.values for r in residuals]))
            predictions.append(inner.heads(latents.z_H)["logits"].argmax(-1).to(torch.int32))
    return Convergence(
        [r.level for r in residuals],
        torch.stack(taken).cpu().numpy(),
        torch.stack(predictions).cpu().numpy(),
    )


def joined(parts: Sequence[Convergence]) -> Convergence:
    """Batches of the same model and number of steps as one, rows in order."""
    residuals = np.concatenate([p.residuals for p in parts], axis=2)
    return Convergence(
        parts[0].levels, residuals, np.concatenate([p.predictions for p in parts], axis=1)
    )


def summarise_convergence(
    measured: Convergence, labels: Integer[np.ndarray, "rows length"], tolerance: float
) -> dict[str, Any]:
    """The figures of a trajectory, as plain values; lists over steps start at step 1.

    Returns:
        `count`, `steps`; `cycles`, the level of each of a step's cycles (`["L", "L", "H", ...]`).
        By level: `residuals`, means over rows [steps][the level's cycles in a step];
        `residual_quantiles`, the same as `q10`, `median` and `q90`; `falls_within_step` [steps],
        the share of rows whose residual is lower at the step's last cycle of the level than at its
        first (None if that is one cycle); `falls_over_steps`, the share of rows for which that of
        the last cycle is lower at the last step than at the first, and `ratio_over_steps`, the
        median over rows of last / first (None if there is one step, or no residual to start with);
        `converged`, the share of rows whose last residual of all is below `tolerance`.
        `changed_tokens`, mean number of tokens per row, and `changed_sequences`, share of rows with
        any, that differ from the step before (None at step 1). `accuracy_by_step`: exact.
    """
    steps, rows, length = measured.predictions.shape
    figures: dict[str, Any] = {
        "count": rows,
        "steps": steps,
        "seq_len": length,
        "cycles": measured.levels,
        "tolerance": tolerance,
    }
    for level in sorted(set(measured.levels)):
        for name, value in _figures_of_level(measured.of(level), tolerance).items():
            figures.setdefault(name, {})[level] = value
    changed = measured.predictions[1:] != measured.predictions[:-1]
    return figures | {
        "changed_tokens": [None, *changed.sum(-1).mean(-1).tolist()],
        "changed_sequences": [None, *changed.any(-1).mean(-1).tolist()],
        "accuracy_by_step": accuracy_by_step(measured.predictions, labels),
    }


def _figures_of_level(
    residuals: Float[np.ndarray, "steps cycles rows"], tolerance: float
) -> dict[str, Any]:
    steps, cycles, _ = residuals.shape
    first, last = residuals[0, -1], residuals[-1, -1]
    quantiles = np.quantile(residuals, list(QUANTILES.values()), axis=2)
    moving = first > 0
    compares = steps > 1 and moving.any()
    return {
        "residuals": residuals.mean(2, dtype=np.float64).tolist(),
        "residual_quantiles": dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        "falls_within_step": [
            float((step[-1] < step[0]).mean()) if cycles > 1 else None for step in residuals
        ],
        "falls_over_steps": float((last < first).mean()) if steps > 1 else None,
        "ratio_over_steps": float(np.median(last[moving] / first[moving])) if compares else None,
        "converged": float((last < tolerance).mean()),
    }
