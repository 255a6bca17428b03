"""Policies of halting on the same networks: two value functions, their ablations, rivals.

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/halting_policies.py --keep DIR --jobs 2

Takes the networks that the first command trained, leaves them as they are, and lets each policy
learn to halt them (`learn=halting`, 500 updates, the same for all, from the same features of the
states). Each family's setting is swept, as is the tolerance of stoppers that learn nothing; which
one stands for the family is chosen by the cost on validation mazes of the first network. Figures
are those of test mazes. Writes results/halting_policies.{json,md,png} after every policy; what is
recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    "keep_best=null eval_count=50 plots=false progress=false data.prepare=null"
).split()
VALUES, GRAVES, PONDERNET = "two value functions", "Graves", "PonderNet"
CHANCE, CHANGE = "chance to be right", "change of the state"
ABLATION = "ablation"
LEARNED: dict[str, tuple[str, str]] = {
    **{
        f"{VALUES}, lambda {x}": (VALUES, f"arch.step_penalty={x}")
        for x in (0.002, 0.005, 0.01, 0.02, 0.05)
    },
    **{
        f"{GRAVES}, cost {x}": (GRAVES, f"arch.halting=graves arch.ponder_cost={x}")
        for x in (0.002, 0.005, 0.01, 0.02, 0.05)
    },
    **{
        f"{PONDERNET}, prior {x}": (PONDERNET, f"arch.halting=pondernet arch.prior={x}")
        for x in (0.15, 0.3, 0.5, 0.7, 0.8, 0.9)
    },
    CHANCE: (CHANCE, "arch.halting=halt_only"),
    "literal target": (ABLATION, "arch.threshold_target=literal"),
    "no condition": (ABLATION, "arch.conditional=false"),
    "no alternation": (ABLATION, "arch.alternate_every=0"),
    "sampled (REINFORCE)": (ABLATION, "arch.contribution_loss=reinforce"),
    "no anchor": (ABLATION, "arch.anchor_weight=0"),
    "threshold learns at k* alone": (ABLATION, "arch.early_weight=0"),
    "threshold learns after k*, too": (ABLATION, "arch.late_weight=1"),
}
CHANCES = (0.2, 0.35, 0.5, 0.7, 0.85, 0.9, 0.95, 0.98)
CHANGES = (0.05, 0.08, 0.12, 0.14, 0.17, 0.2, 0.23, 0.3)
FIXED, DEALT, ORACLE = "fixed depth", "its steps dealt by chance", "oracle"
lock = threading.Lock()


def learned(root: Path, seed: int, name: str) -> list[dict[str, Any]]:
    """Let the policy `name` learn to halt the network of `seed`; its figures."""
    family, settings = LEARNED[name]
    out = folder(root, seed, name)
    if not (out / "done").is_file():
        given = [f"init_from={root / f'run{seed}'}", f"data.path={root / 'data'}", f"out={out}"]
        hrm("train", "experiment=flood_fill", *LEARN, *given, f"seed={seed}", *settings.split())
        (out / "done").touch()
    if family == CHANCE:
        return list(_swept(out, root, CHANCE, CHANCES))
    return [{"name": name, "family": family, **_told(_open(out).model, root)}]


def unlearned(root: Path, seed: int) -> list[dict[str, Any]]:
    """Fixed depths, the oracle, and halting on the change of the state, of `seed`'s network."""
    from hrm.inference.segmentation import evaluate_images

    model = _open(root / f"run{seed}").model
    test, val = (
        evaluate_images(model, split, loss="softmax", step_penalty=PENALTY, tolerance=0.0)
        for split in _splits(root)
    )
    fixed, least = test["halting/fixed_depth_costs"], test["halting/oracle_cost"]
    best, parts = min(fixed), model.operations().without_heads()
    rows = [
        {
            "name": f"{FIXED} {n}",
            "family": FIXED,
            "steps": n,
            "iou": test["iou_by_step"][n - 1],
            "cost": cost,
            "val_cost": val["halting/fixed_depth_costs"][n - 1],
            "gap_closed": (best - cost) / (best - least),
            "operations": {**parts._asdict(), "halting": parts.total(n)},
        }
        for n, cost in enumerate(fixed, 1)
    ]
    histogram = np.array(test["optimal_steps_histogram"])
    steps = (histogram * np.arange(1, len(histogram) + 1)).sum() / histogram.sum()
    oracle = {"name": ORACLE, "family": ORACLE, "steps": float(steps), "cost": least}
    return [
        *rows,
        {**oracle, "gap_closed": 1.0},
        *_swept(root / f"run{seed}", root, CHANGE, CHANGES),
    ]


