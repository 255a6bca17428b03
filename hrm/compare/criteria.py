"""The document's success criteria of the two modes."""

from __future__ import annotations

from collections.abc import Sequence

from hrm.compare.comparing import (
    NO_WORSE,
    Figures,
    Finding,
    compared,
    higher_in,
    no_worse,
    sooner,
)
from hrm.compare.figures import ExperimentFigures, Values
from hrm.compare.verdict import Verdict, as_trained_told, held_out, listed, single
from hrm.compare.winner import bins

GOOD_Q = 0.8
NEARLY_CONSTANT = 0.95
"""Above this share of equal answers a q_halt_accuracy near it tells nothing."""
STUCK = 0.05
"""Mean steps nearer than this to 1 or to the limit are stuck there."""


def original_knows_when_it_is_right(figures: Figures) -> Verdict:
    """q_halt_accuracy above 80 % and above what a constant answer gets, on the means over seeds.

    Refuted at 80 % or less, or at less than the constant. Where the constant exceeds 95 % there is
    nothing left to know, and a q_halt_accuracy above 80 % is inconclusive.
    """
    rule = (
        "O1's q_halt_accuracy exceeds 0.80 and the accuracy of always giving the more frequent "
        "answer; refuted if either fails; inconclusive with one seed, or if the constant answer is "
        "right in more than 95 %, which leaves nothing to predict."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        q, constant = o1.values("q_halt_accuracy"), o1.values("q_halt_constant")
        if q.mean is None or constant.mean is None:
            return "inconclusive", "no figure of O1"
        rocs = o1.values("train/q_halt_auroc_all_steps")
        told = f"q_halt_accuracy {q.told()}, constant answer {constant.told()}"
        told += f", AUROC over all steps of training tasks {rocs.told()}" if rocs.values else ""
        if q.spread is None:
            return "inconclusive", told
        if q.mean <= GOOD_Q:
            return "refuted", told
        if constant.mean > NEARLY_CONSTANT:
            return "inconclusive", told
        return ("supported" if q.mean > constant.mean else "refuted"), told

    claim = "Original mode: q_halt_accuracy is above 80 % and above its base rate."
    return single(figures, "criterion", "original.q_halt", claim, rule, "O1", ruled)


def original_steps_not_stuck(figures: Figures) -> Verdict:
    """What the policy itself does, without exploration: its mean steps over evaluated rows farther
    than 0.05 from 1 and from the limit, and not the same step for all rows, in every seed.

    Steps at halt in training show nothing of it: exploration alone holds a policy that wishes to
    halt at once, always, back to 1.8 of 8 steps with the probability 0.5.
    """
    rule = (
        "Where O1's policy by itself, without exploration, would halt evaluated rows (training "
        "tasks after the run, where they were evaluated): in every seed at more than one step, and "
        f"in the mean more than {STUCK} above 1 and below the limit; refuted if within that of "
        "either end in every seed. Steps in training are told beside what exploration alone makes "
        "of a policy that always halts at step 1."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        known = [run for run in o1.finished if run.histogram and run.max_steps]
        if not known:
            return "inconclusive", "no histogram of the steps at which O1's policy halts"
        means, stops = [mean_step(r.histogram) for r in known], [bins(r.histogram) for r in known]
        told = f"policy's steps {Values('O1', tuple(means)).told('.2f')} of at most "
        told += f"{known[0].max_steps} ({known[0].histogram_of}); "
        told += f"rows halt at so many different steps: {listed(stops)}"
        in_training, by_chance = o1.values("steps"), o1.values("steps_by_exploration").mean
        if in_training.values:
            told += f"; in training {in_training.told('.2f')}"
            told += "" if by_chance is None else f", by exploration alone {by_chance:.2f}"
        stuck = [
            not 1 + STUCK < mean < (run.max_steps or 0) - STUCK
            for run, mean in zip(known, means, strict=True)
        ]
        if len(known) < max(2, len(o1.finished)):
            return "inconclusive", told
        if all(stuck):
            return "refuted", told
        alive = not any(stuck) and all(count > 1 for count in stops)
        return ("supported" if alive else "inconclusive"), told

    claim = "Original mode: the steps show learning, not stuck at 1 or at the limit."
    return single(figures, "criterion", "original.steps", claim, rule, "O1", ruled)


def mean_step(histogram: Sequence[int] | None) -> float:
    """Of rows that halt at step 1, 2, ..., so many at each."""
    counts = histogram or ()
    return sum(step * count for step, count in enumerate(counts, 1)) / max(1, sum(counts))


def original_comparable(figures: Figures) -> Verdict:
    """Final training exact accuracy of O1 is not lower than L1's."""
    ruling, told = compared(
        figures, "O1", "L1", lambda a, b: no_worse(a.values("exact"), b.values("exact"))
    )
    rule = f"Final training exact accuracy of O1 beside L1's: {NO_WORSE}."
    claim = "Original mode: final accuracy is comparable to online mode's or better."
    return Verdict("criterion", "original.accuracy", claim, ruling, told, rule)


def online_fewer_epochs(figures: Figures) -> Verdict:
    """Rows seen until the same training exact accuracy."""
    ruling, told = compared(figures, "L1", "O1", lambda a, b: sooner(a, b, "samples"))
    rule = (
        "Rows drawn until the highest of 90, 75, 50, 25 and 10 % training exact accuracy that all "
        "seeds of L1 or of O1 reach: L1 fewer by more than the spread of seeds."
    )
    claim = "Online mode: faster convergence, fewer epochs to the same accuracy."
    return Verdict("criterion", "online.epochs", claim, ruling, told, rule)


def online_more_accurate(figures: Figures) -> Verdict:
    """Final training exact accuracy of L1 above O1's."""
    ruling, told = compared(figures, "L1", "O1", higher_in("exact"))
    rule = "Final training exact accuracy of L1 is higher than O1's."
    claim = "Online mode: higher final accuracy."
    return Verdict("criterion", "online.accuracy", claim, ruling, told, rule)


def online_generalises(figures: Figures) -> Verdict:
    """Exact accuracy on held-out tasks: evaluation tasks after the run, else what was looked at."""
    key, where = held_out(figures, "L1", "O1")
    ruling, told = compared(figures, "L1", "O1", higher_in(key))
    told += as_trained_told(figures, key, "L1", "O1")
    rule = (
        "Exact accuracy on held-out tasks of L1 is higher than O1's, both after the last evaluated "
        "step, which can be more steps than one of them trained with; the figure has both."
    )
    claim = "Online mode: better generalisation to held-out tasks."
    return Verdict("criterion", "online.generalisation", claim, ruling, f"{where}: {told}", rule)
