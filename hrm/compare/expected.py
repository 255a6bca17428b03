"""The differences between the modes that the document expects."""

from __future__ import annotations

from hrm.compare.comparing import Figures, Finding, Ruling, compared, higher_in, sooner
from hrm.compare.difficulty import FEWEST_TASKS, difficulties_told, easy_task_correlation
from hrm.compare.figures import ExperimentFigures, Values
from hrm.compare.verdict import Verdict, listed, single
from hrm.compare.winner import bins

MOVED = 0.1
"""Mean steps that moved by less than this over a run are called constant."""
CORRELATED = 0.3
"""A rank correlation above it is called one."""


def steps_vary_in_original(figures: Figures) -> Verdict:
    """Mean steps at halt move in training, and the policy halts at more than one step."""
    rule = (
        f"In every seed of O1, after the first tenth of the run, the mean steps at halt move by "
        f"{MOVED} or more and the policy halts evaluated rows at more than one step; refuted if "
        "neither holds in any seed."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        moved = o1.values("steps_range")
        stops = [bins(run.histogram) for run in o1.finished if run.histogram]
        if not moved.values or not stops:
            return "inconclusive", "no figure of O1"
        varies = [value >= MOVED for value in moved.values]
        alive = [count > 1 for count in stops]
        told = f"moved by {moved.told('.2f')} steps; steps at which rows halt: {listed(stops)}"
        if all(varies) and all(alive):
            return "supported", told
        return ("refuted" if not any(varies) and not any(alive) else "inconclusive"), told

    claim = "Original mode: steps vary (dynamic halting)."
    return single(figures, "expected", "steps.original", claim, rule, "O1", ruled)


def steps_fixed_in_online(figures: Figures) -> Verdict:
    """No steps logged in online mode, or always the number of steps of a batch."""
    rule = "No steps at halt are logged in L1's training, or the same number throughout."

    def ruled(l1: ExperimentFigures) -> Finding:
        if not l1.finished:
            return "inconclusive", "no finished seed of L1"
        ranges = l1.values("steps_range")
        if not ranges.values:
            return "supported", "no steps logged in training"
        fixed = max(ranges.values) == 0
        return ("supported" if fixed else "refuted"), f"moved by {ranges.told('.2f')} steps"

    claim = "Online mode: no steps metric, fixed per batch."
    return single(figures, "expected", "steps.online", claim, rule, "L1", ruled)


def q_halt_improves(figures: Figures) -> Verdict:
    """From the first tenth in which 5 % of answers are right to the last tenth."""
    rule = (
        "O1's q_halt_accuracy rises by more than the spread of the rise over seeds, from the first "
        "tenth of a run in which 5 % of the answers are right to the last tenth; refuted if it "
        "falls by more. Before that, saying 'wrong' is right for nothing."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        rise = o1.values("q_halt_rise")
        if rise.mean is None:
            return "inconclusive", "fewer than 5 % of the answers were ever right, or no figure"
        first, last = o1.values("q_halt_first"), o1.values("q_halt_accuracy")
        told = f"from {first.told()} to {last.told()}"
        if rise.spread is None:
            return "inconclusive", f"{told}; one seed, so the spread is unknown"
        told += f"; rise {rise.mean:+.3f}, spread {rise.spread:.3f}"
        if rise.mean > rise.spread:
            return "supported", told
        return ("refuted" if -rise.mean > rise.spread else "inconclusive"), told

    claim = "Original mode: q_halt_accuracy improves over training."
    return single(figures, "expected", "q_halt.improves", claim, rule, "O1", ruled)


def fewer_steps_on_easy_tasks(figures: Figures) -> Verdict:
    """Rank correlation of the policy's steps with difficulty, over training tasks.

    A task's difficulty is the mean, over the runs of all other experiments, of the step after which
    its answers are right (the limit and one more where they never are), so that no run is its own
    judge.
    """
    rule = (
        "Spearman correlation over training tasks between the steps at which O1's policy halts and "
        "the task's difficulty (mean step of the first right answer in runs of other experiments) "
        f"is above {CORRELATED} in every seed; refuted if 0 or less in every seed. Needs two seeds "
        f"and {FEWEST_TASKS} different difficulties."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        others = [run for f in figures.values() if f is not o1 for run in f.finished]
        found = [c for run in o1.finished if (c := easy_task_correlation(run.groups, others))]
        if not found:
            return "inconclusive", difficulties_told(o1, others)
        values = Values("O1", tuple(rho for rho, _ in found))
        told = f"correlation {values.told('.2f')} over {found[0][1]} tasks"
        if len(found) < 2:
            return "inconclusive", told
        if all(rho > CORRELATED for rho, _ in found):
            return "supported", told
        return ("refuted" if all(rho <= 0 for rho, _ in found) else "inconclusive"), told

    claim = "Original mode: fewer steps on easy tasks."
    return single(figures, "expected", "steps.easy", claim, rule, "O1", ruled)


def more_encoder_updates_online(figures: Figures) -> Verdict:
    """Encoder passes with gradient per row drawn."""
    ruling, told = compared(figures, "L1", "O1", higher_in("encoder_per_sample"))
    rule = (
        "Encoder passes with gradient per row drawn: L1's are more than O1's. This holds nearly by "
        "construction and is no discovery: online mode encodes a row at each of its steps, and "
        "original mode once, when its sequence starts (context=cache)."
    )
    claim = "Online mode: more encoder gradient updates per sample."
    return Verdict("expected", "encoder.updates", claim, ruling, told, rule)


def online_converges_faster(figures: Figures) -> Verdict:
    """At equal updates and at equal compute."""
    by_updates, told_updates = compared(figures, "L1", "O1", lambda a, b: sooner(a, b, "updates"))
    by_compute, told_compute = compared(figures, "L1", "O1", lambda a, b: sooner(a, b, "compute"))
    agreed: Ruling = by_updates if by_updates == by_compute else "inconclusive"
    told = told_updates
    if told_compute != told_updates:
        told = f"{told_updates} ({by_updates}); {told_compute} ({by_compute})"
    rule = (
        "L1 reaches the same training exact accuracy (levels as above) both in fewer updates and "
        "with fewer multiply-adds, counted, by more than the spread of seeds; refuted if with more "
        "of both. Seconds decide nothing: they depend on what else the machine did."
    )
    claim = "Online mode converges faster, at equal updates and at equal compute."
    return Verdict("expected", "convergence", claim, agreed, told, rule)
