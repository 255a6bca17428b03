"""Which parts of HRM's adaptive computation matter: one setting changed at a time.

    python benchmarks/ablation.py --seeds 0 1 2 --jobs 2

Each variant is trained on 4x4 and 6x6 Sudoku, one core a run, for the base's seconds or updates,
whichever are more. Other work on the machine stretches a run's own seconds, so what an update costs
is measured apart, all variants in turns in one process (`--costs`, on a quiet machine). Each run is
read twice: after as many updates as the base (equal updates), and at the evaluation nearest to as
many as those cost (equal compute). The rate is constant, so that neither reading depends on where a
schedule would have ended. Writes results/ablation.json and results/ablation.md after every run; a
run that is recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from machine import hrm, stamp

RESULTS = Path(__file__).parent.parent / "results"
COST_TURNS = 25
BASE = "HRM as published (bootstrap, per_step, 1-step, persistent)"
VARIANTS: dict[str, tuple[str, ...]] = {
    BASE: (),
    "continue_target=pseudocode": ("arch.continue_target=pseudocode",),
    "continue_target=next_step": ("arch.continue_target=next_step",),
    "continue_target=none": ("arch.continue_target=none",),
    "exploration=per_episode": ("arch.exploration=per_episode",),
    "without exploration": ("arch.halt_exploration_prob=0",),
    "without ACT (halting=fixed)": ("arch.halting=fixed",),
    "gradient through a whole cycle (3)": ("arch.grad_cycles=3",),
    "gradient through all cycles (6)": ("arch.grad_cycles=6",),
    "dynamics=online": ("dynamics=online",),
    "dynamics=episode": ("dynamics=episode",),
    "halt_max_steps=1": ("arch.halt_max_steps=1", "arch.train_max_steps=1", "step_curriculum=[]"),
    "TRM (attention)": ("arch=trm_small",),
}
COMMON = ("lr_schedule=constant", "eval_split=test", "log_every_steps=50", "plots=false")
TASKS: dict[str, dict[str, Any]] = {
    "4x4": {
        "prepare": ("--size", "4", "--count", "2900", "--val-count", "500"),
        "settings": ("experiment=sudoku_4x4_hrm", "lr=2e-3", "step_curriculum=[[300,4]]"),
        "updates": 600,
        "every": 50,
    },
    "6x6": {
        "prepare": ("--size", "6", "--blanks", "10", "--count", "20000", "--val-count", "500"),
        "settings": (
            "experiment=sudoku_6x6",
            "arch=hrm_small",
            "arch.halt_exploration_prob=0.1",
            "lr=1e-3",
        ),
        "updates": 700,
        "every": 175,
    },
}
FIGURES = {
    "exact": "eval/exact_accuracy",
    "exact_at_halt": "eval/policy_exact_accuracy",
    "mean_steps_at_halt": "eval/policy_mean_steps",
    "auroc": "eval/q_halt_auroc_all_steps",
}
lock = threading.Lock()


def train(root: Path, task: str, variant: str, seed: int, seconds: float | None) -> dict[str, Any]:
    """A run of the base's updates and, if it was faster, on to the base's seconds."""
    spec = TASKS[task]
    out = root / f"{task}-{list(VARIANTS).index(variant)}-{seed}"
    settings = (
        f"seed={seed}",
        *COMMON,
        *spec["settings"],
        *VARIANTS[variant],
        f"eval_every_steps={spec['every']}",
    )
    command = (*settings, f"data.path={root / task}", "data.prepare=null", f"out={out}")
    hrm("train", *command, f"max_steps={spec['updates']}")
    rows = evaluations(out)
    if seconds is not None and rows[-1]["time/train_s"] < seconds:
        hrm("train", *command, "resume=true", "max_steps=1000000", f"stop_after_s={seconds}")
        rows = evaluations(out)
    at_updates = next(row for row in rows if row["step"] == spec["updates"])
    # The evaluation nearest to the base's seconds: the one before would always be behind.
    limit = at_updates["time/train_s"] if seconds is None else seconds
    at_seconds = min(rows, key=lambda row: abs(row["time/train_s"] - limit))
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "command": "hrm train " + " ".join(settings) + f" max_steps={spec['updates']}",
        "seconds_an_update": at_updates["time/train_s"] / spec["updates"],
        "equal_updates": figures(at_updates),
        "equal_compute": figures(at_seconds),
        "curve": [[r["step"], r["time/train_s"], r["eval/exact_accuracy"]] for r in rows],
    }


def evaluations(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval/exact_accuracy" in row]


def figures(row: dict[str, Any]) -> dict[str, Any]:
    histogram = row["eval/policy_steps_histogram"]
    return {
        "updates": row["step"],
        "train_s": row["time/train_s"],
        **{name: row.get(key) for name, key in FIGURES.items()},
        "halts_at_step_1": histogram[0] / row["eval/count"],
    }


def cell(values: list[float | None], digits: int, scale: float = 1.0) -> str:
    there = [v * scale for v in values if v is not None]
    if not there:
        return "-"
    low, mid, high = (f"{f(there):.{digits}f}" for f in (min, statistics.median, max))
    return f"{mid} ({low} to {high})"


def costs(root: Path, task: str) -> dict[str, Any]:
    """Median seconds of an update of each variant, in turns on one core, and times the base's."""
    from hrm.benchmarking.measure import in_turns
    from hrm.commands.train import augmenter
    from hrm.config import compose
    from hrm.data.base import load_split
    from hrm.training.trainer import Trainer

    torch.set_num_threads(1)
    rows = load_split(root / task, "train")
    works = {}
    for variant, changes in VARIANTS.items():
        given = (*COMMON, *TASKS[task]["settings"], *changes, "max_steps=1000000")
        config = compose([*given, f"data.path={root / task}", "compile=false"])
        trainer = Trainer(config, rows, None, root, augmenter(config, rows.metadata))
        for _ in range(5):
            trainer.update()
        works[variant] = trainer.update
    times = in_turns(works, COST_TURNS, torch.device("cpu"))
    ratios = {
        name: [t / base for t, base in zip(taken, times[BASE], strict=True)]
        for name, taken in times.items()
    }
    return {
        name: {"seconds": statistics.median(times[name]), "times_base": statistics.median(r)}
        for name, r in ratios.items()
    }


