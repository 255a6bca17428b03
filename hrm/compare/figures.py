"""The figures of runs, read from their logs and evaluations, and of experiments over their seeds.

A run's final figure is the mean over the last tenth of its updates, each logged row weighted by the
sequences that ended in it. A level is reached at the first update at which the mean over the last
2 % of all updates is that high. Only finished seeds count in an experiment's means; the others are
listed with their error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["finished", "unfinished", "failed"]
Clock = Literal["updates", "samples", "seconds"]
Floats = NDArray[np.float64]

LEVELS = (0.9, 0.75, 0.5, 0.25, 0.1)
"""Training exact accuracies whose arrival is timed."""
FINAL, SMOOTH = 0.1, 0.02
"""Shares of a run's updates over which a final figure and a curve are means."""
KNOWN_BY_CHANCE = 0.05
"""Below this share of right answers a head that always says "wrong" is right for nothing."""

EVALUATED = (
    "count",
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


@dataclass(frozen=True)
class Values:
    """One figure of one experiment: a value for each finished seed that has it."""

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def spread(self) -> float | None:
        """The largest less the smallest; None with fewer than two seeds."""
        return max(self.values) - min(self.values) if len(self.values) > 1 else None

    def told(self, form: str = ".3f") -> str:
        """`mean (smallest to largest)`, as a sentence has it."""
        if self.mean is None:
            return "-"
        if self.spread is None:
            return f"{self.mean:{form}} (one seed)"
        least, most = f"{min(self.values):{form}}", f"{max(self.values):{form}}"
        if least == most:
            return f"{least} (all {len(self.values)} seeds)"
        return f"{self.mean:{form}} ({least} to {most})"


@dataclass(frozen=True)
class RunFigures:
    """One run: its figures by name (None: not known), its curves, and what went wrong."""

    name: str
    experiment: str
    seed: int
    status: Status
    error: str | None
    mode: str
    """original (dynamics=persistent), online, or another dynamics by its name."""
    max_steps: int | None
    """Most steps of a sequence in training."""
    command: str | None
    folder: Path | None
    figures: dict[str, float | None]
    reached: dict[float, dict[Clock, float] | None]
    """Level -> updates, samples and seconds until it was reached; None: never."""
    histogram: tuple[int, ...] | None
    """Evaluated rows whose policy would halt at step 1, 2, ...: of training tasks where they were
    evaluated after the run, otherwise of the rows that were looked at while training."""
    histogram_of: str = ""
    groups: tuple[dict[str, Any], ...] = ()
    """Of each training task: `group`, `exact_accuracy`, `policy_mean_steps`, ..."""
    curves: dict[str, Floats] = field(default_factory=dict, repr=False)
    """`updates`, `samples`, `seconds`, and figures over them, nan where there is none."""


@dataclass(frozen=True)
class ExperimentFigures:
    """An experiment over its seeds."""

    name: str
    runs: tuple[RunFigures, ...]

    @cached_property
    def finished(self) -> tuple[RunFigures, ...]:
        return tuple(run for run in self.runs if run.status == "finished")

    @property
    def complete(self) -> bool:
        """Every seed finished."""
        return bool(self.runs) and len(self.finished) == len(self.runs)

    @property
    def mode(self) -> str:
        modes = sorted({run.mode for run in self.finished or self.runs})
        return ", ".join(modes) if modes else "unknown"

    def values(self, key: str) -> Values:
        """One figure over the finished seeds."""
        found = [run.figures.get(key) for run in self.finished]
        return Values(self.name, tuple(v for v in found if v is not None))

    def times(self, level: float, clock: Clock) -> tuple[Values, int]:
        """Until `level` was reached, and how many seeds never did.

        Those count with their whole length, which understates them.
        """
        times, never = [], 0
        for run in self.finished:
            at = run.reached.get(level)
            if at is not None:
                times.append(at[clock])
            else:
                never += 1
                times.append(run.figures[clock] or 0.0)
        return Values(self.name, tuple(times)), never


def by_experiment(runs: Sequence[RunFigures]) -> dict[str, ExperimentFigures]:
    """Runs with the same experiment are its seeds; in the order in which they come."""
    found: dict[str, list[RunFigures]] = {}
    for run in runs:
        found.setdefault(run.experiment, []).append(run)
    return {name: ExperimentFigures(name, tuple(seeds)) for name, seeds in found.items()}


def first_to_level(
    a: ExperimentFigures, b: ExperimentFigures, clock: Clock
) -> tuple[float, Values, Values] | None:
    """The highest level that all seeds of one of the two reach, and how long each took to it.

    None if there is no such level, or neither has a finished seed.
    """
    for level in LEVELS:
        (of_a, never_a), (of_b, never_b) = a.times(level, clock), b.times(level, clock)
        if (of_a.values and not never_a) or (of_b.values and not never_b):
            if not of_a.values or not of_b.values:
                return None
            return level, of_a, of_b
    return None


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
) -> RunFigures:
    """A run's figures from its settings and the rows of its `metrics.jsonl`.

    Args:
        name: of the run, for the report.
        config: as `config.yaml` has it.
        evaluations: by split, what `hrm evaluate RUN --split SPLIT --json` said after the run.
    """
    curves = read_curves(rows)
    dynamics = str(config.get("dynamics", "unknown"))
    arch = config.get("arch") or {}
    limit = config.get("num_act_steps") if dynamics == "online" else None
    limit = limit or arch.get("train_max_steps") or arch.get("halt_max_steps")
    evaluations = evaluations or {}
    figures = _log_figures(curves, int(config.get("global_batch_size") or 0))
    figures |= _held_out(rows)
    for split, evaluated in evaluations.items():
        figures |= {f"{split}/{key}": _number(evaluated.get(key)) for key in EVALUATED}
    histogram, source = _histogram(rows, evaluations)
    return RunFigures(
        name=name,
        experiment=str(config.get("experiment_name", name)),
        seed=int(config.get("seed", 0)),
        status=status,
        error=error,
        mode={"persistent": "original"}.get(dynamics, dynamics),
        max_steps=limit,
        command=command,
        folder=folder,
        figures=figures,
        reached=_reached(curves),
        histogram=histogram,
        histogram_of=source,
        groups=tuple(evaluations.get("train", {}).get("by_group") or ()),
        curves=curves,
    )


