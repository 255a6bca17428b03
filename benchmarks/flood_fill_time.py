"""What halting saves in time on images, and steps beyond those of training.

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/flood_fill_time.py --keep DIR

Takes the networks that the first command trained. In turns, the 1,000 test mazes go through the
engine, which lets each leave where its policy halts and decodes it once, and through plain loops of
K steps and of fewer that have no value functions to pay for and decode after the last, in batches
as large as the engine's. Then every maze may take more steps than there were in training. Writes
results/flood_fill_time.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import hrm, stamp

from hrm.benchmarking.measure import in_turns
from hrm.data.base import PuzzleSplit, load_split
from hrm.evaluation.segmentation import class_counts, iou_of
from hrm.inference import Engine
from hrm.models import ACTModel
from hrm.training.checkpoint import load_run

RESULTS = Path(__file__).parent.parent / "results"
CPU = torch.device("cpu")


def without_heads(model: Any, halting: str) -> Any:
    """The same network under a policy that reads no head, so that no step pays for one."""
    bare = type(model)(model.config.model_copy(update={"halting": halting}))
    bare.load_state_dict(model.state_dict(), strict=False)
    return bare.eval()


@torch.inference_mode()
def loop(model: ACTModel, inputs: np.ndarray, steps: int, size: int) -> np.ndarray:
    """The classes of every pixel after so many steps, decoded once."""
    found = []
    for start in range(0, len(inputs), size):
        rows = torch.from_numpy(inputs[start : start + size])
        batch = {"inputs": rows, "puzzle_identifiers": torch.zeros(len(rows), dtype=torch.int32)}
        carry = model.initial_carry(batch, seed=0)
        for step in range(1, steps + 1):
            carry, outputs = model(carry, batch, decode=step == steps)
        found.append(outputs["logits"].argmax(-1).numpy())
    return np.concatenate(found)


def measure(run: Path, split: PuzzleSplit, repeats: int, size: int) -> dict[str, Any]:
    """Seconds and IoU of each way, and the IoU of more steps than in training."""
    model: Any = load_run(run).model.eval()
    columns = {k: v for k, v in split.take(np.arange(len(split))).items() if k != "labels"}
    labels = split.take(np.arange(len(split)))["labels"]
    assert split.metadata.image is not None
    classes, last = split.metadata.image.classes, model.halting.max_steps
    engine, bare = Engine(model, slots=size), without_heads(model, "fixed")
    answers: dict[str, np.ndarray] = {}
    steps: dict[str, float] = {}

    def adaptive() -> None:
        done = engine.solve_all(columns)
        answers["adaptive"], steps["adaptive"] = done.predictions, float(done.steps.mean())

    def fixed(n: int) -> None:
        answers[str(n)], steps[str(n)] = loop(bare, columns["inputs"], n, size), n

    works: dict[str, Callable[[], object]] = {"adaptive": adaptive}
    works |= {str(n): partial(fixed, n) for n in range(last // 2, last + 1)}
    in_turns(works, 1, CPU)
    times = in_turns(works, repeats, CPU)
    ways = {
        name: {
            "steps": steps[name],
            "iou": float(iou_of(class_counts(answers[name], labels, classes)).mean()),
            "images_per_s": len(labels) / statistics.median(taken),
            "times_all_steps": statistics.median(
                whole / mine for whole, mine in zip(times[str(last)], taken, strict=True)
            ),
        }
        for name, taken in times.items()
    }
    beyond = {}
    for n in (last, last * 5 // 4, last * 3 // 2, last * 2):
        told = json.loads(hrm("evaluate", str(run), "--max-steps", str(n), "--json"))
        names = ("iou", "halting/iou", "halting/mean_steps", "halting/gap_closed")
        beyond[str(n)] = {name: told[name] for name in names}
    return {
        "max_steps": last,
        "ways": ways,
        "beyond": beyond,
        "operations": model.operations()._asdict(),
        "operations without heads": model.operations().without_heads()._asdict(),
    }


def _operations(run: dict[str, Any], way: str) -> float:
    """Multiply-adds of an image, on the mean."""
    o = run["operations" if way == "adaptive" else "operations without heads"]
    return float(o["encoder"] + run["ways"][way]["steps"] * o["iteration"] + o["decoder"])


def report(record: dict[str, Any]) -> str:
    """The tables."""
    runs = record["runs"]
    last = runs[0]["max_steps"]

    def middle(values: list[float], digits: int) -> str:
        low, high = min(values), max(values)
        return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    def equal(run: dict[str, Any]) -> str:
        """The fewest fixed steps with an IoU as good as where the policy halts."""
        wanted = run["ways"]["adaptive"]["iou"]
        counted = [int(name) for name in run["ways"] if name != "adaptive"]
        good = [n for n in counted if run["ways"][str(n)]["iou"] >= wanted]
        return str(min(good, default=last))

    chosen: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("all steps", lambda run: str(last)),
        ("the policy, through the engine", lambda run: "adaptive"),
        ("fixed steps as good as the policy", equal),
    ]
    lines = [
        "# Flood fill: what halting saves in time",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},",
        f"{record['machine']}. One core, {len(runs)} networks: median (range); 1,000 test mazes,"
        f" batches and slots of {record['size']}.",
        "Times are medians of ratios within a turn.",
        "",
        f"| | mean steps | IoU | times as fast as all {last} | operations, share of all steps' |",
        "|---|---|---|---|---|",
    ]
    for title, pick in chosen:
        ways = [run["ways"][pick(run)] for run in runs]
        shares = [_operations(run, pick(run)) / _operations(run, str(last)) for run in runs]
        cells = [
            middle([w["steps"] for w in ways], 2),
            middle([w["iou"] for w in ways], 4),
            middle([w["times_all_steps"] for w in ways], 2),
            middle(shares, 2),
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    first = runs[0]["operations"]
    bare = runs[0]["operations without heads"]["iteration"] / 1e6
    step, rest = first["iteration"] / 1e6, (first["encoder"] + first["decoder"]) / 1e6
    lines += [
        "",
        f"A step is {bare:.2f} million multiply-adds, {step:.2f} with the value functions, which",
        f"the loops do without; encoder and decoder, once an image, {rest:.2f} million.",
        "",
        f"## More steps than in training ({last})",
        "",
        "| steps allowed | IoU after all | where the policy halts | its steps | gap closed |",
        "|---|---|---|---|---|",
    ]
    columns = (("iou", 4), ("halting/iou", 4), ("halting/mean_steps", 2), ("halting/gap_closed", 2))
    for n in runs[0]["beyond"]:
        cells = [middle([run["beyond"][n][name] for run in runs], d) for name, d in columns]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="of a batch, and the engine's slots")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split(options.keep / "data", "test")
    runs = [
        {"seed": s, **measure(options.keep / f"run{s}", split, options.repeats, options.size)}
        for s in options.seeds
    ]
    command = "python benchmarks/flood_fill_time.py --keep DIR"
    record = {"command": command, **stamp(), "size": options.size, "runs": runs}
    (RESULTS / "flood_fill_time.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "flood_fill_time.md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
