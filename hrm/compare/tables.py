"""The report's tables of figures: a row an experiment or a run, a column a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hrm.compare.blocks import Block, Heading, Table, Text
from hrm.compare.comparison import Comparison
from hrm.compare.figures import LEVELS, ExperimentFigures, RunFigures, Values
from hrm.compare.log import CLOCK_FORMS, CLOCKS, Clock
from hrm.compare.modes import reference_of
from hrm.compare.plan import EXPERIMENTS

UNITS: dict[Clock, str] = {**CLOCKS, "samples": "rows", "seconds": "s"}
"""Short, for headings."""
Column = tuple[str, str] | tuple[str, str, str]
"""A figure's key, its heading, and how it is written (`.3f`)."""


def experiments(comparison: Comparison) -> list[Block]:
    """What each experiment is, how long it ran and with how many steps."""
    rows = []
    for name, found in comparison.experiments.items():
        known = EXPERIMENTS.get(name)
        what = known.purpose if known else "-"
        if name.startswith("E") and (like := reference_of(comparison.experiments, name)):
            what += f", in the mode of {like}"
        rows.append(
            (
                name,
                what,
                found.mode,
                _seeds(found),
                cell(found.values("updates"), ".0f"),
                cell(found.values("samples"), ".0f"),
                steps_trained(found.finished),
                _either(run.evaluated_steps for run in found.finished),
            )
        )
    header = (
        *("experiment", "what it is", "mode", "seeds", "updates", "rows drawn"),
        *("steps trained", "steps evaluated"),
    )
    return [Table(header, rows, words=(1, 2))]


def accuracy(comparison: Comparison) -> list[Block]:
    """In training, and of the weights that came out, on tasks trained on and held out."""
    trained: tuple[Column, ...] = (
        ("exact", "exact, end"),
        ("best_exact", "exact, best"),
        ("accuracy", "tokens, end"),
        ("loss", "loss, end"),
    )
    after: tuple[Column, ...] = (
        ("train/exact_as_trained", "training tasks, steps trained"),
        ("train/policy_exact_accuracy", "where its policy halts"),
        ("train/exact_accuracy", "last step"),
        ("test/exact_as_trained", "test tasks, steps trained"),
        ("test/policy_exact_accuracy", "where its policy halts"),
        ("test/exact_accuracy", "last step"),
        ("test/accuracy", "tokens, last step"),
        ("test/pass@1", "pass@1"),
        ("test/pass@2", "pass@2"),
    )
    looked_at: tuple[Column, ...] = (
        ("held/exact_as_trained", "exact, steps trained"),
        ("held/exact_accuracy", "exact, last step"),
        ("held/best_exact_accuracy", "best of all looks"),
        ("held/accuracy", "tokens"),
        ("held/pass@1", "pass@1"),
        ("held/pass@2", "pass@2"),
    )
    return [
        Heading(2, "Accuracy"),
        Text(
            "While training: of the rows as they are drawn and of the weights as they are updated, "
            "when a sequence ends. End: the mean over the last tenth of the updates; best: the "
            "highest such mean."
        ),
        by_experiment(comparison, trained),
        Text(
            "After the run: exact accuracy of the averaged weights on the tasks trained on, as "
            "they are stored, and on test tasks, which were never looked at. Every sequence runs "
            "all evaluated steps; 'steps trained' is its answer after as many steps as training "
            "takes at most, 'last step' that after all of them: a step that online mode may never "
            "have trained, and that few sequences reach in original mode once they halt early, so "
            "that it can be far worse than the answer where the policy halts. pass@k: share of "
            "test inputs whose right answer is among the k that most forms of the task vote for."
        ),
        by_experiment(comparison, after),
        Text(
            "Held-out tasks that were looked at while training (val, where there is one), averaged "
            "weights, last look unless said otherwise. The best of all looks is chosen by "
            "these tasks themselves and flatters."
        ),
        by_experiment(comparison, looked_at),
    ]