CURVES = {
    "exact": "train/exact_accuracy",
    "accuracy": "train/accuracy",
    "loss": "train/loss",
    "lm_loss": "train/lm_loss",
    "q_halt_accuracy": "train/q_halt_accuracy",
    "steps": "train/steps",
    "encoder_share": "train/encoder_share",
    "kl": "train/kl",
    "count": "train/count",
    "held_exact": "eval/exact_accuracy",
    "held_accuracy": "eval/accuracy",
    "held_pass@2": "eval/pass@2",
}


def read_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """The log as arrays [rows]; nan where a row has no number."""
    clocks = {"updates": "step", "samples": "samples", "seconds": "time/train_s"}
    return {
        name: np.array([_float(row.get(key)) for row in rows], dtype=np.float64)
        for name, key in (clocks | CURVES).items()
    }


def smoothed(curves: Mapping[str, Floats], key: str, share: float = SMOOTH) -> Floats:
    """At each row the mean over the last `share` of all updates, weighted by ended sequences."""
    updates, values = curves["updates"], curves[key]
    if not len(updates):
        return values
    weights = np.nan_to_num(curves["count"], nan=1.0)
    known = np.isfinite(values) & (weights > 0)
    weights = np.where(known, weights, 0.0)
    sums = np.cumsum(np.concatenate([[0.0], weights * np.where(known, values, 0.0)]))
    totals = np.cumsum(np.concatenate([[0.0], weights]))
    ends = np.arange(1, len(updates) + 1)
    starts = np.searchsorted(updates, updates - share * updates[-1], side="right")
    starts = np.minimum(starts, ends - 1)
    total = totals[ends] - totals[starts]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (sums[ends] - sums[starts]) / total, math.nan)


