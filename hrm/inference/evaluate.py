"""A model on a split: every step of all rows, summarised.

To the last step rows go batch by batch, and through the engine where they halt adaptively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from hrm.config import TokenLoss
from hrm.data.base import PuzzleSplit, spread
from hrm.errors import UserError
from hrm.evaluation.summary import summarise
from hrm.inference.engine import Engine
from hrm.inference.fits import check_fits
from hrm.inference.loop import HaltingMode, evaluating, solve
from hrm.inference.segmentation import evaluate_images
from hrm.models import ACTModel

__all__ = ["check_fits", "evaluate_split"]


def evaluate_split(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    halting: HaltingMode = "max_steps",
    loss: TokenLoss = "stablemax",
    step_penalty: float | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Figures over `count` rows spread evenly over the split (all by default).

    Those of `summarise`; of images those of `evaluate_images`.

    Args:
        batch_size: rows at once; with adaptive halting the engine's slots.
        loss, step_penalty: of images, see `evaluate_images`.
        on_batch: called with the number of rows done so far, for a progress bar.

    Raises:
        UserError: the split does not fit the model or has no labels, the model's weights are
            broken, or a step's penalty is given for other rows than images.
    """
    if split.metadata.image is not None:
        return evaluate_images(
            model,
            split,
            count=count,
            batch_size=batch_size,
            halting=halting,
            loss=loss,
            step_penalty=step_penalty,
            on_batch=on_batch,
        )
    if step_penalty is not None:
        raise UserError(f"step_penalty: is for images, and {split.path} holds none")
    check_fits(model, split)
    rows = spread(len(split), count)
    answers = _Answers(model, rows)
    run = _adaptive if halting == "adaptive" else _to_the_end
    done = 0
    with evaluating(model):
        for solved in run(model, split, batch_size, answers):
            done += solved
            if on_batch:
                on_batch(done)
    return summarise(
        answers.predictions,
        answers.q_halt,
        answers.labels,
        answers.stopped_at,
        halt_steps=answers.policy_steps,
    )


class _Answers:
    """Room for what `summarise` reads of `rows` of a split."""

    def __init__(self, model: ACTModel, rows: np.ndarray) -> None:
        steps, length, count = model.halting.max_steps, model.config.label_len, len(rows)
        self.rows = rows
        # A large set is long: a byte a token instead of four.
        token = np.min_scalar_type(model.config.classes)
        self.predictions = np.zeros((steps, count, length), dtype=token)
        self.q_halt = np.zeros((steps, count), dtype=np.float32)
        self.labels = np.zeros((count, length), dtype=np.int32)
        self.stopped_at = np.zeros(count, dtype=np.int32)
        self.policy_steps = np.zeros(count, dtype=np.int32)

    def batches(
        self, split: PuzzleSplit, batch_size: int
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Where each batch of the rows goes, and what the model reads; its labels are put there."""
        for start in range(0, len(self.rows), batch_size):
            where = slice(start, start + batch_size)
            taken = split.take(self.rows[where])
            self.labels[where] = taken.pop("labels")
            yield where, dict(taken)


def _to_the_end(
    model: ACTModel, split: PuzzleSplit, batch_size: int, answers: _Answers
) -> Iterator[int]:
    """Every row to the last step, batch by batch; yields how many rows that were."""
    device = next(model.parameters()).device
    for where, batch in answers.batches(split, batch_size):
        done = solve(model, {k: torch.from_numpy(v).to(device) for k, v in batch.items()})
        answers.predictions[:, where] = done.predictions.cpu().numpy()
        answers.q_halt[:, where] = done.q_halt.cpu().numpy()
        answers.stopped_at[where] = done.stopped_at.cpu().numpy()
        answers.policy_steps[where] = done.policy_steps.cpu().numpy()
        yield len(batch["inputs"])


def _adaptive(
    model: ACTModel, split: PuzzleSplit, batch_size: int, answers: _Answers
) -> Iterator[int]:
    """Every row until its policy halts it, through an engine; yields how many rows just were."""
    engine = Engine(model, slots=min(batch_size, len(answers.rows)))
    batches = (batch for _, batch in answers.batches(split, batch_size))
    for part in engine.solve_batches(batches, record=True):
        part.refuse_errors()
        assert part.predictions_by_step is not None
        assert part.q_halt_by_step is not None
        answers.predictions[:, part.index] = part.predictions_by_step.swapaxes(0, 1)
        answers.q_halt[:, part.index] = part.q_halt_by_step.swapaxes(0, 1)
        answers.stopped_at[part.index] = part.steps
        answers.policy_steps[part.index] = part.steps
        yield len(part)
