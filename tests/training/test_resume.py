"""A run that was killed and resumed writes the same rows as one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.errors import UserError
from hrm.training.checkpoint import checkpoints, exclusive, find_checkpoint, load_run
from hrm.training.metrics import read_metrics
from hrm.training.trainer import Trainer
from tests.training.conftest import SMALL
from tests.training.test_trainer import without_time

Config = Callable[..., ExperimentConfig]
Trained = Callable[..., Trainer]


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("experiment=sudoku_4x4_hrm", "optimizer=muon", "arch.exploration=per_episode"),
        ("optimizer=adam_atan2", "grad_accumulation=2", "arch.puzzle_emb_ndim=16"),
        ("arch.forward_dtype=float16", "lr_schedule=cosine", "epochs=3"),
        ("dynamics=online", "num_act_steps=3", "arch.continue_target=next_step", "epochs=2"),
        ("dynamics=episode", "grad_accumulation=2", "arch.halt_exploration_prob=0.5"),
        ("arch.halting=q_learning", "arch.continue_target=next_step", "arch=hrm_small"),
        ("arch.halting=convergence", "arch.halt_second_tolerance=9", "arch.halt_unchanged_steps=1"),
    ],
)
def test_resumed_rows_are_those_of_an_unbroken_run(
    small: Config, trained: Trained, extra: tuple[str, ...]
) -> None:
    often = (*extra, "checkpoint_every_steps=4", "log_every_steps=3", "max_steps=14")
    unbroken = trained("a", *often)
    broken = make_trainer(small("b", *often))

    class StoppedError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] >= 9:
            raise StoppedError

    broken.listeners.append(stop)
    with pytest.raises(StoppedError):
        broken.run()
    resumed = trained("b", *often, "resume=true")
    assert without_time(resumed.rows()) == without_time(unbroken.rows())
    ours, theirs = resumed.model.state_dict(), unbroken.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(
    data: Path, tmp_path: Path, trained: Trained
) -> None:
    """SIGKILL on a process at a moment that the machine's speed decides."""
    settings = ("max_steps=40", "checkpoint_every_steps=3", "eval_every_steps=20")
    unbroken = trained("unbroken", *settings)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "hrm", "train", *SMALL, *settings, f"data.path={data}"]
    command += [f"out={out}", "resume=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    random.seed(0)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(read_metrics(out / "metrics.jsonl")) < 10:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(read_metrics(out / "metrics.jsonl")) < 40
    resumed = trained("killed", *settings, "resume=true")
    assert without_time(resumed.rows()) == without_time(unbroken.rows())
    assert [p.name for p in (out / "checkpoints").glob(".*")] == [".lock"]


def test_what_a_kill_leaves_behind_is_ignored_and_removed(trained: Trained) -> None:
    first = trained("a", "checkpoint_every_steps=5", "max_steps=10")
    half = first.out / "checkpoints" / ".step_00000015.99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    with (first.out / "metrics.jsonl").open("a") as log:
        log.write('{"step": 11, "train/lo')
    again = trained("a", "checkpoint_every_steps=5", "max_steps=20", "resume=true")
    assert [row["step"] for row in again.rows()] == list(range(1, 21))
    assert not half.exists()


def test_files_that_are_not_the_runs_stay(
    finished: Path, trained: Trained, small: Config, tmp_path: Path
) -> None:
    mine = finished / ".gitignore"
    mine.write_text("mine")
    assert trained("a", "max_steps=22", "resume=true").step == 22
    assert mine.read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / ".profile").write_text("mine")
    with pytest.raises(UserError, match="not a run's folder"):
        make_trainer(small("other", "resume=true")).run()
    assert [p.name for p in other.iterdir()] == [".profile"]


@pytest.mark.parametrize("key", ["sizes", "experiment", "step"])
def test_a_configuration_without_a_key_is_no_checkpoint(finished: Path, key: str) -> None:
    path = find_checkpoint(finished)
    saved = json.loads((path / "config.json").read_text())
    del saved[key]
    (path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"config\.json: is not the configuration"):
        load_run(path)


def test_a_state_without_a_key_is_no_checkpoint(finished: Path, small: Config) -> None:
    path = find_checkpoint(finished)
    (path / "state.json").write_text("{}")
    with pytest.raises(UserError, match="is not a whole checkpoint"):
        make_trainer(small("a", "max_steps=30", "resume=true")).run()


def test_two_processes_cannot_train_in_one_folder(small: Config, trained: Trained) -> None:
    out = trained("a", "max_steps=5").out
    with exclusive(out), pytest.raises(UserError, match="another process is training in"):
        make_trainer(small("a", "resume=true")).run()
    assert trained("a", "resume=true").step == 20


def test_the_data_may_move(trained: Trained, data: Path, tmp_path: Path) -> None:
    trained("a", "max_steps=5")
    shutil.copytree(data, tmp_path / "moved")
    moved = trained("a", "resume=true", f"data.path={tmp_path / 'moved'}")
    assert moved.step == 20


