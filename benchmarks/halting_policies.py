"""Policies of halting on one and the same network: two value functions, their ablations, rivals.

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/halting_policies.py --keep DIR --jobs 2

Takes the networks that the first command trained, leaves them as they are, and lets each policy
learn to halt them (`learn=halting`, 500 updates, the same for all). Stoppers that learn nothing
have their tolerance swept. Figures are those of the test split; nothing was chosen on it. Writes
results/halting_policies.{json,md,png} after every policy; what is recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import hrm, spread, stamp

RESULTS = Path(__file__).parent.parent / "results"
PENALTY = 0.01
"""lambda of the costs by which all are judged, the preset's."""
UPDATES = 500
LEARN = (
    "learn=halting arch.warmup_updates=0 arch.anneal_updates=400 step_curriculum=[] "
    f"max_steps={UPDATES} lr_schedule=constant lr=6e-3 optimizer=adamw eval_every_steps=null "
    "eval_count=50 plots=false progress=false data.prepare=null"
).split()
LEARNED: dict[str, tuple[str, str]] = {
    **{
        f"two value functions, lambda {x}": ("two value functions", f"arch.step_penalty={x}")
        for x in (0.002, 0.01, 0.05)
    },
    **{
        f"Graves, cost {x}": ("Graves", f"arch.halting=graves arch.ponder_cost={x}")
        for x in (0.002, 0.01, 0.05)
    },
    **{
        f"PonderNet, prior {x}": ("PonderNet", f"arch.halting=pondernet arch.prior={x}")
        for x in (0.3, 0.15, 0.08)
    },
    "chance to be right": ("chance to be right (Q)", "arch.halting=halt_only"),
    "literal target": ("ablation", "arch.threshold_target=literal"),
    "no condition": ("ablation", "arch.conditional=false"),
    "no alternation": ("ablation", "arch.alternate_every=0"),
    "sampled (REINFORCE)": ("ablation", "arch.contribution_loss=reinforce"),
    "no anchor": ("ablation", "arch.anchor_weight=0"),
    "threshold learns at k* alone": ("ablation", "arch.early_weight=0"),
}
CHANCES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
CHANGES = (0.02, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4)
lock = threading.Lock()


def learned(root: Path, seed: int, name: str) -> list[dict[str, Any]]:
    """Let the policy `name` learn to halt the network of `seed`; its figures on test."""
    family, settings = LEARNED[name]
    out = root / "policies" / f"{seed} {name}".translate(str.maketrans(dict.fromkeys(" ,()", "_")))
    if not (out / "checkpoints").is_dir():
        given = [f"init_from={root / f'run{seed}'}", f"data.path={root / 'data'}", f"out={out}"]
        hrm("train", "experiment=flood_fill", *LEARN, *given, f"seed={seed}", *settings.split())
    if family.startswith("chance"):
        return list(_swept(out, root, "chance to be right", CHANCES))
    return [_figures(out, root)]


def unlearned(root: Path, seed: int) -> list[dict[str, Any]]:
    """Fixed depths, chance, and halting on the change of the state, of the network of `seed`."""
    from hrm.evaluation.policy import random_halting
    from hrm.evaluation.segmentation import iou_of
    from hrm.halting import costs
    from hrm.inference.image_steps import record

    run, split = _open(root / f"run{seed}", root)
    recorded = record(run.model, split, loss="softmax")
    cost = costs(_tensor(recorded.task_loss), PENALTY).numpy()
    overlap = iou_of(recorded.counts).mean(1)
    found = [
        {"family": "fixed depth", "steps": n + 1, "iou": overlap[n], "cost": cost[n].mean()}
        for n in range(len(cost))
    ]
    histogram = np.bincount(recorded.steps, minlength=len(cost) + 1)[1:] / len(recorded.steps)
    found.append(
        {
            "family": "chance, same histogram",
            "steps": recorded.steps.mean(),
            "iou": (histogram * overlap).sum(),
            "cost": random_halting(cost, recorded.steps),
        }
    )
    found.append(
        {
            "family": "oracle",
            "steps": (cost.argmin(0) + 1).mean(),
            "iou": np.take_along_axis(iou_of(recorded.counts), cost.argmin(0)[None], 0).mean(),
            "cost": cost.min(0).mean(),
        }
    )
    found += _swept(root / f"run{seed}", root, "change of the state", CHANGES)
    return [{k: v if isinstance(v, str) else float(v) for k, v in f.items()} for f in found]


def _swept(
    path: Path, root: Path, family: str, values: tuple[float, ...]
) -> Iterator[dict[str, Any]]:
    from hrm.halting import Convergence, HaltOnly

    run, split = _open(path, root)
    limit = run.model.halting.max_steps
    for value in values:
        if family.startswith("chance"):
            run.model.halting = HaltOnly(limit, threshold=value)
        else:
            run.model.halting = Convergence(limit, tolerance=value)
        yield {"family": family, "value": value, **_told(run.model, split)}


def _open(path: Path, root: Path) -> tuple[Any, Any]:
    import torch

    from hrm.data.base import load_split
    from hrm.training.checkpoint import load_run

    torch.set_num_threads(1)
    return load_run(path), load_split(root / "data", "test")


def _figures(path: Path, root: Path) -> dict[str, Any]:
    run, split = _open(path, root)
    return _told(run.model, split)


