"""`hrm evaluate RUN`: figures of a trained model on held-out rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, limit_steps, print_json
from hrm.data.base import SplitName, load_split, looked_at
from hrm.device import pick_device
from hrm.errors import UserError
from hrm.evaluation.voting import Ballots
from hrm.evaluation.voting import submission as official_form
from hrm.files import write_text
from hrm.inference.evaluate import evaluate_split
from hrm.inference.loop import HaltingMode
from hrm.inference.voting import is_arc
from hrm.provenance import prepare_command
from hrm.training.checkpoint import LoadedRun, load_run, read_json

SHOWN = (
    ("count", "rows"),
    ("accuracy", "token accuracy"),
    ("exact_accuracy", "exact accuracy"),
    ("mean_steps", "mean steps"),
    ("policy_mean_steps", "mean steps where the policy would halt"),
    ("policy_exact_accuracy", "exact accuracy where the policy would halt"),
    ("q_halt_accuracy", "Q-halt accuracy"),
    ("q_halt_base_rate", "Q-halt base rate (share of right answers)"),
    ("q_halt_auroc", "Q-halt AUROC"),
    ("q_halt_auroc_all_steps", "Q-halt AUROC over all steps"),
    ("q_halt_calibration_error", "Q-halt calibration error"),
)
SHOWN_OF_IMAGES = (
    ("count", "images"),
    ("iou", "intersection over union"),
    ("dice", "Dice"),
    ("accuracy", "pixel accuracy"),
    ("exact_accuracy", "exact accuracy"),
    ("mean_steps", "mean steps"),
    ("halting/mean_steps", "mean steps where the policy would halt"),
    ("halting/iou", "intersection over union there"),
    ("halting/steps_std", "spread of its steps"),
    ("halting/spearman", "rank correlation with the difficulty"),
    ("halting/agreement", "agreement with the optimal step"),
    ("halting/regret", "regret"),
    ("halting/gap_closed", "share of a fixed depth's regret saved"),
    ("halting/gap_closed_error", "its standard error over images"),
    ("saved", "share of all operations saved"),
)
CALIBRATED = ("stopper", "threshold", "temperature")
"""What is told of a calibrated policy."""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm evaluate",
        "Figures of a trained model (averaged weights) on held-out rows.",
        "hrm evaluate runs/six --halting adaptive --json",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run, a checkpoint, an exported or shipped model, a file")
    add("--data", metavar="DIR", help="another data set (default: the run's own)")
    add("--split", choices=("test", "val", "train"), default="test")
    add("--halting", choices=("max_steps", "adaptive"), default="max_steps")
    add("--max-steps", type=int, metavar="N", help="most steps (default: as it was trained)")
    add("--count", type=int, help="rows, spread evenly over the split (default: all)")
    add("--batch-size", type=int, default=256)
    add("--step-penalty", type=float, help="images: cost of a step (default: the policy's own)")
    add(
        "--passes",
        type=int,
        nargs="+",
        metavar="K",
        help="ARC: a task is solved if one of the first K answers is right (default: 1 2)",
    )
    add("--submission", metavar="FILE", help="ARC: write two answers to each test input here")
    add(
        "--groups",
        type=int,
        metavar="N",
        help="only the split's first N groups (tasks; default: those that the run took of it)",
    )
    add("--all-groups", action="store_true", help="all, whatever the run was limited to")
    add("--by-group", action="store_true", help="also the figures of each group, under by_group")
    add("--device", default="auto")
    add("--plots", metavar="DIR", help="also draw the plots into this folder")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    at_least(options, count=1, batch_size=1, step_penalty=0, groups=1, max_steps=1)
    if options.all_groups and options.groups is not None:
        raise UserError("--groups, --all-groups: give one of them")

    device, seq_len = pick_device(options.device), seq_len_of(options.data, options.split)
    loaded, groups = load_run(options.run, device, seq_len=seq_len), options.groups
    limit_steps(loaded.model, options.max_steps)
    if options.data is None and groups is None and not options.all_groups:
        groups = groups_of_run(loaded, options.split)
    figures = figures_of(
        loaded,
        data=options.data,
        split=options.split,
        count=options.count,
        batch_size=options.batch_size,
        halting=options.halting,
        step_penalty=options.step_penalty,
        passes=options.passes,
        submission=None if options.submission is None else Path(options.submission),
        groups=groups,
        by_group=options.by_group,
    )
    if options.json:
        print_json(figures)
    else:
        show(figures)
    if options.plots and figures["count"]:
        from hrm.plots import plot_evaluation

        plot_evaluation(figures, Path(options.plots))
    return 0


def figures_of(
    loaded: LoadedRun,
    *,
    data: str | Path | None = None,
    split: SplitName = "test",
    count: int | None = None,
    batch_size: int = 256,
    halting: HaltingMode = "max_steps",
    step_penalty: float | None = None,
    passes: Sequence[int] | None = None,
    submission: Path | None = None,
    groups: int | None = None,
    by_group: bool = False,
) -> dict[str, Any]:
    """A run's figures on a split of its own data set, or of `data`; a bar in a terminal.

    passes, submission: of ARC's tasks, the k of each pass@k (None: 1 and 2), and a file for two
    answers to each test input in the official form. groups: only so many, the first ones.

    Raises:
        UserError: the data are not here or do not fit the model, the file cannot be written, or
            these two are given for other data than ARC's.
    """
    rows = load_split(root_of(loaded, data), split).limit_groups(groups)
    if passes is not None:
        if not is_arc(rows.metadata):
            raise UserError(f"--passes: is for ARC's tasks, and {rows.path} holds none")
        if min(passes) < 1:
            raise UserError(f"--passes: got {min(passes)}, but it is at least 1")
    if submission is not None and submission.is_dir():
        raise UserError(f"--submission: {submission} is a folder; give a file")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("evaluating", total=min(count or len(rows), len(rows)))
        figures = evaluate_split(
            loaded.model,
            rows,
            count=count,
            batch_size=batch_size,
            halting=halting,
            loss="stablemax" if loaded.config is None else loaded.config.loss,
            step_penalty=step_penalty,
            passes=passes or (1, 2),
            on_ballots=None if submission is None else partial(write_submission, submission),
            groups=by_group,
            on_batch=lambda done: bar.update(task, completed=done),
        )
    record = loaded.model.calibration
    policy = None if record is None else {k: record[k] for k in CALIBRATED if k in record}
    return figures | {
        "halting": halting,
        "calibrated_policy": policy,
        "split": split,
        "step": loaded.step,
    }


def write_submission(path: Path, ballots: Ballots) -> None:
    """The official form as JSON, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(official_form(ballots)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def groups_of_run(loaded: LoadedRun, split: SplitName) -> int | None:
    """How many groups of a split of its own data set the run was limited to, in training or where
    it was looked at while training; None: it was not. A limit is told on standard error."""
    if (config := loaded.config) is None:
        return None
    if split == "train":
        key, limit = "max_train_groups", config.max_train_groups
    elif split == looked_at(loaded.data_root, config.eval_split):
        key, limit = "max_eval_groups", config.max_eval_groups
    else:
        return None
    if limit is not None:
        print(
            f"hrm: no more than the first {limit} groups of {split}, as in training ({key}); "
            "--all-groups takes all",
            file=sys.stderr,
        )
    return limit


def root_of(loaded: LoadedRun, data: str | Path | None) -> Path:
    """`data`, or else the folder of the run's own data set.

    Raises:
        UserError: that one is not here.
    """
    root = Path(data or loaded.data_root)
    if data is None and (root == Path() or not root.is_dir()):
        raise UserError(
            f"{root}: the data set of this model is not here; give --data DIR{_made(loaded)}"
        )
    return root


def seq_len_of(data: str | Path | None, split: SplitName) -> int | None:
    """Tokens of a sequence in a data set, which the weights of a published file may not show."""
    return None if data is None else load_split(data, split).metadata.seq_len


def _made(loaded: LoadedRun) -> str:
    """How to make the missing data set, if known: as an export says, or as `hrm train` would."""
    file = loaded.path / "metrics.json"
    record = read_json(file) if file.is_file() else None
    data = record.get("data") if isinstance(record, dict) else None
    command = data.get("command") if isinstance(data, dict) else None
    if command is None and loaded.config is not None and loaded.config.data.prepare:
        command = prepare_command(loaded.config.data.prepare, str(loaded.data_root))
    return f", or make it: {command}" if command else ""


def show(figures: dict[str, Any]) -> None:
    """The figures that matter as a table."""
    table = Table(show_header=False, box=None)
    images = "iou" in figures
    figures = {**figures, **figures.get("operations", {})}
    for key, gloss in SHOWN_OF_IMAGES if images else SHOWN:
        value = figures.get(key)
        text = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        table.add_row(gloss, text)
    if "tasks" in figures:
        table.add_row("tasks", str(figures["tasks"]))
    for key in (key for key in figures if key.startswith("pass@")):
        name, _, whole = key.partition("_")
        gloss = f"{name}, every test input of a task" if whole else name
        table.add_row(gloss, f"{figures[key]:.4f}")
    if policy := figures.get("calibrated_policy"):
        chosen = ", ".join(f"{k} {v}" for k, v in policy.items())
        table.add_row("policy, as hrm calibrate chose it", chosen)
    by_steps = (
        {"iou_by_step": "intersection over union by step", "loss_by_step": "loss by step"}
        if images
        else {"accuracy_by_step": "exact accuracy by step"}
    )
    for key, gloss in by_steps.items():
        if key in figures:
            table.add_row(gloss, " ".join(f"{a:.3f}" for a in figures[key]))
    steps = figures.get("policy_steps_histogram", figures["steps_histogram"])
    table.add_row("rows halting at step 1, 2, ...", " ".join(map(str, steps)))
    Console().print(table)
