"""What the figures say of the document's criteria, hypotheses and expected differences.

Every rule is a pure function of figures over seeds. The rules that all of them share:

- A figure of a run is its mean over the last tenth of its updates, unless it says otherwise.
- Of two experiments one is higher if the gap between their means exceeds the spread of their seeds:
  the largest value less the smallest, of whichever has more of it. With one finished seed on either
  side the spread is unknown and the ruling is inconclusive; a failed seed is not a value.
- `supported`: the figure shows what was claimed. `refuted`: it shows the contrary, by the same
  margin. `inconclusive`: anything else, and every case in which a figure is missing.
- The modes are compared by O1 and L1, which have the same settings but for the mode.

`Verdict.rule` is each claim's own rule in words; the report prints it beside the ruling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hrm.compare.comparing import (
    Figures,
    Finding,
    Ruling,
    compared,
    higher_in,
    no_worse,
    sooner,
)
from hrm.compare.difficulty import FEWEST_TASKS, easy_task_correlation
from hrm.compare.figures import ExperimentFigures, Values
from hrm.compare.winner import bins

Kind = Literal["criterion", "expected", "hypothesis"]

GOOD_Q = 0.8
NEARLY_CONSTANT = 0.95
"""Above this share of equal answers a q_halt_accuracy near it tells nothing."""
STUCK = 0.05
"""Mean steps nearer than this to 1 or to the limit are stuck there."""
MOVED = 0.1
"""Mean steps that moved by less than this over a run are called constant."""
CORRELATED = 0.3
"""A rank correlation above it is called one."""

SHARED_RULES = (
    "A run's figure is the mean over the last tenth of its updates, unless a rule says otherwise.",
    "One experiment is higher than another if the gap between their means over seeds exceeds the "
    "spread of the seeds (largest value less smallest, the larger of the two experiments').",
    "One finished seed on either side: the spread is unknown, so the ruling is inconclusive. "
    "Failed or unfinished seeds are no values; the figure tells how many seeds count.",
    "Supported: the figure shows the claim. Refuted: it shows the contrary by the same margin. "
    "Inconclusive: anything else, and wherever a figure is missing.",
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


def verdicts(figures: Figures, reference: str | None = None) -> list[Verdict]:
    """All claims, in the document's order.

    Args:
        figures: by the experiment's name; what did not run is missing.
        reference: the experiment whose mode the E-series took; None: O1.
    """
    reference = reference or "O1"
    return [
        original_knows_when_it_is_right(figures),
        original_steps_not_stuck(figures),
        original_comparable(figures),
        online_fewer_epochs(figures),
        online_more_accurate(figures),
        online_generalises(figures),
        steps_vary_in_original(figures),
        steps_fixed_in_online(figures),
        q_halt_improves(figures),
        fewer_steps_on_easy_tasks(figures),
        more_encoder_updates_online(figures),
        online_converges_faster(figures),
        o1_works(figures),
        o2_halts_better(figures),
        o3_generalises_better(figures),
        e1_deeper_is_better(figures, reference),
        e2_kl_helps_halting(figures),
        e3_lpn_works(figures, reference),
    ]


# -- success criteria


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
    return _single(figures, "criterion", "original.q_halt", claim, rule, "O1", ruled)


def original_steps_not_stuck(figures: Figures) -> Verdict:
    """Mean steps at halt farther than 0.05 from 1 and from the limit, in every seed."""
    rule = (
        f"O1's mean steps at halt in training are more than {STUCK} above 1 and below the limit in "
        "every seed; refuted if within that of either end in every seed."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        pairs = [(run.figures.get("steps"), run.max_steps) for run in o1.finished]
        known = [(s, limit) for s, limit in pairs if s is not None and limit is not None]
        if not known:
            return "inconclusive", "no figure of O1"
        free = [1 + STUCK < steps < limit - STUCK for steps, limit in known]
        told = f"mean steps at halt {o1.values('steps').told('.2f')} of at most {known[0][1]}"
        return _of_seeds(free), told

    claim = "Original mode: the steps show learning, not stuck at 1 or at the limit."
    return _single(figures, "criterion", "original.steps", claim, rule, "O1", ruled)


def original_comparable(figures: Figures) -> Verdict:
    """Final training exact accuracy of O1 is not lower than L1's."""
    ruling, told = compared(
        figures, "O1", "L1", lambda a, b: no_worse(a.values("exact"), b.values("exact"))
    )
    rule = (
        "Final training exact accuracy: L1's mean exceeds O1's by no more than the spread of seeds."
    )
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
    key, where = _held_out(figures, "L1", "O1")
    ruling, told = compared(figures, "L1", "O1", higher_in(key))
    rule = "Exact accuracy on held-out tasks of L1 is higher than O1's."
    claim = "Online mode: better generalisation to held-out tasks."
    return Verdict("criterion", "online.generalisation", claim, ruling, f"{where}: {told}", rule)


