"""Figures of an image model on a split: its classes of pixels, and how well it halts.

To the last step rows go batch by batch, and the cost of halting at each step is known. Where rows
halt adaptively, through the engine, nothing is known of the steps after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from hrm.data.base import PuzzleSplit, batches, spread
from hrm.evaluation.exact import at_step, labelled_rows
from hrm.evaluation.halting import steps_histogram
from hrm.evaluation.policy import by_difficulty, policy_figures, step_figures
from hrm.evaluation.segmentation import (
    class_counts,
    dice_of,
    exactly_right_of,
    iou_of,
    right_share_of,
)
from hrm.halting import costs, optimal_step
from hrm.inference.engine import Engine
from hrm.inference.fits import check_fits
from hrm.inference.image_steps import SegmentationRecord, difficulty_of, image_of, record
from hrm.inference.loop import HaltingMode, evaluating
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss

STEP_PENALTY, TOLERANCE = 0.01, 0.0
"""lambda and the tolerance of k* where neither the caller nor the model has them."""


def segmentation_summary(
    recorded: SegmentationRecord,
    *,
    step_penalty: float = STEP_PENALTY,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """The figures of an evaluation to the last step, for JSON.

    Args:
        step_penalty: lambda of the cost `J_n = task loss + lambda n`.
        tolerance: k* is the first step this close to the lowest cost of its row.

    Returns:
        `count` (rows with a label), `max_steps`; of the answers after the last step `accuracy`
        (mean over rows of the share of right pixels), `exact_accuracy`, `iou`, `dice`,
        `mean_steps`; `iou_by_step` and `loss_by_step`, item i: all rows stopped after step i + 1;
        `step_penalty` and `tolerance`; under `halting/` the figures of `policy_figures` and `iou`,
        `dice` and `exact_accuracy` at the policy's step; `steps_histogram` of the policy's steps
        and `optimal_steps_histogram` of k*, item i: step i + 1; `by_difficulty`, None without one.
    """
    steps, max_steps = recorded.steps, len(recorded.wants)
    task_loss = torch.from_numpy(recorded.task_loss)
    cost = costs(task_loss, step_penalty)
    best = optimal_step(cost, tolerance).numpy()
    halting = policy_figures(cost.numpy(), steps, best, recorded.difficulty)
    overlap, doubled = iou_of(recorded.counts), dice_of(recorded.counts)
    exact = exactly_right_of(recorded.counts)
    halting |= {
        "iou": _mean(at_step(overlap, steps)),
        "dice": _mean(at_step(doubled, steps)),
        "exact_accuracy": _mean(at_step(exact, steps)),
    }
    return {
        "count": len(steps),
        "max_steps": max_steps,
        "accuracy": _mean(right_share_of(recorded.counts)[-1]),
        "exact_accuracy": _mean(exact[-1]),
        "iou": _mean(overlap[-1]),
        "dice": _mean(doubled[-1]),
        "mean_steps": float(max_steps),
        "iou_by_step": overlap.mean(1).tolist(),
        "loss_by_step": recorded.task_loss.mean(1, dtype=np.float64).tolist(),
        "step_penalty": step_penalty,
        "tolerance": tolerance,
        **{f"halting/{name}": value for name, value in halting.items()},
        "steps_histogram": steps_histogram(steps, max_steps),
        "optimal_steps_histogram": steps_histogram(best, max_steps),
        "by_difficulty": _by_difficulty(steps, recorded.difficulty, best),
    }


def evaluate_images(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    halting: HaltingMode = "max_steps",
    loss: TokenLoss = "stablemax",
    step_penalty: float | None = None,
    tolerance: float | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Figures over `count` rows spread evenly over a split of images (all by default).

    `segmentation_summary`; adaptively `adaptive_summary`, the part of it that halting there leaves
    to be known. Both with `operations`, if the model can tell them.

    Args:
        batch_size: rows at once; with adaptive halting the engine's slots.
        loss: of a pixel, as the model was trained.
        step_penalty, tolerance: of the cost; None: as the model's policy or settings have them,
            else `STEP_PENALTY` and `TOLERANCE`.
        on_batch: called with the number of rows done so far, for a progress bar.

    Raises:
        UserError: see `record`.
    """
    if halting == "adaptive":
        figures = adaptive_summary(
            model, split, count=count, batch_size=batch_size, on_batch=on_batch
        )
    else:
        recorded = record(
            model, split, count=count, batch_size=batch_size, loss=loss, on_batch=on_batch
        )
        figures = segmentation_summary(
            recorded,
            step_penalty=_setting(model, step_penalty, STEP_PENALTY, "step_penalty"),
            tolerance=_setting(model, tolerance, TOLERANCE, "optimum_tolerance"),
        )
    told = operation_figures(model, figures["halting/mean_steps"])
    return figures if told is None else figures | {"operations": told}