def test_old_checkpoints_go_and_the_newest_stay(trained: Trained) -> None:
    out = trained("a", "checkpoint_every_steps=5", "keep_checkpoints=2").out
    assert [p.name for p in checkpoints(out)] == ["step_00000015", "step_00000020"]
    assert find_checkpoint(out).name == "step_00000020"


@pytest.mark.usefixtures("finished")
def test_resuming_with_another_setting_is_refused_by_name(small: Config) -> None:
    with pytest.raises(UserError, match=r"resume=true: lr was 0\.003 and is 0\.1 now"):
        make_trainer(small("a", "lr=0.1", "resume=true")).run()
    with pytest.raises(UserError, match=r"arch\.L_cycles was 2 and is 3 now"):
        make_trainer(small("a", "arch.L_cycles=3", "resume=true")).run()


def test_a_setting_that_is_newer_than_the_checkpoint_had_its_default(
    trained: Trained, small: Config
) -> None:
    newest = checkpoints(trained("a", "max_steps=5").out)[-1] / "config.json"
    saved = json.loads(newest.read_text())
    del saved["experiment"]["arch"]["exploration"]
    newest.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"exploration was 'per_step' and is 'per_episode' now"):
        make_trainer(small("a", "arch.exploration=per_episode", "resume=true")).run()
    assert trained("a", "resume=true").step == 20


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished: Path, trained: Trained) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    assert (trained("a", "resume=true").out / "metrics.jsonl").read_bytes() == before


def test_a_loaded_run_is_the_average_in_evaluation_mode(trained: Trained) -> None:
    trainer = trained("a")
    loaded = load_run(trainer.out)
    assert trainer.ema is not None
    expected = trainer.ema.module.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert loaded.step == 20
    assert load_run(loaded.path).step == 20


@pytest.mark.parametrize("name", ["ema.safetensors", "config.json"])
def test_a_broken_checkpoint_is_named(finished: Path, name: str) -> None:
    path = find_checkpoint(finished)
    file = path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=name):
        load_run(path)


def test_weights_of_another_architecture_are_refused_by_tensor(
    finished: Path, trained: Trained
) -> None:
    other = trained("b", "arch=trm", "arch.L_layers=1", "arch.hidden_size=32", "max_steps=1")
    one, other = find_checkpoint(finished), find_checkpoint(other.out)
    (one / "ema.safetensors").write_bytes((other / "ema.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"another architecture: tensor inner\.\S+ is missing"):
        load_run(one)


def test_the_best_checkpoint_stays_and_is_what_the_folder_stands_for(small: Config) -> None:
    settings = ("max_steps=20", "eval_every_steps=4", "keep_checkpoints=1", "keep_best=accuracy")
    trainer = make_trainer(small("a", *settings))
    told = iter([0.1, 0.4, 0.4, 0.2, 0.3])
    trainer.evaluate = lambda: {"count": 1, "accuracy": next(told)}  # type: ignore[method-assign]
    trainer.run()
    assert [p.name for p in checkpoints(trainer.out)] == ["step_00000008", "step_00000020"]
    assert find_checkpoint(trainer.out).name == "step_00000008"
    assert load_run(trainer.out).step == 8

    longer = make_trainer(small("a", *settings, "max_steps=24", "resume=true"))
    longer.evaluate = lambda: {"count": 1, "accuracy": 0.5}  # type: ignore[method-assign]
    longer.run()
    assert [p.name for p in checkpoints(trainer.out)] == ["step_00000024"]


def test_a_best_moment_between_regular_checkpoints_is_kept(small: Config) -> None:
    settings = ("max_steps=20", "eval_every_steps=3", "checkpoint_every_steps=10")
    trainer = make_trainer(small("a", *settings, "keep_best=lm_loss"))
    told = iter([0.9, 0.2, 0.5, 0.4, 0.3, 0.6, 0.7])
    trainer.evaluate = lambda: {"count": 1, "lm_loss": next(told)}  # type: ignore[method-assign]
    trainer.run()
    names = [p.name for p in checkpoints(trainer.out)]
    assert names == ["step_00000006", "step_00000010", "step_00000020"]
    assert find_checkpoint(trainer.out).name == "step_00000006"


def test_a_best_figure_that_is_not_evaluated_is_named(small: Config) -> None:
    trainer = make_trainer(small("a", "eval_every_steps=4", "keep_best=acuracy"))
    with pytest.raises(
        UserError, match=r"keep_best: acuracy is not evaluated; there are count, max_steps, acc"
    ):
        trainer.run()
    with pytest.raises(UserError, match=r"keep_best.*without eval/"):
        small("b", "keep_best=eval/accuracy", "eval_every_steps=4")


def test_a_checkpoint_from_before_a_setting_existed_goes_on_with_its_default(
    finished: Path, trained: Trained
) -> None:
    path = find_checkpoint(finished) / "config.json"
    saved = json.loads(path.read_text())
    del saved["experiment"]["stagger"], saved["experiment"]["data"]["easy_first"]
    path.write_text(json.dumps(saved))
    assert trained("a", "resume=true", "max_steps=22").step == 22
