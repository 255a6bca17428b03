"""What do the two value functions come to mean? S and threshold around the best step k*.

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/contributions.py --keep DIR

For every network that the first command trained: medians over 1,000 test mazes of the contribution,
of S and of the threshold, so many steps before or after each maze's k*, and whether more is
contributed in a step in which the loss falls more. Writes results/contributions.{json,md,png}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import spread, stamp

from hrm.data.base import load_split
from hrm.evaluation.policy import gap_closed, spearman
from hrm.halting import costs, optimal_step
from hrm.inference.image_steps import record
from hrm.training.checkpoint import load_run

RESULTS = Path(__file__).parent.parent / "results"
PENALTY = 0.01
AWAY = range(-4, 5)
"""Steps from k*."""
VALUES = {"contribution": "contribution", "accumulated": "S", "threshold": "threshold"}


def look(path: Path, data: Path) -> dict[str, Any]:
    """The figures of one network."""
    seen = record(load_run(path).model, load_split(data, "test"), loss="softmax")
    cost = costs(torch.from_numpy(seen.task_loss), PENALTY)
    best = optimal_step(cost, 0.0).numpy()
    fall = seen.task_loss[:-1] - seen.task_loss[1:]
    return {
        "gap closed": gap_closed(cost.numpy(), seen.steps),
        "Spearman with the loss's fall": spearman(
            seen.values["contribution"][1:].ravel(), fall.ravel()
        ),
        **{title: around(seen.values[name], best) for name, title in VALUES.items()},
        "fall": around(np.vstack([np.full_like(fall[:1], np.nan), fall]), best),
    }


def around(values: np.ndarray, best: np.ndarray) -> list[float]:
    """Medians of `values` `(steps, mazes)` at `AWAY` steps from k*, of mazes that have it."""
    found = []
    for away in AWAY:
        step = best + away
        mazes = np.flatnonzero((step >= 1) & (step <= len(values)))
        found.append(float(np.nanmedian(values[step[mazes] - 1, mazes])))
    return found


def report(found: dict[str, Any]) -> str:
    """The table, medians and ranges over networks."""
    runs = found["runs"].values()
    lines = [
        "# Flood fill: the two value functions around the best step",
        "",
        f"`{found['command']}` at commit {found['commit']}, {found['date']},",
        f"{found['machine']}. {len(runs)} networks, median (range); medians over 1,000 test mazes.",
        "The policy halts where S exceeds the threshold.",
        "",
        "| steps after k* | fall of the loss | contribution | S | threshold |",
        "|---|---|---|---|---|",
    ]
    for i, away in enumerate(AWAY):
        cells = [spread([run[name][i] for run in runs], 3) for name in ("fall", *VALUES.values())]
        lines.append(f"| {away:+} | " + " | ".join(cells) + " |")
    name = "Spearman with the loss's fall"
    lines += [
        "",
        "Rank correlation of a step's contribution with the fall of the loss in it, all mazes and",
        f"steps from the second on: {spread([run[name] for run in runs], 2)}.",
        f"Share of the gap that they close: {spread([run['gap closed'] for run in runs], 2)}.",
        "",
        "![S and threshold around k*](contributions.png)",
    ]
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any]) -> None:
    """S and threshold around k*, a thin line a network, over the fall of the loss."""
    from matplotlib.figure import Figure

    from hrm.plots.drawing import save, tidy

    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    colours = {"S": "#3566a8", "threshold": "#d2691e", "fall": "#777777"}
    for axes, names in ((above, ("S", "threshold")), (below, ("fall",))):
        tidy(axes, "both")
        for name in names:
            for i, run in enumerate(found["runs"].values()):
                label = name if i == 0 else None
                axes.plot(list(AWAY), run[name], "o-", ms=3, lw=1, color=colours[name], label=label)
    above.set_yscale("log")
    above.set(ylabel="median, log scale")
    above.legend(frameon=False)
    above.set_title("The policy halts where S exceeds the threshold", loc="left")
    below.set(xlabel="steps after the best step k*", ylabel="fall of the loss")
    save(figure, RESULTS / "contributions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = options.keep
    runs = {str(seed): look(root / f"run{seed}", root / "data") for seed in options.seeds}
    command = "python benchmarks/contributions.py --keep DIR"
    found = {"command": command, **stamp(), "runs": runs}
    path = RESULTS / "contributions.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))
    draw(found)


if __name__ == "__main__":
    main()
