"""The loop: deterministic, honest about what it counts, and stopped by what is not finite."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig, compose
from hrm.errors import UserError
from hrm.training.checkpoint import checkpoints
from hrm.training.trainer import NonFiniteError, Trainer
from tests.training.conftest import SMALL, composed

Config = Callable[..., ExperimentConfig]
Trained = Callable[..., Trainer]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def losses(trainer: Trainer) -> list[float]:
    return [row["train/loss"] for row in trainer.rows()]


def test_the_settings_of_these_tests_are_those_that_a_command_gets() -> None:
    given = ("lr=1e-2", "arch=hrm_small", "step_curriculum=[[8,2],[14,3]]", "out=null", "seed=3")
    given += ("data.path=/tmp/a b", "arch.continue_target=none", "compile=false")
    assert composed(SMALL, *given) == compose([*SMALL, *given])


def test_two_runs_write_the_same_rows_and_another_seed_does_not(trained: Trained) -> None:
    first, second = without_time(trained("a").rows()), without_time(trained("b").rows())
    assert len(first) == 20
    assert first == second
    assert without_time(trained("c", "seed=1").rows()) != first


def test_a_row_says_what_the_readme_says(trained: Trained) -> None:
    row = trained("a").rows()[-1]
    assert row["step"] == 20
    for name in ("loss", "exact_accuracy", "q_halt_accuracy", "steps"):
        assert f"train/{name}" in row
    assert row["eval/count"] == 20
    assert row["samples"] >= 8
    assert "time/train_s" in row


def test_evaluation_does_not_touch_training(trained: Trained) -> None:
    often, never = trained("a", "eval_every_steps=1"), trained("b", "eval_every_steps=null")
    assert losses(often) == losses(never)
    assert sum("eval/count" in r for r in often.rows()) == 20
    assert sum("eval/count" in r for r in never.rows()) == 1


def test_evaluation_may_halt_as_the_policy_says(trained: Trained) -> None:
    eager = "arch.halt_threshold=0.003"
    whole, halting = trained("a", eager), trained("b", eager, "eval_halting=adaptive")
    assert losses(whole) == losses(halting)
    last, early = whole.rows()[-1], halting.rows()[-1]
    assert early["eval/mean_steps"] == last["eval/policy_mean_steps"] < last["eval/mean_steps"]
    assert early["eval/exact_accuracy"] == last["eval/policy_exact_accuracy"]


def test_steps_are_those_at_halt_and_within_the_limit(trained: Trained) -> None:
    rows = trained("a", "arch.train_max_steps=3", "arch.halt_max_steps=5").rows()
    steps = [r["train/steps"] for r in rows if r["train/steps"] is not None]
    assert steps
    assert all(1 <= s <= 3 for s in steps)
    assert rows[-1]["eval/mean_steps"] == 5


@pytest.mark.parametrize("limit", [1, 4])
def test_an_epoch_is_every_row_once_and_to_its_end(trained: Trained, limit: int) -> None:
    fixed = ("arch.halting=fixed", f"arch.train_max_steps={limit}", "eval_every_steps=null")
    trainer = trained("a", "epochs=2", "max_steps=null", *fixed)
    assert trainer.feeder.admitted == 2 * 60
    # `limit` steps a row and eight slots: 15 updates for each step, the last row's included.
    assert trainer.step == 15 * limit
    assert sum(row["train/count"] for row in trainer.rows()) == 120


def test_micro_batches_equal_one_batch(trained: Trained) -> None:
    whole, parts = losses(trained("a")), losses(trained("b", "grad_accumulation=4"))
    assert parts == pytest.approx(whole, rel=2e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam_atan2", "muon"])
def test_every_optimizer_lowers_the_loss(trained: Trained, optimizer: str) -> None:
    values = losses(trained(optimizer, f"optimizer={optimizer}", "max_steps=50", "lr=6e-3"))
    assert sum(values[-10:]) < 0.8 * sum(values[:10])


def test_each_parameter_is_in_exactly_one_optimizer(small: Config) -> None:
    for name in ("adamw", "adam_atan2", "muon"):
        trainer = make_trainer(small(name, f"optimizer={name}"))
        held = [id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]]
        assert sorted(held) == sorted(id(p) for p in trainer.model.parameters())


def test_half_precision_scales_the_loss_and_learns(trained: Trained) -> None:
    overrides = ("arch.forward_dtype=float16", "max_steps=40", "lr=3e-3")
    trainer = trained("a", *overrides)
    assert trainer.scaler.is_enabled()
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_a_step_that_the_scaler_skips_changes_nothing(small: Config) -> None:
    trainer = make_trainer(small("a", "arch.forward_dtype=float16"))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.update()
    assert trainer.scaler.get_scale() < 2.0**60
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())


def test_what_is_not_finite_stops_the_run_and_keeps_the_checkpoint(small: Config) -> None:
    trainer = make_trainer(small("a", "checkpoint_every_steps=5"))

    def poison(row: dict[str, Any]) -> None:
        if row["step"] == 7:
            with torch.no_grad():
                trainer.model.inner.lm_head.weight.fill_(float("nan"))

    trainer.listeners.append(poison)
    with pytest.raises(NonFiniteError, match=r"update 8: gradients of .*lm_head\.weight"):
        trainer.run()
    assert [p.name for p in checkpoints(trainer.out)] == ["step_00000005"]
    assert trainer.rows()[-1]["step"] == 7


def test_the_average_is_evaluated_and_the_raw_weights_train_on(trained: Trained) -> None:
    trainer = trained("a")
    assert trainer.ema is not None
    raw, averaged = trainer.model.state_dict(), trainer.ema.module.state_dict()
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)
    assert trainer.model.training
    assert not trainer.ema.module.training


def test_a_warmup_longer_than_the_run_is_shortened_with_a_warning(small: Config) -> None:
    with pytest.warns(UserWarning, match="lr_warmup_steps: 500 is longer than the run"):
        trainer = make_trainer(small("a", "lr_warmup_steps=500"))
    assert trainer.warmup == 2


def test_the_goal_ends_the_run(trained: Trained) -> None:
    trainer = trained("a", "stop_at_exact_accuracy=0.05", "max_steps=600", "eval_every_steps=50")
    assert trainer.step < 600
    assert trainer.rows()[-1]["eval/exact_accuracy"] >= 0.05
    goal = ("stop_at_exact_accuracy=0.05", "max_steps=600", "eval_every_steps=50", "resume=true")
    assert trained("a", *goal).step == trainer.step  # resumed, it stays ended


@pytest.mark.parametrize(
    ("experiment", "updates"),
    [("sudoku_4x4", 200), pytest.param("sudoku_4x4_hrm", 250, marks=pytest.mark.slow)],
)
def test_a_preset_learns(trained: Trained, experiment: str, updates: int) -> None:
    trainer = trained(
        "a",
        f"experiment={experiment}",
        "arch.hidden_size=64",
        "arch.num_heads=4",
        "arch.halt_max_steps=4",
        "arch.train_max_steps=2",
        "global_batch_size=32",
        f"max_steps={updates}",
        "eval_every_steps=null",
    )
    last = trainer.rows()[-1]
    # Of these blanks a guess is right in one of four, so a board by chance never.
    assert last["eval/accuracy"] > 0.8
    assert max(last["eval/accuracy_by_step"]) >= 0.1
    assert last["eval/q_halt_auroc_all_steps"] > 0.7


def test_an_existing_folder_is_refused(trained: Trained, small: Config) -> None:
    trained("a")
    with pytest.raises(UserError, match="resume=true"):
        make_trainer(small("a"))


def test_the_curriculum_sets_the_limit_of_steps_from_its_updates_on(trained: Trained) -> None:
    curriculum = ("arch.train_max_steps=1", "step_curriculum=[[8,2],[14,3]]")
    rows = trained("a", *curriculum, "arch.halt_exploration_prob=0", "eval_every_steps=null").rows()
    longest = {r["step"]: r["train/steps"] for r in rows if r["train/steps"] is not None}
    # An untrained head never halts early, so every sequence takes as many steps as it may.
    assert all(longest[step] == 1 for step in range(1, 9))
    assert {longest[step] for step in range(9, 15) if step in longest} == {2}
    assert max(longest.values()) == 3


def test_a_resumed_run_is_where_the_curriculum_was(trained: Trained) -> None:
    curriculum = ("arch.train_max_steps=1", "step_curriculum=[[4,3]]", "lr_schedule=constant")
    unbroken = trained("a", *curriculum)
    trained("b", *curriculum, "max_steps=10")
    resumed = trained("b", *curriculum, "resume=true")
    assert losses(resumed) == losses(unbroken)


def test_an_evaluation_may_be_due_by_epochs(trained: Trained) -> None:
    often = ("eval_every_steps=null", "eval_interval=1", "max_steps=40", "arch.train_max_steps=2")
    trainer = trained("a", *often)
    rows = trainer.rows()
    evaluated = [row for row in rows if "eval/count" in row]
    assert evaluated[-1] is rows[-1]
    # One at the first update at which 1, 2, ... epochs have been drawn, and the last one.
    epochs = [int(row["epoch"]) for row in rows]
    crossed = [
        row for row, before in zip(rows, [0, *epochs], strict=False) if row["epoch"] // 1 > before
    ]
    assert len(crossed) >= 2
    assert [row["step"] for row in evaluated[:-1]] == [
        row["step"] for row in crossed if row is not rows[-1]
    ]
    # A checkpoint lies where each of them was.
    steps = [int(path.name.removeprefix("step_")) for path in checkpoints(trainer.out)]
    assert steps == [row["step"] for row in evaluated][-2:]