def _told(model: Any, split: Any) -> dict[str, Any]:
    from hrm.inference.segmentation import evaluate_images

    found = evaluate_images(model, split, loss="softmax", step_penalty=PENALTY, tolerance=0.0)
    names = ("steps_std", "spearman", "agreement", "agreement_within_1", "gap_closed", "regret")
    return {
        "steps": found["halting/mean_steps"],
        "iou": found["halting/iou"],
        "cost": found["halting/cost"],
        "operations": found["operations"]["halting"],
        **{name: found[f"halting/{name}"] for name in names},
    }


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def report(record: dict[str, Any]) -> str:
    """The tables, medians and ranges over seeds."""
    rows = record["rows"]
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# Policies of halting on one network: flood fill, 16 x 16",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},",
        f"{record['machine']}. {len(seeds)} networks (seeds), median (range); 1,000 test mazes.",
        f"Every policy learned for {UPDATES} updates on the network as `benchmarks/flood_fill.py`",
        f"left it; all are judged by the cost `loss + {PENALTY} * step`. Share of the gap: 0 is the"
        " best",
        "fixed depth, 1 the oracle.",
        "",
        "| policy | mean steps | IoU | share of the gap closed | agreement | within 1 | Spearman |",
        "|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(r["name"] for r in rows if r.get("gap_closed") is not None))
    for name in sorted(names, key=lambda n: (_order(rows, n), n)):
        chosen = [r for r in rows if r["name"] == name]
        cells = [
            spread([r[key] for r in chosen], digits)
            for key, digits in (
                ("steps", 1),
                ("iou", 3),
                ("gap_closed", 2),
                ("agreement", 2),
                ("agreement_within_1", 2),
                ("spearman", 2),
            )
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    best = [
        min((r for r in rows if r["seed"] == s and r["family"] == "fixed depth"), key=_cost)
        for s in seeds
    ]
    oracle = [r for r in rows if r["family"] == "oracle"]
    chance = [r for r in rows if r["family"].startswith("chance, same")]
    lines += [
        "",
        "| for comparison | mean steps | IoU | cost |",
        "|---|---|---|---|",
    ]
    for name, chosen in (
        ("best fixed depth", best),
        ("by chance, with the histogram of the two value functions", chance),
        ("oracle", oracle),
    ):
        cells = [
            spread([r[key] for r in chosen], digits)
            for key, digits in (("steps", 1), ("iou", 3), ("cost", 4))
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "![IoU over mean steps](halting_policies.png)"]
    return "\n".join(lines) + "\n"


def _order(rows: list[dict[str, Any]], name: str) -> int:
    families = ["two value functions", "Graves", "PonderNet", "chance to be right", "change of"]
    family = next(r["family"] for r in rows if r["name"] == name)
    return next((i for i, f in enumerate(families) if family.startswith(f)), len(families))


def _cost(row: dict[str, Any]) -> float:
    return float(row["cost"])


def draw(record: dict[str, Any]) -> None:
    """IoU over mean steps of every policy, a line a family, medians over seeds."""
    from matplotlib.figure import Figure

    from hrm.plots.drawing import save, tidy

    rows = record["rows"]
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "both")
    styles = {
        "two value functions": ("#d2691e", "o-", 3),
        "Graves": ("#3a8a4d", "s-", 2),
        "PonderNet": ("#8a5ca8", "^-", 2),
        "chance to be right": ("#3566a8", "v-", 2),
        "change of the state": ("#b0a030", "x-", 2),
        "fixed depth": ("#777777", "-", 1),
        "chance, same histogram": ("#777777", "P", 2),
        "oracle": ("#000000", "*", 4),
    }
    for family, (colour, style, layer) in styles.items():
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["family"].startswith(family):
                points.setdefault(row["name"], []).append((row["steps"], row["iou"]))
        middle = sorted(tuple(np.median(np.array(p), axis=0)) for p in points.values())
        if middle:
            steps, overlap = zip(*middle, strict=True)
            axes.plot(steps, overlap, style, color=colour, label=family, zorder=layer, ms=6)
    axes.set(xlabel="mean steps", ylabel="IoU on test mazes", ylim=(0.85, 1.005))
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("One network, stopped by different policies", loc="left")
    save(figure, RESULTS / "halting_policies.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=["unlearned", *LEARNED])
    parser.add_argument("--jobs", type=int, default=2, help="policies side by side, a core each")
    options = parser.parse_args()
    path = RESULTS / "halting_policies.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    rows: list[dict[str, Any]] = found.get("rows", [])
    root = options.keep.resolve()
    record = {"command": "python benchmarks/halting_policies.py --keep DIR", **stamp()}
    record["rows"] = rows

    def work(task: tuple[int, str]) -> None:
        seed, name = task
        new = unlearned(root, seed) if name == "unlearned" else learned(root, seed, name)
        with lock:
            for row in new:
                family = row.get("family") or LEARNED[name][0]
                label = f"{family} {row['value']}" if "value" in row else name
                if name == "unlearned" and "value" not in row:
                    label = f"{family} {row['steps']:.0f}" if family == "fixed depth" else family
                rows.append({"seed": seed, "task": name, "name": label, **row, "family": family})
            path.write_text(json.dumps(record, indent=1) + "\n")
            (RESULTS / "halting_policies.md").write_text(report(record))
            draw(record)
            print(seed, name, f"{new[0]['steps']:.2f} steps, IoU {new[0]['iou']:.4f}", flush=True)

    done = {(row["seed"], row["task"]) for row in rows}
    chosen = options.only or ("unlearned", *LEARNED)
    tasks = [(seed, name) for name in chosen for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, [task for task in tasks if task not in done]))


if __name__ == "__main__":
    main()
