"""Whole trajectories: what they see, who learns from them, and in whose turn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm.commands.train import make_trainer
from hrm.config import REFUSED, ExperimentConfig
from hrm.data.scenes import prepare_scenes, scenes_request
from hrm.errors import UserError
from hrm.token_loss import mean_losses
from hrm.training.trainer import Trainer
from tests.training.conftest import composed
from tests.training.test_trainer import without_time

Config = Callable[..., ExperimentConfig]
TINY = (
    "experiment=flood_fill",
    "data.prepare=null",
    "arch.base_channels=4",
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.halt_max_steps=4",
    "arch.warmup_updates=6",
    "arch.alternate_every=3",
    "step_curriculum=[]",
    "global_batch_size=16",
    "lr_warmup_steps=0",
    "lr_schedule=constant",
    "max_steps=18",
    "eval_every_steps=null",
    "log_every_steps=1",
    "plots=false",
    "progress=false",
)
POLICIES = ("dual_value", "graves", "pondernet", "halt_only", "convergence", "fixed")


@pytest.fixture(scope="session")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mazes") / "8"
    prepare_scenes(
        scenes_request(task="flood_fill", size=8, count=150, val_count=30, test_count=30, out=out)
    )
    return out


@pytest.fixture
def tiny(mazes: Path, tmp_path: Path) -> Config:
    def make(name: str, *overrides: str) -> ExperimentConfig:
        return composed(TINY, f"data.path={mazes}", f"out={tmp_path / name}", *overrides)

    return make


def test_every_image_takes_every_step_with_gradient_through_all(tiny: Config) -> None:
    trainer = make_trainer(tiny("a", "arch.halting=fixed"))
    seen: list[Any] = []
    trainer.model.register_forward_hook(
        lambda _, __, result: seen.append((result[0].steps.tolist(), result[0].inner_carry))
    )
    losses: list[torch.Tensor] = []
    trainer.dynamics.update(losses.append)
    assert [steps for steps, _ in seen] == [[n] * 16 for n in (1, 2, 3, 4)]
    # The last state reaches the first: nothing is detached between them.
    first, last = (latents[0] for latents in (seen[0][1], seen[-1][1]))
    (gradient,) = torch.autograd.grad(last.square().sum(), first)
    assert gradient.abs().sum() > 0


def test_the_task_loss_is_the_mean_over_steps_of_labelled_pixels(tiny: Config) -> None:
    trainer = make_trainer(tiny("a", "arch.halting=fixed"))
    by_step: list[float] = []

    def hook(_: object, __: object, result: Any) -> None:
        carry, outputs = result
        losses = mean_losses(outputs["logits"], carry.current_data["labels"], "softmax")
        by_step.append(float(losses.detach().sum()))

    trainer.model.register_forward_hook(hook)
    losses: list[torch.Tensor] = []
    trainer.dynamics.update(losses.append)
    assert len(by_step) == 4
    assert float(losses[0].detach()) == pytest.approx(sum(by_step) / 4 / 16, rel=1e-5)


def test_heads_take_turns_after_the_warm_up_and_the_trunk_always_learns(tiny: Config) -> None:
    trainer = make_trainer(tiny("a"))
    groups = trainer.model.parameter_groups()
    assert set(groups) == {"trunk", "contribution", "threshold"}
    learned = []
    for _ in range(18):
        before = {k: [p.detach().clone() for p in v] for k, v in groups.items()}
        trainer.update()
        learned.append({
            name
            for name, old in before.items()
            if any(not torch.equal(a, b) for a, b in zip(old, groups[name], strict=True))
        })  # fmt: skip
    threshold, contribution = {"trunk", "threshold"}, {"trunk", "contribution"}
    # A turn in which the policy is right everywhere may move a head by what it has in its moments,
    # but never the other one.
    expected = [{"trunk"}] * 6 + ([threshold] * 3 + [contribution] * 3) * 2
    for got, most in zip(learned, expected, strict=True):
        assert {"trunk"} <= got <= most
    assert any("threshold" in got for got in learned)
    assert any("contribution" in got for got in learned)


def test_half_precision_goes_on_where_a_head_has_no_gradient(tiny: Config) -> None:
    """The loss's scaler refuses an optimizer without any: that of a head out of its turn."""
    half = ("arch.forward_dtype=float16", "optimizer=adam_atan2", "arch.warmup_updates=1")
    trainer = make_trainer(tiny("a", *half))
    assert trainer.scaler.is_enabled()
    assert len(trainer.optimizers) == 3
    trainer.run()
    assert trainer.step == 18


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dynamics", ["persistent", "online", "episode", "rollout"])
def test_each_policy_trains_or_is_refused_with_a_reason(
    tiny: Config, policy: str, dynamics: str
) -> None:
    overrides = (f"arch.halting={policy}", f"dynamics={dynamics}", "max_steps=2")
    if (policy, dynamics) in REFUSED:
        with pytest.raises(UserError, match=f"arch.halting={policy} with dynamics={dynamics}: "):
            tiny("a", *overrides)
        return
    trainer = make_trainer(tiny("a", *overrides))
    trainer.run()
    assert trainer.step == 2


