"""A model on a split: every step of all rows, summarised.

To the last step rows go batch by batch, and through the engine where they halt adaptively. Answers
are compared as they come: kept are a few numbers a row and step, and where they vote the answers
that are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from hrm.data.arc.augment import parse_name
from hrm.data.base import IGNORE, PuzzleSplit, batches, spread
from hrm.errors import UserError
from hrm.evaluation.exact import at_step, exactly_right, not_none, right_share
from hrm.evaluation.groups import GroupFigures, by_group
from hrm.evaluation.halting import steps_histogram
from hrm.evaluation.summary import summarise_judged
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
    answers = _Answers(model, split, rows)
    run = _adaptive if halting == "adaptive" else _to_the_end
    done = 0
    with evaluating(model):
        for solved in run(model, split, batch_size, answers):
            done += solved
            if on_batch:
                on_batch(done)
    ballots: Ballots = {}
    if answers.taken is not None:
        q_taken = at_step(answers.q_halt, answers.stopped_at)
        ballots = ballots_of(split, rows, answers.taken, q_taken)
        if on_ballots is not None:
            on_ballots(ballots)
            if not answers.labelled.any():
                return _unlabelled(answers)
    counted = not_none(answers.labelled)
    figures = summarise_judged(
        answers.right_at[:, counted],
        answers.right_shares[counted],
        answers.q_halt[:, counted],
        answers.stopped_at[counted],
        answers.policy_steps[counted],
    )
    if ballots:
        figures |= pass_at(ballots, passes)
    if groups:
        figures["by_group"] = _by_group(split, answers)
    return figures


def _by_group(split: PuzzleSplit, answers: _Answers) -> list[GroupFigures]:
    """The figures of each group; those of ARC have names. Rows without labels are left out."""
    kept = np.flatnonzero(answers.labelled)
    puzzles = np.searchsorted(split.puzzle_indices, answers.rows[kept], side="right") - 1
    found = by_group(
        np.searchsorted(split.group_indices, puzzles, side="right") - 1,
        answers.right_at[:, kept],
        answers.right_shares[kept],
        answers.stopped_at[kept],
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
    steps, max_steps = answers.stopped_at, len(answers.q_halt)
    return {
        "count": 0,
        "tasks": 0,
        "max_steps": max_steps,
        "mean_steps": float(steps.mean()),
        "steps_histogram": steps_histogram(steps, max_steps),
    }


class _Answers:
    """What `rows` of a split came to."""

    def __init__(self, model: ACTModel, split: PuzzleSplit, rows: np.ndarray) -> None:
        steps, count = model.halting.max_steps, len(rows)
        self.rows = rows
        self.labelled = np.zeros(count, dtype=np.bool_)
        self.right_at = np.zeros((steps, count), dtype=np.bool_)
        self.right_shares = np.zeros(count)
        self.q_halt = np.zeros((steps, count), dtype=np.float32)
        self.stopped_at = np.zeros(count, dtype=np.int32)
        self.policy_steps = np.zeros(count, dtype=np.int32)
        self.taken: np.ndarray | None = None
        """The answers themselves, where they vote."""
        if is_arc(split.metadata):
            # A large set is long: a byte a token instead of four.
            token = np.min_scalar_type(model.config.classes)
            self.taken = np.zeros((count, model.config.label_len), dtype=token)

    def put(
        self,
        where: slice | Integer[np.ndarray, " some"],
        labels: Integer[np.ndarray, "some length"],
        predictions: Integer[np.ndarray, "steps some length"],
        q_halt: Float[np.ndarray, "steps some"],
        stopped_at: Integer[np.ndarray, " some"],
        policy_steps: Integer[np.ndarray, " some"],
    ) -> None:
        """All steps of some rows; `where` says which of `rows` they are."""
        taken = at_step(predictions, stopped_at)
        self.labelled[where] = (labels != IGNORE).any(-1)
        self.right_at[:, where] = exactly_right(predictions, labels)
        self.right_shares[where] = right_share(taken, labels)
        self.q_halt[:, where] = q_halt
        self.stopped_at[where] = stopped_at
        self.policy_steps[where] = policy_steps
        if self.taken is not None:
            self.taken[where] = taken


def _to_the_end(
    model: ACTModel, split: PuzzleSplit, batch_size: int, answers: _Answers
) -> Iterator[int]:
    """Every row to the last step, batch by batch; yields how many rows that were."""
    for where, batch in batches(split, answers.rows, batch_size):
        labels = batch.pop("labels")
        done = solve(model, on_device(model, batch))
        columns = (done.predictions, done.q_halt, done.stopped_at, done.policy_steps)
        answers.put(where, labels, *(column.cpu().numpy() for column in columns))
        yield len(labels)


def _adaptive(
    model: ACTModel, split: PuzzleSplit, batch_size: int, answers: _Answers
) -> Iterator[int]:
    """Every row until its policy halts it, through an engine; yields how many rows just were."""
    engine = Engine(model, slots=min(batch_size, len(answers.rows)))
    rows = (batch for _, batch in batches(split, answers.rows, batch_size))
    for part in engine.solve_batches(rows, record=True):
        part.refuse_errors()
        assert part.predictions_by_step is not None
        assert part.q_halt_by_step is not None
        answers.put(
            part.index,
            split.take_labels(answers.rows[part.index]),
            part.predictions_by_step.swapaxes(0, 1),
            part.q_halt_by_step.swapaxes(0, 1),
            part.steps,
            part.steps,
        )
        yield len(part)
