"""Which experiments run, in which order: the document's three series and its decision tree.

    O1 and L1 -> compare convergence, final accuracy and q_halt_accuracy
    O1 leads: O2, O3 (exploration of halting)      L1 leads: L2, L3 (more steps)
    the leader's best -> E1, E2, E3 (encoders) in its mode

Seed document "ACT Mode Comparison Experiments". It says nothing of ties: where neither leads, both
branches run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hrm.compare.criteria import GOOD_Q, NEARLY_CONSTANT
from hrm.compare.figures import ExperimentFigures, Values, first_to_level
from hrm.errors import UserError, nearest


@dataclass(frozen=True)
class Experiment:
    """One of the document's experiments."""

    name: str
    purpose: str
    claim: str
    """What the document expects of it."""


_ALL = (
    Experiment(
        "O1",
        "original mode, exploration 0.5",
        "The Q-head learns to predict correctness, and the steps vary.",
    ),
    Experiment(
        "O2",
        "original mode, exploration 0.3",
        "Less random forcing gives the Q-head more control and better halting decisions.",
    ),
    Experiment(
        "O3",
        "original mode, exploration 0.7",
        "More exploration shows the model more steps, and it generalises better.",
    ),
    Experiment("L1", "online, fewest steps a batch", "Converges faster: more gradients."),
    Experiment("L2", "online, more steps a batch", ""),
    Experiment("L3", "online, most steps a batch", ""),
    Experiment(
        "E1",
        "encoder hybrid_standard",
        "A deeper encoder works better than the shallow one.",
    ),
    Experiment(
        "E2",
        "encoder hybrid_variational",
        "KL regularisation helps dynamic halting.",
    ),
    Experiment(
        "E3",
        "encoder lpn_variational",
        "The LPN encoder works well with original TRM dynamics.",
    ),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}
SERIES = {letter: tuple(n for n in EXPERIMENTS if n[0] == letter) for letter in "OLE"}
MODES = {"O": "original", "L": "online"}


@dataclass(frozen=True)
class Choice:
    """One fork of the tree."""

    question: str
    answer: str
    """A name, or "neither" or "both" with the reason in `why`."""
    why: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """Experiments that run next, all at once."""

    experiments: tuple[str, ...]
    mode_of: str | None = None
    """The experiment whose mode and steps the E-series takes; None: its own."""


def check_series(names: Sequence[str]) -> tuple[str, ...]:
    """The series in the document's order. Raises UserError for an unknown one."""
    for name in names:
        if name not in SERIES:
            known = ", ".join(SERIES)
            raise UserError(f"--series {name}: unknown{nearest(name, SERIES)} (there are {known})")
    return tuple(name for name in SERIES if name in names)


def rounds_and_choices(
    figures: Mapping[str, ExperimentFigures], series: Sequence[str], everything: bool = False
) -> tuple[list[Round], list[Choice]]:
    """The rounds up to the first one that has not run, and the choices that led there.

    Args:
        figures: of the experiments that have run, whether they finished or not. A round is over
            when each of its experiments is among them.
        series: of O, L and E. Without O or without L nothing is chosen before the E-series; E alone
            runs in original mode, as its own text says.
        everything: no choosing between branches; the E-series still takes the leader's mode.

    The tree stops with a choice that says so where no seed of an experiment finished.
    """
    rounds: list[Round] = []
    choices: list[Choice] = []
    letters = "".join(letter for letter in "OL" if letter in series)
    branches = letters
    if letters == "OL":
        rounds.append(Round(("O1", "L1")))
        if not _ran(rounds, figures):
            return rounds, choices
        choices.append(lead(figures["O1"], figures["L1"]))
        letters = {"O1": "O", "L1": "L", "both": "OL"}.get(choices[0].answer, "")
        branches = "OL" if everything else letters
        if branches:
            rounds.append(Round(tuple(n for letter in branches for n in SERIES[letter][1:])))
    elif letters:
        rounds.append(Round(SERIES[letters]))
    elif "E" in series:
        rounds.append(Round(SERIES["E"]))
    if letters and "E" in series and _ran(rounds, figures):
        choices.append(best_of(figures, [n for letter in letters for n in SERIES[letter]]))
        if choices[-1].answer in figures:
            rounds.append(Round(SERIES["E"], mode_of=choices[-1].answer))
    return rounds, choices


