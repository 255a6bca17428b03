"""`hrm diagnose RUN`: is a fixed point near, and the truncated gradient like the whole one?

All in float32, whatever the model computes in: rounding would end the fall of residuals.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, print_json
from hrm.commands.evaluate import root_of, seq_len_of
from hrm.data.base import SplitName, batches, load_split, spread
from hrm.device import pick_device
from hrm.errors import UserError
from hrm.inference.evaluate import check_fits
from hrm.inference.loop import on_device
from hrm.inference.residuals import joined, measure_convergence, summarise_convergence
from hrm.models import ACTModel
from hrm.token_loss import TokenLoss
from hrm.training.checkpoint import LoadedRun, load_run
from hrm.training.gradient_truncation import gradient_truncation

GRADIENT_ROWS = 32
"""Rows at once for gradients: the activations of all cycles of a step are kept."""
GROUPS = {"H_level": "H level", "L_level": "L level", "embeddings": "embeddings"}


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm diagnose",
        "Residuals by cycle, predictions by step and truncated against whole gradients of a\n"
        "trained model (averaged weights): would running on reach a fixed point, and is the\n"
        "1-step gradient the gradient?",
        "hrm diagnose runs/hrm --steps 32",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run, a checkpoint, an exported or shipped model, a file")
    add("--data", metavar="DIR", help="another data set (default: the run's own)")
    add("--split", choices=("test", "val", "train"), default="test")
    add("--count", type=int, default=256, help="rows, spread evenly over the split")
    add("--steps", type=int, help="steps to take (default: the model's limit; may exceed it)")
    add("--tolerance", type=float, default=0.01, help="a residual below this is a fixed point")
    add("--gradient-count", type=int, default=128, help="rows for the gradients; 0: none")
    add("--settled", action="store_true", help="gradients of rows that end at a fixed point alone")
    add("--batch-size", type=int, default=256)
    add("--device", default="auto")
    add("--out", metavar="DIR", help="folder of the plots (default: RUN/plots of a run's folder)")
    add("--no-plots", action="store_true")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    at_least(options, count=1, steps=1, batch_size=1, gradient_count=0)
    if not 0 < options.tolerance < math.inf:
        raise UserError(f"--tolerance: got {options.tolerance}, but it is a number above 0")

    device, seq_len = pick_device(options.device), seq_len_of(options.data, options.split)
    figures = figures_of(
        load_run(options.run, device, seq_len=seq_len),
        data=options.data,
        split=options.split,
        count=options.count,
        steps=options.steps,
        tolerance=options.tolerance,
        gradient_count=options.gradient_count,
        settled=options.settled,
        batch_size=options.batch_size,
    )
    if options.json:
        print_json(figures)
    else:
        show(figures)
    folder = options.out
    if folder is None and (Path(options.run) / "checkpoints").is_dir():
        folder = Path(options.run) / "plots"
    if folder is not None and not options.no_plots:
        from hrm.plots import plot_diagnosis

        names = ", ".join(path.name for path in plot_diagnosis(figures, Path(folder)))
        print(f"hrm: {folder}: {names}", file=sys.stderr)
    return 0


def figures_of(
    loaded: LoadedRun,
    *,
    data: str | Path | None = None,
    split: SplitName = "test",
    count: int = 256,
    steps: int | None = None,
    tolerance: float = 0.01,
    gradient_count: int = 128,
    settled: bool = False,
    batch_size: int = 256,
) -> dict[str, Any]:
    """The figures of `summarise_convergence`, and under `gradient` those of `gradient_truncation`.

    Gradients are taken at every step up to the model's limit, and beyond it at those of the table;
    with `settled` of those rows alone that end at a fixed point, where the 1-step gradient is meant
    to hold (None if there are no such rows). Others, far from settled, outweigh them in a sum.
    """
    rows = load_split(root_of(loaded, data), split)
    check_fits(loaded.model, rows)
    model = in_float32(loaded, max(batch_size, GRADIENT_ROWS))
    limit = model.config.halt_max_steps
    steps = steps or limit
    chosen = spread(len(rows), count)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("residuals", total=len(chosen))
        parts, labels = [], []
        for where, taken in batches(rows, chosen, batch_size):
            parts.append(measure_convergence(model, on_device(model, taken), steps))
            labels.append(taken["labels"])
            bar.update(task, completed=where.stop)
        measured = joined(parts)
        figures = summarise_convergence(measured, np.concatenate(labels), tolerance)
        candidates = chosen[measured.settled(tolerance)] if settled else chosen
        few = candidates[spread(len(candidates), gradient_count)]
        gradient = None
        if len(few):
            task = bar.add_task("gradients", total=steps)
            at = sorted({*range(1, min(steps, limit) + 1), *steps_shown(steps, limit)})
            taken_few = [on_device(model, b) for _, b in batches(rows, few, GRADIENT_ROWS)]
            gradient = gradient_truncation(
                model, taken_few, loss_of(loaded), at, lambda _: bar.advance(task)
            )
    about = {"halt_max_steps": limit, "split": split, "step": loaded.step, "settled": settled}
    return figures | {"gradient": gradient} | about


def in_float32(loaded: LoadedRun, slots: int) -> ACTModel:
    """A copy that computes in float32, with room for `slots`, as the run ended its training."""
    model = loaded.model
    changes = {"forward_dtype": "float32", "batch_size": slots}
    copy = type(model)(model.config.model_copy(update=changes))
    copy.load_state_dict(model.state_dict())
    limit = loaded.config.step_limit(loaded.step) if loaded.config else None
    if limit is not None:
        copy.halting.train_max_steps = limit
    return copy.to(next(model.parameters()).device).eval()


def loss_of(loaded: LoadedRun) -> TokenLoss:
    """The token loss of its training; that of published models where it is not known."""
    return loaded.config.loss if loaded.config else "stablemax"


def show(figures: Mapping[str, Any]) -> None:
    """A table over steps, and what it means in words."""
    shown = steps_shown(figures["steps"], figures["halt_max_steps"])
    table = Table(box=None, pad_edge=False)
    table.add_column("step")
    for step in shown:
        table.add_column(str(step), justify="right")
    for gloss, values, form in lines(figures):
        cells = (values[step] for step in shown)
        table.add_row(gloss, *("-" if v is None else format(v, form) for v in cells))
    console = Console()
    console.print(table)
    for sentence in in_words(figures):
        console.print(sentence, highlight=False)


def steps_shown(steps: int, limit: int) -> list[int]:
    """1, 2, 4, ..., the step limit and the last step."""
    powers = {2**i for i in range(steps.bit_length())}
    return sorted(step for step in powers | {limit, steps} if step <= steps)


def lines(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[int, float | None], str]]:
    """Rows of the table: gloss, values by step, format."""
    found: list[tuple[str, Mapping[int, float | None], str]] = [
        (f"{level} residual, last cycle", by_step([row[-1] for row in rows]), ".3g")
        for level, rows in figures["residuals"].items()
    ]
    found += [
        (f"tokens changed, of {figures['seq_len']}", by_step(figures["changed_tokens"]), ".2f"),
        ("sequences changed", by_step(figures["changed_sequences"]), ".1%"),
        ("exactly right", by_step(figures["accuracy_by_step"]), ".1%"),
    ]
    if figures["gradient"] is not None:
        for reference, gloss in (("to_all_cycles", "all cycles"), ("to_all_steps", "all steps")):
            cosines = as_trained(figures["gradient"], reference, "all")
            found.append((f"cosine to {gloss}", cosines, ".3f"))
    return found


def by_step(values: Sequence[float | None]) -> dict[int, float | None]:
    return dict(enumerate(values, start=1))


def as_trained(gradient: Mapping[str, Any], reference: str, group: str) -> dict[int, float | None]:
    """By step the cosine of the gradient that the model is trained with."""
    column = [row[gradient["grad_cycles"] - 1] for row in gradient[reference]["cosine"][group]]
    return dict(zip(gradient["steps"], column, strict=True))


def in_words(figures: Mapping[str, Any]) -> list[str]:
    """What the figures say: a line a level, and one on gradients."""
    steps, found = figures["steps"], []
    for level, rows in figures["residuals"].items():
        first, last = rows[0][-1], rows[-1][-1]
        over, within = figures["falls_over_steps"][level], figures["falls_within_step"][level][-1]
        text = f"{level} residual at the last cycle: {first:.3g} at step 1"
        if over is not None:
            text += f", {last:.3g} at step {steps}: falls for {over:.0%} of sequences"
        if within is not None:
            text += f"; from first to last {level} cycle of step {steps} for {within:.0%}"
        share, tolerance = figures["converged"][level], figures["tolerance"]
        found.append(
            f"{text}. At a fixed point (below {tolerance:g}) are {share:.0%} of sequences."
        )
    if figures["gradient"] is not None:
        found.append(_gradient_in_words(figures["gradient"], figures["halt_max_steps"]))
        if figures["settled"]:
            found.append("Gradients are of sequences alone that end at a fixed point.")
    elif figures["settled"]:
        found.append("No sequence ends at a fixed point, so no gradients were taken.")
    return found


def _gradient_in_words(gradient: Mapping[str, Any], limit: int) -> str:
    last = max(step for step in gradient["steps"] if step <= limit)

    def mean(reference: str, group: str) -> str:
        """Over the steps of training."""
        cosines = as_trained(gradient, reference, group).items()
        values = [value for step, value in cosines if step <= last and value is not None]
        return f"{sum(values) / len(values):.2f}" if values else "none"

    parts = ", ".join(
        f"{gloss} {mean('to_all_cycles', group)}"
        for group, gloss in GROUPS.items()
        if group in gradient["to_all_cycles"]["cosine"]
    )
    return (
        f"Gradient as trained, through the last {gradient['grad_cycles']} of {gradient['cycles']} "
        f"cycles: cosine {mean('to_all_cycles', 'all')} to the gradient through all cycles of the "
        f"step ({parts}), {mean('to_all_steps', 'all')} to that through all steps; means over "
        f"steps 1 to {last}."
    )