def folder(root: Path, seed: int, name: str) -> Path:
    """Where the run of a learned policy lies."""
    return root / "policies" / re.sub("[ ,()]", "_", f"{seed} {name}")


def _swept(
    path: Path, root: Path, family: str, values: tuple[float, ...]
) -> Iterator[dict[str, Any]]:
    model = _open(path).model
    for value in values:
        yield {
            "name": f"{family} {value}",
            "family": family,
            "value": value,
            **_told(_stopped(model, family, value), root),
        }


def _stopped(model: Any, family: str, value: float) -> Any:
    """The network under a stopper with this tolerance, without heads if it reads none."""
    from flood_fill_time import without_heads

    from hrm.halting import Convergence, HaltOnly

    limit = model.halting.max_steps
    if family == CHANGE:
        model = without_heads(model, "convergence")
        model.halting = Convergence(limit, tolerance=value)
    else:
        model.halting = HaltOnly(limit, threshold=value)
    return model


def _open(path: Path) -> Any:
    import torch

    from hrm.training.checkpoint import load_run

    torch.set_num_threads(1)
    return load_run(path)


def _splits(root: Path) -> tuple[Any, Any]:
    """Test and validation mazes."""
    from hrm.data.base import load_split

    return load_split(root / "data", "test"), load_split(root / "data", "val")


def _told(model: Any, root: Path) -> dict[str, Any]:
    """Figures on test, and the cost on validation mazes."""
    from hrm.inference.segmentation import evaluate_images

    test, val = (
        evaluate_images(model, split, loss="softmax", step_penalty=PENALTY, tolerance=0.0)
        for split in _splits(root)
    )
    best, least = min(test["halting/fixed_depth_costs"]), test["halting/oracle_cost"]
    names = ("steps_std", "spearman", "agreement", "agreement_within_1", "gap_closed", "regret")
    shares = np.array(test["steps_histogram"]) / test["count"]
    return {
        "steps": test["halting/mean_steps"],
        "iou": test["halting/iou"],
        "cost": test["halting/cost"],
        "val_cost": val["halting/cost"],
        "operations": test["operations"],
        "dealt": {
            "iou": float((shares * np.array(test["iou_by_step"])).sum()),
            "cost": test["halting/random_cost"],
            "gap_closed": (best - test["halting/random_cost"]) / (best - least),
        },
        **{name: test[f"halting/{name}"] for name in names},
    }


def chosen(rows: list[dict[str, Any]], seed: int) -> dict[str, str]:
    """Of each family the setting with the lowest cost on validation mazes of this network."""
    found: dict[str, str] = {}
    mine = [r for r in rows if r["seed"] == seed and r["family"] not in (ABLATION, ORACLE)]
    for row in sorted(mine, key=lambda r: r["val_cost"]):
        found.setdefault(row["family"], row["name"])
    return found


