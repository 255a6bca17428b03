"""Checkpoints: everything a run needs to go on, as safetensors and JSON, written aside and renamed.

A checkpoint is a folder: `model.safetensors`, `ema.safetensors` (what is evaluated and served),
`state.safetensors` (optimizers, carry, sums of the log), `state.json` (numbers), `config.json` (the
experiment, and the data's sizes). Nothing is pickled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.optim import Optimizer

from hrm.config import ExperimentConfig, validate
from hrm.data.base import has_split, load_split
from hrm.errors import UserError
from hrm.models import ACTModel
from hrm.models.pretrained import find, is_model_folder, load_pretrained, sizes_of
from hrm.models.published import CONFIG_NAME
from hrm.models.weights import (  # noqa: F401
    FORMAT,
    load_weights,
    read_config,
    read_json,
    read_tensors,
    save,
)
from hrm.training.metrics import LOG_NAME, best_step, read_metrics

PREFIX = "step_"


OF_THE_PROCESS = "world_size"
"""The setting of an optimizer that a checkpoint does not keep: another number may go on with it."""


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors, and the rest as JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    groups = [{k: v for k, v in g.items() if k != OF_THE_PROCESS} for g in state["param_groups"]]
    return tensors, {"state": numbers, "param_groups": groups}


def load_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in rest["state"].items()}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    own = [{k: v for k, v in g.items() if k == OF_THE_PROCESS} for g in optimizer.param_groups]
    groups = [{**saved, **kept} for saved, kept in zip(rest["param_groups"], own, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix.name`."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `with_prefix`."""
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    found = (run / "checkpoints").glob(f"{PREFIX}*")
    return sorted(p for p in found if (p / "config.json").is_file())


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint after update `step` lies."""
    return run / "checkpoints" / f"{PREFIX}{step:08d}"


def best_checkpoint(run: Path, figure: str | None) -> Path | None:
    """Of a run's checkpoints the one where `eval/figure` was best; None: there is none."""
    if figure is None:  # Nobody asks, so the log is not read.
        return None
    saved = {int(p.name.removeprefix(PREFIX)): p for p in checkpoints(run)}
    rows = [row for row in read_metrics(run / LOG_NAME) if row["step"] in saved]
    step = best_step(rows, figure)
    return None if step is None else saved[step]


def clean(run: Path, keep: int | None = None, best: str | None = None) -> None:
    """Remove what a killed write left behind, and all but the newest `keep` checkpoints and the one
    with the best figure `best`."""
    for leftover in (run / "checkpoints").glob(f".{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in (LOG_NAME, "config.yaml"):
        for leftover in run.glob(f".{name}.*"):
            leftover.unlink(missing_ok=True)
    if keep is not None:
        kept = best_checkpoint(run, best)
        for old in checkpoints(run)[:-keep]:
            if old == kept:
                continue
            # Renamed first: a kill in the middle must not leave half a checkpoint under its name.
            aside = old.with_name(f".{old.name}.old")
            old.replace(aside)
            shutil.rmtree(aside, ignore_errors=True)


def refuse_taken(run: Path, resume: bool) -> None:
    """Raises UserError if `run` holds anything that is not to be resumed."""
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not resume:
        raise UserError(f"out: {run} exists; give another folder, or resume=true to go on in it")
    if not (run / "checkpoints").is_dir():
        raise UserError(f"out: {run} is not a run's folder, so nothing can be resumed")


@contextmanager
def exclusive(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, where the system knows file locks.

    Raises:
        UserError: another one is in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (run / "checkpoints" / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"out: another process is training in {run}") from None
        yield


def find_checkpoint(run: str | Path) -> Path:
    """What `RUN` of the commands stands for: a folder of weights, or a published file of them.

    `run` is a run's folder (its newest checkpoint, or with `keep_best` the best), a checkpoint, an
    exported model's folder, a shipped model's name, USER/NAME on the hub, or a published file.

    Raises:
        UserError: it is none of them.
    """
    path = find(run)
    if path.is_file() or is_model_folder(path):
        return path
    found = checkpoints(path)
    if not found:
        raise UserError(
            f"{run}: holds no checkpoint; give a run's folder, one of its checkpoints or an "
            "exported model"
        )
    wanted = read_config(found[-1])["experiment"].get("keep_best")
    return best_checkpoint(path, wanted) or found[-1]


@dataclass
class LoadedRun:
    """A trained model ready for evaluation."""

    model: ACTModel
    config: ExperimentConfig | None
    """None for a model that `hrm train` has not trained."""
    path: Path
    step: int
    data_root: Path
    """The data set it was trained on; empty if unknown."""
    sizes: dict[str, int]
    """`seq_len`, `vocab_size` and `num_puzzle_identifiers` of that data, and `batch_size`."""


def load_run(
    run: str | Path,
    device: torch.device | str = "cpu",
    *,
    seq_len: int | None = None,
    calibrated: bool = True,
) -> LoadedRun:
    """The model that `run` stands for (`find_checkpoint`), in evaluation mode; averaged weights
    where there are any.

    Args:
        seq_len: tokens of a sequence, for a published file, whose weights may not show it; None:
            as the data set of its training has it, if that is here.
        calibrated: let it halt as `hrm calibrate` chose, where that was called; False: as
            configured. Training never reads a calibration.

    Raises:
        UserError: no checkpoint, or not a whole one.
    """
    path = find_checkpoint(run)
    if path.is_file():
        return _load_file(path, device, seq_len)
    saved = read_config(path)
    experiment = saved["experiment"]
    config = None if experiment.keys() == {"arch"} else validate(experiment)
    model = load_pretrained(path, calibrated=calibrated).to(device)
    return LoadedRun(model, config, path, saved["step"], Path(saved["data_root"]), saved["sizes"])


def _load_file(path: Path, device: torch.device | str, seq_len: int | None) -> LoadedRun:
    root = _data_of(path)
    if seq_len is None and root != Path() and has_split(root, "test"):
        seq_len = load_split(root, "test").metadata.seq_len
    known: dict[str, Any] = {} if seq_len is None else {"seq_len": seq_len}
    model = load_pretrained(path, **known).to(device)
    step = re.search(r"step_(\d+)", path.name)
    return LoadedRun(model, None, path, int(step[1]) if step else 0, root, sizes_of(model))


def _data_of(path: Path) -> Path:
    """The data set of a published file's training; empty if its settings do not say."""
    try:
        values = yaml.safe_load(path.with_name(CONFIG_NAME).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # load_published tells of it.
        return Path()
    if not isinstance(values, Mapping):
        return Path()
    several = values.get("data_paths") or [values.get("data_path")]  # TRM, HRM
    first = several[0] if isinstance(several, list) else None
    return Path(first) if isinstance(first, str) else Path()