# -- expected differences


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
        told = f"moved by {moved.told('.2f')} steps; steps at which rows halt: {_list(stops)}"
        if all(varies) and all(alive):
            return "supported", told
        return ("refuted" if not any(varies) and not any(alive) else "inconclusive"), told

    claim = "Original mode: steps vary (dynamic halting)."
    return _single(figures, "expected", "steps.original", claim, rule, "O1", ruled)


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
    return _single(figures, "expected", "steps.online", claim, rule, "L1", ruled)


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
    return _single(figures, "expected", "q_halt.improves", claim, rule, "O1", ruled)


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
        f"and {FEWEST_TASKS} tasks that differ in difficulty."
    )

    def ruled(o1: ExperimentFigures) -> Finding:
        others = [run for f in figures.values() if f is not o1 for run in f.finished]
        found = [c for run in o1.finished if (c := easy_task_correlation(run.groups, others))]
        if not found:
            return "inconclusive", "no record by task, or too few tasks that differ"
        values = Values("O1", tuple(rho for rho, _ in found))
        told = f"correlation {values.told('.2f')} over {found[0][1]} tasks"
        if len(found) < 2:
            return "inconclusive", told
        if all(rho > CORRELATED for rho, _ in found):
            return "supported", told
        return ("refuted" if all(rho <= 0 for rho, _ in found) else "inconclusive"), told

    claim = "Original mode: fewer steps on easy tasks."
    return _single(figures, "expected", "steps.easy", claim, rule, "O1", ruled)


def more_encoder_updates_online(figures: Figures) -> Verdict:
    """Encoder passes with gradient per row drawn."""
    ruling, told = compared(figures, "L1", "O1", higher_in("encoder_per_sample"))
    rule = "Encoder passes with gradient per row drawn: L1's are more than O1's."
    claim = "Online mode: more encoder gradient updates per sample."
    return Verdict("expected", "encoder.updates", claim, ruling, told, rule)


def online_converges_faster(figures: Figures) -> Verdict:
    """At equal updates and at equal compute."""
    by_updates, told_updates = compared(figures, "L1", "O1", lambda a, b: sooner(a, b, "updates"))
    by_seconds, told_seconds = compared(figures, "L1", "O1", lambda a, b: sooner(a, b, "seconds"))
    agreed: Ruling = by_updates if by_updates == by_seconds else "inconclusive"
    told = told_updates
    if told_seconds != told_updates:
        told = f"{told_updates} ({by_updates}); {told_seconds} ({by_seconds})"
    rule = (
        "L1 reaches the same training exact accuracy (levels as above) both in fewer updates and "
        "in fewer seconds of training, by more than the spread of seeds; refuted if in more of "
        "both."
    )
    claim = "Online mode converges faster, at equal updates and at equal compute."
    return Verdict("expected", "convergence", claim, agreed, told, rule)


# -- hypotheses


def o1_works(figures: Figures) -> Verdict:
    """Both criteria of O1's expected outcome."""
    parts = [original_knows_when_it_is_right(figures), steps_vary_in_original(figures)]
    rulings = [part.ruling for part in parts]
    ruling: Ruling = "inconclusive"
    if all(r == "supported" for r in rulings):
        ruling = "supported"
    elif "refuted" in rulings:
        ruling = "refuted"
    rule = (
        "Supported if both 'q_halt_accuracy is above 80 % and above its base rate' and 'steps "
        "vary' are; refuted if either is refuted."
    )
    told = f"q_halt_accuracy: {rulings[0]}; steps: {rulings[1]}"
    if "O1" not in figures:
        told = "O1 did not run"
    claim = "O1: the Q-head learns to predict correctness, and the steps vary."
    return Verdict("hypothesis", "O1", claim, ruling, told, rule)


