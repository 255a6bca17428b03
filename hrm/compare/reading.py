"""A run's figures, from its settings, the rows of its log and its evaluations.

A final figure is the mean over the last tenth of the updates, each logged row weighted by the
sequences that ended in it. A level is reached at the first update at which the mean over the last
2 % of all updates is that high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrm.compare.figures import LEVELS, RunFigures, Status
from hrm.compare.log import (
    CLOCKS,
    Clock,
    Floats,
    any_known,
    last_known,
    number,
    read_curves,
    smoothed,
)
from hrm.compare.modes import mode_of
from hrm.compare.work import Work

FINAL = 0.1
"""Share of a run's updates over which a final figure is a mean."""
KNOWN_BY_CHANCE = 0.05
"""Below this share of right answers a head that always says "wrong" is right for nothing."""

EVALUATED = (
    "count",
    "max_steps",
    "accuracy",
    "exact_accuracy",
    "pass@1",
    "pass@2",
    "mean_steps",
    "policy_mean_steps",
    "policy_exact_accuracy",
    "q_halt_accuracy",
    "q_halt_base_rate",
    "q_halt_auroc",
    "q_halt_auroc_all_steps",
)
"""What is taken from an evaluation after the run, under `SPLIT/NAME`."""


def figures_of_run(
    name: str,
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    status: Status,
    error: str | None = None,
    command: str | None = None,
    folder: Path | None = None,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
    made: Sequence[Mapping[str, Any]] = (),
    work: Work | None = None,
) -> RunFigures:
    """A run's figures from its settings and the rows of its `metrics.jsonl`.

    Args:
        name: of the run, for the report.
        config: as `config.yaml` has it.
        evaluations: by split, what `hrm evaluate RUN --split SPLIT --json` said after the run.
        made: commit, date and machine of each stretch of its training.
        work: of one sequence; None: not known, and so is what the run multiplied.
    """
    curves, batch = read_curves(rows), int(config.get("global_batch_size") or 0)
    curves["compute"] = _compute(curves, batch, work)
    dynamics = str(config.get("dynamics", "unknown"))
    arch = config.get("arch") or {}
    limit = config.get("num_act_steps") if dynamics == "online" else None
    limit = limit or arch.get("train_max_steps") or arch.get("halt_max_steps")
    evaluations = evaluations or {}
    figures = _log_figures(curves, batch) | _held_out(rows)
    figures["steps_by_exploration"] = _steps_by_exploration(dynamics, arch)
    figures["held/exact_as_trained"] = _as_trained(_last_with(rows, "eval/accuracy_by_step"), limit)
    for split, evaluated in evaluations.items():
        figures |= {f"{split}/{key}": number(evaluated.get(key)) for key in EVALUATED}
        at_trained = _as_trained(evaluated.get("accuracy_by_step"), limit)
        figures[f"{split}/exact_as_trained"] = at_trained
    histogram, source = _histogram(rows, evaluations)
    return RunFigures(
        name=name,
        experiment=str(config.get("experiment_name", name)),
        seed=int(config.get("seed", 0)),
        status=status,
        error=error,
        mode={"persistent": "original"}.get(dynamics, dynamics),
        max_steps=limit,
        evaluated_steps=_evaluated_steps(rows, evaluations),
        command=command,
        folder=folder,
        figures=figures,
        reached=_reached(curves),
        histogram=histogram,
        histogram_of=source,
        mode_settings=mode_of(config),
        made=tuple(dict(stamp) for stamp in made),
        by_step=tuple(evaluations.get("train", {}).get("accuracy_by_step") or ()),
        groups=tuple(evaluations.get("train", {}).get("by_group") or ()),
        curves=curves,
    )


def _as_trained(by_step: Sequence[float] | None, trained: int | None) -> float | None:
    """Exact accuracy after as many steps as training takes; `by_step` after 1, 2, ... steps."""
    if not by_step or not trained:
        return None
    return number(by_step[min(trained, len(by_step)) - 1])


def _evaluated_steps(
    rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Mapping[str, Any]]
) -> int | None:
    found = [evaluated.get("max_steps") for evaluated in evaluations.values()]
    return max([steps for steps in found if steps], default=_last_with(rows, "eval/max_steps"))


def _last_with(rows: Sequence[Mapping[str, Any]], key: str) -> Any:
    """What the last row that has `key` says of it; None: no row has."""
    return next((row[key] for row in reversed(rows) if row.get(key) is not None), None)


def _log_figures(curves: dict[str, Floats], batch: int) -> dict[str, float | None]:
    """Figures of the training log."""
    figures: dict[str, float | None] = {
        clock: last_known(curves[clock]) or 0.0 for clock in CLOCKS if clock != "compute"
    }
    figures["compute"] = last_known(curves["compute"])
    for key in ("exact", "accuracy", "loss", "lm_loss", "q_halt_accuracy", "steps", "kl"):
        figures[key] = last_known(smoothed(curves, key, FINAL))
    whole = smoothed(curves, "exact", FINAL)
    if len(whole):
        # A first row alone is no tenth of a run.
        full = curves["updates"] >= FINAL * curves["updates"][-1]
        figures["best_exact"] = number(np.nanmax(whole[full])) if any_known(whole[full]) else None
    figures |= _halt_head(curves)
    figures |= _steps(curves)
    return figures | _encoder(curves, batch)