def convergence(comparison: Comparison) -> list[Block]:
    """At equal budgets, and how long to a level."""
    clocks = tuple(clock for clock in CLOCKS if clock != "seconds")
    equal = ["experiment", "mode", "seeds"]
    for clock in clocks:
        budget, of = comparison.budget(clock), "x " if clock == "compute" else ""
        count = "equal" if budget is None else f"{budget:{CLOCK_FORMS[clock]}} {of}".rstrip()
        equal.append(f"after {count} {CLOCKS[clock]}")
    levels = [level for level in LEVELS if level in (0.9, 0.5)]
    header = ["experiment", "mode", "seeds"]
    header += [f"{UNITS[clock]} to {level:.0%}" for level in levels for clock in CLOCKS]
    at, to = [], []
    for name, found in comparison.experiments.items():
        head = [name, found.mode, _seeds(found)]
        at.append([*head, *(cell(comparison.at_equal(name, clock)) for clock in clocks)])
        to.append([*head, *(_time(found, level, clock) for level in levels for clock in CLOCKS)])
    return [
        Heading(2, "Convergence"),
        Text(
            "Training exact accuracy where every finished run had the same number of updates, rows "
            "drawn, or multiply-adds behind it (the mean over the 2 % of the updates before). "
            "Multiply-adds are equal compute: those of matrix products and attention, forward and "
            "backward, in decoder steps and encoder passes of training, without evaluations; of "
            "one sequence they are counted as its model runs, of a task with as many "
            "demonstrations as training tasks have in the mean, each as large as the fullest. '-': "
            "not known, where the data set is not here."
        ),
        Table(equal, at, words=(1,)),
        Text(
            "How long until that mean first reached a level. Seconds are those of training alone, "
            "without evaluations, and are no measure: runs that shared the machine slowed each "
            "other, so that equal work took several times as long."
        ),
        Table(header, to, words=(1,)),
    ]


def _time(found: ExperimentFigures, level: float, clock: Clock) -> str:
    values, never = found.times(level, clock)
    if not values.values or never == len(values.values):
        return "never" if values.values else "-"
    reached = Values(
        found.name,
        tuple(at[clock] for run in found.finished if (at := run.reached[level]) is not None),
    )
    return cell(reached, CLOCK_FORMS[clock]) + (f", {never} never" if never else "")


def halting(comparison: Comparison) -> list[Block]:
    """Steps, and whether the Q-head knows when an answer is right."""
    in_training: tuple[Column, ...] = (
        ("steps", "steps at halt", ".2f"),
        ("steps_by_exploration", "by exploration alone", ".2f"),
        ("q_halt_accuracy", "q_halt_accuracy"),
        ("q_halt_base_rate", "base rate"),
        ("q_halt_constant", "constant"),
    )
    after: tuple[Column, ...] = (
        ("train/policy_mean_steps", "policy's steps", ".2f"),
        ("train/policy_exact_accuracy", "exact where it halts"),
        ("train/exact_as_trained", "exact, steps trained"),
        ("train/exact_accuracy", "exact, last step"),
        ("train/q_halt_auroc_all_steps", "AUROC"),
    )
    rows = []
    for name, found in comparison.experiments.items():
        for run in found.finished:
            if run.histogram:
                told = " ".join(map(str, run.histogram))
                rows.append((f"{name} seed {run.seed}", told, run.histogram_of))
    blocks: list[Block] = [
        Heading(2, "Halting"),
        Text(
            "In training, last tenth of the updates. Steps at halt include exploration, which only "
            "ever delays halting; 'by exploration alone' is the mean of a policy that wishes to "
            "halt at step 1, always. In online mode nothing halts and their number is fixed. Base "
            "rate: share of right answers among the sequences that ended."
        ),
        by_experiment(comparison, in_training),
        Text(
            "After the run, on the training tasks. The policy's steps are where it would halt by "
            "itself, of all evaluated steps, also in online mode, which trained its Q-head on the "
            "first of them only."
        ),
        by_experiment(comparison, after),
    ]
    if rows:
        header = ("Run", "Rows whose policy halts at step 1, 2, ...", "Of")
        blocks.append(Table(header, rows, words=(1, 2)))
    return blocks


