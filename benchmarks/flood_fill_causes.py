"""What bounds a policy's agreement with k*, and its correlation with a maze's depth?

    python benchmarks/flood_fill.py --keep DIR
    python benchmarks/image_tasks.py --keep DIR --seeds 0 1 2
    python benchmarks/flood_fill_causes.py --keep DIR

For each network that the first command trained, and each that image_tasks.py taught by its last
answer alone or as PonderNet and then gave a policy, if DIR has them: what k* follows besides the
seed's eccentricity, how much of the disagreement is near-ties of the cost, and what a supervised
classifier of "n >= k*" that reads states as the value functions do would reach. It learns on 8,000
training mazes; figures are those of the test split. Writes results/flood_fill_causes.{json,md};
what is recorded is not repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tasks import folder_of
from machine import kept_networks, stamp
from torch import Tensor, nn

from hrm.data.base import PuzzleSplit, load_split, spread
from hrm.evaluation.policy import agreement, agreement_within_1, gap_closed, spearman
from hrm.halting import costs, optimal_step
from hrm.inference.image_steps import difficulty_of, record
from hrm.models.unet.heads import LogitHead
from hrm.training.checkpoint import load_run

RESULTS = Path(__file__).parent.parent / "results"
PENALTY = 0.01
BANDS = ((2, 9), (10, 17), (18, 25), (26, 33), (34, 40))
ROWS, UPDATES = 8000, 1500
POLICIES = {
    "last answer alone": "its policy, learned afterwards",
    "PonderNet's network": "two value functions on the network of: PonderNet, whole",
}
"""What taught a network, and image_tasks.py's name of the policy learned on it."""