HALTING_KEY = "train/q_halt_auroc_all_steps"


def o2_halts_better(figures: Figures) -> Verdict:
    """The Q-head separates right from wrong answers better with less exploration."""
    ruling, told = compared(figures, "O2", "O1", higher_in(HALTING_KEY))
    rule = (
        "Halting decisions are measured by how well q_halt separates right from wrong answers over "
        "all steps of the training tasks, evaluated after the run (AUROC; 0.5 is chance): O2's is "
        "higher than O1's."
    )
    claim = "O2: less random forcing (exploration 0.3), better halting decisions."
    return Verdict("hypothesis", "O2", claim, ruling, told, rule)


def o3_generalises_better(figures: Figures) -> Verdict:
    """More steps in training, and a higher exact accuracy on held-out tasks."""
    more, told_steps = compared(figures, "O3", "O1", higher_in("steps"))
    key, where = _held_out(figures, "O3", "O1")
    better, told_held = compared(figures, "O3", "O1", higher_in(key))
    ruling: Ruling = "inconclusive"
    if more == better == "supported":
        ruling = "supported"
    elif "refuted" in (more, better):
        ruling = "refuted"
    rule = (
        "O3's mean steps at halt in training and its exact accuracy on held-out tasks are both "
        "higher than O1's; refuted if either is lower. (More exploration delays halting here, as "
        "in the published code, so it gives more steps.)"
    )
    claim = "O3: more exploration (0.7) shows more steps, and the model generalises better."
    told = f"steps: {told_steps} ({more}); {where}: {told_held} ({better})"
    if told_steps == told_held:  # One of them did not run.
        told = told_steps
    return Verdict("hypothesis", "O3", claim, ruling, told, rule)


def e1_deeper_is_better(figures: Figures, reference: str) -> Verdict:
    """Final training exact accuracy of E1 above that of the reference."""
    ruling, told = compared(figures, "E1", reference, higher_in("exact"))
    rule = (
        "Final training exact accuracy of E1 is higher than that of the experiment whose mode it "
        "took and whose encoder is the shallow one. (At full size E1 has the document's smaller "
        "batch.)"
    )
    claim = "E1: a deeper encoder works better than the shallow one"
    claim = f"{claim} ({_mode(figures, 'E1')})."
    return Verdict("hypothesis", "E1", claim, ruling, told, rule)


def e2_kl_helps_halting(figures: Figures) -> Verdict:
    """The Q-head of E2 separates right from wrong answers better than E1's."""
    ruling, told = compared(figures, "E2", "E1", higher_in(HALTING_KEY))
    rule = (
        "As for O2: E2's AUROC of q_halt over all steps of the training tasks is higher than that "
        "of E1, the same encoder without the KL term."
    )
    claim = f"E2: KL regularisation helps dynamic halting ({_mode(figures, 'E2')})."
    return Verdict("hypothesis", "E2", claim, ruling, told, rule)


def e3_lpn_works(figures: Figures, reference: str) -> Verdict:
    """Final training exact accuracy of E3 comparable to that of the reference or better."""
    ruling, told = compared(
        figures, "E3", reference, lambda a, b: no_worse(a.values("exact"), b.values("exact"))
    )
    rule = (
        "Final training exact accuracy of the experiment whose mode E3 took exceeds E3's by no "
        "more than the spread of seeds."
    )
    claim = f"E3: the LPN encoder works well ({_mode(figures, 'E3')})."
    return Verdict("hypothesis", "E3", claim, ruling, told, rule)


# -- small parts


def _single(
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


def _of_seeds(holds: Sequence[bool]) -> Ruling:
    """All, none or some of the seeds; one seed alone decides nothing."""
    if len(holds) < 2:
        return "inconclusive"
    return "supported" if all(holds) else "refuted" if not any(holds) else "inconclusive"


def _held_out(figures: Figures, a: str, b: str) -> tuple[str, str]:
    """The held-out figure that both have: of evaluation tasks, else of what was looked at."""
    both = [figures[name] for name in (a, b) if name in figures]
    if len(both) == 2 and all(f.values("test/exact_accuracy").values for f in both):
        return "test/exact_accuracy", "test tasks, after the run"
    return "held/exact_accuracy", "rows looked at while training, last evaluation"


def _mode(figures: Figures, name: str) -> str:
    return f"in {figures[name].mode} mode" if name in figures else "did not run"


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
