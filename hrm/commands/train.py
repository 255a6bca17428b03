"""`hrm train`: compose the settings, make the data set if it is missing, train, draw the plots."""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hrm.config import ExperimentConfig, compose, config_dir
from hrm.data.base import Metadata, PuzzleSplit, load_split, looked_at
from hrm.data.kinds import preparer, request_of
from hrm.errors import UserError
from hrm.training.checkpoint import read_json, refuse_taken
from hrm.training.distributed import ALONE, Processes, launched
from hrm.training.progress import TrainProgress
from hrm.training.sinks import Sinks, require_packages
from hrm.training.trainer import NonFiniteError, Trainer

HELP = """usage: hrm train [key=value ...]

Settings are Hydra's: key=value, group=name, +key=value; dotted keys reach inside (arch.L_cycles=6).
  experiment=NAME   one of: {experiments}
  arch=NAME         one of: {archs}
  scale=NAME        one of: {scales}
  out=DIR           the run's folder (default: a new one under runs/); resume=true goes on in it
  max_steps=N  epochs=N  seed=N  lr=X  global_batch_size=N  eval_every_steps=N  ...
  --cfg             print the composed settings and stop
Under torchrun (torchrun --nproc-per-node N -m hrm train ...) N processes share each batch.

example: hrm train experiment=sudoku_6x6 seed=1 out=runs/six"""


def run(arguments: list[str]) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print(_help())
        return 0
    shows = "--cfg" in arguments
    overrides = [a for a in arguments if a != "--cfg"]
    for override in overrides:
        if override.startswith("-") or "=" not in override:
            raise UserError(f"{override}: settings are given as key=value (see hrm train --help)")
    config = compose(overrides)
    return show_settings(config) if shows else train(config)


def show_settings(config: ExperimentConfig) -> int:
    """Print all settings as YAML."""
    import yaml

    print(yaml.safe_dump(config.model_dump(), sort_keys=False), end="")
    return 0


def train(config: ExperimentConfig) -> int:
    """Train as `config` says, with a progress line, plots and a closing line.

    Several processes, if torchrun has started them, share each batch.
    """
    with launched(config.device) as processes:
        return _train(config, processes)


def _train(config: ExperimentConfig, processes: Processes) -> int:
    trainer = make_trainer(config, processes)
    sinks: AbstractContextManager[Any] = Sinks(trainer) if processes.first else nullcontext()
    with TrainProgress(trainer, enabled=config.progress and sys.stderr.isatty()):
        try:
            with sinks:
                trainer.run()
        except KeyboardInterrupt:
            print(f"hrm: interrupted; out={trainer.out} resume=true goes on", file=sys.stderr)
            return 130
        except NonFiniteError as error:
            print(f"hrm: {error}", file=sys.stderr)
            return 1
    if processes.first:
        finish(trainer)
    return 0


def _help() -> str:
    def names(group: str) -> str:
        return ", ".join(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))

    return HELP.format(experiments=names("experiment"), archs=names("arch"), scales=names("scale"))


def make_trainer(config: ExperimentConfig, processes: Processes = ALONE) -> Trainer:
    """The trainer of a checked configuration, its data set prepared if it is missing."""
    # All before a data set is made for nothing.
    out = processes.on_first(lambda: _folder(config))
    require_packages(config)
    processes.device(config.device)
    processes.slices(config.global_batch_size, config.grad_accumulation)
    train, held_out = load_data(config, processes)
    return Trainer(config, train, held_out, out, augmenter(config, train.metadata), processes)


def _folder(config: ExperimentConfig) -> Path:
    """The run's, which is free."""
    name = config.run_name or config.experiment_name
    out = Path(config.out or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    refuse_taken(out, config.resume)
    return out


def load_data(
    config: ExperimentConfig, processes: Processes = ALONE
) -> tuple[PuzzleSplit, PuzzleSplit]:
    """Training rows, and the rows that are looked at while training."""
    root = Path(config.data.path)
    processes.on_first(lambda: _prepare_missing(config, root))
    held_out = looked_at(root, config.eval_split)
    if held_out != config.eval_split:
        warnings.warn(f"{root} has no {config.eval_split}: test is looked at instead", stacklevel=2)
    return (
        load_split(root, "train").limit_groups(config.max_train_groups),
        load_split(root, held_out).limit_groups(config.max_eval_groups),
    )


def _prepare_missing(config: ExperimentConfig, root: Path) -> None:
    """Make the data set, if it is not there and its settings are."""
    settings = dict(config.data.prepare or {})
    if "out" in settings:
        raise UserError("data.prepare.out: is data.path and cannot be set")
    kind = settings.pop("kind", "sudoku")
    request = None if config.data.prepare is None else request_of(kind, settings, root)
    if not root.exists():
        if request is None:
            raise UserError(f"data.path: {root} does not exist; make it with hrm prepare")
        print(f"hrm: preparing {root} ({config.data.prepare})", file=sys.stderr)
        preparer(kind)(request, progress=sys.stderr.isatty() and config.progress)
    elif request is not None and (made := made_otherwise(root, request)):
        warnings.warn(f"{root} is used as it is, made with other settings: {made}", stacklevel=2)


def made_otherwise(root: Path, request: BaseModel) -> str:
    """What a data set's `prepare.json` says otherwise than `request`, as `key=value` words."""
    record = root / "prepare.json"
    if not record.is_file():  # Built by the published tools, say.
        return ""
    settings = read_json(record).get("settings", {})
    asked = request.model_dump(mode="json", exclude={"out"})
    other = [key for key in asked if key in settings and settings[key] != asked[key]]
    return " ".join(f"{key}={settings[key]}" for key in other)


def augmenter(config: ExperimentConfig, data: Metadata) -> Any:
    """The run-time augmentation that `data.augment` names."""
    if config.data.augment == "none":
        return None
    if config.data.augment == "dihedral":
        from hrm.data.scenes.augment import DihedralAugment

        if (image := data.image) is None:
            raise UserError(f"data.augment: dihedral needs images, but {config.data.path} has none")
        return DihedralAugment(image.height, image.width, image.channels)
    if config.data.augment == "arc":
        from hrm.data.arc import arc_augment

        return arc_augment(data, config.data.path)
    from hrm.data.sudoku import SudokuAugment, shape_of

    shape = shape_of(data.seq_len, data.vocab_size)
    if shape is None:
        raise UserError(
            f"data.augment: sudoku needs boards of 16, 36 or 81 cells and their digits, but "
            f"{config.data.path} has {data.seq_len} tokens of {data.vocab_size} values"
        )
    return SudokuAugment(shape)


def finish(trainer: Trainer) -> None:
    """Plots, and one line on standard error that says where everything is."""
    rows = trainer.rows()
    last = rows[-1] if rows else {}
    if trainer.config.plots and rows:
        from hrm.plots import plot_evaluation, plot_training

        plot_training(rows, trainer.out / "plots" / "training.png")
        if "eval/count" in last:
            summary = {k.removeprefix("eval/"): v for k, v in last.items()}
            plot_evaluation(summary, trainer.out / "plots")
    exact = last.get("eval/exact_accuracy")
    seen = "" if exact is None else f", exact accuracy {exact:.4f} on {last['eval/count']} rows"
    print(
        f"hrm: {trainer.out}: {trainer.step} updates in {trainer.train_s:.1f} s{seen}",
        file=sys.stderr,
    )