@pytest.mark.slow
def test_micro_batches_equal_one_batch(tiny: Config) -> None:
    runs = []
    for name, parts in (("a", 1), ("b", 4)):
        trainer = make_trainer(
            tiny(name, f"grad_accumulation={parts}", "max_steps=8", "arch.warmup_updates=3")
        )
        trainer.run()
        runs.append([row["train/loss"] for row in trainer.rows()])
    assert runs[0] == pytest.approx(runs[1], rel=1e-3)


def test_a_resumed_run_is_the_same_bit_for_bit(tiny: Config) -> None:
    whole = make_trainer(tiny("a", "checkpoint_every_steps=7"))
    whole.run()
    make_trainer(tiny("b", "max_steps=7")).run()
    resumed = make_trainer(tiny("b", "resume=true"))
    resumed.run()
    # The end of the shorter run is logged with an evaluation.
    plain = [
        [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in without_time(rows)]
        for rows in (whole.rows(), resumed.rows())
    ]
    assert plain[0] == plain[1]


def test_without_deep_supervision_the_last_answer_alone_teaches(tiny: Config) -> None:
    trainer = make_trainer(
        tiny("a", "arch.halting=fixed", "arch.deep_supervision=false", "max_steps=3")
    )
    trainer.run()
    for row in trainer.rows():
        assert row["train/lm_loss"] == pytest.approx(row["train/last_step_loss"])
    with pytest.raises(UserError, match="deep_supervision: got false, but halting=graves weighs"):
        tiny("b", "arch.halting=graves", "arch.deep_supervision=false")


@pytest.mark.slow
def test_a_small_maze_is_learned_and_the_policy_follows_it(tmp_path: Path) -> None:
    mazes = tmp_path / "mazes"
    sizes = {"count": 1500, "val_count": 200, "test_count": 30}
    prepare_scenes(scenes_request(task="flood_fill", size=8, **sizes, out=mazes))
    settings = (
        "arch.base_channels=8",
        "arch.hidden_size=24",
        "arch.halt_max_steps=6",
        "arch.warmup_updates=500",
        "arch.anneal_updates=300",
        "arch.alternate_every=20",
        "global_batch_size=32",
        "lr_warmup_steps=50",
        "max_steps=900",
    )
    trainer: Trainer = make_trainer(
        composed(TINY, f"data.path={mazes}", f"out={tmp_path / 'run'}", *settings)
    )
    trainer.run()
    last = trainer.rows()[-1]
    assert last["eval/iou"] > 0.85
    # A policy that halts everywhere at one step, as an untrained one does, closes nothing.
    assert last["eval/halting/gap_closed"] > 0.1
    assert last["eval/halting/steps_std"] > 0.5
    assert last["eval/halting/spearman"] > 0