def at_budget(run: RunFigures, key: str, clock: Clock, budget: float) -> float | None:
    """A smoothed training figure where `clock` stood at `budget`: its last row until then."""
    curve = smoothed(run.curves, key)
    before = np.flatnonzero((run.curves[clock] <= budget) & np.isfinite(curve))
    return float(curve[before[-1]]) if len(before) else None


def _log_figures(curves: dict[str, Floats], batch: int) -> dict[str, float | None]:
    """Figures of the training log."""
    figures: dict[str, float | None] = {
        clock: _last(curves[clock]) or 0.0 for clock in ("updates", "samples", "seconds")
    }
    for key in ("exact", "accuracy", "loss", "lm_loss", "q_halt_accuracy", "steps", "kl"):
        figures[key] = _last(smoothed(curves, key, FINAL))
    whole = smoothed(curves, "exact", FINAL)
    if len(whole):
        # A first row alone is no tenth of a run.
        full = curves["updates"] >= FINAL * curves["updates"][-1]
        figures["best_exact"] = _number(np.nanmax(whole[full])) if _any(whole[full]) else None
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
    base = _last(right)
    known = np.flatnonzero((right >= KNOWN_BY_CHANCE) & np.isfinite(q))
    last = _last(q)
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
    if not _any(late):
        return {"steps_range": None, "steps_least": None, "steps_most": None}
    least, most = float(np.nanmin(late)), float(np.nanmax(late))
    return {"steps_range": most - least, "steps_least": least, "steps_most": most}


def _encoder(curves: dict[str, Floats], batch: int) -> dict[str, float | None]:
    """Forward passes of single sequences: through the decoder one a slot and update; through the
    encoder those that gave it a gradient, which `encoder_share` counts."""
    updates, share = curves["updates"], curves["encoder_share"]
    if not len(updates) or not batch:
        return {}
    figures: dict[str, float | None] = {"decoder_forwards": updates[-1] * batch}
    if np.isfinite(share).all():
        forwards = float((np.diff(updates, prepend=0.0) * share).sum() * batch)
        samples = _last(curves["samples"])
        figures["encoder_share"] = forwards / (updates[-1] * batch)
        figures["encoder_forwards"] = forwards
        figures["encoder_per_sample"] = forwards / samples if samples else None
    return figures


def _held_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The last and the best evaluation while training."""
    figures: dict[str, float | None] = {}
    names = ("accuracy", "exact_accuracy", "pass@1", "pass@2", "policy_mean_steps")
    for name in names:
        seen = [_number(row.get(f"eval/{name}")) for row in rows]
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
    for row in reversed(rows):
        if counts := row.get("eval/policy_steps_histogram"):
            return tuple(counts), "the rows looked at while training, last evaluation"
    return None, ""


def _reached(curves: dict[str, Floats]) -> dict[float, dict[Clock, float] | None]:
    smooth = smoothed(curves, "exact")
    found: dict[float, dict[Clock, float] | None] = {}
    clocks: tuple[Clock, ...] = ("updates", "samples", "seconds")
    for level in LEVELS:
        there = np.flatnonzero(smooth >= level)
        found[level] = {c: float(curves[c][there[0]]) for c in clocks} if len(there) else None
    return found


def _number(value: object) -> float | None:
    """A finite number, or None."""
    number = _float(value)
    return number if math.isfinite(number) else None


def _float(value: object) -> float:
    known = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    return float(value) if known else math.nan  # type: ignore[arg-type]


def _any(values: Floats) -> bool:
    return bool(np.isfinite(values).any())


def _last(values: Floats) -> float | None:
    """The last row's value, if it is a number."""
    known = np.flatnonzero(np.isfinite(values))
    return float(values[known[-1]]) if len(known) else None
