"""`hrm calibrate RUN`: choose when a trained model halts, and store it beside the weights."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, print_json
from hrm.commands.evaluate import root_of, seq_len_of
from hrm.data.base import SplitName, has_split, load_split
from hrm.device import pick_device
from hrm.errors import UserError
from hrm.files import write_text
from hrm.halting.calibrated import Stopper
from hrm.inference.calibration import calibrate, resolution
from hrm.inference.trajectories import record_steps
from hrm.models.pretrained import CALIBRATION, portable
from hrm.training.checkpoint import LoadedRun, find_checkpoint, load_run
from hrm.training.metrics import finite


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm calibrate",
        "Run a trained model to its last step on held-out rows, and choose when it halts: a\n"
        "temperature that makes the chances told by q_halt honest, and the threshold with the\n"
        "fewest mean steps for the loss of exact accuracy allowed. Stored beside the weights as\n"
        "calibration.json, it is what evaluate --halting adaptive, solve and export go by from\n"
        "then on; without the file the model halts as configured. Training never reads it.",
        "hrm calibrate runs/six --loss-points 0.5 --plots runs/six/plots",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run, a checkpoint or an exported model")
    add("--data", metavar="DIR", help="another data set (default: the run's own)")
    add("--split", choices=("val", "train", "test"), default="val", help="never test")
    add("--count", type=int, help="rows, spread evenly over the split (default: all)")
    add("--loss-points", type=float, default=0.1, help="loss allowed, percentage points")
    add("--stopper", choices=get_args(Stopper), default="q", help="what decides (default: q)")
    add("--dry-run", action="store_true", help="measure and choose, store nothing")
    add("--batch-size", type=int, default=256)
    add("--device", default="auto")
    add("--plots", metavar="DIR", help="also draw accuracy over mean steps into this folder")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    at_least(options, count=1, batch_size=1)
    if not 0 <= options.loss_points <= 100:
        raise UserError(f"--loss-points: got {options.loss_points}, but it is 0 to 100")
    if options.split == "test":
        raise UserError(
            "--split test: a threshold chosen on the test rows would spoil every figure on them; "
            "choose on val"
        )

    target = None if options.dry_run else target_of(options.run)
    if options.data is not None:
        refuse_without(options.split, Path(options.data))
    device, seq_len = pick_device(options.device), seq_len_of(options.data, options.split)
    record = record_of(
        load_run(options.run, device, seq_len=seq_len, calibrated=False),
        data=options.data,
        split=options.split,
        count=options.count,
        stopper=options.stopper,
        loss_points=options.loss_points,
        batch_size=options.batch_size,
    )
    if target is not None:
        store(record, target)
    if options.json:
        print_json(record)
    else:
        show(record, target)
    if options.plots:
        from hrm.plots import plot_frontiers

        plot_frontiers(record, Path(options.plots) / "halting.png")
    return 0


def target_of(run: str) -> Path:
    """The folder of weights in which the calibration is stored.

    Raises:
        UserError: `run` is a published file, or a name of a model that lies elsewhere.
    """
    path = find_checkpoint(run)
    if path.is_file():
        raise UserError(
            f"{run}: is a file; hrm export makes it a folder, which holds a calibration"
        )
    if not Path(run).exists():
        raise UserError(
            f"{run}: lies in {path}, which is not yours to change; copy it, or give --dry-run"
        )
    return path


def record_of(
    loaded: LoadedRun,
    *,
    data: str | Path | None = None,
    split: SplitName = "val",
    count: int | None = None,
    stopper: Stopper = "q",
    loss_points: float = 0.1,
    batch_size: int = 256,
) -> dict[str, Any]:
    """`hrm.inference.calibration.calibrate` on a split of the run's data set, or of `data`.

    Beside its keys `data` (the name alone), `split`, `step` (updates of the training) and
    `trained_halting`.

    Raises:
        UserError: the data are not here, have no such split or do not fit the model.
    """
    root = root_of(loaded, data)
    refuse_without(split, root)
    if split == "train":
        warnings.warn(
            "--split train: the model has learned these rows, so that it halts too early on others",
            stacklevel=2,
        )
    rows = load_split(root, split)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("running", total=min(count or len(rows), len(rows)))
        records = record_steps(
            loaded.model,
            rows,
            count=count,
            batch_size=batch_size,
            on_batch=lambda done: bar.update(task, completed=done),
        )
    record = calibrate(records, loaded.model.halting, stopper, loss_points)
    about = {
        "data": portable(str(root.absolute())),
        "split": split,
        "step": loaded.step,
        "trained_halting": loaded.model.config.halting,
    }
    return dict(finite(record | about))


def refuse_without(split: SplitName, root: Path) -> None:
    """Raises UserError if a data set has no split `val` to choose on."""
    if split == "val" and root.is_dir() and not has_split(root, "val"):
        raise UserError(
            f"{root}: has no val split, and test is not for choosing; make one (hrm prepare ... "
            "--val-count N), or take rows that the model has seen: --split train"
        )


def store(record: Mapping[str, Any], folder: Path) -> None:
    """Write the calibration of the weights in `folder`, whole or not at all."""
    for leftover in folder.glob(f".{CALIBRATION}.*"):  # Of a write that was killed.
        leftover.unlink(missing_ok=True)
    write_text(folder / CALIBRATION, json.dumps(record, indent=1) + "\n")


def show(record: Mapping[str, Any], target: Path | None) -> None:
    """What it costs and saves, the other stoppers, and what is to be kept in mind."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("", "mean steps", "exactly right", "halts at"):
        numbers = name in ("mean steps", "exactly right")
        table.add_column(name, justify="right" if numbers else "left")

    def row(gloss: str, steps: float, accuracy: float, setting: str = "") -> None:
        table.add_row(gloss, f"{steps:.2f}", f"{accuracy:.2%}", setting)

    last, before = record["last_step"], record["before"]
    row("all to the last step", last["mean_steps"], last["exact_accuracy"])
    row(f"as trained ({record['trained_halting']})", *_pair(before))
    row("oracle", *_pair(record["oracle"]), "the first right answer")
    for name, stopper in record["stoppers"].items():
        setting, steps, accuracy = stopper["chosen"]
        mark = "-> " if name == record["stopper"] else "   "
        at = "the last step" if setting is None else f"{stopper['rule']} {setting:.3g}"
        row(f"{mark}{name}", steps, accuracy, at)
    console.print(table)
    for sentence in in_words(record):
        console.print(sentence, highlight=False)
    if target is not None:
        console.print(
            f"Stored: {target / CALIBRATION}; without this file the model halts as trained.",
            highlight=False,
            soft_wrap=True,
        )


