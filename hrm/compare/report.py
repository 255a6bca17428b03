"""A comparison for people: `report.md`, `report.html` (one file, pictures in it), the figures as
`comparison.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hrm.compare.blocks import (
    Block,
    Bullets,
    Code,
    Heading,
    Image,
    Table,
    Text,
    as_html,
    as_markdown,
)
from hrm.compare.comparison import Comparison, as_dict
from hrm.compare.curves import Picture, draw
from hrm.compare.figures import LEVELS, Clock, ExperimentFigures, Values
from hrm.compare.plan import EXPERIMENTS
from hrm.compare.verdicts import SHARED_RULES, Kind
from hrm.files import write_text
from hrm.training.metrics import finite

TITLE = "Encoder-based TRM: original and online training compared"
KINDS: dict[Kind, str] = {
    "criterion": "Success criteria",
    "expected": "Expected differences",
    "hypothesis": "Hypotheses",
}
WORDS = (
    "Original mode: one forward pass and one update a batch; a sequence stays in its slot over "
    "many batches until the halting policy ends it, or chance (exploration) holds that back. The "
    "encoder reads a task's demonstrations when the sequence starts, and its context is kept.",
    "Online mode: every batch starts afresh and takes a fixed number of steps, each with an "
    "encoder pass, a forward and a backward pass and an update. Nothing halts in training.",
    "Exact accuracy: share of sequences all of whose tokens are right. In training it is taken "
    "when a sequence ends; in an evaluation after the last step, with averaged weights.",
    "q_halt_accuracy: how often the Q-head is right about whether the answer is right. Constant: "
    "what always giving the more frequent answer would get. AUROC: chance that a right answer "
    "gets a higher value than a wrong one; 0.5 knows nothing.",
    "Cells are means over finished seeds, in brackets the smallest and largest value; '-' is not "
    "known.",
)


def write_report(comparison: Comparison, out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report into `out`; returns what `comparison.json` holds.

    Args:
        about: how it was made: `command`, `settings` (words), `decoder`, `data`, `machine`,
            `commit`, `date`, `problems` (sentences); any may be missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = draw(comparison.experiments, out / "curves")
    blocks = report(comparison, pictures, about)
    found: dict[str, Any] = finite(as_dict(comparison, about))
    write_text(out / "comparison.json", json.dumps(found, indent=1) + "\n")
    write_text(out / "report.md", as_markdown(blocks, out))
    write_text(out / "report.html", as_html(blocks, TITLE))
    return found


def report(
    comparison: Comparison, pictures: Sequence[Picture], about: Mapping[str, Any]
) -> list[Block]:
    """The report's blocks, what matters most first."""
    blocks: list[Block] = [Heading(1, TITLE), Text(summary(comparison))]
    blocks += _failures(comparison, about)
    blocks += [Heading(2, "How to read this"), Bullets(WORDS)]
    blocks += _verdicts(comparison)
    blocks += _winner(comparison)
    blocks += _choices(comparison)
    blocks += _accuracy(comparison)
    blocks += _convergence(comparison)
    blocks += _halting(comparison)
    blocks += _encoder(comparison)
    if pictures:
        blocks.append(Heading(2, "Curves"))
        blocks += [Image(picture.path, picture.caption) for picture in pictures]
    blocks += _runs(comparison)
    return blocks + _about(comparison, about)


def summary(comparison: Comparison) -> str:
    """The outcome in a few sentences."""
    found = comparison.winner
    if found.mode:
        text = f"The winner is {found.mode} mode. "
    else:
        said = {False: "", None: " (not known)"}
        failed = [c.what + said[c.passed] for c in found.checks if not c.passed]
        text = f"No mode is called the winner: it does not hold that {'; that '.join(failed)}. "
    rulings = [verdict.ruling for verdict in comparison.verdicts]
    counts = ", ".join(f"{rulings.count(r)} {r}" for r in ("supported", "refuted", "inconclusive"))
    text += f"Of {len(rulings)} claims of the document: {counts}. "
    scores = [
        f"{name} {found.values('exact').told()}"
        for name, found in comparison.experiments.items()
        if found.values("exact").values
    ]
    if scores:
        text += f"Final training exact accuracy: {', '.join(scores)}."
    return text


