"""Sinks beside the log: what each is told, where it writes, and how it goes on after a resume.

The stand-ins for W&B and Trackio take what the real packages' functions take (wandb 0.31, trackio
0.43); the real ones are tried where they are installed.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hrm.commands.train import train
from hrm.config import ExperimentConfig
from hrm.errors import UserError
from hrm.training import sinks
from hrm.training.metrics import read_metrics
from hrm.training.trainer import NonFiniteError, Trainer

Config = Callable[..., ExperimentConfig]

SHORT = ("max_steps=3", "eval_every_steps=2", "arch.halt_max_steps=2")  # Sequences end.
NAMES = {
    f"train/{name}"
    for name in ("loss", "lm_loss", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps")
} | {"eval/accuracy", "eval/exact_accuracy"}


class FakeRun:
    def __init__(self, **given: Any) -> None:
        self.given = given
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.exit_code: int | None = None

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((step, metrics))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Fake(ModuleType):
    """A package of which only what a sink uses is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.runs: list[FakeRun] = []


class FakeWandB(Fake):
    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.has_login = False

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt
        assert not verify
        return self.has_login

    def Settings(self, *, console: str) -> SimpleNamespace:
        return SimpleNamespace(console=console)

    def init(
        self,
        *,
        project: str,
        name: str,
        id: str,
        resume: str,
        dir: str,
        config: dict[str, Any],
        mode: str | None,
        reinit: str,
        settings: SimpleNamespace,
    ) -> FakeRun:
        if not project.isidentifier():
            raise self.Error("Invalid project name")
        run = FakeRun(**{k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.runs.append(run)
        return run


class FakeTrackio(Fake):
    def __init__(self) -> None:
        super().__init__("trackio")
        self.dir = os.environ["TRACKIO_DIR"]

    def init(self, *, project: str, name: str, config: dict[str, Any], resume: str) -> FakeRun:
        if project.endswith("-traces"):
            raise ValueError("Reserved project name")
        print("* Trackio project initialized")
        self.runs.append(FakeRun(project=project, name=name, config=config, resume=resume))
        return self.runs[-1]

    def finish(self) -> None:
        print("* Run finished")
        self.runs[-1].finish(0)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTrackio:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "a" / "trackio"))
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def is_row(numbers: Mapping[str, float], row: Mapping[str, Any]) -> bool:
    """Whether these are a row's numbers, all of them and under its names."""
    return numbers == {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}


def test_tensorboard_events_lie_in_the_run(small: Config, tmp_path: Path) -> None:
    assert train(small("a", "tensorboard=true", *SHORT)) == 0
    (events,) = (tmp_path / "a" / "tensorboard").glob("events*")
    written = events.read_bytes()
    assert all(name.encode() in written for name in NAMES)
    assert written.count(b"train/lm_loss") == 3


def test_wandb_gets_the_log_and_goes_on_after_a_resume(
    small: Config, wandb: FakeWandB, tmp_path: Path
) -> None:
    config = small("a", "wandb=true", *SHORT)
    names = {"run_name": "first", "project_name": "mazes"}
    assert train(config.model_copy(update=names)) == 0
    assert train(config.model_copy(update={**names, "resume": True, "max_steps": 4})) == 0
    first, second = wandb.runs
    for run in wandb.runs:
        assert (run.given["name"], run.given["project"]) == ("first", "mazes")
        assert run.given["resume"] == "allow"
        assert run.given["reinit"] == "finish_previous"
        assert run.given["dir"] == str(tmp_path / "a")
        assert run.given["settings"].console == "off"
        assert run.given["config"]["lr"] == config.lr
        assert run.exit_code == 0
    assert first.given["id"] == second.given["id"]
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    logged = first.logged + second.logged
    assert [step for step, _ in logged] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(is_row(numbers, row) for (_, numbers), row in zip(logged, rows, strict=True))
    assert logged[1][1].keys() >= NAMES


def test_two_runs_are_two_to_wandb(small: Config, wandb: FakeWandB) -> None:
    for name in ("a", "b"):
        train(small(name, "wandb=true", "max_steps=1"))
    first, second = wandb.runs
    assert first.given["id"] != second.given["id"]
    assert (first.given["name"], second.given["name"]) == ("a", "b")
    assert first.given["project"] == "hrm"


