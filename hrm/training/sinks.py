"""Places for the log's rows beside `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio.

All get the same numbers under the names that they have there, by update. None has to have a login
or a network.
"""

from __future__ import annotations

import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hrm.config import ExperimentConfig
from hrm.errors import UserError
from hrm.files import write_text
from hrm.training.metrics import is_number
from hrm.training.trainer import Trainer

Numbers = Mapping[str, float]

PROJECT = "hrm"
"""Where `project_name` names none."""


class Sink(ABC):
    """A place for the rows of the run in folder `out`."""

    def __init__(self, config: ExperimentConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.name = config.run_name or out.resolve().name
        self.project = config.project_name or PROJECT

    @abstractmethod
    def begin(self, step: int) -> None:
        """Before the first row, of update `step`; the run's folder exists by then."""

    @abstractmethod
    def write(self, numbers: Numbers, step: int) -> None:
        """Take a row's numbers."""

    @abstractmethod
    def end(self, failed: bool) -> None:
        """After the last row."""


class TensorBoard(Sink):
    """Events in `out/tensorboard`."""

    def begin(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=step)

    def write(self, numbers: Numbers, step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, failed: bool) -> None:
        self.writer.close()


class WandB(Sink):
    """A Weights & Biases run with files in `out/wandb`. Without a login it is offline: `wandb sync`
    sends it later. A resumed run goes on under the same id, which lies in `out/wandb/id`; offline
    each part has a folder there.

    Raises:
        UserError: WANDB_MODE asks for more than offline without a login, or a run cannot begin.
    """

    def __init__(self, config: ExperimentConfig, out: Path) -> None:
        super().__init__(config, out)
        import wandb

        self.wandb = wandb
        self.mode = None if self._may_ask_the_server() else "offline"

    def _may_ask_the_server(self) -> bool:
        """Whether W&B's own rules for the mode hold, which may then not end in a prompt."""
        asked = os.environ.get("WANDB_MODE")
        if asked in ("offline", "dryrun", "disabled"):
            return True
        if self.wandb.login(prompt=False, verify=False):
            return True
        if asked:
            raise UserError(f"wandb=true: WANDB_MODE={asked} needs a login (wandb login)")
        return False

    def begin(self, step: int) -> None:
        file = self.out / "wandb" / "id"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_text(file, secrets.token_hex(4))
        try:
            self.run = self.wandb.init(
                project=self.project,
                name=self.name,
                id=file.read_text(),
                resume="allow",
                dir=str(self.out),
                config=self.config.model_dump(mode="json"),
                mode=self.mode,
                reinit="finish_previous",  # Else it would be the run before in this process.
                settings=self.wandb.Settings(console="off"),
            )
        except self.wandb.Error as error:
            raise UserError(f"wandb=true: {error}") from None

    def write(self, numbers: Numbers, step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def end(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class Trackio(Sink):
    """A Trackio run, in a database in `out/trackio` unless TRACKIO_DIR names another folder, where
    several runs can stand side by side. A resumed run goes on under its name.

    Raises:
        UserError: Trackio takes no project of such a name.
    """

    def __init__(self, config: ExperimentConfig, out: Path) -> None:
        super().__init__(config, out)
        # Read when the package is imported, once a process.
        os.environ.setdefault("TRACKIO_DIR", str((out / "trackio").resolve()))
        import trackio

        self.trackio = trackio

    def begin(self, step: int) -> None:
        try:
            with redirect_stdout(sys.stderr):
                self.run = self.trackio.init(
                    project=self.project,
                    name=self.name,
                    config=self.config.model_dump(mode="json"),
                    resume="allow" if self.config.resume else "never",
                )
        except ValueError as error:  # Some names of projects.
            raise UserError(f"trackio=true: {error}") from None

    def write(self, numbers: Numbers, step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def end(self, failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            self.trackio.finish()


SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
"""By setting, which is also the package's name and that of the extra that brings it."""


def require_packages(config: ExperimentConfig) -> None:
    """Raises UserError if a sink is asked for whose package is not here."""
    for name in _asked(config):
        if find_spec(name) is None:
            raise UserError(f"{name}=true needs the package {name} (pip install 'hrm[{name}]')")


class Sinks:
    """A context in which the rows of a trainer's log also go where its settings say.

    Raises:
        UserError: a sink cannot begin.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.begun: list[Sink] = []

    def __enter__(self) -> Sinks:
        config = self.trainer.config
        self.waiting = [SINKS[name](config, self.trainer.out) for name in _asked(config)]
        self.trainer.listeners.append(self._on_row)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for sink in self.begun:
            sink.end(failed=error is not None)

    def _on_row(self, row: dict[str, Any]) -> None:
        step = row["step"]
        numbers = {k: v for k, v in row.items() if is_number(v) and k != "step"}
        while self.waiting:
            self.waiting[0].begin(step)
            self.begun.append(self.waiting.pop(0))
        for sink in self.begun:
            sink.write(numbers, step)


def _asked(config: ExperimentConfig) -> list[str]:
    return [name for name in SINKS if getattr(config, name)]
