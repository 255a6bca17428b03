"""Time and updates until the Sudoku presets reach their accuracy, over seeds and architectures.

    python benchmarks/presets.py --csv 17_clue.csv.gz --seeds 0 1 2 --jobs 2

Each run has one core. TRM-MLP is trained as its preset says; TRM with attention and HRM get the
same seconds on the same data. "Reached" is the first evaluation on 500 validation puzzles at or
above the goal; the final accuracy is on test puzzles that nothing was chosen on. Writes
results/presets.json and results/presets.md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from machine import hrm, stamp

GOALS = {"sudoku_4x4": 0.99, "sudoku_6x6": 0.99, "sudoku_9x9": 0.90}
ARCHS = {
    "TRM-MLP": (),
    "TRM attention": ("arch=trm_small", "arch.L_layers=2", "lr=1e-3", "lr_schedule=constant"),
    "HRM": ("arch=hrm_small", "arch.L_layers=2", "lr=1e-3", "lr_schedule=constant"),
}
RESULTS = Path(__file__).parent.parent / "results"


def one(
    root: Path, experiment: str, arch: str, seed: int, extra: tuple[str, ...], goal: float
) -> dict[str, Any]:
    out = root / f"{experiment}-{re.sub('[^A-Za-z]', '', arch)}-{seed}"
    command = [f"experiment={experiment}", f"seed={seed}", *extra]
    where = [f"out={out}", f"data.path={root / experiment.removesuffix('_hrm')}", "plots=false"]
    hrm("train", *command, *where)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = [r for r in rows if "eval/exact_accuracy" in r]
    reached = next((r for r in evaluated if r["eval/exact_accuracy"] >= goal), None)
    test = json.loads(hrm("evaluate", str(out), "--json"))
    return {
        "experiment": experiment,
        "arch": arch,
        "seed": seed,
        "command": "hrm train " + " ".join(command),
        "goal": goal,
        "reached_s": reached and reached["time/train_s"],
        "reached_updates": reached and reached["step"],
        "train_s": rows[-1]["time/train_s"],
        "updates": rows[-1]["step"],
        "eval_s": round(sum(r["time/eval_s"] for r in evaluated), 1),
        "test_count": test["count"],
        "test_exact_accuracy": test["exact_accuracy"],
        "test_mean_steps_at_halt": test["policy_mean_steps"],
        "test_exact_accuracy_at_halt": test["policy_exact_accuracy"],
        "q_halt_auroc": test["q_halt_auroc"],
        "q_halt_auroc_all_steps": test["q_halt_auroc_all_steps"],
        "accuracy_by_step": test["accuracy_by_step"],
    }


def middle(values: list[float | None], digits: int = 0) -> str:
    """Median and range, or how many runs have a value at all."""
    there = [v for v in values if v is not None]
    if len(there) * 2 <= len(values):
        return f"{len(there)} of {len(values)}"
    low, mid, high = (f"{f(there):.{digits}f}" for f in (min, statistics.median, max))
    text = f"{mid} ({low} to {high})"
    return text if len(there) == len(values) else f"{text}, {len(there)} of {len(values)}"


def table(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| preset | goal | model | seeds | seconds to goal | updates to goal | trained s |"
        " test exact % | mean steps at halt | AUROC, all steps |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["experiment"], r["arch"]) for r in runs):
        same = [r for r in runs if (r["experiment"], r["arch"]) == key]

        def column(name: str, digits: int = 0, scale: float = 1.0) -> str:
            values = [None if r[name] is None else r[name] * scale for r in same]  # noqa: B023
            return middle(values, digits)

        lines.append(
            f"| {key[0]} | {same[0]['goal']:.0%} | {key[1]} | {len(same)} | {column('reached_s')} |"
            f" {column('reached_updates')} | {column('train_s')} |"
            f" {column('test_exact_accuracy', 1, 100)} | {column('test_mean_steps_at_halt', 2)} |"
            f" {column('q_halt_auroc_all_steps', 3)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", help="real 9x9 puzzles; without it they are generated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--only", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=list(ARCHS))
    parser.add_argument("--add", action="store_true", help="to the runs that are recorded already")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="presets-"))
    four = ("--size", "4", "--count", "2900")
    six = ("--size", "6", "--blanks", "20", "--count", "20000")
    nine = ("--size", "9", "--clues", "36", "--count", "40000")
    nine += ("--csv", options.csv) if options.csv else ()
    for name, settings in zip(GOALS, (four, six, nine), strict=True):
        if name in options.only:
            hrm(
                "prepare",
                "sudoku",
                *settings,
                "--val-count",
                "500",
                "--seed",
                "0",
                "--out",
                str(root / name),
            )

    runs: list[dict[str, Any]] = []
    if options.add:
        runs = json.loads((RESULTS / "presets.json").read_text())["runs"]
        again = {(e, a) for e in options.only for a in options.archs}
        runs = [r for r in runs if (r["experiment"], r["arch"]) not in again]
    seconds = {(r["experiment"], r["seed"]): r["train_s"] for r in runs if r["arch"] == "TRM-MLP"}
    lock, stamped = threading.Lock(), stamp()

    def work(job: tuple[str, str, int, tuple[str, ...]]) -> None:
        experiment, arch, seed, extra = job
        base = experiment.removesuffix("_hrm")
        if arch != "TRM-MLP" and experiment == base:
            extra = (*extra, f"stop_after_s={seconds[base, seed]:.0f}", "max_steps=100000")
            extra = (*extra, "eval_every_steps=null")
        run = one(root, experiment, arch, seed, extra, GOALS[base])
        if arch == "TRM-MLP":
            seconds[experiment, seed] = run["train_s"]
        with lock:
            runs.append(run)
            print(json.dumps({k: run[k] for k in list(run)[:14]}), flush=True)
            write(runs, options, stamped)

    with ThreadPoolExecutor(options.jobs) as pool:
        for arch in options.archs:
            extra = ARCHS[arch]
            jobs = [(e, arch, s, extra) for e in options.only for s in options.seeds]
            if arch == "HRM" and "sudoku_4x4" in options.only:
                jobs += [("sudoku_4x4_hrm", "HRM (its preset)", s, ()) for s in options.seeds]
            list(pool.map(work, jobs))


def write(runs: list[dict[str, Any]], options: argparse.Namespace, stamped: dict[str, str]) -> None:
    order = [*GOALS, "sudoku_4x4_hrm"]
    runs = sorted(
        runs,
        key=lambda r: (order.index(r["experiment"]), r["arch"] != "TRM-MLP", r["arch"], r["seed"]),
    )
    command = "python benchmarks/presets.py" + (" --csv 17_clue.csv.gz" if options.csv else "")
    record = {"command": command, **stamped, "runs": runs}
    (RESULTS / "presets.json").write_text(json.dumps(record, indent=1) + "\n")
    head = [
        "# Sudoku presets: time to accuracy",
        "",
        f"`{command}` at commit {record['commit']}, {record['date']}, {record['machine']}.",
        "One core a run, two runs side by side. Median and range over the seeds; where fewer runs",
        "reached the goal, how many did.",
        "Seconds are of training; evaluations come on top (`eval_s` in presets.json).",
        "9x9 puzzles are "
        + (
            "real 17-clue puzzles with answers revealed to 36 clues."
            if options.csv
            else "the project's own."
        ),
        "TRM attention and HRM have the seconds that TRM-MLP took, two layers a level, a constant",
        "rate of 1e-3 and one evaluation, at the end: what they have reached by then.",
        "",
    ]
    (RESULTS / "presets.md").write_text("\n".join([*head, *table(runs)]) + "\n")


if __name__ == "__main__":
    main()
