"""The ACT U-Net on other tasks and in other forms: one whole training each.

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/image_tasks.py --keep DIR --seeds 0 1 2

Reads the mazes, and for 32 x 32 the networks, that the first command left in DIR. Figures are those
of the test split; nothing was chosen on it. Writes results/image_tasks.{json,md} after every run;
what is recorded is not repeated.
"""

from __future__ import annotations

import argparse
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from machine import hrm, machines_of, not_repeated, spread, stamp

RESULTS = Path(__file__).parent.parent / "results"
QUIET = ("plots=false", "progress=false")
AS_NAME = str.maketrans(" ,:=()'", "_______")  # a folder's name
PONDERNET, SHORTER = "PonderNet, whole", "PonderNet, 2,400 updates"
LAST = "all 16 steps, by the last answer alone"
AFTERWARDS = (
    "learn=halting arch.warmup_updates=0 step_curriculum=[] max_steps=1500 "
    "arch.anneal_updates=1000 eval_every_steps=300"
)


class Run(NamedTuple):
    """A training: its experiment, settings, and data where they are not flood_fill.py's."""

    settings: str
    experiment: str = "flood_fill"
    data: str = "data"
    prepare: str = ""
    step_penalty: float = 0.01


RUNS = {
    # Wide enough that a step has as many operations as one of the convolutional core.
    "transformer core, windows of 4": Run("arch.core=transformer arch.window=4 arch.expansion=2.5"),
    "transformer core, threshold learns at k* alone": Run(
        "arch.core=transformer arch.window=4 arch.expansion=2.5 arch.early_weight=0 keep_best=null"
    ),
    "transformer core, all steps from the start": Run(
        "arch.core=transformer arch.window=4 arch.expansion=2.5 step_curriculum=[]"
    ),
    "Pathfinder": Run(
        "",
        "pathfinder",
        "pathfinder_32",
        "--task pathfinder --size 32 --count 20000 --seed 0",
        step_penalty=0.001,
    ),
    "Pathfinder, the U-Net's decoder": Run(
        "arch.decoder=full",
        "pathfinder",
        "pathfinder_32",
        "--task pathfinder --size 32 --count 20000 --seed 0",
        step_penalty=0.001,
    ),
    **{
        name: Run(
            settings,
            "digit_scenes",
            "digits_32",
            "--task digits --size 32 --count 20000 --seed 0",
            step_penalty=0.001,
        )
        for name, settings in (
            ("digit scenes", "arch.late_weight=0"),
            *(
                (
                    f"digit scenes, a policy learned afterwards{told}",
                    f"init_from={{keep}}/tasks/{{seed}}_digit_scenes arch.late_weight={weight} "
                    + AFTERWARDS,
                )
                for told, weight in (("", 0), (", late_weight 1", 1))
            ),
        )
    },
    **{
        name: Run(
            "init_from={keep}/run{seed} arch.halt_max_steps=24 step_curriculum=[] lr=1e-3 "
            "max_steps=500 arch.warmup_updates=100 arch.anneal_updates=300 global_batch_size=16 "
            f"arch.early_weight={weight} eval_every_steps=100",
            data="data_32",
            prepare="--task flood_fill --size 32 --count 8000 --seed 0",
        )
        for name, weight in (
            ("32 x 32, from 16 x 16", 1),
            ("32 x 32, threshold learns at k* alone", 0),
        )
    },
    "heads not detached": Run("arch.detach_heads=false"),
    "a global pool": Run("arch.global_pool=true"),
    "the U-Net's decoder": Run("arch.decoder=full"),
    "all steps from the start": Run("step_curriculum=[]"),
    "easy mazes first": Run("data.easy_first=0.5"),
    "easy mazes first, all steps": Run("data.easy_first=0.5 step_curriculum=[]"),
    **{
        f"trained at depth {n}": Run(
            f"arch.halting=fixed arch.halt_max_steps={n} step_curriculum=[]"
        )
        for n in (4, 8, 12)
    },
    **{
        f"trained at depth {n}, by its last answer alone": Run(
            f"arch.halting=fixed arch.deep_supervision=false arch.halt_max_steps={n} "
            "step_curriculum=[]"
        )
        for n in (4, 8, 12)
    },
    LAST: Run("arch.halting=fixed arch.deep_supervision=false max_steps=2400"),
    "its policy, learned afterwards": Run(
        f"init_from={{keep}}/tasks/{{seed}}_{LAST.translate(AS_NAME)} {AFTERWARDS}"
    ),
    "Graves, whole": Run("arch.halting=graves"),
    PONDERNET: Run("arch.halting=pondernet arch.prior=0.15"),
    SHORTER: Run("arch.halting=pondernet arch.prior=0.15 max_steps=2400"),
    **{
        f"two value functions on the network of: {network}": Run(
            f"init_from={{keep}}/tasks/{{seed}}_{network.translate(AS_NAME)} {AFTERWARDS}"
        )
        for network in (PONDERNET, SHORTER)
    },
    "x = f(x): no gate, no injection": Run("arch.gate=false arch.inject=false"),
}
COLUMNS = (
    ("IoU at K", "iou", 3),
    ("right at K", "exact_accuracy", 3),
    ("IoU at halt", "halting/iou", 3),
    ("mean steps", "halting/mean_steps", 1),
    ("spread", "halting/steps_std", 1),
    ("Spearman", "halting/spearman", 2),
    ("agreement", "halting/agreement", 2),
    ("within 1", "halting/agreement_within_1", 2),
    ("gap closed", "halting/gap_closed", 2),
)
lock = threading.Lock()


