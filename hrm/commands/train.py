"""`hrm train`: compose the settings, make the data set if it is missing, train, draw the plots."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from hrm.config import ExperimentConfig, compose, config_dir
from hrm.data.base import PuzzleSplit, has_split, load_split
from hrm.errors import UserError
from hrm.training.progress import TrainProgress
from hrm.training.trainer import NonFiniteError, Trainer

HELP = """usage: hrm train [key=value ...]

Settings are Hydra's: key=value, group=name, +key=value; dotted keys reach inside (arch.L_cycles=6).
  experiment=NAME   one of: {experiments}
  arch=NAME         one of: {archs}
  scale=NAME        one of: {scales}
  out=DIR           the run's folder (default: a new one under runs/); resume=true goes on in it
  max_steps=N  epochs=N  seed=N  lr=X  global_batch_size=N  eval_every_steps=N  ...
  --cfg             print the composed settings and stop

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
    if shows:
        import yaml

        print(yaml.safe_dump(config.model_dump(), sort_keys=False), end="")
        return 0
    return train(config)


def train(config: ExperimentConfig) -> int:
    """Train as `config` says, with a progress line, plots and a closing line."""
    trainer = make_trainer(config)
    with TrainProgress(trainer, enabled=config.progress and sys.stderr.isatty()):
        try:
            trainer.run()
        except NonFiniteError as error:
            print(f"hrm: {error}", file=sys.stderr)
            return 1
    finish(trainer)
    return 0


def _help() -> str:
    def names(group: str) -> str:
        return ", ".join(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))

    return HELP.format(experiments=names("experiment"), archs=names("arch"), scales=names("scale"))


def make_trainer(config: ExperimentConfig) -> Trainer:
    """The trainer of a checked configuration, its data set prepared if it is missing."""
    name = config.run_name or config.experiment_name
    out = Path(config.out or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if not config.resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out: {out} exists; give another folder, or resume=true to go on in it")
    train, held_out = load_data(config)
    trainer = Trainer(config, train, held_out, out, augmenter(config, train.metadata.seq_len))
    if config.tensorboard:
        from hrm.training.sinks import tensorboard_listener

        trainer.listeners.append(tensorboard_listener(out))
    return trainer


def load_data(config: ExperimentConfig) -> tuple[PuzzleSplit, PuzzleSplit]:
    """Training rows, and the rows that are looked at while training."""
    root = Path(config.data.path)
    if not root.exists():
        if config.data.prepare is None:
            raise UserError(f"data.path: {root} does not exist; make it with hrm prepare")
        from hrm.data.sudoku import prepare_sudoku, sudoku_request

        request = sudoku_request(**config.data.prepare, out=root)
        print(f"hrm: preparing {root} ({config.data.prepare})", file=sys.stderr)
        prepare_sudoku(request, progress=sys.stderr.isatty() and config.progress)
    held_out = config.eval_split if has_split(root, config.eval_split) else "test"
    return load_split(root, "train"), load_split(root, held_out)


def augmenter(config: ExperimentConfig, seq_len: int) -> Any:
    """The run-time augmentation that `data.augment` names."""
    if config.data.augment == "none":
        return None
    from hrm.data.sudoku import SHAPES, SudokuAugment

    for shape in SHAPES.values():
        if shape.cells == seq_len:
            return SudokuAugment(shape)
    raise UserError(f"data.augment: sudoku needs boards of 16, 36 or 81 cells, not {seq_len}")


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