def adaptive_summary(
    model: ACTModel,
    split: PuzzleSplit,
    *,
    count: int | None = None,
    batch_size: int = 256,
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """The figures of answers that were taken where the policy halted, through the engine.

    As those of `segmentation_summary` but that `iou` and so on are those at the policy's step, and
    `mean_steps` too. What needs the costs of all steps is missing.
    """
    check_fits(model, split)
    classes, rows = image_of(split).classes, spread(len(split), count)
    labels = np.empty((len(rows), model.config.label_len), dtype=np.int32)
    predictions, steps = np.empty_like(labels), np.empty(len(rows), dtype=np.int32)

    def images() -> Iterator[dict[str, np.ndarray]]:
        for where, taken in batches(split, rows, batch_size):
            labels[where] = taken.pop("labels")
            yield dict(taken)

    done = 0
    engine = Engine(model, slots=min(batch_size, len(rows)))
    with evaluating(model):
        for part in engine.solve_batches(images()):
            part.refuse_errors()
            predictions[part.index], steps[part.index] = part.predictions, part.steps
            done += len(part)
            if on_batch:
                on_batch(done)
    counted = labelled_rows(labels)
    counts = class_counts(predictions[counted], labels[counted], classes)
    steps, max_steps = steps[counted], model.halting.max_steps
    difficulty = difficulty_of(split, rows[counted])
    overlap, doubled = _mean(iou_of(counts)), _mean(dice_of(counts))
    exact = _mean(exactly_right_of(counts))
    halting = step_figures(steps, difficulty) | {
        "iou": overlap,
        "dice": doubled,
        "exact_accuracy": exact,
    }
    return {
        "count": len(steps),
        "max_steps": max_steps,
        "accuracy": _mean(right_share_of(counts)),
        "exact_accuracy": exact,
        "iou": overlap,
        "dice": doubled,
        "mean_steps": float(steps.mean()),
        **{f"halting/{name}": value for name, value in halting.items()},
        "steps_histogram": steps_histogram(steps, max_steps),
        "by_difficulty": _by_difficulty(steps, difficulty),
    }


def operation_figures(model: ACTModel, mean_steps: float) -> dict[str, float] | None:
    """Multiply-adds of an image, decoded once; None if the model does not tell them.

    `encoder` (once), `iteration` (of each step, its `heads` included) and `decoder`; `max_steps` of
    an image that runs to the last step, for which no head is asked, `halting` of one that halts
    after `mean_steps`, and `saved`, the share of the former that the latter leaves out.
    """
    if (counter := getattr(model, "operations", None)) is None:
        return None
    parts = counter()
    whole = parts.without_heads().total(model.halting.max_steps)
    halting = parts.total(mean_steps)
    told = {"max_steps": whole, "halting": halting, "saved": 1 - halting / whole}
    return {**parts._asdict(), **told}


def _by_difficulty(
    steps: np.ndarray, difficulty: np.ndarray | None, best: np.ndarray | None = None
) -> list[Any] | None:
    return None if difficulty is None else list(by_difficulty(steps, difficulty, best))


def _setting(model: ACTModel, given: float | None, default: float, name: str) -> float:
    """What the caller gives, else the model's policy, else its settings, else `default`."""
    for value in (given, getattr(model.halting, name, None), getattr(model.config, name, None)):
        if value is not None:
            return float(value)
    return default


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))
