"""The pictures of a report: curves over updates, rows and multiply-adds, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hrm.compare.difficulty import task_difficulty, task_of
from hrm.compare.figures import ExperimentFigures
from hrm.compare.log import CLOCKS, Floats, smoothed
from hrm.compare.tables import any_halts
from hrm.plots import drawing

COLOURS = {
    "O": ("#174a8c", "#4f8fd6", "#9cc3ee"),
    "L": ("#a8480e", "#e8853f", "#f4bf93"),
    "E": ("#1f6b34", "#4fa866", "#a3d6b0"),
}
ENCODER_PANELS = (("encoder_share", "Slots that taught the encoder"), ("kl", "KL"))
FEW = 10
"""Up to so many points are shown as such."""
OTHERS = ("#666666", "#8c6bb1", "#c2a5cf", "#b8860b")


class Picture(NamedTuple):
    """A drawn file and what it shows."""

    path: Path
    caption: str


def draw(experiments: Mapping[str, ExperimentFigures], folder: Path) -> list[Picture]:
    """All pictures for which there are figures, as PNG files in `folder`."""
    shown = {name: f for name, f in experiments.items() if any(_rows(r) for r in f.runs)}
    if not shown:
        return []
    drawings = (
        ("training", _training, "Training exact accuracy (share of sequences all of whose tokens "
         "are right when they end), at equal updates, equal rows drawn and, where they are known, "
         "equal multiply-adds (counted, of training alone: equal compute). Thick: mean over the "
         "seeds; thin: each seed; dotted: a seed that failed or is unfinished. Each "
         "point is the mean over the last 2 % of the updates."),
        ("held_out", _held_out, "Exact and token accuracy on the held-out rows that were looked at "
         "while training, averaged weights, every sequence to the last step."),
        ("halting", _halting, "Left: mean steps at halt in training, exploration included; in "
         "online mode nothing halts, and nothing is drawn. Right: q_halt_accuracy in training; "
         "dashed: what always giving the more frequent answer would get."),
        ("by_step", _by_step, "Exact accuracy of the training tasks after each evaluated step, "
         "averaged weights, after the run. Thick: mean over the seeds; thin: each seed; circle: "
         "the most steps that training takes."),
        ("encoder", _encoder, "Share of the slots that gave the encoder a gradient (all of them in "
         "online mode, whose lines lie on one another), and the KL term of variational encoders, "
         "in nats."),
        ("steps", _histograms, "At which step the policy would halt each evaluated row (share of "
         "rows, mean over seeds)."),
        ("easy_tasks", _easy, "Each dot some training tasks, the larger the more: the step at "
         "which the policy halts over the task's difficulty, the mean step of the first right "
         "answer in runs of other experiments (one more than all steps where there is none)."),
    )  # fmt: skip
    pictures = []
    for name, function, caption in drawings:
        figure = function(shown)
        if figure is not None:
            drawing.save(figure, folder / f"{name}.png")
            pictures.append(Picture(folder / f"{name}.png", f"{caption} {_seeds(shown)}"))
    return pictures


def _seeds(shown: Mapping[str, ExperimentFigures]) -> str:
    counts = ", ".join(f"{name} {len(found.finished)}" for name, found in shown.items())
    return f"Finished seeds: {counts}."


def colour(name: str, names: Sequence[str]) -> str:
    """One colour family a series, the first experiment darkest."""
    family = COLOURS.get(name[:1])
    if family and name[1:] in ("1", "2", "3"):
        return family[int(name[1:]) - 1]
    others = [n for n in names if not (n[:1] in COLOURS and n[1:] in ("1", "2", "3"))]
    return OTHERS[others.index(name) % len(OTHERS)]


def _training(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    # Seconds are no panel: they tell more of the machine than of the run.
    clocks = [clock for clock in CLOCKS if clock != "seconds" and _known(shown, clock)]
    figure = Figure(figsize=(4 * len(clocks), 4), layout="constrained")
    panels = figure.subplots(1, len(clocks), sharey=True, squeeze=False)[0]
    for axes, clock in zip(panels, clocks, strict=True):
        for name, found in shown.items():
            _over(axes, found, "exact", clock, colour(name, list(shown)))
        axes.set_xlabel(CLOCKS[clock][0].upper() + CLOCKS[clock][1:])
        drawing.tidy(axes, "both")
    panels[0].set_ylabel("Exactly right, training")
    _percent(panels[0])
    _legend(figure, panels[0])
    return figure


def _held_out(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, key, title in (
        (left, "held_exact", "Exactly right, held out"),
        (right, "held_accuracy", "Right tokens, held out"),
    ):
        for name, found in shown.items():
            _over(axes, found, key, "updates", colour(name, list(shown)), smooth=False)
        axes.set_xlabel("Updates")
        axes.set_ylabel(title)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        drawing.tidy(axes, "both")
    if not (left.lines or right.lines):
        return None
    # Where nothing is right the axis would go below 0.
    left.set_ylim(-0.002, max(0.05, left.get_ylim()[1]))
    _legend(figure, left if left.lines else right)
    return figure


def _halting(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    steps, right = figure.subplots(1, 2)
    for name, found in shown.items():
        shade = colour(name, list(shown))
        if any_halts(found):  # Otherwise it is a constant, and no steps at halt.
            _over(steps, found, "steps", "updates", shade)
        _over(right, found, "q_halt_accuracy", "updates", shade)
        _over(right, found, "constant", "updates", shade, dashed=True)
    steps.set_ylabel("Mean steps at halt, training")
    right.set_ylabel("q_halt_accuracy")
    _percent(right)
    for axes in (steps, right):
        axes.set_xlabel("Updates")
        drawing.tidy(axes, "both")
    if not (steps.lines or right.lines):
        return None
    _legend(figure, right if right.lines else steps)
    return figure


def _by_step(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, found in shown.items():
        shade, runs = colour(name, list(shown)), [run for run in found.finished if run.by_step]
        length = min((len(run.by_step) for run in runs), default=0)
        if not length:
            continue
        mean = np.mean([run.by_step[:length] for run in runs], axis=0)
        steps = np.arange(1, length + 1)
        for run in runs[: len(runs) * (len(runs) > 1)]:
            axes.plot(steps, run.by_step[:length], color=shade, linewidth=0.8, alpha=0.45)
        axes.plot(steps, mean, color=shade, linewidth=2.0, label=name)
        last = min(runs[0].max_steps or length, length)
        axes.plot([last], [mean[last - 1]], "o", color=shade, fillstyle="none", markersize=9)
    if not axes.lines:
        return None
    axes.set_xlabel("Step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("Exactly right, training tasks")
    _percent(axes)
    drawing.tidy(axes, "both")
    _legend(figure, axes)
    return figure


def _encoder(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    panels = [(k, t) for k, t in ENCODER_PANELS if _known(shown, k)]
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels) + 1, 3.5), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (key, title) in zip(row, panels, strict=True):
        for name, found in shown.items():
            _over(axes, found, key, "updates", colour(name, list(shown)))
        axes.set_ylabel(title)
        axes.set_xlabel("Updates")
        drawing.tidy(axes, "both")
        if key == "encoder_share":
            _percent(axes)
    _legend(figure, row[0])
    return figure


def _histograms(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    counted = {
        name: [np.asarray(run.histogram) for run in f.finished if run.histogram]
        for name, f in shown.items()
    }
    counted = {name: hists for name, hists in counted.items() if hists}
    if not counted:
        return None
    columns = min(3, len(counted))
    rows = math.ceil(len(counted) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, hists) in zip(panels, counted.items(), strict=False):
        longest = max(len(h) for h in hists)
        shares = np.mean([np.pad(h / h.sum(), (0, longest - len(h))) for h in hists], axis=0)
        axes.bar(np.arange(1, longest + 1), shares, color=colour(name, list(shown)))
        axes.set_title(name, fontsize=10)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawing.tidy(axes, "y")
    for axes in panels[len(counted) :]:
        axes.set_axis_off()
    figure.supxlabel("Step at which the policy halts", fontsize=10)
    return figure


def _easy(shown: Mapping[str, ExperimentFigures]) -> Figure | None:
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("O1", "L1"):
        if name not in shown:
            continue
        others = [run for f in shown.values() if f.name != name for run in f.finished]
        difficulty = task_difficulty(others)
        points = [
            (difficulty[task_of(group)], group["policy_mean_steps"])
            for run in shown[name].finished
            for group in run.groups
            if task_of(group) in difficulty
        ]
        if points:
            places, counts = np.unique(np.asarray(points), axis=0, return_counts=True)
            shade = colour(name, list(shown))
            axes.scatter(
                places[:, 0], places[:, 1], s=10 + 8 * counts, alpha=0.5, color=shade, label=name
            )
    if not axes.collections:
        return None
    for low, high, put in ((*axes.get_xlim(), axes.set_xlim), (*axes.get_ylim(), axes.set_ylim)):
        put(min(low, 0.5), max(high, 3.5))  # Steps, and not the hundredths between two of them.
    axes.set_xlabel("Difficulty: step of the first right answer in other runs")
    axes.set_ylabel("Step at which the policy halts")
    _legend(figure, axes)
    drawing.tidy(axes, "both")
    return figure


def _over(
    axes: Axes,
    found: ExperimentFigures,
    key: str,
    clock: str,
    shade: str,
    *,
    smooth: bool = True,
    dashed: bool = False,
) -> None:
    """Each seed thin, the mean of the finished ones thick, over as much as they share."""
    lines = []
    for run in found.runs:
        x, y = run.curves.get(clock), _values(run.curves, key, smooth)
        if x is None or y is None:
            continue
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            continue
        x, y = x[known], y[known]
        over = run.status != "finished"
        if not dashed:
            axes.plot(x, y, color=shade, linewidth=0.8, alpha=0.45, linestyle=":" if over else "-")
        if not over:
            lines.append((x, y))
    if not lines:
        return
    low, high = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.linspace(low, high, 200) if high > low else np.array([high])
    mean = np.mean([np.interp(grid, x, y) for x, y in lines], axis=0)
    style = {"linestyle": "--", "linewidth": 1.0} if dashed else {"linewidth": 2.0}
    few = max(len(x) for x, _ in lines) <= FEW
    if few and not dashed:
        x = lines[0][0]
        y = np.interp(x, grid, mean)
        axes.plot(x[x <= high], y[x <= high], "o", color=shade, markersize=4)
    marker = "o" if len(grid) == 1 else ""
    axes.plot(grid, mean, color=shade, marker=marker, label=None if dashed else found.name, **style)


def _values(curves: Mapping[str, Floats], key: str, smooth: bool) -> Floats | None:
    if key == "constant":
        right = smoothed(curves, "exact")
        return np.maximum(right, 1.0 - right)
    if key not in curves:
        return None
    return smoothed(curves, key) if smooth else curves[key]


def _known(shown: Mapping[str, ExperimentFigures], key: str) -> bool:
    return any(np.isfinite(r.curves.get(key, [])).any() for f in shown.values() for r in f.runs)


def _rows(run: object) -> int:
    return len(getattr(run, "curves", {}).get("updates", ()))


def _percent(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
