"""The progress line: what it tells of a row, and what it does without."""

from collections.abc import Callable

import pytest

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.training.progress import TrainProgress

Config = Callable[..., ExperimentConfig]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("dynamics=persistent", "arch.halt_exploration_prob=0"), "steps 4.0"),
        (("dynamics=online", "num_act_steps=2"), None),
    ],
)
def test_steps_are_told_where_they_are_logged(
    small: Config, settings: tuple[str, ...], told: str | None
) -> None:
    updates = ("max_steps=4", "step_curriculum=[]", "eval_every_steps=null")
    trainer = make_trainer(small("a", *settings, *updates))
    with TrainProgress(trainer, enabled=False) as line:
        trainer.run()
    figures = line.progress.tasks[0].fields["figures"].split("  ")
    # All sequences ended in the last update.
    assert [f.split()[0] for f in figures[:3]] == ["update", "loss", "exact"]
    assert [f for f in figures if f.startswith("steps")] == ([] if told is None else [told])
    assert figures[-1].startswith("held out")
