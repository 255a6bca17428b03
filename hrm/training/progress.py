"""A progress line for training: the metrics that matter and the time left."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hrm.training.trainer import Trainer


class TrainProgress:
    """A context in which the trainer's log rows move a bar; silent unless `enabled`."""

    def __init__(self, trainer: Trainer, enabled: bool) -> None:
        self.trainer = trainer
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self.evaluated = ""

    def __enter__(self) -> TrainProgress:
        self.progress.start()
        name = self.trainer.config.run_name or self.trainer.config.experiment_name
        self.task = self.progress.add_task(name, total=1.0, figures="")
        self.trainer.listeners.append(self._on_row)
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def _on_row(self, row: dict[str, Any]) -> None:
        figures = [f"update {row['step']}", f"loss {row['train/loss']:.3f}"]
        if row.get("train/exact_accuracy") is not None:
            figures.append(f"exact {row['train/exact_accuracy']:.3f}")
        if row.get("train/steps") is not None:
            figures.append(f"steps {row['train/steps']:.1f}")
        if "eval/exact_accuracy" in row:
            self.evaluated = f"held out {row['eval/exact_accuracy']:.3f}"
        if self.evaluated:
            figures.append(self.evaluated)
        done = self.trainer.share_done()
        self.progress.update(self.task, completed=done, figures="  ".join(figures))
