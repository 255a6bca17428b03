"""A claim's ruling, and what the rules share; `hrm.compare.verdicts` has the claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hrm.compare.comparing import Figures, Finding, Ruling
from hrm.compare.figures import ExperimentFigures

Kind = Literal["criterion", "expected", "hypothesis"]

SHARED_RULES = (
    "A run's figure is the mean over the last tenth of its updates, unless a rule says otherwise.",
    "One experiment is higher than another if the gap between their means over seeds exceeds the "
    "spread of the seeds (largest value less smallest, the larger of the two experiments').",
    "One finished seed on either side: the spread is unknown, so the ruling is inconclusive. "
    "Failed or unfinished seeds are no values; the figure tells how many seeds count.",
    "Supported: the figure shows the claim. Refuted: it shows the contrary by the same margin. "
    "Inconclusive: anything else, and wherever a figure is missing.",
    "Equal compute is that of counted multiply-adds (matrix products and attention, forward and "
    "backward, of training without evaluations); seconds are told, and decide nothing.",
    "The two modes are compared by O1 and L1, whose settings are equal but for the mode.",
)


@dataclass(frozen=True)
class Verdict:
    """A claim of the document, what was found, and by which rule."""

    kind: Kind
    key: str
    claim: str
    ruling: Ruling
    figure: str
    rule: str


def single(
    figures: Figures,
    kind: Kind,
    key: str,
    claim: str,
    rule: str,
    name: str,
    ruled: Callable[[ExperimentFigures], Finding],
) -> Verdict:
    """The verdict on one experiment by itself."""
    if name not in figures:
        return Verdict(kind, key, claim, "inconclusive", f"{name} did not run", rule)
    found = figures[name]
    ruling, told = ruled(found)
    if not found.complete:
        told += f"; {name}: {len(found.finished)} of {len(found.runs)} seeds"
    return Verdict(kind, key, claim, ruling, told, rule)


def held_out(figures: Figures, a: str, b: str) -> tuple[str, str]:
    """The held-out figure that both have: of evaluation tasks, else of what was looked at."""
    both = [figures[name] for name in (a, b) if name in figures]
    if len(both) == 2 and all(f.values("test/exact_accuracy").values for f in both):
        return "test/exact_accuracy", "test tasks, after the run"
    return "held/exact_accuracy", "rows looked at while training, last evaluation"


def as_trained_told(figures: Figures, key: str, a: str, b: str) -> str:
    """`SPLIT/exact_accuracy` of two experiments after as many steps as each trained with, as the
    rest of a sentence; empty where it was not kept, or neither trained with fewer than evaluated.
    """
    both = [figures[name] for name in (a, b) if name in figures]
    values = [f.values(f"{key.partition('/')[0]}/exact_as_trained") for f in both]
    runs = [run for f in both for run in f.finished]
    fewer = any((run.max_steps or 0) < (run.evaluated_steps or 0) for run in runs)
    if not fewer or not values or not all(v.values for v in values):
        return ""
    told = [
        f"{f.name} {v.told()} after {f.finished[0].max_steps}"
        for f, v in zip(both, values, strict=True)
    ]
    return f"; after as many steps as in training: {', '.join(told)}"


def mode_told(figures: Figures, name: str) -> str:
    """In which mode an experiment ran."""
    return f"tried in {figures[name].mode} mode" if name in figures else "did not run"


def listed(values: Sequence[int]) -> str:
    """Numbers in a sentence."""
    return ", ".join(map(str, values))
