"""A model on a split: every step of all rows, summarised.

To the last step rows go batch by batch, and through the engine where they halt adaptively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hrm.data.arc.augment import parse_name
from hrm.data.base import IGNORE, PuzzleSplit, batches, spread
from hrm.errors import UserError
from hrm.evaluation.exact import at_step, exactly_right, labelled_rows, right_share
from hrm.evaluation.groups import GroupFigures, by_group
from hrm.evaluation.halting import steps_histogram
from hrm.evaluation.summary import summarise
from hrm.evaluation.voting import Ballots, pass_at
from hrm.inference.engine import Engine
from hrm.inference.fits import check_fits
from hrm.inference.loop import HaltingMode, evaluating, on_device, solve
from hrm.inference.segmentation import evaluate_images
from hrm.inference.voting import ballots_of, is_arc, read_identifiers
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss

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
    passes: Sequence[int] = (1, 2),
    on_ballots: Callable[[Ballots], object] | None = None,
    groups: bool = False,
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Figures over `count` rows spread evenly over the split (all by default).

    Those of `summarise`; of images those of `evaluate_images`. Of ARC's tasks also those of
    `pass_at`: the forms of a test input vote for its answer.

    Args:
        batch_size: rows at once; with adaptive halting the engine's slots.
        loss, step_penalty: of images, see `evaluate_images`.
        passes: of ARC's tasks, the k of each pass@k.
        on_ballots: called with the ranked answers to ARC's tasks. With it rows may be without any
            label: then `count` and `tasks` are 0, and only what is known of steps is there.
        groups: of tokens, also `by_group`: what `hrm.evaluation.groups.by_group` says.
        on_batch: called with the number of rows done so far, for a progress bar.

    Raises:
        UserError: the split does not fit the model or has no labels, the model's weights are
            broken, a step's penalty is given for other rows than images, or ballots are asked for
            of other rows than ARC's.
    """
    if on_ballots is not None and not is_arc(split.metadata):
        raise UserError(f"a submission is of ARC's tasks, and {split.path} holds none")
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
    ballots: Ballots = {}
    if is_arc(split.metadata):
        taken = at_step(answers.predictions, answers.stopped_at)
        ballots = ballots_of(split, rows, taken, at_step(answers.q_halt, answers.stopped_at))
        if on_ballots is not None:
            on_ballots(ballots)
            if not (answers.labels != IGNORE).any():
                return _unlabelled(answers)
    figures = summarise(
        answers.predictions,
        answers.q_halt,
        answers.labels,
        answers.stopped_at,
        halt_steps=answers.policy_steps,
    )
    if ballots:
        figures |= pass_at(ballots, passes)
    if groups:
        figures["by_group"] = _by_group(split, answers)
    return figures


def _by_group(split: PuzzleSplit, answers: _Answers) -> list[GroupFigures]:
    """The figures of each group; those of ARC have names. Rows without labels are left out."""
    kept = np.flatnonzero(labelled_rows(answers.labels))
    labels, stopped_at = answers.labels[kept], answers.stopped_at[kept]
    puzzles = np.searchsorted(split.puzzle_indices, answers.rows[kept], side="right") - 1
    taken = answers.predictions[stopped_at.astype(np.int64) - 1, kept]
    found = by_group(
        np.searchsorted(split.group_indices, puzzles, side="right") - 1,
        np.stack([exactly_right(at[kept], labels) for at in answers.predictions]),
        right_share(taken, labels),
        stopped_at,
        answers.policy_steps[kept],
    )
    if is_arc(split.metadata):
        names = read_identifiers(split.path.parent)
        for figures in found:
            first = split.puzzle_identifiers[split.group_indices[figures["group"]]]
            figures["task"] = parse_name(names[first])[0]
    return found


def _unlabelled(answers: _Answers) -> dict[str, Any]:
    """What is known where no answer is."""
    steps = answers.stopped_at
    return {
        "count": 0,
        "tasks": 0,
        "max_steps": len(answers.predictions),
        "mean_steps": float(steps.mean()),
        "steps_histogram": steps_histogram(steps, len(answers.predictions)),
    }


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
        for where, taken in batches(split, self.rows, batch_size):
            self.labels[where] = taken.pop("labels")
            yield where, dict(taken)


def _to_the_end(
    model: ACTModel, split: PuzzleSplit, batch_size: int, answers: _Answers
) -> Iterator[int]:
    """Every row to the last step, batch by batch; yields how many rows that were."""
    for where, batch in answers.batches(split, batch_size):
        done = solve(model, on_device(model, batch))
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
    rows = (batch for _, batch in answers.batches(split, batch_size))
    for part in engine.solve_batches(rows, record=True):
        part.refuse_errors()
        assert part.predictions_by_step is not None
        assert part.q_halt_by_step is not None
        answers.predictions[:, part.index] = part.predictions_by_step.swapaxes(0, 1)
        answers.q_halt[:, part.index] = part.q_halt_by_step.swapaxes(0, 1)
        answers.stopped_at[part.index] = part.steps
        answers.policy_steps[part.index] = part.steps
        yield len(part)
