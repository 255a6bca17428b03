"""Halting by two value functions on flood fill: how well it segments, and how well it stops.

    python benchmarks/flood_fill.py --seeds 0 1 2 --jobs 2

Trains `experiment=flood_fill` from each seed, one core a run, and evaluates on the test split the
averaged weights that cost least on validation mazes. Nothing was chosen on the test split. Writes
results/flood_fill.{json,md} after every run; a run that is recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import hrm, machines_of, not_repeated, stamp

RESULTS = Path(__file__).parent.parent / "results"
PREPARE = ("--task", "flood_fill", "--size", "16", "--count", "40000", "--seed", "0")


def _deviation(histogram: list[int]) -> float:
    """Standard deviation of steps, item i counting step i + 1."""
    steps = [n for n, count in enumerate(histogram, 1) for _ in range(count)]
    return statistics.pstdev(steps)


ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], float | None]]] = {
    "IoU at K": ("0.985", lambda f: f["iou"]),
    "images entirely right at K": ("", lambda f: f["exact_accuracy"]),
    "IoU where the policy halts": ("", lambda f: f["halting/iou"]),
    "its mean steps": ("", lambda f: f["halting/mean_steps"]),
    "share of K steps": ("0.5, at an IoU 0.005 lower", lambda f: f["halting/mean_steps"] / f["K"]),
    "Spearman of steps with eccentricity": ("0.9", lambda f: f["halting/spearman"]),
    "spread of steps": ("above 2", lambda f: f["halting/steps_std"]),
    "spread of the best steps k*": ("", lambda f: _deviation(f["optimal_steps_histogram"])),
    "agreement with k*": ("0.8", lambda f: f["halting/agreement"]),
    "within one step": ("0.97", lambda f: f["halting/agreement_within_1"]),
    "share of the gap closed": ("0.85", lambda f: f["halting/gap_closed"]),
    "regret": ("", lambda f: f["halting/regret"]),
    "loss at step 1": ("", lambda f: f["loss_by_step"][0]),
    "loss at step K": ("", lambda f: f["loss_by_step"][-1]),
    "seconds of training": ("900", lambda f: f["train_s"]),
}
WATCHED = ("iou", "halting/regret", "halting/gap_closed")
lock = threading.Lock()


def train(root: Path, seed: int, settings: list[str]) -> dict[str, Any]:
    out = root / f"run{seed}"
    given = ("experiment=flood_fill", *settings, f"seed={seed}")
    hrm("train", *given, f"data.path={root / 'data'}", "data.prepare=null", f"out={out}")
    figures = json.loads(hrm("evaluate", str(out), "--json"))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    figures["K"] = len(figures["loss_by_step"])
    figures["train_s"] = rows[-1]["time/train_s"]
    curve = [
        {
            k: r.get(k)
            for k in ("step", "eval/iou", "eval/halting/regret", "eval/halting/gap_closed")
        }
        for r in rows
        if "eval/iou" in r
    ]
    command = "hrm train " + " ".join(given)
    told = {"seed": seed, "command": command}
    told |= {k: v for k, v in stamp().items() if k != "date"}
    return {**told, "test": figures, "validation": curve}


def draw(run: Path) -> None:
    """The pictures of one network, on test mazes, and of its training."""
    plots = run / "test_plots"
    hrm("evaluate", str(run), "--plots", str(plots))
    for plot in (*plots.glob("*.png"), run / "plots" / "training.png"):
        shutil.copy(plot, RESULTS / f"flood_fill_{plot.name}")


def report(record: dict[str, Any]) -> str:
    """The table, a column for each machine that trained: medians and ranges over seeds."""
    runs = record["runs"]
    commits = ", ".join(dict.fromkeys(run["commit"] for run in runs))
    machines = machines_of(runs)
    seeds = [
        ", ".join(str(run["seed"]) for run in runs if run["machine"] == name) for name in machines
    ]
    lines = [
        "# Halting by two value functions: flood fill, 16 x 16",
        "",
        f"`{record['command']}` at commit {commits}, {record['date']}.",
        f"One core a run; median (range) over seeds; 1,000 test mazes. {record.get('note', '')}",
        "",
        *(f"- {name}: seeds {told}" for name, told in zip(machines, seeds, strict=True)),
        "",
        "| | goal | " + " | ".join(machines) + " |",
        "|---|---|" + "---|" * len(machines),
    ]
    for name, (goal, read) in ROWS.items():
        cells = []
        for where in machines:
            found = [read(run["test"]) for run in runs if run["machine"] == where]
            values = [v for v in found if v is not None] or [math.nan]
            low, mid, high = (f"{f(values):.4g}" for f in (min, statistics.median, max))
            cells.append(f"{mid} ({low} to {high})")
        lines.append(f"| {name} | {goal} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--keep", type=Path, help="folder for data and runs; default: a new one")
    parser.add_argument("--again", action="store_true", help="also what another machine trained")
    parser.add_argument("--note", default="", help="a sentence for the report")
    parser.add_argument("settings", nargs="*", help="other settings, as key=value")
    options = parser.parse_args()
    path = RESULTS / "flood_fill.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    runs: list[dict[str, Any]] = found.get("runs", [])
    done = {run["seed"] for run in not_repeated(runs, options.again)}
    command = " ".join(["python benchmarks/flood_fill.py", *options.settings])
    record = {"command": command, "date": stamp()["date"], "runs": runs}
    record["note"] = options.note or found.get("note", "")
    root = (options.keep or Path(tempfile.mkdtemp(prefix="flood-fill-"))).resolve()
    if not (root / "data").is_dir():
        hrm("prepare", "scenes", *PREPARE, "--out", str(root / "data"))

    def write() -> None:
        path.write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "flood_fill.md").write_text(report(record))

    def work(seed: int) -> None:
        run = train(root, seed, options.settings)
        with lock:
            runs.append(run)
            machines = machines_of(runs)
            runs.sort(key=lambda r: (machines.index(r["machine"]), r["seed"]))
            write()
            print(
                json.dumps({k: run["test"][k] for k in ("iou", "halting/gap_closed")}), flush=True
            )

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, [seed for seed in options.seeds if seed not in done]))
    write()
    draw(root / f"run{options.seeds[0]}")


if __name__ == "__main__":
    main()
