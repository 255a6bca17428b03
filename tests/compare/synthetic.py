"""Runs that nobody trained: rows of a log that reach a given accuracy at a given time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hrm.compare.figures import RunFigures, Status
from hrm.compare.reading import figures_of_run
from hrm.compare.work import Work

UPDATES, EVERY, BATCH = 1000, 10, 32
WORK = Work(step=1e9, encoding=1e9)


def rows(
    *,
    exact: float = 0.95,
    half_at: float = 200.0,
    q: tuple[float, float] = (0.6, 0.95),
    steps: tuple[float, float] | None = (8.0, 3.0),
    steps_a_sample: float = 4.0,
    encoder_share: float = 0.25,
    seconds: float = 0.1,
    held: float = 0.2,
    histogram: Sequence[int] = (0, 10, 10, 0),
    updates: int = UPDATES,
) -> list[dict[str, Any]]:
    """A log in which accuracy rises to `exact`, half of it after `half_at` updates; q_halt_accuracy
    and steps go from the first value to the second on a straight line."""
    found = []
    for step in range(EVERY, updates + 1, EVERY):
        share = step / updates
        row: dict[str, Any] = {
            "step": step,
            "samples": int(step * BATCH / steps_a_sample),
            "train/count": EVERY * BATCH / steps_a_sample,
            "train/loss": 1.0 - 0.9 * share,
            "train/accuracy": 0.5 + 0.5 * exact * share,
            "train/exact_accuracy": exact * step / (step + half_at) * (1 + half_at / updates),
            "train/q_halt_accuracy": q[0] + (q[1] - q[0]) * share,
            "train/encoder_share": encoder_share,
            "time/train_s": step * seconds,
        }
        if steps is not None:
            row["train/steps"] = steps[0] + (steps[1] - steps[0]) * share
        if step % 200 == 0:
            row["eval/accuracy"] = 0.5 + held * share
            row["eval/exact_accuracy"] = held * share
            row["eval/pass@2"] = held * share
            row["eval/policy_steps_histogram"] = list(histogram)
        found.append(row)
    return found


def run(
    experiment: str,
    seed: int,
    *,
    status: Status = "finished",
    error: str | None = None,
    evaluations: dict[str, dict[str, Any]] | None = None,
    like: str = "",
    config: dict[str, Any] | None = None,
    work: Work | None = WORK,
    **told: Any,
) -> RunFigures:
    """The figures of such a run; L's are online, and one that is `like` L; `config` comes last."""
    online = (like or experiment).startswith("L")
    if online:
        told = {"steps": None, "encoder_share": 1.0} | told
    settings: dict[str, Any] = {
        "experiment_name": experiment,
        "seed": seed,
        "dynamics": "online" if online else "persistent",
        "num_act_steps": 4 if online else None,
        "global_batch_size": BATCH,
        **(config or {}),
        "arch": {"halt_max_steps": 8, **(config or {}).get("arch", {})},
    }
    log = [] if status == "failed" and not told else rows(**told)
    return figures_of_run(
        f"{experiment}_seed{seed}",
        settings,
        log,
        status=status,
        error=error,
        command=f"hrm train experiment={experiment} seed={seed}",
        evaluations=evaluations,
        work=work,
    )


def seeds(experiment: str, exacts: Sequence[float], **told: Any) -> list[RunFigures]:
    """A run a seed, which end at these accuracies."""
    return [run(experiment, seed, exact=exact, **told) for seed, exact in enumerate(exacts)]


def evaluation(
    auroc: float = 0.9,
    exact: float = 0.9,
    histogram: Sequence[int] = (0, 10, 10, 0),
    steps_by_task: Sequence[float] = (),
    first_right: Sequence[float] = (),
    by_step: Sequence[float] = (),
) -> dict[str, Any]:
    """What `hrm evaluate RUN --by-group --json` might say."""
    groups = [
        {"group": i, "count": 2, "policy_mean_steps": steps, "first_right_step": right}
        for i, (steps, right) in enumerate(zip(steps_by_task, first_right, strict=True))
    ]
    kept = {"accuracy_by_step": list(by_step), "max_steps": len(by_step)} if by_step else {}
    return kept | {
        "exact_accuracy": exact,
        "accuracy": exact,
        "q_halt_auroc_all_steps": auroc,
        "policy_steps_histogram": list(histogram),
        "by_group": groups,
    }
