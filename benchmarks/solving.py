"""What halting saves: a trained model served by the engine, against the fastest plain loop.

    python benchmarks/solving.py --data DIR --steps 16 8 --slots 64 256

DIR is the data set that the model's card names; its test rows are solved. The model may be given
another limit of steps than it was made with: its weights do not depend on it. Ratios are those of
`hrm bench solve`: puzzles a second where the policy halts, over puzzles a second of a bare loop
over full batches at its fastest batch size, which takes all steps and does nothing else. Writes
results/solving.json and results/solving.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from machine import stamp

from hrm.benchmarking.solve import bench_solving
from hrm.data.base import load_split
from hrm.models import from_pretrained

RESULTS = Path(__file__).parent.parent / "results"


def measure(options: argparse.Namespace, steps: int, slots: int) -> dict[str, Any]:
    model = from_pretrained(options.model)
    model.config.halt_max_steps = model.halting.max_steps = steps
    model.halting.train_max_steps = min(steps, model.halting.train_max_steps)
    split = load_split(options.data, "test")
    return bench_solving(
        model,
        split,
        count=options.count,
        repeats=options.repeats,
        slots=slots,
        check=options.check,
    )


def report(record: dict[str, Any]) -> str:
    lines = [
        "# What halting saves",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},"
        f" {record['machine']}.",
        f"Model `{record['model']}`; medians (range) of {record['repeats']} turns. Goal: 0.9 times"
        " limit / mean steps.",
        "",
        "| limit | slots | mean steps | exact, halting / all steps | puzzles a second |"
        " plain loop | ratio | limit / mean steps | engine's overhead a step | as alone |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        low, high = row["ratio_spread"]
        under, over = row["engine_overhead_share_spread"]
        lines.append(
            f"| {row['max_steps']} | {row['slots']} | {row['mean_steps']:.2f} |"
            f" {100 * row['exact_accuracy']:.1f} / {100 * row['fixed_exact_accuracy']:.1f} % |"
            f" {row['puzzles_per_s']:.1f} |"
            f" {row['fixed_puzzles_per_s']:.1f} (batches of {row['fixed_batch_size']}) |"
            f" {row['ratio']:.2f} ({low:.2f} to {high:.2f}) |"
            f" {row['max_steps'] / row['mean_steps']:.2f} |"
            f" {100 * row['engine_overhead_share']:.1f} % ({100 * under:.1f} to {100 * over:.1f}) |"
            f" {'yes' if row['identical'] else 'no'}, {row['checked']} checked |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sudoku_9x9")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 8])
    parser.add_argument("--slots", type=int, nargs="+", default=[64])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--check", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    asked = ("steps", "slots", "count", "check", "repeats", "threads")
    words = [f"--{k} {' '.join(map(str, v if isinstance(v, list) else [v]))}" for k, v in
             ((k, getattr(options, k)) for k in asked)]  # fmt: skip
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/solving.py --data DIR", *words]),
        **stamp(),
        "model": options.model,
        "repeats": options.repeats,
        "rows": [],
    }
    for steps in options.steps:
        for slots in options.slots:
            record["rows"].append(measure(options, steps, slots))
            (RESULTS / "solving.json").write_text(json.dumps(record, indent=1) + "\n")
            (RESULTS / "solving.md").write_text(report(record))


if __name__ == "__main__":
    main()
