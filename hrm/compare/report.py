"""A comparison for people: `report.md`, `report.html` (one file, pictures in it), the figures as
`comparison.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hrm.compare import tables
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
from hrm.compare.stamp import made_told
from hrm.compare.verdict import SHARED_RULES, Kind
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
    "A step is one pass through the recursion, after which there is an answer. A row is one test "
    "input of one form of a task, with the task's demonstrations.",
    "Exact accuracy: share of sequences all of whose tokens are right, from 0 to 1. In training it "
    "is taken when a sequence ends; in an evaluation after the last step unless it says otherwise, "
    "with averaged weights.",
    "q_halt_accuracy: how often the Q-head is right about whether the answer is right. Constant: "
    "what always giving the more frequent answer would get. AUROC: chance that a right answer "
    "gets a higher value than a wrong one; 0.5 knows nothing.",
    "Multiply-adds: counted work of training, the clock of equal compute. Seconds are told, and "
    "decide nothing: they depend on what else the machine did.",
    "Cells are means over finished seeds, in brackets the smallest and largest value (none: one "
    "seed, or all are equal); seeds: finished ones of all; '-' is not known.",
)


def write_report(comparison: Comparison, out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report into `out`; returns what `comparison.json` holds.

    Args:
        about: what stands beside the figures: `command` that wrote it, `ran` (the commands that
            ran the series), `undecided` (a sentence, where its choices are not known), `data`,
            `tasks`, `rows`, `decoder` (sentences of `hrm.compare.provenance.about`), `problems` (a
            list of them); any may be missing.
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
    blocks += _what_was_run(comparison, about)
    blocks += [Heading(2, "How to read this"), Bullets(WORDS)]
    blocks += _verdicts(comparison)
    blocks += _winner(comparison)
    blocks += _choices(comparison, about)
    blocks += tables.accuracy(comparison)
    blocks += tables.convergence(comparison)
    blocks += tables.halting(comparison)
    blocks += tables.encoder(comparison)
    if pictures:
        blocks.append(Heading(2, "Curves"))
        blocks += [Image(picture.path, picture.caption) for picture in pictures]
    blocks += tables.every_run(comparison)
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
    for key, what in (
        ("exact", "Final training exact accuracy"),
        ("test/exact_accuracy", "Exact accuracy on test tasks"),
    ):
        scores = [
            f"{name} {values.told()}"
            for name, found in comparison.experiments.items()
            if (values := found.values(key)).values
        ]
        if scores:
            text += f"{what}: {', '.join(scores)}. "
    return text.rstrip()


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


def _choices(comparison: Comparison, about: Mapping[str, Any]) -> list[Block]:
    title, undecided = Heading(2, "The decision tree"), about.get("undecided")
    untold: list[Block] = [Text(undecided)] if undecided else []
    if not comparison.choices:
        return [title, *untold] if untold else []
    rows = [(c.question, c.answer, "; ".join(c.why)) for c in comparison.choices]
    text = (
        "Which experiments ran next was decided by these figures, as they stood then. A lead is no "
        "claim that one is better: means decide, however small the gap."
    )
    table = Table(("Question", "Answer", "Why"), rows, words=(0, 1, 2))
    return [title, Text(text), table, *untold]


def _what_was_run(comparison: Comparison, about: Mapping[str, Any]) -> list[Block]:
    facts = [about[key] for key in ("tasks", "rows") if about.get(key)]
    if about.get("decoder"):
        facts.append(f"Decoder: {about['decoder']}")
    blocks: list[Block] = [Heading(2, "What was run"), *tables.experiments(comparison)]
    return [*blocks, Bullets(facts)] if facts else blocks


def _about(comparison: Comparison, about: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Heading(2, "How it was made")]
    facts = [f"Data: {about['data']}"] if about.get("data") else []
    blocks.append(Bullets([*facts, *made_told(comparison.runs)]))
    trained = [run.command for run in comparison.runs if run.command]
    ran, command = list(about.get("ran", ())), about.get("command")
    lines = [f"{one}   # which ran:" for one in ran]
    if command and command not in ran:
        lines = [f"{command}   # which read:", *lines]
    if lines or trained:
        blocks.append(Code([*lines, *trained]))
    return blocks
