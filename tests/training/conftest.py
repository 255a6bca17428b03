"""A small 4x4 data set and a small experiment on it."""

import copy
import functools
import operator
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig, compose_dict, validate
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


_read = functools.cache(compose_dict)


def composed(small: tuple[str, ...], *overrides: str) -> ExperimentConfig:
    """As `compose`, whose fifth of a second goes into files: each choice of them is read once."""
    files = tuple(o for o in overrides if o.startswith(("experiment=", "arch=")))
    values = copy.deepcopy(_read((*small, *files)))
    plain = [o for o in overrides if o not in files]
    for override in OverridesParser.create().parse_overrides(plain):
        *parents, leaf = override.key_or_group.split(".")
        where = functools.reduce(operator.getitem, parents, values)
        assert leaf in where, override.key_or_group
        where[leaf] = override.value()
    return validate(values)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "four"
    prepare_sudoku(sudoku_request(size=4, count=60, val_count=20, test_count=20, seed=3, out=out))
    return out


@pytest.fixture
def small(data: Path, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """`small("name", "key=value", ...)`: the small experiment in folder `name`."""

    def make(name: str, *overrides: str) -> ExperimentConfig:
        return composed(SMALL, f"data.path={data}", f"out={tmp_path / name}", *overrides)

    return make


@pytest.fixture
def trained(small: Callable[..., ExperimentConfig]) -> Callable[..., Trainer]:
    """`trained("name", ...)`: a trainer after its run."""

    def make(name: str, *overrides: str) -> Trainer:
        trainer = make_trainer(small(name, *overrides))
        trainer.run()
        return trainer

    return make


@pytest.fixture(scope="session")
def _finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "a"
    make_trainer(composed(SMALL, f"data.path={data}", f"out={out}")).run()
    return out


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """The folder of the small experiment after its run, in `a`: as `trained("a").out`, and one's
    own."""
    return shutil.copytree(_finished, tmp_path / "a")