def _failures(comparison: Comparison, about: Mapping[str, Any]) -> list[Block]:
    items = [
        f"{run.name}: {run.status}" + (f": {run.error}" if run.error else "")
        for run in comparison.runs
        if run.status != "finished" or run.error
    ]
    items += list(about.get("problems", ()))
    if not items:
        return []
    return [Heading(2, "What went wrong"), Bullets(items)]


def _verdicts(comparison: Comparison) -> list[Block]:
    blocks: list[Block] = []
    for kind, title in KINDS.items():
        rows = [
            (v.claim, v.ruling, v.figure, v.rule) for v in comparison.verdicts if v.kind == kind
        ]
        table = Table(("Claim", "Ruling", "Figure", "Rule"), rows, words=(0, 1, 2, 3))
        blocks += [Heading(2, title), table]
    return [*blocks, Text("Rules that all of these share:"), Bullets(SHARED_RULES)]


def _winner(comparison: Comparison) -> list[Block]:
    found = comparison.winner
    said = {True: "yes", False: "no", None: "unknown"}
    rows = [(check.what, said[check.passed], check.figure) for check in found.checks]
    text = (
        f"The winner is {found.mode} mode: all conditions hold."
        if found.mode
        else "No mode is called the winner. A winner needs all of these; they are shown for "
        f"{found.candidate or 'neither'} mode, whose accuracy is the higher one."
    )
    table = Table(("Condition", "Holds", "Figure"), rows, words=(0, 1, 2))
    return [Heading(2, "Is there a winner?"), Text(text), table]


def _choices(comparison: Comparison) -> list[Block]:
    if not comparison.choices:
        return []
    rows = [(c.question, c.answer, "; ".join(c.why)) for c in comparison.choices]
    text = (
        "Which experiments ran next was decided by these figures. A lead is no claim that one is "
        "better: means decide, however small the gap."
    )
    table = Table(("Question", "Answer", "Why"), rows, words=(0, 1, 2))
    return [Heading(2, "The decision tree"), Text(text), table]


def _accuracy(comparison: Comparison) -> list[Block]:
    columns = (
        ("exact", "training exact, end"),
        ("best_exact", "best"),
        ("accuracy", "training tokens"),
        ("train/exact_accuracy", "training tasks, averaged weights"),
        ("held/exact_accuracy", "held out while training"),
        ("held/accuracy", "its tokens"),
        ("test/exact_accuracy", "test tasks"),
        ("test/accuracy", "its tokens"),
        ("test/pass@1", "test pass@1"),
        ("test/pass@2", "test pass@2"),
    )
    text = (
        "Training figures are logged while training, on augmented rows, and are means over the "
        "last tenth of the updates; best is the best such mean. 'Training tasks' are the same "
        "tasks without augmentation, evaluated after the run; 'test tasks' were never trained on."
    )
    return [Heading(2, "Accuracy"), Text(text), _by_experiment(comparison, columns)]


def _convergence(comparison: Comparison) -> list[Block]:
    clocks: tuple[tuple[Clock, str, str], ...] = (
        ("updates", "updates", ".0f"),
        ("samples", "rows", ".0f"),
        ("seconds", "s", ".0f"),
    )
    header = ["experiment", "mode"]
    for clock, unit, _ in clocks:
        budget = comparison.budget(clock)
        header.append("-" if budget is None else f"exact at {budget:.0f} {unit}")
    levels = [level for level in LEVELS if level in (0.9, 0.5)]
    header += [f"{unit} to {level:.0%}" for level in levels for _, unit, _ in clocks]
    rows = []
    for name, found in comparison.experiments.items():
        row = [name, found.mode]
        row += [cell(comparison.at_equal(name, clock)) for clock, _, _ in clocks]
        for level in levels:
            for clock, _, form in clocks:
                row.append(_time(found, level, clock, form))
        rows.append(row)
    text = (
        "Training exact accuracy where every finished run had the same number of updates, rows or "
        "seconds behind it, and how long until it reached a level. Seconds are those of training "
        "alone, evaluations left out; runs that shared the machine slowed each other."
    )
    return [Heading(2, "Convergence"), Text(text), Table(header, rows, words=(1,))]


def _time(found: ExperimentFigures, level: float, clock: Clock, form: str) -> str:
    values, never = found.times(level, clock)
    if not values.values or never == len(values.values):
        return "never" if values.values else "-"
    reached = Values(
        found.name,
        tuple(at[clock] for run in found.finished if (at := run.reached[level]) is not None),
    )
    return cell(reached, form) + (f", {never} never" if never else "")


