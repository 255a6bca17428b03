"""All that a comparison found, from the figures of its runs: choices, verdicts, winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from hrm.compare.figures import (
    LEVELS,
    ExperimentFigures,
    RunFigures,
    Values,
    at_budget,
    by_experiment,
)
from hrm.compare.log import CLOCKS, Clock
from hrm.compare.plan import EXPERIMENTS, Choice
from hrm.compare.verdict import Verdict
from hrm.compare.verdicts import verdicts
from hrm.compare.winner import Winner, winner


@dataclass(frozen=True)
class Comparison:
    """Experiments in the document's order, then others by name.

    Args:
        choices: of the decision tree; none where none was made, or none was recorded.
    """

    experiments: dict[str, ExperimentFigures]
    choices: tuple[Choice, ...] = ()

    @property
    def runs(self) -> list[RunFigures]:
        return [run for found in self.experiments.values() for run in found.runs]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return verdicts(self.experiments)

    @cached_property
    def winner(self) -> Winner:
        return winner(self.experiments)

    def budget(self, clock: Clock) -> float | None:
        """The most that every finished run has had: the least of their ends. None: one of them
        does not know the clock."""
        ends = [run.figures.get(clock) for f in self.experiments.values() for run in f.finished]
        known = [end for end in ends if end]
        return min(known) if known and None not in ends else None

    def at_equal(self, name: str, clock: Clock) -> Values:
        """Training exact accuracy at the common budget, over the finished seeds."""
        budget = self.budget(clock)
        found = self.experiments[name].finished
        values = [at_budget(run, "exact", clock, budget) for run in found] if budget else []
        return Values(name, tuple(v for v in values if v is not None))


def compare(runs: Sequence[RunFigures], choices: Sequence[Choice] = ()) -> Comparison:
    """The comparison of these runs."""
    found = by_experiment(sorted(runs, key=lambda run: (run.experiment, run.seed, run.name)))
    order = [name for name in EXPERIMENTS if name in found]
    order += [name for name in found if name not in EXPERIMENTS]
    return Comparison({name: found[name] for name in order}, tuple(choices))


def as_dict(comparison: Comparison, about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole comparison for JSON, curves left out."""
    experiments = {}
    for name, found in comparison.experiments.items():
        keys = sorted({key for run in found.runs for key in run.figures})
        experiments[name] = {
            "mode": found.mode,
            "seeds": len(found.runs),
            "finished": len(found.finished),
            "figures": {key: _values(found.values(key)) for key in keys},
            "at_equal": {clock: _values(comparison.at_equal(name, clock)) for clock in CLOCKS},
            "reached": {
                str(level): {
                    **{clock: _values(found.times(level, clock)[0]) for clock in CLOCKS},
                    "never": found.times(level, "updates")[1],
                }
                for level in LEVELS
            },
        }
    runs = [
        asdict(replace(run, curves={}, folder=None)) | {"folder": str(run.folder)}
        for run in comparison.runs
    ]
    return {
        "winner": comparison.winner.mode,
        "winner_checks": [asdict(check) for check in comparison.winner.checks],
        "choices": [asdict(choice) for choice in comparison.choices],
        "verdicts": [asdict(verdict) for verdict in comparison.verdicts],
        "budgets": {clock: comparison.budget(clock) for clock in CLOCKS},
        "experiments": experiments,
        "runs": runs,
        "about": dict(about),
    }


def _values(values: Values) -> dict[str, Any]:
    return {"mean": values.mean, "spread": values.spread, "values": list(values.values)}
