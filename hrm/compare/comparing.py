"""Two experiments beside each other: is one higher, or sooner, by more than its seeds vary?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from hrm.compare.figures import ExperimentFigures, Values, first_to_level
from hrm.compare.log import CLOCK_FORMS, CLOCKS, Clock

Ruling = Literal["supported", "refuted", "inconclusive"]
Finding = tuple[Ruling, str]
"""A ruling, and the figure that decided in words."""
ROUNDING = 1e-9
"""Means of equal values differ by less."""
MARGIN = 0.05
"""Accuracies that differ by less, in seeds that vary by less, are comparable."""
NO_WORSE = (
    f"the mean is at least as high, or both the gap and the spread of seeds are below {MARGIN}; "
    "refuted if neither, and it is lower by more than the spread"
)
"""`no_worse` in words."""
Figures = Mapping[str, ExperimentFigures]


def higher(a: Values, b: Values) -> Finding:
    """Whether `a` is higher than `b`, and why."""
    told = f"{a.name} {a.told()}, {b.name} {b.told()}"
    if a.mean is None or b.mean is None:
        missing = " and ".join(v.name for v in (a, b) if v.mean is None)
        return "inconclusive", f"no figure of {missing}"
    if a.spread is None or b.spread is None:
        return "inconclusive", f"{told}; one seed, so the spread is unknown"
    gap, spread = a.mean - b.mean, max(a.spread, b.spread)
    told += f"; gap {gap:+.3f}, spread {spread:.3f}"
    if gap > spread + ROUNDING:
        return "supported", told
    return ("refuted" if -gap > spread + ROUNDING else "inconclusive"), told


def no_worse(a: Values, b: Values) -> Finding:
    """Whether `a` is comparable to `b` or better.

    Seeds that vary widely hide any gap, so that a mean below the other's is comparable only where
    gap and spread are small.
    """
    ruling, told = higher(a, b)
    if a.mean is None or b.mean is None or a.spread is None or b.spread is None:
        return "inconclusive", told
    gap, spread = a.mean - b.mean, max(a.spread, b.spread)
    told += f", margin {MARGIN}"
    if gap >= -ROUNDING or max(-gap, spread) < MARGIN - ROUNDING:
        return "supported", told
    return ("refuted" if ruling == "refuted" else "inconclusive"), told


def sooner(a: ExperimentFigures, b: ExperimentFigures, clock: Clock) -> Finding:
    """Whether `a` reaches the same training exact accuracy sooner than `b`."""
    unknown = [f.name for f in (a, b) if f.finished and not f.has(clock)]
    if unknown:
        return "inconclusive", f"{CLOCKS[clock]} of {' and '.join(unknown)} are not known"
    found = first_to_level(a, b, clock)
    if found is None:
        return "inconclusive", f"neither of {a.name} and {b.name} reaches 10 % in all seeds"
    level, of_a, of_b = found
    ruling, _ = higher(of_b, of_a)
    form = CLOCK_FORMS[clock]
    told = f"{CLOCKS[clock]} to {level:.0%}: "
    told += f"{a.name} {of_a.told(form)}, {b.name} {of_b.told(form)}"
    late = [f.name for f in (a, b) if f.times(level, clock)[1]]
    if late:
        told += f"; seeds of {' and '.join(late)} that never reach it count with their whole length"
    if of_a.spread is None or of_b.spread is None:
        told += "; one seed, so the spread is unknown"
    return ruling, told


def higher_in(key: str) -> Callable[[ExperimentFigures, ExperimentFigures], Finding]:
    """`higher` of one figure."""
    return lambda a, b: higher(a.values(key), b.values(key))


def compared(
    figures: Figures,
    a: str,
    b: str,
    rule: Callable[[ExperimentFigures, ExperimentFigures], Finding],
) -> Finding:
    """`rule` of the two experiments; inconclusive where one did not run. Tells of missing seeds."""
    missing = [name for name in (a, b) if name not in figures]
    if missing:
        return "inconclusive", f"{' and '.join(missing)} did not run"
    found = figures[a], figures[b]
    ruling, told = rule(*found)
    short = [f"{f.name}: {len(f.finished)} of {len(f.runs)} seeds" for f in found if not f.complete]
    return ruling, "; ".join([told, *short])
