"""A small 4x4 data set and a small experiment on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig, compose
from hrm.data.sudoku import prepare_sudoku, sudoku_request
from hrm.training.trainer import Trainer

SMALL = (
    "experiment=sudoku_4x4",
    "data.prepare=null",
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "global_batch_size=8",
    "max_steps=20",
    "lr_warmup_steps=0",
    "log_every_steps=1",
    "eval_every_steps=10",
    "plots=false",
    "progress=false",
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "four"
    prepare_sudoku(sudoku_request(size=4, count=60, val_count=20, test_count=20, seed=3, out=out))
    return out


@pytest.fixture
def small(data: Path, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """`small("name", "key=value", ...)`: the small experiment in folder `name`."""

    def make(name: str, *overrides: str) -> ExperimentConfig:
        return compose([*SMALL, f"data.path={data}", f"out={tmp_path / name}", *overrides])

    return make


@pytest.fixture
def trained(small: Callable[..., ExperimentConfig]) -> Callable[..., Trainer]:
    """`trained("name", ...)`: a trainer after its run."""

    def make(name: str, *overrides: str) -> Trainer:
        trainer = make_trainer(small(name, *overrides))
        trainer.run()
        return trainer

    return make
