"""What a model does on held-out rows, step by step: all that a stopper may look at, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from hrm.data.base import PuzzleSplit, batches, spread
from hrm.errors import UserError
from hrm.evaluation.exact import exactly_right, labelled_rows
from hrm.halting import Convergence
from hrm.halting.convergence import UNCHANGED
from hrm.inference.evaluate import check_fits
from hrm.inference.loop import evaluating, on_device
from hrm.models import ACTModel


@dataclass(frozen=True)
class StepRecords:
    """Every row ran to the last step; item i of the first axis is step i + 1."""

    right: Bool[np.ndarray, "steps rows"]
    """All tokens of the answer are right."""
    q_halt: Float[np.ndarray, "steps rows"]
    q_continue: Float[np.ndarray, "steps rows"]
    latent_change: Float[np.ndarray, "steps rows"]
    """`||z - z before|| / ||z||` of the high-level latent, or of the tokens' state."""
    unchanged_steps: Integer[np.ndarray, "steps rows"]
    """How many steps in a row have left the predictions as they were."""
    wants: Bool[np.ndarray, "steps rows"]
    """The model's own policy would halt here."""


@torch.inference_mode()
def record_steps(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    on_batch: Callable[[int], object] | None = None,
) -> StepRecords:
    """`count` rows spread evenly over the split (all by default), those without labels left out.

    on_batch: called with the number of rows done after each batch, for a progress bar.

    Raises:
        UserError: the split does not fit the model or has no labels, or q_halt is not a number.
    """
    check_fits(model, split)
    rows = spread(len(split), count)
    parts, labels = [], []
    for where, taken in batches(split, rows, batch_size):
        labels.append(taken.pop("labels"))
        with evaluating(model):
            parts.append(_record_batch(model, on_device(model, taken), labels[-1]))
        if on_batch:
            on_batch(where.stop)
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts], axis=1)
        for field in fields(StepRecords)
    }
    counted = labelled_rows(np.concatenate(labels))
    if np.isnan(columns["q_halt"][:, counted]).any():
        raise UserError("q_halt is not a number: the model's weights are broken")
    return StepRecords(**{name: column[:, counted] for name, column in columns.items()})


def _record_batch(model: ACTModel, batch: Mapping[str, Tensor], labels: np.ndarray) -> StepRecords:
    steps, length = model.config.halt_max_steps, model.config.label_len
    # It halts nobody: it makes the model tell the change, and counts unchanged predictions.
    probe = Convergence(steps, tolerance=1.0, unchanged_steps=steps, seq_len=length)
    carry = model.initial_carry(batch, seed=0, halting=probe)
    memory = model.halting.fresh_extra(len(labels), batch["inputs"].device)
    taken_steps = []
    for _ in range(steps):
        carry, outputs = model(carry, batch, halting=probe)
        wanted, memory = model.halting.wish(outputs, memory)
        predictions = outputs["logits"].argmax(-1).cpu().numpy()
        values = (
            outputs["q_halt_logits"],
            outputs["q_continue_logits"],
            outputs["latent_change"],
            carry.extra[UNCHANGED],
            wanted,
        )
        right = exactly_right(predictions, labels)
        taken_steps.append([right, *(value.cpu().numpy() for value in values)])
    return StepRecords(*(np.stack(column) for column in zip(*taken_steps, strict=True)))
