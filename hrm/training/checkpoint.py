"""Checkpoints: everything a run needs to go on, as safetensors and JSON, written aside and renamed.

A checkpoint is a folder: `model.safetensors`, `ema.safetensors` (what is evaluated and served),
`state.safetensors` (optimizers, carry, sums of the log), `state.json` (numbers), `config.json` (the
experiment, and the data's sizes). Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from hrm.config import ExperimentConfig, build_model, validate
from hrm.errors import UserError
from hrm.models import ACTModel

PREFIX = "step_"
FORMAT = 1


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: aside, flushed, renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def save(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], objects: Mapping[str, Any]
) -> None:
    """Write `{name}.safetensors` and `{name}.json` files as one folder that appears at once."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        for name, group in tensors.items():
            # Copies: safetensors refuses tensors that share memory.
            copies = {k: v.detach().cpu().contiguous().clone() for k, v in group.items()}
            try:
                save_file(copies, aside / f"{name}.safetensors")
            except SafetensorError as error:  # Of a full disk too: it is no OSError.
                raise UserError(f"{folder}: cannot be written ({error})") from None
        for name, value in objects.items():
            (aside / f"{name}.json").write_text(json.dumps(value, indent=1))
        for file in aside.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if folder.exists():  # An earlier try at the same step, equal to this one.
            shutil.rmtree(folder)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
    return tensors, {"state": numbers, "param_groups": state["param_groups"]}


def load_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in rest["state"].items()}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


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


def clean(run: Path, keep: int | None = None) -> None:
    """Remove what a killed write left behind, and all but the newest `keep` checkpoints."""
    for leftover in (run / "checkpoints").glob(f".{PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in ("metrics.jsonl", "config.yaml"):
        for leftover in run.glob(f".{name}.*"):
            leftover.unlink(missing_ok=True)
    if keep is not None:
        for old in checkpoints(run)[:-keep]:
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
    """`RUN` of the commands: a run's folder (its newest checkpoint) or one checkpoint.

    Raises:
        UserError: it is neither.
    """
    path = Path(run)
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{run}: no such folder; give a run's folder or one of its checkpoints")
    found = checkpoints(path)
    if not found:
        raise UserError(
            f"{run}: holds no checkpoint; give a run's folder or one of its checkpoints"
        )
    return found[-1]


def read_json(path: Path) -> Any:
    """Raises UserError if the file is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; this is not a whole checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: is not JSON; this is not a whole checkpoint") from None


def read_config(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's `config.json`. Raises UserError if it is not what `save` was given."""
    path = checkpoint / "config.json"
    saved = read_json(path)
    kinds = {"experiment": dict, "sizes": dict, "step": int, "data_root": str}
    whole = isinstance(saved, dict) and saved.get("format") == FORMAT
    if not whole or any(not isinstance(saved.get(k), kind) for k, kind in kinds.items()):
        raise UserError(f"{path}: is not the configuration of a checkpoint")
    return saved


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError if the file is missing or no safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; this is not a whole checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a safetensors file ({error})") from None


def load_weights(model: torch.nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load all weights; UserError if names or shapes are another architecture's."""
    mine = model.state_dict()
    missing, extra = sorted(mine.keys() - weights.keys()), sorted(weights.keys() - mine.keys())
    shapes = [k for k in mine.keys() & weights.keys() if mine[k].shape != weights[k].shape]
    if missing or extra or shapes:
        name = (missing + extra + sorted(shapes))[0]
        kind = "is missing" if missing else "is unknown" if extra else "has another shape"
        raise UserError(f"{source}: belongs to another architecture: tensor {name} {kind}")
    model.load_state_dict(dict(weights))


@dataclass
class LoadedRun:
    """A trained model ready for evaluation."""

    model: ACTModel
    config: ExperimentConfig
    path: Path
    step: int
    data_root: Path
    """The data set it was trained on."""
    sizes: dict[str, int]
    """`seq_len`, `vocab_size` and `num_puzzle_identifiers` of that data, and `batch_size`."""


def load_run(run: str | Path, device: torch.device | str = "cpu") -> LoadedRun:
    """The model of a run or checkpoint, in evaluation mode; averaged weights where there are any.

    Raises:
        UserError: no checkpoint, or not a whole one.
    """
    path = find_checkpoint(run)
    saved = read_config(path)
    config = validate(saved["experiment"])
    model = build_model(config.arch, **saved["sizes"])
    averaged = path / "ema.safetensors"
    source = averaged if averaged.is_file() else path / "model.safetensors"
    load_weights(model, read_tensors(source), source)
    model.to(device).eval()
    return LoadedRun(model, config, path, saved["step"], Path(saved["data_root"]), saved["sizes"])