def folder_of(root: Path, name: str, seed: int) -> Path:
    """Where a run lies."""
    return root / "tasks" / f"{seed}_{name.translate(AS_NAME)}"


def train(root: Path, name: str, seed: int) -> dict[str, Any]:
    """Train and evaluate; the evaluation's figures."""
    run = RUNS[name]
    data = root / run.data
    with lock:
        if not data.is_dir():
            hrm("prepare", "scenes", *run.prepare.split(), "--out", str(data))
    out = folder_of(root, name, seed)
    settings = run.settings.format(keep=root, seed=seed).split()
    given = (f"experiment={run.experiment}", *settings, f"seed={seed}")
    if not (out / "done").is_file():
        where = (f"data.path={data}", "data.prepare=null", f"out={out}")
        hrm("train", *given, *where, *QUIET, *(["resume=true"] if out.is_dir() else []))
        (out / "done").touch()
    figures = json.loads(
        hrm("evaluate", str(out), "--json", "--step-penalty", f"{run.step_penalty}")
    )
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    command = "hrm train " + " ".join(given).replace(str(root), "DIR")
    if run.prepare and run.experiment == "flood_fill":  # Not that experiment's own data.
        there = f"data/{run.data}"
        command += f" data.path={there} data.prepare=null"
        command = f"hrm prepare scenes {run.prepare} --out {there}; {command}"
    return {
        "name": name,
        "seed": seed,
        "command": command,
        **{k: v for k, v in stamp().items() if k != "date"},
        "train_s": last["time/train_s"],
        "test": figures,
    }


def report(record: dict[str, Any]) -> str:
    """The table, a row for each of `RUNS` that has been made: medians and ranges over its seeds."""
    runs = record["runs"]
    head = [title for title, _, _ in COLUMNS]
    machines = " and ".join(machines_of(runs))
    lines = [
        "# The ACT U-Net on other tasks and in other forms",
        "",
        f"`{record['command']}`, {record['date']}, {machines}.",
        "One core a run; median (range) of the seeds named in a row (a seed that stands twice was",
        "trained on both machines); 1,000 test images, over which a share of the gap may have a",
        "standard error of 0.08; costs with lambda 0.01, of Pathfinder and digit scenes 0.001.",
        "Operations are millions of multiply-adds of an image: encoder, a step, an answer. A + at",
        "a commit: with changes that were not committed.",
        "",
        "| run | seeds | " + " | ".join(head) + " | operations | min |",
        "|" + "---|" * (len(head) + 4),
    ]
    names = list(dict.fromkeys(run["name"] for run in runs))
    for name in names:
        chosen = [run for run in runs if run["name"] == name]
        cells = [spread([run["test"][k] for run in chosen], d) for _, k, d in COLUMNS]
        told = chosen[0]["test"]["operations"]
        parts = ", ".join(f"{told[k] / 1e6:.2f}" for k in ("encoder", "iteration", "decoder"))
        seeds = ", ".join(str(run["seed"]) for run in chosen)
        minutes = spread([run["train_s"] / 60 for run in chosen], 0)
        lines.append(f"| {name} | {seeds} | " + " | ".join([*cells, parts, minutes]) + " |")
    lines += ["", "Commands of a row's first seed, with the folders of data and runs left out:", ""]
    for name in names:
        chosen = [run for run in runs if run["name"] == name]
        commits = ", ".join(dict.fromkeys(run["commit"] for run in chosen))
        lines.append(f"- {name}: `{chosen[0]['command']}` at commit {commits}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of flood_fill.py's runs")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--again", action="store_true", help="also what another machine trained")
    options = parser.parse_args()
    path = RESULTS / "image_tasks.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    runs: list[dict[str, Any]] = found.get("runs", [])
    root = options.keep.resolve()
    record = {
        "command": "python benchmarks/image_tasks.py --keep DIR --seeds 0 1 2",
        "date": stamp()["date"],
        "runs": runs,
    }

    def work(task: tuple[str, int]) -> None:
        name, seed = task
        run = train(root, name, seed)
        with lock:
            runs.append(run)
            machines = machines_of(runs)
            names = list(RUNS)
            runs.sort(
                key=lambda r: (names.index(r["name"]), machines.index(r["machine"]), r["seed"])
            )
            path.write_text(json.dumps(record, indent=1) + "\n")
            (RESULTS / "image_tasks.md").write_text(report(record))
            print(name, seed, f"IoU {run['test']['iou']:.3f}", flush=True)

    done = {(run["name"], run["seed"]) for run in not_repeated(runs, options.again)}
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = [(name, seed) for name in options.only for seed in options.seeds]
        list(pool.map(work, [task for task in tasks if task not in done]))


if __name__ == "__main__":
    main()
