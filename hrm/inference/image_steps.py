"""What an image model does on held-out rows, step by step: counts of its classes, losses, wishes.

Counts are kept in place of predictions, which take more room, and the task loss, so that the cost
of halting at each step is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from hrm.data.base import ImageMetadata, PuzzleSplit, batches, spread
from hrm.errors import UserError
from hrm.evaluation.exact import labelled_rows
from hrm.evaluation.halting import first_halt
from hrm.evaluation.segmentation import ClassCounts, class_counts
from hrm.halting.dual_value import ACCUMULATED
from hrm.inference.fits import check_fits
from hrm.inference.loop import evaluating, on_device
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss, mean_losses


class ImageStep(NamedTuple):
    """What a step of a batch gave."""

    logits: Float[Tensor, "rows pixels classes"]
    wants: Bool[Tensor, " rows"]
    """The policy would halt here."""
    values: dict[str, Float[Tensor, " rows"]]
    """`q_halt`, and where the policy has them `contribution`, `threshold`, `accumulated` (S)."""


@torch.inference_mode()
def image_steps(model: ACTModel, batch: Mapping[str, Tensor]) -> Iterator[ImageStep]:
    """Every row of `batch` (`inputs` (rows, seq_len)) to the last step, in evaluation mode."""
    policy = model.halting
    with evaluating(model):
        carry = model.initial_carry(batch, seed=0)
        for _ in range(policy.max_steps):
            before = carry.extra
            carry, outputs = model(carry, batch)
            wants, memory = policy.wish(outputs, before)
            values = {"q_halt": outputs["q_halt_logits"]}
            values |= {k: outputs[k] for k in ("contribution", "threshold") if k in outputs}
            if ACCUMULATED in memory:
                values[ACCUMULATED] = memory[ACCUMULATED]
            yield ImageStep(outputs["logits"], wants, values)


@dataclass(frozen=True)
class SegmentationRecord:
    """Every row ran to the last step; item i of an axis of steps is step i + 1. Rows without any
    label are left out."""

    counts: ClassCounts
    """Of each step and row, int32 `(steps, rows, classes)`."""
    task_loss: Float[np.ndarray, "steps rows"]
    """Mean over the labelled pixels, float32."""
    wants: Bool[np.ndarray, "steps rows"]
    """The model's own policy would halt here."""
    values: dict[str, Float[np.ndarray, "steps rows"]]
    """See `ImageStep`."""
    difficulty: Integer[np.ndarray, " rows"] | None
    """Where the data set knows it."""
    predictions: Integer[np.ndarray, "steps rows pixels"] | None = None
    """Only if they were asked for."""

    @property
    def steps(self) -> Integer[np.ndarray, " rows"]:
        """The policy's step: the first at which it would halt, the last if nowhere."""
        return first_halt(self.wants)


@torch.inference_mode()
def record(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    loss: TokenLoss = "stablemax",
    predictions: bool = False,
    on_batch: Callable[[int], object] | None = None,
) -> SegmentationRecord:
    """`count` rows spread evenly over the split (all by default), step by step.

    Args:
        loss: of a pixel, as the model was trained.
        predictions: keep them too, which takes `steps * rows * pixels` bytes.
        on_batch: called with the number of rows done after each batch, for a progress bar.

    Raises:
        UserError: the split does not fit the model, holds no images or no labels, or the model's
            losses are not finite.
    """
    check_fits(model, split)
    classes, rows = image_of(split).classes, spread(len(split), count)
    parts: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    for where, taken in batches(split, rows, batch_size):
        labels.append(taken.pop("labels"))
        batch = on_device(model, taken)
        parts.append(_record_batch(model, batch, labels[-1], classes, loss, predictions))
        if on_batch:
            on_batch(where.stop)
    counted = labelled_rows(np.concatenate(labels))
    columns = {k: np.concatenate([p[k] for p in parts], axis=1)[:, counted] for k in parts[0]}
    task_loss = columns.pop("task_loss")
    if broken := int((~np.isfinite(task_loss)).any(0).sum()):
        raise UserError(
            f"the loss is not finite for {broken} of {task_loss.shape[1]} rows: the model's "
            "weights are broken"
        )
    return SegmentationRecord(
        counts=ClassCounts(*(columns.pop(name) for name in ClassCounts._fields)),
        task_loss=task_loss,
        wants=columns.pop("wants"),
        difficulty=difficulty_of(split, rows[counted]),
        predictions=columns.pop("predictions", None),
        values=columns,
    )


def _record_batch(
    model: ACTModel,
    batch: Mapping[str, Tensor],
    labels: np.ndarray,
    classes: int,
    loss: TokenLoss,
    keep: bool,
) -> dict[str, np.ndarray]:
    """The columns of `SegmentationRecord` by name, steps first."""
    targets = torch.from_numpy(labels).to(batch["inputs"].device)
    taken: list[dict[str, np.ndarray]] = []
    for step in image_steps(model, batch):
        losses = mean_losses(step.logits, targets, loss)
        said = step.logits.argmax(-1).to(torch.int32).cpu().numpy()
        values = {"task_loss": losses, "wants": step.wants, **step.values}
        column = {name: value.cpu().numpy() for name, value in values.items()}
        column |= class_counts(said, labels, classes)._asdict()
        if keep:
            column["predictions"] = said.astype(np.uint8)
        taken.append(column)
    return {name: np.stack([column[name] for column in taken]) for name in taken[0]}


def image_of(split: PuzzleSplit) -> ImageMetadata:
    """What the images of a split show. Raises `UserError` if its rows are no images."""
    if split.metadata.image is None:
        raise UserError(f"{split.path}: its rows are no images")
    return split.metadata.image


def difficulty_of(
    split: PuzzleSplit, rows: Integer[np.ndarray, " rows"]
) -> Integer[np.ndarray, " rows"] | None:
    """Of these rows, in memory; None where the data set does not know it."""
    return None if split.difficulty is None else np.asarray(split.difficulty[rows])