def _ran(rounds: Sequence[Round], figures: Mapping[str, ExperimentFigures]) -> bool:
    return all(name in figures for wave in rounds for name in wave.experiments)


def lead(original: ExperimentFigures, online: ExperimentFigures) -> Choice:
    """Which of O1 and L1 leads, so that its branch is explored. No claim that it is better.

    Three votes: convergence (mean updates to the highest of the levels that either reaches in all
    seeds), final training exact accuracy, and O1's q_halt_accuracy (above 80 % and above what a
    constant answer gets: for O1, otherwise for L1; a tie where the constant answer is right in more
    than 95 %, which leaves nothing to predict). Means decide, however small the gap; most votes
    win, and at a tie the accuracy. An experiment without a finished seed leaves the lead to the
    other.
    """
    question = "Which of O1 and L1 leads?"
    alive = [f for f in (original, online) if f.finished]
    if len(alive) < 2:
        names = [f.name for f in alive] or ["neither"]
        return Choice(question, names[0], ("no seed of the other finished",) if alive else ())
    votes: list[tuple[str | None, str]] = [
        _converges_first(original, online),
        _higher(original.values("exact"), online.values("exact"), "final training exact accuracy"),
        _halts_well(original, online),
    ]
    counts = {f.name: sum(who == f.name for who, _ in votes) for f in alive}
    why = tuple(f"{text}: {who or 'tie'}" for who, text in votes)
    most = max(counts.values())
    leaders = [name for name, count in counts.items() if count == most]
    if len(leaders) == 1:
        return Choice(question, leaders[0], why)
    by_accuracy = votes[1][0]
    if by_accuracy:
        return Choice(question, by_accuracy, (*why, "a tie of votes, so accuracy decides"))
    return Choice(question, "both", (*why, "a tie, so both branches run"))


def best_of(figures: Mapping[str, ExperimentFigures], names: Sequence[str]) -> Choice:
    """The experiment with the highest mean final training exact accuracy."""
    known = [figures[n] for n in names if n in figures and figures[n].values("exact").values]
    question = f"Which of {', '.join(n for n in names if n in figures)} is best?"
    if not known:
        return Choice(question, "neither", ("no seed finished, so the E-series does not run",))
    means = {f.name: f.values("exact").mean or 0.0 for f in known}
    best = max(means, key=lambda name: means[name])
    told = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return Choice(question, best, (f"mean final training exact accuracy: {told}",))


def _converges_first(a: ExperimentFigures, b: ExperimentFigures) -> tuple[str | None, str]:
    found = first_to_level(a, b, "updates")
    if found is None:
        return None, "convergence: neither reaches 10 % in all seeds"
    level, of_a, of_b = found
    text = f"updates to {level:.0%} training exact accuracy {of_a.told('.0f')} and "
    return _lower(of_a, of_b), f"{text}{of_b.told('.0f')}"


def _higher(a: Values, b: Values, what: str) -> tuple[str | None, str]:
    if a.mean is None or b.mean is None:
        return None, f"{what}: not known of both"
    who = None if a.mean == b.mean else a.name if a.mean > b.mean else b.name
    return who, f"{what} {a.mean:.3f} and {b.mean:.3f}"


def _lower(a: Values, b: Values) -> str | None:
    if a.mean is None or b.mean is None or a.mean == b.mean:
        return None
    return a.name if a.mean < b.mean else b.name


def _halts_well(original: ExperimentFigures, online: ExperimentFigures) -> tuple[str | None, str]:
    q, constant = original.values("q_halt_accuracy").mean, original.values("q_halt_constant").mean
    if q is None or constant is None:
        return None, "q_halt_accuracy of O1: not known"
    text = f"q_halt_accuracy of {original.name} {q:.3f}, of a constant answer {constant:.3f}"
    if q > GOOD_Q and constant > NEARLY_CONSTANT:
        return None, f"{text}, which leaves nothing to predict"
    return (original.name if q > GOOD_Q and q > constant else online.name), text
