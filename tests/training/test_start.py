"""Runs that start from another's weights, and runs that learn to halt and nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.data.scenes import prepare_scenes, scenes_request
from hrm.errors import UserError
from hrm.training.start import start_from
from hrm.training.trainer import Trainer
from tests.training.conftest import composed
from tests.training.test_trainer import without_time

Config = Callable[..., ExperimentConfig]
Trained = Callable[..., Trainer]
SMALL = (
    "experiment=flood_fill",
    "data.prepare=null",
    "arch.base_channels=4",
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.halt_max_steps=3",
    "arch.warmup_updates=0",
    "arch.alternate_every=1",
    "step_curriculum=[]",
    "global_batch_size=8",
    "lr_warmup_steps=0",
    "max_steps=6",
    "ema=false",
    "eval_every_steps=null",
    "log_every_steps=1",
    "plots=false",
    "progress=false",
)


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start") / "8"
    prepare_scenes(
        scenes_request(task="flood_fill", size=8, count=40, val_count=8, test_count=8, out=out)
    )
    return out


@pytest.fixture
def unet(mazes: Path, tmp_path: Path) -> Config:
    """`unet("name", "key=value", ...)`: a small ACT U-Net that learns for six updates."""

    def make(name: str, *overrides: str) -> ExperimentConfig:
        return composed(SMALL, f"data.path={mazes}", f"out={tmp_path / name}", *overrides)

    return make


def run(config: ExperimentConfig) -> Trainer:
    trainer = make_trainer(config)
    trainer.run()
    return trainer


def moved(after: Trainer, before: Trainer) -> set[str]:
    weights = before.model.state_dict()
    return {
        name
        for name, weight in after.model.state_dict().items()
        if name not in weights or not torch.equal(weight, weights[name])
    }


def test_a_run_starts_where_another_has_ended(
    trained: Trained, small: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained("a", "ema=false")
    assert not moved(make_trainer(small("b", f"init_from={first.out}")), first)
    assert "init_from" not in capsys.readouterr().err
    assert start_from(make_trainer(small("c")).model, str(first.out)) == set()


def test_what_does_not_fit_is_told(
    trained: Trained, small: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained("a", "ema=false")
    wider = small("b", f"init_from={first.out}", "arch.expansion=2")
    make_trainer(wider)
    assert re.search(
        rf"init_from={first.out}: \d+ of \d+ tensors fit; the others start afresh: inner\.",
        capsys.readouterr().err,
    )


def test_other_shapes_are_left_as_they_were(trained: Trained, small: Config) -> None:
    first = trained("a", "ema=false")
    wider = make_trainer(small("b", "arch.hidden_size=32"))
    before = {name: weight.clone() for name, weight in wider.model.state_dict().items()}
    untaken = start_from(wider.model, str(first.out))
    assert untaken
    for name, weight in wider.model.state_dict().items():
        source = before if name in untaken else first.model.state_dict()
        assert torch.equal(weight, source[name])


@pytest.mark.parametrize("dynamics", ["persistent", "online", "episode"])
def test_a_q_head_learns_alone(trained: Trained, small: Config, dynamics: str) -> None:
    first = trained("a", "ema=false")
    alone = (f"init_from={first.out}", "learn=halting", "ema=false", f"dynamics={dynamics}")
    second = run(small("b", *alone))
    assert moved(second, first) == {"inner.q_head.weight", "inner.q_head.bias"}


@pytest.mark.parametrize("policy", ["dual_value", "graves", "pondernet", "halt_only"])
def test_any_policy_learns_to_halt_a_trained_network(unet: Config, policy: str) -> None:
    first = run(unet("a"))
    alone = (f"init_from={first.out}", "learn=halting", f"arch.halting={policy}")
    fresh, second = make_trainer(unet("c", *alone)), run(unet("b", *alone))
    heads = ("contribution.", "threshold.") if policy == "dual_value" else ("halt.",)
    found = moved(second, first)
    assert found
    assert all(name.startswith(heads) for name in found)
    # It does not go on from what the source had learned of halting.
    assert moved(fresh, first) == found


def test_it_resumes_exactly_when_its_source_is_gone(unet: Config, tmp_path: Path) -> None:
    run(unet("a"))
    settings = (f"init_from={tmp_path / 'a'}", "learn=halting", "lr_schedule=constant")
    whole = run(unet("whole", *settings))
    run(unet("parts", *settings, "max_steps=3"))
    shutil.rmtree(tmp_path / "a")
    rest = run(unet("parts", *settings, "resume=true"))
    assert not moved(rest, whole)
    assert without_time(rest.rows())[-1] == without_time(whole.rows())[-1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["learn=halting"], "learn=halting: give init_from=RUN, the network that is to halt"),
        (["learn=halting", "init_from=A", "arch.warmup_updates=2"], "arch.warmup_updates: with"),
        (
            ["learn=halting", "init_from=A", "arch.halting=fixed"],
            r"halting=fixed has nothing to le",
        ),
        (["learn=halting", "init_from=A", "arch.core=transformer"], "no weights for core.layers"),
        (["init_from=nowhere"], "nowhere: no such folder or file"),
    ],
)
def test_what_cannot_start_is_refused(
    unet: Config, tmp_path: Path, settings: list[str], sentence: str
) -> None:
    if "init_from=A" in settings:
        run(unet("A", "max_steps=1"))
    given = [s.replace("=A", f"={tmp_path / 'A'}") for s in settings]
    with pytest.raises(UserError, match=sentence):
        make_trainer(unet("b", *given))


def test_nothing_that_fits_is_refused(unet: Config, trained: Trained) -> None:
    sudoku = trained("a", "max_steps=1")
    with pytest.raises(UserError, match="has a name and shape of ACTUNet's"):
        make_trainer(unet("b", f"init_from={sudoku.out}"))
