"""An evaluation compares answers as they come: the figures are those of keeping every answer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hrm.data.base import PuzzleSplit, batches
from hrm.evaluation import exactly_right, right_share, summarise
from hrm.evaluation.groups import by_group
from hrm.inference import Engine, evaluate
from hrm.inference.evaluate import evaluate_split
from hrm.inference.loop import HaltingMode, evaluating, on_device, solve
from hrm.models import ACTModel
from tests.inference.test_engine import awake, small_split

BATCH = 4


@pytest.fixture
def split() -> PuzzleSplit:
    """18 rows in groups of three, some without labels, a group whole."""
    split = small_split(18)
    split.labels[[0, 5, 12, 13, 14]] = 0
    return replace(split, group_indices=np.arange(0, 19, 3))


def kept(
    model: ACTModel, split: PuzzleSplit, rows: np.ndarray, halting: HaltingMode
) -> Iterator[np.ndarray]:
    """Predictions (steps, rows, length) and q_halt of every step, and both counts of steps."""
    if halting == "adaptive":
        stream = (batch for _, batch in batches(split, rows, BATCH))
        done = Engine(model, BATCH).solve_all(stream, record=True)
        assert done.predictions_by_step is not None
        assert done.q_halt_by_step is not None
        yield done.predictions_by_step.swapaxes(0, 1)
        yield done.q_halt_by_step.swapaxes(0, 1)
        yield from (done.steps, done.steps)
        return
    parts = [solve(model, on_device(model, batch)) for _, batch in batches(split, rows, BATCH)]
    for name, axis in (("predictions", 1), ("q_halt", 1), ("stopped_at", 0), ("policy_steps", 0)):
        yield np.concatenate([getattr(part, name).numpy() for part in parts], axis)


@pytest.mark.parametrize("halting", ["max_steps", "adaptive"])
def test_the_figures_are_those_of_keeping_every_answer(
    split: PuzzleSplit, halting: HaltingMode
) -> None:
    model = awake("hrm")
    rows = np.arange(18)
    with evaluating(model):
        predictions, q_halt, stopped_at, policy_steps = kept(model, split, rows, halting)
    labels = split.take(rows)["labels"]
    expected: dict[str, Any] = summarise(predictions, q_halt, labels, stopped_at, policy_steps)
    labelled = np.flatnonzero((labels != -100).any(-1))
    expected["by_group"] = by_group(
        labelled // 3,
        exactly_right(predictions[:, labelled], labels[labelled]),
        right_share(predictions[stopped_at - 1, np.arange(18)], labels)[labelled],
        stopped_at[labelled],
        policy_steps[labelled],
    )
    figures = evaluate_split(model, split, batch_size=BATCH, halting=halting, groups=True)
    assert figures == expected
    assert figures["count"] == len(labelled) < 18
    assert [group["group"] for group in figures["by_group"]] == [0, 1, 2, 3, 5]
    assert 0 < figures["accuracy"] < 1
    assert len(set(policy_steps.tolist())) > 1


@pytest.mark.parametrize("halting", ["max_steps", "adaptive"])
def test_no_answers_are_kept_that_do_not_vote(
    split: PuzzleSplit, halting: HaltingMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[evaluate._Answers] = []
    made = evaluate._Answers.__init__

    def remember(self: evaluate._Answers, *arguments: Any) -> None:
        made(self, *arguments)
        found.append(self)

    monkeypatch.setattr(evaluate._Answers, "__init__", remember)
    model = awake("hrm")
    evaluate_split(model, split, batch_size=BATCH, halting=halting)
    (answers,) = found
    shapes = {v.shape for v in vars(answers).values() if isinstance(v, np.ndarray)}
    assert shapes == {(18,), (model.halting.max_steps, 18)}