def encoder(comparison: Comparison) -> list[Block]:
    """What the encoder was given, and what it cost."""
    columns: tuple[Column, ...] = (
        ("encoder_share", "share of slots", ".3f"),
        ("encoder_per_sample", "encoder gradients a row", ".2f"),
        ("encoder_forwards", "encoder passes", ".0f"),
        ("decoder_forwards", "decoder passes", ".0f"),
        ("compute", "10^12 multiply-adds", ".3g"),
        ("kl", "KL, nats", ".3g"),
        ("seconds", "seconds of training", ".0f"),
    )
    text = (
        "Share of slots that gave the encoder a gradient, over the whole run; passes are of single "
        "sequences, a decoder pass being one step. KL: of variational encoders, summed over the "
        "latent dimensions. Seconds are for information: equal work took as long as other work on "
        "the machine let it."
    )
    return [Heading(2, "Encoder and compute"), Text(text), by_experiment(comparison, columns)]


RUN_HEADER = (
    *("run", "mode", "status", "updates", "rows drawn", "seconds", "exact, end", "best"),
    *("q_halt_accuracy", "steps at halt", "held out exact", "error"),
)


def every_run(comparison: Comparison) -> list[Block]:
    """Each run by itself."""
    rows = []
    for run in comparison.runs:
        figures = run.figures
        rows.append(
            (
                run.name,
                run.mode,
                run.status,
                number(figures.get("updates"), ".0f"),
                number(figures.get("samples"), ".0f"),
                number(figures.get("seconds"), ".0f"),
                number(figures.get("exact")),
                number(figures.get("best_exact")),
                number(figures.get("q_halt_accuracy")),
                number(figures.get("steps"), ".2f") if halts(run) else steps_trained([run]),
                number(figures.get("held/exact_accuracy")),
                run.error or "",
            )
        )
    return [Heading(2, "Every run"), Table(RUN_HEADER, rows, words=(1, 2, 11))]


def by_experiment(comparison: Comparison, columns: Sequence[Column]) -> Table:
    """A row an experiment; columns that no experiment has a figure for are left out."""
    kept = [
        column
        for column in columns
        if any(f.values(column[0]).values for f in comparison.experiments.values())
    ]
    header = ["experiment", "mode", "seeds", *(column[1] for column in kept)]
    rows = []
    for name, found in comparison.experiments.items():
        cells = [
            steps_trained(found.finished)
            if column[0] == "steps" and not any_halts(found)
            else cell(found.values(column[0]), column[2] if len(column) > 2 else ".3f")
            for column in kept
        ]
        rows.append([name, found.mode, _seeds(found), *cells])
    return Table(header, rows, words=(1,))


def halts(run: RunFigures) -> bool:
    """Whether sequences halt in its training, as far as it wrote how it trains."""
    return run.mode not in ("online", "unknown")


def any_halts(found: ExperimentFigures) -> bool:
    """Whether sequences halt in an experiment's training: its finished runs say so, and others only
    where there are none."""
    return any(map(halts, found.finished or found.runs))


def steps_trained(runs: Sequence[RunFigures]) -> str:
    """How many steps sequences have in training: a limit where they halt, else their number."""
    told = _either(run.max_steps for run in runs)
    return told if told == "-" else f"{'up to' if any(map(halts, runs)) else 'always'} {told}"


def _either(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return " or ".join(map(str, known)) or "-"


def _seeds(found: ExperimentFigures) -> str:
    return f"{len(found.finished)} of {len(found.runs)}"


def cell(values: Values, form: str = ".3f") -> str:
    """`mean (smallest-largest)`; '-' if there is none."""
    if values.mean is None:
        return "-"
    least, most = f"{min(values.values):{form}}", f"{max(values.values):{form}}"
    return least if least == most else f"{values.mean:{form}} ({least}-{most})"


def number(value: float | None, form: str = ".3f") -> str:
    """A figure of one run; '-' if there is none."""
    return "-" if value is None else f"{value:{form}}"
