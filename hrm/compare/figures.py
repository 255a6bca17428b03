"""The figures of runs, and of experiments over their seeds.

Only finished seeds count in an experiment's means; the others are listed with their error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hrm.compare.log import Clock, Floats, smoothed

Status = Literal["finished", "unfinished", "failed"]

LEVELS = (0.9, 0.75, 0.5, 0.25, 0.1)
"""Training exact accuracies whose arrival is timed."""


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
    evaluated_steps: int | None
    """Steps of every sequence in evaluations after the run, or else while training."""
    command: str | None
    folder: Path | None
    figures: dict[str, float | None]
    reached: dict[float, dict[Clock, float] | None]
    """Level -> what each clock showed when it was reached; None: never."""
    histogram: tuple[int, ...] | None
    """Evaluated rows whose policy would halt at step 1, 2, ...: of training tasks where they were
    evaluated after the run, otherwise of the rows that were looked at while training."""
    histogram_of: str = ""
    mode_settings: dict[str, Any] = field(default_factory=dict)
    """`hrm.compare.modes.mode_of` its settings."""
    made: tuple[dict[str, Any], ...] = ()
    """Commit, date and machine of each stretch of its training; none: not recorded."""
    by_step: tuple[float, ...] = ()
    """Exact accuracy of the evaluated training tasks after 1, 2, ... steps; empty: not kept."""
    groups: tuple[dict[str, Any], ...] = ()
    """Of each training task: `group`, `exact_accuracy`, `policy_mean_steps`, ..."""
    curves: dict[str, Floats] = field(default_factory=dict, repr=False)
    """The clocks, and figures over them, nan where there is none."""


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
    def mode_settings(self) -> dict[str, Any] | None:
        """Those of its finished runs; None: there is none, or they differ."""
        found = [run.mode_settings for run in self.finished]
        return found[0] if found and all(one == found[0] for one in found) else None

    @property
    def mode(self) -> str:
        modes = sorted({run.mode for run in self.finished or self.runs})
        return ", ".join(modes) if modes else "unknown"

    def values(self, key: str) -> Values:
        """One figure over the finished seeds."""
        found = [run.figures.get(key) for run in self.finished]
        return Values(self.name, tuple(v for v in found if v is not None))

    def has(self, clock: Clock) -> bool:
        """Whether every finished run knows what this clock showed."""
        return all(run.figures.get(clock) is not None for run in self.finished)

    def times(self, level: float, clock: Clock) -> tuple[Values, int]:
        """Until `level` was reached, and how many seeds never did.

        Those count with their whole length, which understates them. No values where a run does not
        know the clock.
        """
        if not self.has(clock):
            return Values(self.name, ()), 0
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


def at_budget(run: RunFigures, key: str, clock: Clock, budget: float) -> float | None:
    """A smoothed training figure where `clock` stood at `budget`: its last row until then."""
    curve = smoothed(run.curves, key)
    before = np.flatnonzero((run.curves[clock] <= budget) & np.isfinite(curve))
    return float(curve[before[-1]]) if len(before) else None
