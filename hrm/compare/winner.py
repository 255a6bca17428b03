"""Whether a mode may be called the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hrm.compare.comparing import Figures, higher
from hrm.compare.figures import ExperimentFigures, Values

WINNING_ACCURACY = 0.9


@dataclass(frozen=True)
class Check:
    """One condition of a winner. None: its figure is missing."""

    what: str
    passed: bool | None
    figure: str


@dataclass(frozen=True)
class Winner:
    """The mode that may be called the winner, if any, and the checks of the nearest one."""

    mode: str | None
    candidate: str | None
    checks: tuple[Check, ...]


def winner(figures: Figures) -> Winner:
    """The mode that may be called the winner, O1's or L1's, if all hold:

    1. its final training exact accuracy exceeds 90 % (mean over seeds);
    2. the gap to the other mode exceeds the spread of seeds;
    3. its halting is alive: in every seed the policy halts evaluated rows at more than one step;
    4. every seed of both finished.
    """
    found = [figures[name] for name in ("O1", "L1") if name in figures]
    scored = [f for f in found if f.values("exact").values]
    if not scored:
        return Winner(None, None, (Check("a finished run of O1 or L1", False, "none"),))
    candidate = max(scored, key=lambda f: f.values("exact").mean or 0.0)
    other = next((f for f in found if f is not candidate), None)
    exact = candidate.values("exact")
    assert exact.mean is not None
    checks = [
        Check(
            f"final training exact accuracy above {WINNING_ACCURACY:.0%}",
            exact.mean > WINNING_ACCURACY,
            f"{candidate.name} {exact.told()}",
        ),
        _gap_check(exact, None if other is None else other.values("exact")),
        _alive_check(candidate),
        Check(
            "every seed of O1 and L1 finished",
            len(found) == 2 and all(f.complete for f in found),
            ", ".join(f"{f.name} {len(f.finished)} of {len(f.runs)}" for f in found),
        ),
    ]
    won = all(check.passed for check in checks)
    return Winner(candidate.mode if won else None, candidate.mode, tuple(checks))


def _gap_check(exact: Values, other: Values | None) -> Check:
    what = "the gap to the other mode exceeds the spread of seeds"
    if other is None or other.mean is None:
        return Check(what, None, "the other mode has no finished run")
    ruling, told = higher(exact, other)
    unknown = exact.spread is None or other.spread is None
    return Check(what, None if unknown else ruling == "supported", told)


def _alive_check(candidate: ExperimentFigures) -> Check:
    what = "halting is alive: more than one bin in the histogram of steps, in every seed"
    histograms = [run.histogram for run in candidate.finished]
    if any(h is None for h in histograms):
        return Check(what, None, "no histogram of steps for every seed")
    counts = [bins(h) for h in histograms]
    return Check(what, all(n > 1 for n in counts), f"bins: {', '.join(map(str, counts))}")


def bins(histogram: Sequence[int] | None) -> int:
    """At how many different steps rows halt."""
    return sum(count > 0 for count in histogram or ())
