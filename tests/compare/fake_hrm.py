"""`hrm train` and `hrm evaluate` as a comparison sees them, without any training.

Settings: `experiment`, `seed`, `out`, `max_steps`. How O2 dies is in the environment's `O2_DIES`:
`always` (half of the updates, a line on standard error and status 1), `once` (the same, but it goes
on when resumed), `killed` (by a signal), `early` (before anything is written). Evaluations of
splits in `NO_EVALUATION` are interrupted. Each call appends a line to `calls.txt` beside the run's
folder.
"""

import json
import os
import signal
import sys
from pathlib import Path


def train(settings: dict[str, str]) -> int:
    out = Path(settings["out"])
    experiment, seed = settings["experiment"], int(settings["seed"])
    total = int(settings.get("max_steps", "100"))
    dies = os.environ.get("O2_DIES", "") if experiment == "O2" else ""
    with (out.parent / "calls.txt").open("a") as file:
        file.write(f"train {out.name}\n")
    if dies == "early":
        print("hrm: data.path: nothing is there", file=sys.stderr)
        return 2
    resumed = (out / "checkpoints").is_dir()
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    online = experiment.startswith("L")
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "dynamics": settings.get("dynamics", "online" if online else "persistent"),
        "num_act_steps": json.loads(settings.get("num_act_steps", "4" if online else "null")),
        "max_steps": total,
        "load_pretrained_decoder": settings.get("load_pretrained_decoder"),
        "global_batch_size": 8,
        "arch": {"halt_max_steps": 8},
    }
    (out / "config.yaml").write_text(json.dumps(config))
    stops = dies in ("always", "killed") or (dies == "once" and not resumed)
    last = total // 2 if stops else total
    log = out / "metrics.jsonl"
    kept = log.read_text().splitlines(keepends=True) if log.is_file() else []
    rows = []
    for step in range(10 * (len(kept) + 1), last + 1, 10):
        exact = (0.95 if experiment.startswith("O") else 0.5) * step / total
        row = {
            "step": step,
            "samples": 8 * step,
            "train/count": 10,
            "train/loss": 1.0,
            "train/exact_accuracy": exact + 0.001 * seed,
            "train/q_halt_accuracy": 0.9,
            "time/train_s": 0.1 * step,
        }
        rows.append(json.dumps(row) + "\n")
    log.write_text("".join(kept + rows))
    checkpoint = out / "checkpoints" / f"step_{last:08d}"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "state.json").write_text(json.dumps({"finished": not stops, "step": last}))
    if dies == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if stops:
        print("hrm: warning: something minor", file=sys.stderr)
        print(f"hrm: update {last}: gradients of x not finite (loss nan)", file=sys.stderr)
        return 1
    return 0


def evaluate(words: list[str]) -> int:
    folder, split = Path(words[0]).parents[1], words[words.index("--split") + 1]
    with (folder.parent / "calls.txt").open("a") as file:
        file.write(f"evaluate {folder.name} {split}\n")
    if split in os.environ.get("NO_EVALUATION", "").split():
        print("hrm: interrupted", file=sys.stderr)
        return 130
    if split == "val":
        print("hrm: there is no val", file=sys.stderr)
        return 2
    print(json.dumps({"exact_accuracy": 0.5, "policy_steps_histogram": [1, 2], "by_group": []}))
    return 0


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "train":
        sys.exit(train(dict(word.split("=", 1) for word in rest)))
    sys.exit(evaluate(rest))