def timed(root: Path, seed: int, names: dict[str, str], rows: list[dict[str, Any]]) -> Any:
    """Times as fast as a plain loop of all steps, by policy; in turns, on one core."""
    import torch
    from flood_fill_time import loop, without_heads

    from hrm.benchmarking.measure import in_turns
    from hrm.inference import Engine

    split = _splits(root)[0]
    columns = {k: v for k, v in split.take(np.arange(len(split))).items() if k != "labels"}
    works: dict[str, Callable[[], object]] = {}
    for family, name in names.items():
        run = root / f"run{seed}"
        if family == FIXED:
            model = without_heads(_open(run).model, "fixed")
            depth = next(r["steps"] for r in rows if r["name"] == name)
            works[name] = partial(loop, model, columns["inputs"], depth, 128)
            works["all steps"] = partial(
                loop, model, columns["inputs"], model.halting.max_steps, 128
            )
            continue
        model = _open(run if family == CHANGE else folder(root, seed, _task(rows, name))).model
        if family in (CHANCE, CHANGE):
            value = next(r["value"] for r in rows if r["name"] == name)
            model = _stopped(model, family, value)
        works[name] = partial(Engine(model.eval(), slots=128).solve_all, columns)
    in_turns(works, 1, torch.device("cpu"))
    times = in_turns(works, 3, torch.device("cpu"))
    return {
        name: statistics.median(
            whole / mine for whole, mine in zip(times["all steps"], taken, strict=True)
        )
        for name, taken in times.items()
        if name != "all steps"
    }


def _task(rows: list[dict[str, Any]], name: str) -> str:
    return str(next(r["task"] for r in rows if r["name"] == name))


COLUMNS = (
    ("mean steps", "steps", 1),
    ("IoU", "iou", 3),
    ("share of the gap closed", "gap_closed", 2),
    ("agreement", "agreement", 2),
    ("within 1", "agreement_within_1", 2),
    ("Spearman", "spearman", 2),
)


def report(record: dict[str, Any]) -> str:
    """The tables, medians and ranges over the networks that a policy was tried on."""
    rows = record["rows"]
    seeds = sorted({row["seed"] for row in rows})
    names = chosen(rows, record["first"])
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    lines = [
        "# Policies of halting on the same networks: flood fill, 16 x 16",
        "",
        f"`{record['command']}` at commits {commits}, {record['date']},",
        f"{record['machine']}. {len(seeds)} networks (seeds), median (range); 1,000 test mazes.",
        f"Every policy learned for {UPDATES} updates on the networks as `benchmarks/flood_fill.py`",
        f"left them; all are judged by the cost `loss + {PENALTY} * step`. Share of the gap: 0 is",
        "the best fixed depth, 1 the oracle.",
        "",
        "## Each family at the setting that costs least on validation mazes of the first network",
        "",
        "Operations are millions of multiply-adds of an image, of the steps alone and in all; the",
        "last column is how many times as fast 1,000 mazes are as in a plain loop of all 16 steps,",
        "measured in turns on one core: policies through the engine, fixed depths in a loop that",
        "has no heads to pay for.",
        "",
        "| policy | " + " | ".join(t for t, _, _ in COLUMNS) + " | operations | times as fast |",
        "|" + "---|" * (len(COLUMNS) + 3),
    ]
    for family in (VALUES, CHANCE, GRAVES, PONDERNET, CHANGE, FIXED):
        if family not in names:
            continue
        mine = [r for r in rows if r["name"] == names[family]]
        done = [r["operations"] for r in mine if "operations" in r]
        cost = "-"
        if done:
            inside = spread([_steps_alone(o) / 1e6 for o in done], 1)
            cost = f"{inside}, {spread([o['halting'] / 1e6 for o in done], 1)}"
        faster = [t[names[family]] for t in record.get("times", {}).values() if names[family] in t]
        lines.append(_line(names[family], mine, cost, spread(faster, 2)))
        if family == VALUES:
            dealt = [{"steps": r["steps"], **r["dealt"]} for r in mine]
            lines.append(_line(f"{names[family]}: {DEALT}", dealt, "", ""))
    lines.append(_line(ORACLE, [r for r in rows if r["family"] == ORACLE], "", ""))
    for title, wanted in (
        ("## Ablations of the two value functions", [ABLATION]),
        ("## Every setting", [VALUES, CHANCE, GRAVES, PONDERNET, CHANGE, FIXED]),
    ):
        lines += ["", title, "", "| policy | " + " | ".join(t for t, _, _ in COLUMNS) + " |"]
        lines.append("|" + "---|" * (len(COLUMNS) + 1))
        for family in wanted:
            made = dict.fromkeys(r["name"] for r in rows if r["family"] == family)
            lines += [_line(name, [r for r in rows if r["name"] == name]) for name in made]
    lines += ["", "![IoU over mean steps](halting_policies.png)"]
    return "\n".join(lines) + "\n"