def _halting(comparison: Comparison) -> list[Block]:
    columns = (
        ("steps", "steps at halt, training"),
        ("train/policy_mean_steps", "policy's steps, training tasks"),
        ("q_halt_accuracy", "q_halt_accuracy"),
        ("q_halt_base_rate", "base rate"),
        ("q_halt_constant", "constant"),
        ("train/q_halt_auroc_all_steps", "AUROC, training tasks"),
        ("train/policy_exact_accuracy", "exact where the policy halts"),
        ("train/exact_accuracy", "exact at the last step"),
    )
    table = _by_experiment(comparison, columns)
    rows = []
    for name, found in comparison.experiments.items():
        for run in found.finished:
            if run.histogram:
                told = " ".join(map(str, run.histogram))
                rows.append((f"{name} seed {run.seed}", told, run.histogram_of))
    blocks: list[Block] = [
        Heading(2, "Halting"),
        Text(
            "Steps at halt in training include exploration, which only ever delays halting. The "
            "policy's steps are where it would halt by itself."
        ),
        table,
    ]
    if rows:
        header = ("Run", "Rows that halt at step 1, 2, ...", "Of")
        blocks.append(Table(header, rows, words=(1, 2)))
    return blocks


def _encoder(comparison: Comparison) -> list[Block]:
    columns = (
        ("encoder_share", "share of slots", ".3f"),
        ("encoder_per_sample", "encoder gradients a row", ".2f"),
        ("encoder_forwards", "encoder passes", ".3g"),
        ("decoder_forwards", "decoder passes", ".3g"),
        ("kl", "KL", ".3g"),
        ("seconds", "seconds of training", ".0f"),
    )
    text = (
        "Share of slots that gave the encoder a gradient, over the whole run; passes are of single "
        "sequences, a decoder pass being one step."
    )
    return [Heading(2, "Encoder and compute"), Text(text), _by_experiment(comparison, columns)]


RUN_HEADER = (
    *("run", "mode", "status", "updates", "rows", "seconds", "exact", "best"),
    *("q_halt_accuracy", "steps", "held out", "error"),
)


def _runs(comparison: Comparison) -> list[Block]:
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
                number(figures.get("steps"), ".2f"),
                number(figures.get("held/exact_accuracy")),
                run.error or "",
            )
        )
    table = Table(RUN_HEADER, rows, words=(1, 2, 11))
    return [Heading(2, "Every run"), table]


def _about(comparison: Comparison, about: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Heading(2, "How it was made")]
    lines = [
        f"{e.name}: {e.purpose}" for n, e in EXPERIMENTS.items() if n in comparison.experiments
    ]
    if lines:
        blocks.append(Bullets(lines))
    facts = [
        f"{gloss}: {about[key]}"
        for key, gloss in (
            ("decoder", "Decoder"),
            ("data", "Data"),
            ("machine", "Machine"),
            ("commit", "Commit"),
            ("date", "Date"),
        )
        if about.get(key)
    ]
    if facts:
        blocks.append(Bullets(facts))
    commands = [run.command for run in comparison.runs if run.command]
    if about.get("command"):
        commands = [f"{about['command']}   # which ran:", *commands]
    if commands:
        blocks.append(Code(commands))
    return blocks


def _by_experiment(
    comparison: Comparison, columns: Sequence[tuple[str, str] | tuple[str, str, str]]
) -> Table:
    """A row an experiment; columns that no experiment has a figure for are left out."""
    kept = [
        column
        for column in columns
        if any(f.values(column[0]).values for f in comparison.experiments.values())
    ]
    header = ["experiment", "mode", "seeds", *(column[1] for column in kept)]
    rows = []
    for name, found in comparison.experiments.items():
        seeds = f"{len(found.finished)} of {len(found.runs)}"
        cells = [cell(found.values(c[0]), c[2] if len(c) > 2 else ".3f") for c in kept]
        rows.append([name, found.mode, seeds, *cells])
    return Table(header, rows, words=(1,))


def cell(values: Values, form: str = ".3f") -> str:
    """`mean (smallest-largest)`; '-' if there is none."""
    if values.mean is None:
        return "-"
    least, most = f"{min(values.values):{form}}", f"{max(values.values):{form}}"
    return least if least == most else f"{values.mean:{form}} ({least}-{most})"


def number(value: float | None, form: str = ".3f") -> str:
    """A figure of one run; '-' if there is none."""
    return "-" if value is None else f"{value:{form}}"