def _halt_head(curves: dict[str, Floats]) -> dict[str, float | None]:
    """q_halt_accuracy beside what a constant answer gets, and where it started.

    The share of right answers among ended sequences is the base rate of q_halt_accuracy, which
    counts the same sequences. It starts where 5 % are right: before, saying "wrong" is right for
    nothing, and an untrained head says so.
    """
    right, q = smoothed(curves, "exact", FINAL), smoothed(curves, "q_halt_accuracy", FINAL)
    base = last_known(right)
    known = np.flatnonzero((right >= KNOWN_BY_CHANCE) & np.isfinite(q))
    last = last_known(q)
    return {
        "q_halt_base_rate": base,
        "q_halt_constant": None if base is None else max(base, 1.0 - base),
        "q_halt_first": float(q[known[0]]) if len(known) else None,
        "q_halt_rise": last - float(q[known[0]]) if len(known) and last is not None else None,
    }


def _steps(curves: dict[str, Floats]) -> dict[str, float | None]:
    """How far the mean steps at halt moved: over 2 % windows, the first tenth left out, in which
    the slots' first sequences end at random ages."""
    steps = smoothed(curves, "steps")
    late = steps[curves["updates"] > FINAL * curves["updates"][-1]] if len(steps) else steps
    if not any_known(late):
        return {"steps_range": None, "steps_least": None, "steps_most": None}
    least, most = float(np.nanmin(late)), float(np.nanmax(late))
    return {"steps_range": most - least, "steps_least": least, "steps_most": most}


def _steps_by_exploration(dynamics: str, arch: Mapping[str, Any]) -> float | None:
    """Mean steps of a policy that wishes to halt at once, always: what exploration makes of it.

    None: nothing halts, or how is not known.
    """
    chance, limit = arch.get("halt_exploration_prob"), arch.get("train_max_steps")
    limit = limit or arch.get("halt_max_steps")
    if dynamics != "persistent" or chance is None or not limit or limit < 2:
        return None
    if arch.get("exploration", "per_step") == "per_episode":
        return 1 - chance + chance * (2 + limit) / 2
    # Held back at step n if the number drawn, one of 2 ... limit, is above n; drawn at every step.
    held_back = chance * (limit - np.arange(1, limit)) / (limit - 1)
    return 1 + float(np.cumprod(held_back).sum())


def _compute(curves: Mapping[str, Floats], batch: int, work: Work | None) -> Floats:
    """10^12 multiply-adds until each row: a decoder step of each slot, and the encoder for those
    that gave it a gradient. Evaluations are not among them."""
    updates, share = curves["updates"], curves["encoder_share"]
    if work is None or not batch:
        return np.full(len(updates), np.nan)
    encodings = share * work.encoding if work.encoding else np.zeros(len(updates))
    return np.cumsum(np.diff(updates, prepend=0.0) * batch * (work.step + encodings)) / 1e12


def _encoder(curves: dict[str, Floats], batch: int) -> dict[str, float | None]:
    """Forward passes of single sequences: through the decoder one a slot and update; through the
    encoder those that gave it a gradient, which `encoder_share` counts."""
    updates, share = curves["updates"], curves["encoder_share"]
    if not len(updates) or not batch:
        return {}
    figures: dict[str, float | None] = {"decoder_forwards": updates[-1] * batch}
    if np.isfinite(share).all():
        forwards = float((np.diff(updates, prepend=0.0) * share).sum() * batch)
        samples = last_known(curves["samples"])
        figures["encoder_share"] = forwards / (updates[-1] * batch)
        figures["encoder_forwards"] = forwards
        figures["encoder_per_sample"] = forwards / samples if samples else None
    return figures


def _held_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The last and the best evaluation while training."""
    figures: dict[str, float | None] = {}
    names = ("accuracy", "exact_accuracy", "pass@1", "pass@2", "policy_mean_steps")
    for name in names:
        seen = [number(row.get(f"eval/{name}")) for row in rows]
        known = [value for value in seen if value is not None]
        figures[f"held/{name}"] = known[-1] if known else None
        if name == "exact_accuracy":
            figures["held/best_exact_accuracy"] = max(known) if known else None
    return figures


def _histogram(
    rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[int, ...] | None, str]:
    counts = evaluations.get("train", {}).get("policy_steps_histogram")
    if counts:
        return tuple(counts), "training tasks, after the run"
    if counts := _last_with(rows, "eval/policy_steps_histogram"):
        return tuple(counts), "the rows looked at while training, last evaluation"
    return None, ""


def _reached(curves: dict[str, Floats]) -> dict[float, dict[Clock, float] | None]:
    smooth = smoothed(curves, "exact")
    found: dict[float, dict[Clock, float] | None] = {}
    for level in LEVELS:
        there = np.flatnonzero(smooth >= level)
        found[level] = {c: float(curves[c][there[0]]) for c in CLOCKS} if len(there) else None
    return found
