"""Why a policy can win little on scenes of digits: which of them hold what is to be won?

    python benchmarks/image_tasks.py --keep DIR --only "digit scenes" --seeds 0 1 2
    python benchmarks/digit_scenes_causes.py --keep DIR

A scene counts as mistaken where its IoU after all steps is below 0.5. The gap is that between the
best fixed depth and an oracle that knows every cost, on test scenes. Writes
results/digit_scenes_causes.{json,md}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from image_tasks import RUNS, folder_of
from machine import kept_networks, stamp

from hrm.data.base import load_split
from hrm.evaluation.segmentation import iou_of
from hrm.halting import costs, optimal_step
from hrm.inference.image_steps import record
from hrm.training.checkpoint import load_run

RESULTS = Path(__file__).parent.parent / "results"
NAME = "digit scenes"
MISTAKEN = 0.5


def look(root: Path, seed: int) -> dict[str, Any]:
    """The figures of one network."""
    run = RUNS[NAME]
    model = load_run(folder_of(root, NAME, seed)).model
    seen = record(model, load_split(root / run.data, "test"), loss="softmax")
    cost = costs(torch.from_numpy(seen.task_loss), run.step_penalty)
    best = optimal_step(cost, 0.0).numpy()
    gap = (cost[cost.mean(1).argmin()] - cost.min(0).values).numpy()
    mistaken = iou_of(seen.counts)[-1] < MISTAKEN
    parts = (~mistaken, mistaken)
    return {
        "mistaken": float(mistaken.mean()),
        "share of the gap": float(gap[mistaken].sum() / gap.sum()),
        "best at step 1": [float((best[rows] == 1).mean()) for rows in parts],
        "loss by step": [seen.task_loss[:, rows].mean(1).tolist() for rows in parts],
        "never halts": float((~seen.wants.any(0)).mean()),
    }


def report(found: dict[str, Any]) -> str:
    """The table, a row a network."""
    lines = [
        "# Digit scenes: where the gap lies",
        "",
        f"`{found['command']}` at commit {found['commit']}, {found['date']},",
        f"{found['machine']}. 1,000 test scenes, lambda {RUNS[NAME].step_penalty}; mistaken:",
        f"an IoU below {MISTAKEN} after all steps.",
        "",
        "| seed | mistaken | their share of the gap | k* is 1, of the others and of them | loss at"
        " the first and last step, of the others | of them | never halts |",
        "|" + "---|" * 7,
    ]
    for seed, run in found["runs"].items():
        right, wrong = (f"{loss[0]:.3f}, {loss[-1]:.3f}" for loss in run["loss by step"])
        first = ", ".join(f"{share:.2f}" for share in run["best at step 1"])
        lines.append(
            f"| {seed} | {run['mistaken']:.2f} | {run['share of the gap']:.2f} | {first} | {right} "
            f"| {wrong} | {run['never halts']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    options = kept_networks(__doc__, "image_tasks.py")
    torch.set_num_threads(1)
    runs = {str(seed): look(options.keep, seed) for seed in options.seeds}
    command = "python benchmarks/digit_scenes_causes.py --keep DIR"
    found = {"command": command, **stamp(), "runs": runs}
    path = RESULTS / "digit_scenes_causes.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))


if __name__ == "__main__":
    main()