def at_equal_compute(run: dict[str, Any], updates: float) -> list[float]:
    """The evaluation of the curve nearest to so many updates: `[update, seconds, exact]`."""
    return min(run["curve"], key=lambda point: abs(point[0] - updates))


def table(runs: list[dict[str, Any]], task: str, cost: dict[str, Any]) -> list[str]:
    lines = [
        "| variant | ms an update (times the base's) | exact %, equal updates |"
        " exact %, equal compute | updates then | exact % at halt | mean steps at halt |"
        " halts at step 1, % | AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        same = [r for r in runs if r["variant"] == variant and r["task"] == task]
        if not same:
            continue
        updates, compute = ([r[k] for r in same] for k in ("equal_updates", "equal_compute"))
        times_base = cost[variant]["times_base"]
        there = [at_equal_compute(r, TASKS[task]["updates"] / times_base) for r in same]
        learned = "fixed" not in variant

        def halting(name: str, digits: int, scale: float = 1.0) -> str:
            if not learned:  # noqa: B023
                return "-"
            return cell([c[name] for c in compute], digits, scale)  # noqa: B023

        lines.append(
            f"| {variant} | {1e3 * cost[variant]['seconds']:.1f} ({times_base:.2f}) |"
            f" {cell([u['exact'] for u in updates], 1, 100)} |"
            f" {cell([exact for _, _, exact in there], 1, 100)} |"
            f" {cell([step for step, _, _ in there], 0)} |"
            f" {halting('exact_at_halt', 1, 100)} | {halting('mean_steps_at_halt', 2)} |"
            f" {halting('halts_at_step_1', 0, 100)} | {halting('auroc', 3)} |"
        )
    return lines


def write(runs: list[dict[str, Any]], cost: dict[str, Any], stamped: dict[str, str]) -> None:
    runs = sorted(runs, key=lambda r: (r["task"], list(VARIANTS).index(r["variant"]), r["seed"]))
    record = {"command": "python benchmarks/ablation.py", **stamped, "costs": cost, "runs": runs}
    (RESULTS / "ablation.json").write_text(json.dumps(record, indent=1) + "\n")
    text = [
        "# Which parts of adaptive computation matter",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},",
        f"{record['machine']}. One core a run, two side by side. Median and range over the seeds;",
        "exact accuracy of 500 test puzzles after the last step. An update's cost is the median of",
        f"{COST_TURNS} turns of all variants in one process. The halting figures are those of the",
        "evaluation nearest to the base's seconds of training, as the run took them. What an",
        "effect is worth, seeds considered: docs/act.md.",
        "",
    ]
    for task in TASKS:
        text += [f"## {task}", "", *table(runs, task, cost[task]), ""]
    (RESULTS / "ablation.md").write_text("\n".join(text).rstrip() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--costs", action="store_true", help="measure what updates cost anew")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ablation-"))
    stamped, path = stamp(), RESULTS / "ablation.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    runs: list[dict[str, Any]] = found.get("runs", [])
    cost: dict[str, Any] = found.get("costs", {})
    done = {(r["task"], r["variant"], r["seed"]) for r in runs}
    for task in options.tasks:
        out = ("--seed", "0", "--out", str(root / task))
        hrm("prepare", "sudoku", *TASKS[task]["prepare"], *out)
        if options.costs or task not in cost:
            cost[task] = costs(root, task)
    if runs:
        write(runs, cost, stamped)

    def work(job: tuple[str, str, int]) -> None:
        task, variant, seed = job
        seconds = None
        if variant != BASE:
            base = [r for r in runs if r["task"] == task and r["variant"] == BASE]
            seconds = statistics.median(r["equal_updates"]["train_s"] for r in base)
        run = train(root, task, variant, seed, seconds)
        with lock:
            runs.append(run)
            print(json.dumps({k: v for k, v in run.items() if k != "curve"}), flush=True)
            write(runs, cost, stamped)

    # The base first: its seconds are everyone's measure.
    for base in (True, False):
        jobs = [
            (task, variant, seed)
            for task in options.tasks
            for variant in options.variants
            for seed in options.seeds
            if (variant == BASE) == base and (task, variant, seed) not in done
        ]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, jobs))


if __name__ == "__main__":
    main()
