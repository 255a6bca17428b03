"""What do the two value functions come to mean, and which mazes hold what they leave?

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/value_functions.py --keep DIR

For every network that the first command trained, on 10,000 new mazes: medians of the contribution,
of S and of the threshold so many steps before or after a maze's k*; whether more is contributed in
a step in which the loss falls more; and how much of the regret lies in mazes that the network has
not entirely right after all steps. Writes results/value_functions.{json,md,png}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import hrm, spread, stamp

from hrm.data.base import PuzzleSplit, load_split
from hrm.evaluation.exact import at_step
from hrm.evaluation.policy import gap_closed, gap_closed_error, policy_figures, spearman
from hrm.evaluation.segmentation import exactly_right_of, iou_of
from hrm.halting import costs, optimal_step
from hrm.inference.image_steps import record
from hrm.training.checkpoint import load_run

RESULTS = Path(__file__).parent.parent / "results"
PENALTY = 0.01
PREPARE = ("--task", "flood_fill", "--size", "16", "--count", "100", "--test-count", "10000")
AWAY = range(-4, 5)
"""Steps from k*."""
FIGURES = {
    "mean steps": "mean_steps",
    "spread of steps": "steps_std",
    "Spearman with eccentricity": "spearman",
    "agreement with k*": "agreement",
    "within one step": "agreement_within_1",
    "gap closed": "gap_closed",
}
VALUES = {"contribution": "contribution", "accumulated": "S", "threshold": "threshold"}


def look(path: Path, split: PuzzleSplit) -> dict[str, Any]:
    """The figures of one network."""
    seen = record(load_run(path).model, split, loss="softmax")
    cost = costs(torch.from_numpy(seen.task_loss), PENALTY).numpy()
    best = optimal_step(torch.from_numpy(cost), 0.0).numpy()
    left = (at_step(cost, seen.steps) - cost.min(0)).astype(np.float64)
    wrong = exactly_right_of(seen.counts)[-1] == 0
    fall = seen.task_loss[:-1] - seen.task_loss[1:]
    tau = seen.values["contribution"]
    whole = policy_figures(cost, seen.steps, best, seen.difficulty)
    overlap = iou_of(seen.counts)
    return {
        "IoU after all steps": float(overlap[-1].mean()),
        "IoU where the policy halts": float(at_step(overlap, seen.steps).mean()),
        **{title: whole[name] for title, name in FIGURES.items()},
        "gap closed, standard error": gap_closed_error(cost, seen.steps),
        "mazes not entirely right": float(wrong.mean()),
        "their share of the regret": float(left[wrong].sum() / left.sum()),
        "gap closed among the others": gap_closed(cost[:, ~wrong], seen.steps[~wrong]),
        "Spearman of contribution and fall of the loss": spearman(tau[1:].ravel(), fall.ravel()),
        "around": {
            "fall": around(np.vstack([np.full_like(fall[:1], np.nan), fall]), best),
            **{title: around(seen.values[name], best) for name, title in VALUES.items()},
        },
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
    """The tables, medians and ranges over networks."""
    runs = list(found["runs"].values())
    lines = [
        "# Flood fill: what the two value functions mean, and what they leave",
        "",
        f"`{found['command']}` at commit {found['commit']}, {found['date']},",
        f"{found['machine']}. {len(runs)} networks, median (range); {found['count']} new mazes,",
        f"lambda {PENALTY}.",
        "",
        "| | networks |",
        "|---|---|",
    ]
    for name in runs[0]:
        if name != "around":
            digits = 3 if "IoU" in name or "error" in name or "not" in name else 2
            lines.append(f"| {name} | {spread([run[name] for run in runs], digits)} |")
    lines += [
        "",
        "Medians of mazes so many steps after k*; the policy halts where S exceeds the threshold.",
        "",
        "| steps after k* | fall of the loss | contribution | S | threshold |",
        "|---|---|---|---|---|",
    ]
    for i, away in enumerate(AWAY):
        cells = [spread([run["around"][name][i] for run in runs], 3) for name in runs[0]["around"]]
        lines.append(f"| {away:+} | " + " | ".join(cells) + " |")
    lines += ["", "![S and threshold around k*](value_functions.png)"]
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
                axes.plot(
                    list(AWAY),
                    run["around"][name],
                    "o-",
                    ms=3,
                    lw=1,
                    color=colours[name],
                    label=label,
                )
    above.set_yscale("log")
    above.set(ylabel="median, log scale")
    above.legend(frameon=False)
    above.set_title("The policy halts where S exceeds the threshold", loc="left")
    below.set(xlabel="steps after the best step k*", ylabel="fall of the loss")
    save(figure, RESULTS / "value_functions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = options.keep
    if not (new := root / "new_mazes").is_dir():
        hrm("prepare", "scenes", *PREPARE, "--seed", "1", "--out", str(new))
    split = load_split(new, "test")
    known = {maze.tobytes() for maze in np.asarray(load_split(root / "data", "train").inputs)}
    assert not any(maze.tobytes() in known for maze in np.asarray(split.inputs))
    runs = {str(seed): look(root / f"run{seed}", split) for seed in options.seeds}
    command = "python benchmarks/value_functions.py --keep DIR"
    found = {"command": command, **stamp(), "count": len(split), "runs": runs}
    path = RESULTS / "value_functions.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))
    draw(found)


if __name__ == "__main__":
    main()