@pytest.mark.parametrize(
    ("asked", "login", "mode"),
    [
        (None, False, "offline"),
        # W&B's own rules: WANDB_MODE, and what `wandb offline` set.
        (None, True, None),
        ("offline", False, None),
        ("disabled", False, None),
        ("online", True, None),
    ],
)
def test_wandb_is_offline_without_a_login(
    small: Config,
    wandb: FakeWandB,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    asked: str | None,
    login: bool,
    mode: str | None,
) -> None:
    if asked is not None:
        monkeypatch.setenv("WANDB_MODE", asked)
    wandb.has_login = login
    assert sinks.WandB(small("a"), tmp_path / "a").mode == mode


def test_wandb_never_asks_for_a_login(
    small: Config, wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE=online needs a login"):
        train(small("a", "wandb=true"))
    assert not (tmp_path / "a" / "metrics.jsonl").exists()


def test_wandb_is_told_of_a_run_that_failed(
    small: Config, wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Trainer.update

    def fails(self: Trainer) -> None:
        if self.step == 2:
            raise NonFiniteError("the loss is not finite")
        update(self)

    monkeypatch.setattr(Trainer, "update", fails)
    assert train(small("a", "wandb=true")) == 1
    assert wandb.runs[0].exit_code == 1


def test_trackio_gets_the_log_and_goes_on_after_a_resume(
    small: Config, trackio: FakeTrackio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small("a", "trackio=true", *SHORT)
    assert train(config) == 0
    assert train(config.model_copy(update={"resume": True, "max_steps": 4})) == 0
    first, second = trackio.runs
    assert (first.given["resume"], second.given["resume"]) == ("never", "allow")
    for run in trackio.runs:
        assert (run.given["name"], run.given["project"]) == ("a", "hrm")
        assert run.given["config"]["lr"] == config.lr
        assert run.exit_code == 0
    rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
    logged = first.logged + second.logged
    assert [step for step, _ in logged] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(is_row(numbers, row) for (_, numbers), row in zip(logged, rows, strict=True))
    assert "Trackio" not in capsys.readouterr().out  # Which is for what a command prints.


@pytest.mark.parametrize("given", [None, "/elsewhere"])
def test_trackio_writes_in_the_run_unless_told_otherwise(
    small: Config,
    trackio: FakeTrackio,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: str | None,
) -> None:
    monkeypatch.delenv("TRACKIO_DIR")
    if given is not None:
        monkeypatch.setenv("TRACKIO_DIR", given)
    sinks.Trackio(small("a"), tmp_path / "a")
    assert os.environ["TRACKIO_DIR"] == (given or str(tmp_path / "a" / "trackio"))


def test_names_that_a_sink_refuses(
    small: Config, wandb: FakeWandB, trackio: FakeTrackio, tmp_path: Path
) -> None:
    for sink, name in (("wandb", "a/b"), ("trackio", "a-traces")):
        config = small(sink, f"{sink}=true").model_copy(update={"project_name": name})
        with pytest.raises(UserError, match=f"{sink}=true: .* project name"):
            train(config)


@pytest.mark.parametrize("package", list(sinks.SINKS))
def test_a_missing_package_is_named_before_anything_is_made(
    small: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: None if name == package else 1)
    config = small("a", f"{package}=true")
    config.data.path = str(tmp_path / "none")
    with pytest.raises(UserError, match=rf"{package}=true needs .*pip install 'hrm\[{package}\]'"):
        train(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_offline(
    small: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = small("a", "wandb=true", *SHORT)
    assert train(config) == 0
    assert train(config.model_copy(update={"resume": True, "max_steps": 4})) == 0
    name = (tmp_path / "a" / "wandb" / "id").read_text()
    parts = sorted((tmp_path / "a" / "wandb").glob(f"offline-run-*-{name}"))
    assert len(parts) == 2
    first, second = ((part / f"run-{name}.wandb").read_bytes() for part in parts)
    assert all(each.encode() in first and each.encode() in second for each in NAMES)
    assert first.count(b"train/lm_loss") > second.count(b"train/lm_loss")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_trackio_writes_to_a_database(
    small: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "a" / "trackio"))
    pytest.importorskip("trackio")
    config = small("a", "trackio=true", *SHORT)
    assert train(config) == 0
    assert train(config.model_copy(update={"resume": True, "max_steps": 4})) == 0
    with sqlite3.connect(tmp_path / "a" / "trackio" / "hrm.db") as database:
        rows = database.execute("SELECT run_id, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({run for run, _, _ in rows}) == 1
    logged = [(step, json.loads(numbers)) for _, step, numbers in rows]
    assert [step for step, _ in logged] == [1, 2, 3, 4]
    expected = read_metrics(tmp_path / "a" / "metrics.jsonl")
    assert all(is_row(numbers, row) for (_, numbers), row in zip(logged, expected, strict=True))
