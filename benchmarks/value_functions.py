"""What do the two value functions come to mean, and which mazes hold what they leave?

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/image_tasks.py --keep DIR --seeds 0 1 2
    python benchmarks/value_functions.py --keep DIR

For every network that the first command trained, and that the second let PonderNet teach and then
gave a policy, on 10,000 new mazes: medians of the contribution, of S and of the threshold so many
steps before or after a maze's k*; whether more is contributed in a step in which the loss falls
more; and how much of the regret lies in mazes that the network has not entirely right after all
steps. Writes results/value_functions.{json,md,png}; groups whose networks DIR lacks are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tasks import PONDERNET, folder_of
from machine import hrm, kept_networks, spread, stamp

from hrm.data.base import PuzzleSplit, load_split
from hrm.evaluation.exact import at_step
from hrm.evaluation.policy import gap_closed, policy_figures, spearman
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
    "gap closed, standard error": "gap_closed_error",
}
VALUES = {"contribution": "contribution", "accumulated": "S", "threshold": "threshold"}


def look(path: Path, split: PuzzleSplit) -> dict[str, Any]:
    """The figures of one network."""
    seen = record(load_run(path).model, split, loss="softmax")
    known = costs(torch.from_numpy(seen.task_loss), PENALTY)
    cost, best = known.numpy(), optimal_step(known, 0.0).numpy()
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
    """The tables, medians and ranges over the networks of a group."""
    groups = {title: list(runs.values()) for title, runs in found["groups"].items()}
    seeds = "; ".join(
        f"{title}: seeds {', '.join(runs)}" for title, runs in found["groups"].items()
    )
    first = next(iter(groups.values()))[0]
    lines = [
        "# Flood fill: what the two value functions mean, and what they leave",
        "",
        f"`{found['command']}` at commit {found['commit']}, {found['date']},",
        f"{found['machine']}. Median (range) over networks ({seeds});",
        f"{found['count']:,} new mazes, lambda {PENALTY}.",
        "",
        "| | " + " | ".join(groups) + " |",
        "|---|" + "---|" * len(groups),
    ]
    for name in first:
        if name != "around":
            digits = 3 if "IoU" in name or "error" in name or "not" in name else 2
            cells = [spread([run[name] for run in runs], digits) for runs in groups.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for title, runs in groups.items():
        lines += [
            "",
            f"{title}: medians of mazes so many steps after k*; the policy halts where S",
            "exceeds the threshold.",
            "",
            "| steps after k* | fall of the loss | contribution | S | threshold |",
            "|---|---|---|---|---|",
        ]
        for i, away in enumerate(AWAY):
            cells = [spread([r["around"][name][i] for r in runs], 3) for name in first["around"]]
            lines.append(f"| {away:+} | " + " | ".join(cells) + " |")
    lines += ["", "![S and threshold around k*](value_functions.png)"]
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any]) -> None:
    """S and threshold around k*, a thin line a network, over the fall of the loss."""
    from matplotlib.figure import Figure

    from hrm.plots.drawing import save, tidy

    groups = found["groups"]
    figure = Figure(figsize=(1 + 4.5 * len(groups), 5), layout="constrained")
    panels = figure.subplots(
        2, len(groups), sharex=True, sharey="row", height_ratios=(2, 1), squeeze=False
    )
    colours = {"S": "#3566a8", "threshold": "#d2691e", "fall": "#777777"}
    for (above, below), (title, runs) in zip(panels.T, groups.items(), strict=True):
        for axes, names in ((above, ("S", "threshold")), (below, ("fall",))):
            tidy(axes, "both")
            for name in names:
                for i, run in enumerate(runs.values()):
                    told = {"color": colours[name], "label": name if i == 0 else None}
                    axes.plot(list(AWAY), run["around"][name], "o-", ms=3, lw=1, **told)
        above.set_title(title, loc="left")
        below.set_xlabel("steps after the best step k*")
    panels[0, 0].set_yscale("log")
    panels[0, 0].set_ylabel("median, log scale")
    panels[0, 0].legend(frameon=False)
    panels[1, 0].set_ylabel("fall of the loss")
    save(figure, RESULTS / "value_functions.png")


def main() -> None:
    options = kept_networks(__doc__, "flood_fill.py")
    torch.set_num_threads(1)
    root = options.keep
    if not (new := root / "new_mazes").is_dir():
        hrm("prepare", "scenes", *PREPARE, "--seed", "1", "--out", str(new))
    split = load_split(new, "test")
    known = {maze.tobytes() for maze in np.asarray(load_split(root / "data", "train").inputs)}
    assert not any(maze.tobytes() in known for maze in np.asarray(split.inputs))
    policy = f"two value functions on the network of: {PONDERNET}"
    networks = {
        "deep supervision": {seed: root / f"run{seed}" for seed in options.seeds},
        "PonderNet's weights, then a policy": {
            seed: folder_of(root, policy, seed) for seed in options.seeds
        },
    }
    groups = {
        title: {str(seed): look(run, split) for seed, run in runs.items()}
        for title, runs in networks.items()
        if all(run.is_dir() for run in runs.values())
    }
    if not groups:
        sys.exit(f"--keep {root}: has no networks of these seeds")
    command = "python benchmarks/value_functions.py --keep DIR"
    found = {"command": command, **stamp(), "count": len(split), "groups": groups}
    path = RESULTS / "value_functions.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))
    draw(found)


if __name__ == "__main__":
    main()