def _line(name: str, rows: list[dict[str, Any]], *more: str) -> str:
    cells = [spread([r.get(key) for r in rows], digits) for _, key, digits in COLUMNS]
    return f"| {name} | " + " | ".join([*cells, *more]) + " |"


def _steps_alone(operations: dict[str, Any]) -> float:
    return float(operations["halting"] - operations["encoder"] - operations["decoder"])


def draw(record: dict[str, Any]) -> None:
    """IoU over mean steps of every policy, a line a family, medians over seeds."""
    from matplotlib.figure import Figure

    from hrm.plots.drawing import save, tidy

    rows = record["rows"]
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "both")
    names = chosen(rows, record["first"])
    dealt = [{**r, **r["dealt"]} for r in rows if r["name"] == names.get(VALUES)]
    rows = rows + [{**r, "family": DEALT, "name": DEALT} for r in dealt]
    tasks = RESULTS / "image_tasks.json"
    for run in json.loads(tasks.read_text())["runs"] if tasks.is_file() else ():
        if run["name"].startswith("trained at depth"):
            depth = {"steps": run["test"]["mean_steps"], "iou": run["test"]["iou"]}
            family = "by its last answer" if "last answer" in run["name"] else "by all answers"
            family = f"trained for a depth {family}"
            rows.append({**depth, "family": family, "name": run["name"]})
    styles = {
        VALUES: ("#d2691e", "o-", 3),
        GRAVES: ("#3a8a4d", "s-", 2),
        PONDERNET: ("#8a5ca8", "^-", 2),
        CHANCE: ("#3566a8", "v-", 2),
        CHANGE: ("#b0a030", "x-", 2),
        FIXED: ("#777777", "-", 1),
        "trained for a depth by all answers": ("#777777", "D", 2),
        "trained for a depth by its last answer": ("#c03a5a", "D", 2),
        DEALT: ("#777777", "P", 2),
    }
    for family, (colour, style, layer) in styles.items():
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["family"] == family:
                points.setdefault(row["name"], []).append((row["steps"], row["iou"]))
        middle = sorted(tuple(np.median(np.array(p), axis=0)) for p in points.values())
        if middle:
            steps, overlap = zip(*middle, strict=True)
            axes.plot(steps, overlap, style, color=colour, label=family, zorder=layer, ms=6)
    axes.set(xlabel="mean steps", ylabel="IoU on test mazes", ylim=(0.85, 1.005))
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("The same networks, stopped by different policies", loc="left")
    save(figure, RESULTS / "halting_policies.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="policies side by side, a core each")
    options = parser.parse_args()
    path = RESULTS / "halting_policies.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    rows: list[dict[str, Any]] = found.get("rows", [])
    root, first = options.keep.resolve(), options.seeds[0]
    record: dict[str, Any] = {"command": "python benchmarks/halting_policies.py --keep DIR"}
    record |= {**stamp(), "first": first, "rows": rows, "times": found.get("times", {})}

    def write() -> None:
        path.write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "halting_policies.md").write_text(report(record))
        draw(record)

    def work(task: tuple[int, str]) -> None:
        seed, name = task
        new = unlearned(root, seed) if name == "unlearned" else learned(root, seed, name)
        with lock:
            told = {"seed": seed, "task": name, "commit": record["commit"]}
            rows.extend({**told, **row} for row in new)
            write()
            print(seed, name, f"{new[0]['steps']:.2f} steps, IoU {new[0]['iou']:.4f}", flush=True)

    tasks = [(seed, name) for seed in options.seeds for name in ("unlearned", *LEARNED)]
    done = {(row["seed"], row["task"]) for row in rows}
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, [task for task in tasks if task not in done]))
    names = chosen(rows, first)
    for seed in options.seeds:
        if str(seed) not in record["times"]:
            record["times"][str(seed)] = timed(root, seed, names, rows)
            write()


if __name__ == "__main__":
    main()