@torch.inference_mode()
def states(model: Any, split: PuzzleSplit, rows: np.ndarray) -> Tensor:
    """Every state from x^0 to x^K: `(steps + 1, rows, positions, hidden)`."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, given: tuple[Tensor, ...], after: Tensor) -> None:
        seen.extend([after] if seen else [given[0], after])

    handle = model.core.register_forward_hook(hook)
    found = []
    for start in range(0, len(rows), 250):
        batch = {k: torch.from_numpy(v) for k, v in split.take(rows[start : start + 250]).items()}
        carry = model.initial_carry(batch, seed=0)
        for _ in range(model.halting.max_steps):
            carry, _ = model(carry, batch, decode=False)
        found.append(torch.stack(seen))
        seen.clear()
    handle.remove()
    return torch.cat(found, dim=1)


def classify(train: tuple[Tensor, Tensor], test: Tensor) -> np.ndarray:
    """Steps on test of a classifier that learned on train whether `n >= k*`.

    A logit from every position's state and change, as the contribution reads them.
    """
    torch.manual_seed(0)
    seen, best = train
    steps = len(seen) - 1
    head = LogitHead(seen.shape[-1], 0.0)
    learner = torch.optim.AdamW(head.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(learner, 6e-3, total_steps=UPDATES)
    numbers = torch.arange(1, steps + 1)[:, None]
    for _ in range(UPDATES):
        chosen = torch.randint(len(best), (64,))
        logits = _logits(head, seen[:, chosen])
        wanted = (numbers >= best[chosen]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        learner.zero_grad()
        loss.backward()
        learner.step()
        schedule.step()
    with torch.no_grad():
        parts = [_logits(head, part) > 0 for part in test.split(250, dim=1)]
    wants = torch.cat(parts, dim=1)
    wants[-1] = True
    return (wants.to(torch.int8).argmax(0) + 1).numpy()


def _logits(head: LogitHead, seen: Tensor) -> Tensor:
    """`(steps, rows)`."""
    state, before = (x.flatten(0, 1) for x in (seen[1:], seen[:-1]))
    return head(state, before).view(len(seen) - 1, -1)


def look(path: Path, data: Path) -> dict[str, Any]:
    """The figures of one network."""
    model = load_run(path).model
    split, train = load_split(data, "test"), load_split(data, "train")
    some = spread(len(train), ROWS)
    recorded = record(model, split, loss="softmax")
    before = record(model, train, count=ROWS, loss="softmax")
    cost = costs(torch.from_numpy(recorded.task_loss), PENALTY)
    best = optimal_step(cost, 0.0)
    learned = optimal_step(costs(torch.from_numpy(before.task_loss), PENALTY), 0.0)
    depth = difficulty_of(split, np.arange(len(split)))
    assert depth is not None
    out_of_reach = (np.asarray(split.labels) == 0).sum(1)
    k = best.numpy()
    ranks = np.stack([_ranks(v) for v in (depth, out_of_reach)] + [np.ones(len(k))], axis=1)
    together = ranks @ np.linalg.lstsq(ranks, _ranks(k), rcond=None)[0]
    chosen = classify(
        (states(model, train, some), learned), states(model, split, np.arange(len(k)))
    )
    ties = {
        str(eps): agreement(optimal_step(cost, eps).numpy(), k) for eps in (0.001, 0.002, 0.004)
    }
    return {
        "k* with eccentricity": spearman(k, depth),
        "policy with eccentricity": spearman(recorded.steps, depth),
        "policy with k*": spearman(recorded.steps, k),
        "k* with eccentricity and cells out of reach": float(
            np.corrcoef(together, _ranks(k))[0, 1]
        ),
        "bands": {
            f"{low} to {high}": spearman(
                k[(depth >= low) & (depth <= high)],
                out_of_reach[(depth >= low) & (depth <= high)],
            )
            for low, high in BANDS
        },
        "ties": ties,
        "a step too early": _missed(cost.numpy(), k, -1),
        "a step too late": _missed(cost.numpy(), k, 1),
        "policy": _judged(cost.numpy(), recorded.steps, k),
        "classifier": _judged(cost.numpy(), chosen, k),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(values)
    return ranks


def _missed(cost: np.ndarray, best: np.ndarray, by: int) -> float:
    """What halting so many steps after k* costs more, on the mean of those who can."""
    step = best + by
    can = (step >= 1) & (step <= len(cost))
    rows = np.flatnonzero(can)
    return float((cost[step[can] - 1, rows] - cost[best[can] - 1, rows]).mean())


def _judged(cost: np.ndarray, steps: np.ndarray, best: np.ndarray) -> dict[str, float | None]:
    return {
        "too early": float((steps < best).mean()),
        "too late": float((steps > best).mean()),
        "agreement": agreement(steps, best),
        "within 1": agreement_within_1(steps, best),
        "gap closed": gap_closed(cost, steps),
    }


def report(found: dict[str, Any]) -> str:
    """The tables, a column a network."""
    runs = found["runs"]
    commits = dict.fromkeys(run["commit"] for run in runs.values())
    lines = [
        "# Flood fill: what bounds agreement and correlation",
        "",
        f"`{found['command']}` at commit {', '.join(commits)}, {found['date']},",
        f"{found['machine']}. A column a network, of flood_fill.py or of image_tasks.py, both",
        f"with --keep DIR --seeds 0 1 2; 1,000 test mazes, lambda {PENALTY}.",
        "",
        "| | " + " | ".join(f"seed {name}" for name in runs) + " |",
        "|---|" + "---|" * len(runs),
    ]

    def row(title: str, *path: str, digits: int = 2) -> None:
        cells = []
        for run in runs.values():
            value = run
            for key in path:
                value = value.get(key, {})
            cells.append(f"{value:.{digits}f}" if isinstance(value, float) else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    for name in ("k* with eccentricity", "policy with eccentricity", "policy with k*"):
        row(f"Spearman, {name}", name)
    name = "k* with eccentricity and cells out of reach"
    row(f"correlation of ranks, {name}", name)
    for low, high in BANDS:
        band = f"{low} to {high}"
        row(f"Spearman of k* with cells out of reach, eccentricity {band}", "bands", band)
    for eps in ("0.001", "0.002", "0.004"):
        row(f"agreement of an oracle that forgives {eps}", "ties", eps)
    for missed in ("a step too early", "a step too late"):
        row(f"cost of halting {missed}", missed, digits=3)
    for who in ("policy", "classifier"):
        for what in ("too early", "too late", "agreement", "within 1", "gap closed"):
            row(f"{who}: {what}", who, what)
    return "\n".join(lines) + "\n"


def main() -> None:
    options = kept_networks(__doc__, "flood_fill.py")
    torch.set_num_threads(1)
    root = options.keep
    path = RESULTS / "flood_fill_causes.json"
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    networks = {str(seed): root / f"run{seed}" for seed in options.seeds} | {
        f"{seed}, {taught}": folder_of(root, name, seed)
        for taught, name in POLICIES.items()
        for seed in options.seeds
    }
    for name, run in networks.items():
        if name not in runs and run.is_dir():
            runs[name] = {"commit": stamp()["commit"], **look(run, root / "data")}
    command = "python benchmarks/flood_fill_causes.py --keep DIR"
    found = {"command": command, **stamp(), "runs": runs}
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(found))


if __name__ == "__main__":
    main()