def in_words(record: Mapping[str, Any]) -> list[str]:
    """What the figures say, a sentence each."""
    last, before, after = record["last_step"], record["before"], record["after"]
    rows = f"{record['count']} rows of {record['split']}"
    found = [
        f"Stopper {record['stopper']}: {after['mean_steps']:.2f} of {record['max_steps']} steps; "
        f"the loss on {rows} is {after['loss_points']:.2f} points, with a standard error of "
        f"{after['loss_standard_error']:.2f} (allowed: {record['loss_points']:g})."
    ]
    if record["threshold"] is None:
        found.append("Every earlier halt loses more than allowed: it runs to the last step.")
    if before["calibration_error"] is not None:
        found.append(
            f"Temperature {record['temperature']:.3g}: the calibration error of q_halt over all "
            f"steps goes from {before['calibration_error']:.4f} to "
            f"{after['calibration_error']:.4f}, its log loss from {before['log_loss']:.4f} to "
            f"{after['log_loss']:.4f}."
        )
    if sentence := resolution(dict(record)):
        found.append(f"{sentence}.")
    if math.isclose(last["exact_accuracy"], 0):
        found.append("No answer is right after the last step: train the model first.")
    return found


def _pair(outcome: Mapping[str, float]) -> tuple[float, float]:
    return outcome["mean_steps"], outcome["exact_accuracy"]
