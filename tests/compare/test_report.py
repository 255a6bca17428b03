"""The report has every table, every picture and every failure, and needs no other file."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
from hrm.compare.comparison import Comparison, compare
from hrm.compare.curves import _halting, _training, colour
from hrm.compare.figures import RunFigures, by_experiment
from hrm.compare.plan import rounds_and_choices
from hrm.compare.report import report, summary, write_report
from hrm.compare.stamp import made_told
from hrm.compare.tables import cell
from tests.compare.synthetic import evaluation, run, seeds

HEADINGS = [
    "What went wrong",
    "What was run",
    "How to read this",
    "Success criteria",
    "Expected differences",
    "Hypotheses",
    "Is there a winner?",
    "The decision tree",
    "Accuracy",
    "Convergence",
    "Halting",
    "Encoder and compute",
    "Curves",
    "Every run",
    "How it was made",
]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    groups = {"steps_by_task": [2.0 + i for i in range(9)], "first_right": list(range(1, 10))}
    by_step = [0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.5, 0.4]
    train = evaluation(**groups, by_step=by_step)  # type: ignore[arg-type]
    evaluations = {"train": train, "test": evaluation(exact=0.1)}
    runs = seeds("O1", [0.93, 0.95], evaluations=evaluations)
    runs += seeds("L1", [0.8, 0.7], evaluations=evaluations, half_at=50.0)
    runs += [run("O2", 0, status="failed", error="a | b <c> broke", exact=0.1, updates=200)]
    choices = rounds_and_choices(by_experiment(runs), "OLE")[1]
    return compare(runs, choices)


@pytest.fixture(scope="module")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    about = {"command": "hrm compare --out x", "rows": "As they are.", "decoder": "of runs/decoder"}
    write_report(comparison, out, about)
    return out


def test_the_markdown_has_all_tables(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    sections = dict(zip(HEADINGS, re.split(r"^## .*$", text, flags=re.M)[1:], strict=True))
    for title in HEADINGS[3:12] + HEADINGS[13:14]:
        assert "| --- |" in sections[title], title
    # A row a claim, with its ruling and its rule.
    rows = [line for t in HEADINGS[3:6] for line in sections[t].splitlines() if line[:2] == "| "]
    rulings = [row.split(" | ")[1] for row in rows if row.split(" | ")[1] not in ("Ruling", "---")]
    assert len(rulings) == 18
    assert set(rulings) <= {"supported", "refuted", "inconclusive"}
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_pictures_are_linked_and_there(folder: Path) -> None:
    names = re.findall(r"\]\((curves/[a-z_]+\.png)\)", (folder / "report.md").read_text())
    assert len(names) == 7
    assert all((folder / name).stat().st_size > 1000 for name in names)


def test_the_page_needs_no_other_file(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 7
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "a | b &lt;c&gt; broke" in page
    assert '<td class="failed">failed</td>' in page


def test_a_failure_comes_first(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "- O2_seed0: failed: a | b <c> broke" in text.split("## How to read this")[0]
    assert "| a \\| b <c> broke |" in text


def test_the_figures_are_strict_json(folder: Path, comparison: Comparison) -> None:
    found = json.loads((folder / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert found["winner"] == comparison.winner.mode
    assert found["experiments"]["O1"]["finished"] == 2
    assert len(found["verdicts"]) == 18
    assert found["runs"][0]["name"] == "O1_seed0"
    assert found["budgets"]["updates"] == 1000


def test_the_common_budget_is_that_of_finished_runs(comparison: Comparison) -> None:
    assert comparison.budget("updates") == 1000  # Not the 200 of the run that failed.
    assert comparison.at_equal("O1", "updates").mean == pytest.approx(0.94, abs=0.01)
    assert comparison.at_equal("O2", "updates").mean is None


def test_steps_trained_and_evaluated_are_told_apart(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    ran = text.split("## What was run")[1].split("## How to read")[0]
    assert re.search(r"^\| L1 .* \| always 4 \| 8 \|$", ran, re.M)
    assert re.search(r"^\| O1 .* \| up to 8 \| 8 \|$", ran, re.M)
    assert "As they are." in ran
    accuracy = text.split("## Accuracy")[1].split("## Convergence")[0]
    assert "training tasks, steps trained" in accuracy
    assert re.search(r"^\| L1 \| online \| 2 of 2 \| 0\.800 ", accuracy, re.M)
    assert "augment" not in accuracy
    # Nothing halts in online mode.
    halting = text.split("## Halting")[1]
    assert re.search(r"^\| L1 \| online \| 2 of 2 \| always 4 \|", halting, re.M)


def test_only_modes_in_which_something_halts_have_steps_drawn() -> None:
    online = by_experiment(seeds("L1", [0.5], steps=(4.0, 4.0)))
    figure = _halting(online | by_experiment(seeds("O1", [0.5])))
    assert figure is not None
    steps, right = figure.axes
    assert {line.get_color() for line in steps.lines} == {colour("O1", [])}
    assert {line.get_color() for line in right.lines} == {colour("O1", []), colour("L1", [])}


def test_a_run_of_unknown_mode_does_not_make_its_experiment_halt() -> None:
    """It ended before it wrote its settings."""
    runs = seeds("L1", [0.5], steps=(4.0, 4.0))
    died = replace(run("L1", 1, status="failed"), mode="unknown", max_steps=None)
    both = compare([*runs, died])
    (table,) = [
        b for b in tables.halting(both) if isinstance(b, Table) and "steps at halt" in b.header
    ]
    assert table.rows[0][3] == "always 4"
    (every,) = [b for b in tables.every_run(both) if isinstance(b, Table)]
    assert [cells[9] for cells in every.rows] == ["always 4", "-"]
    figure = _halting(both.experiments)
    assert figure is not None
    assert not figure.axes[0].lines


def test_compute_is_drawn_and_seconds_are_not() -> None:
    def panels(runs: list[RunFigures]) -> list[str]:
        figure = _training(by_experiment(runs))
        assert figure is not None
        return [axes.get_xlabel() for axes in figure.axes]

    assert panels(seeds("O1", [0.5])) == ["Updates", "Rows drawn", "10^12 multiply-adds"]
    assert panels(seeds("O1", [0.5], work=None)) == ["Updates", "Rows drawn"]


def test_equal_budgets_are_of_updates_rows_and_compute(folder: Path) -> None:
    equal = (folder / "report.md").read_text().split("## Convergence")[1].split("| --- |")[0]
    assert "after 1000 updates | after 8000 rows drawn | after 40 x 10^12 multiply-adds |" in equal


def test_commands_that_read_are_told_from_those_that_ran(
    comparison: Comparison, tmp_path: Path
) -> None:
    def told(**about: Any) -> list[str]:
        code = report(comparison, [], about)[-1]
        assert isinstance(code, Code)
        return list(code.lines)

    train = "hrm train experiment=L1 seed=0"
    read = told(command="hrm compare --out b a", ran=["hrm compare --out a"])
    assert read[:2] == [
        "hrm compare --out b a   # which read:",
        "hrm compare --out a   # which ran:",
    ]
    assert train in read
    ran = told(
        command="hrm compare --out a", ran=["hrm compare --out a --all", "hrm compare --out a"]
    )
    assert [line for line in ran if "#" in line] == [
        "hrm compare --out a --all   # which ran:",
        "hrm compare --out a   # which ran:",
    ]
    assert told(command="hrm compare --out b x")[0] == "hrm compare --out b x   # which read:"


def test_choices_that_were_not_recorded_are_told_of() -> None:
    bare = compare(seeds("O1", [0.9]))
    blocks = report(bare, [], {"undecided": "Not recorded."})
    where = blocks.index(Heading(2, "The decision tree"))
    assert blocks[where + 1] == Text("Not recorded.")
    assert Heading(2, "The decision tree") not in report(bare, [], {})


def test_what_made_a_run_is_that_of_its_run() -> None:
    now = {"commit": "abc", "date": "2026-01-02", "machine": "a machine"}
    o1 = seeds("O1", [0.5, 0.6])
    told = made_told([replace(o1[0], made=(now, now | {"commit": None})), o1[1]])
    assert told == [
        "O1_seed0: commit abc, 2026-01-02, a machine; resumed at commit not known, 2026-01-02, "
        "a machine",
        "O1_seed1: commit, date and machine were not recorded",
    ]


def test_the_summary_says_why_there_is_no_winner() -> None:
    told = summary(compare(seeds("O1", [0.95])))
    assert told.startswith("No mode is called the winner: it does not hold that the gap")
    won = summary(compare(seeds("O1", [0.95, 0.96]) + seeds("L1", [0.5, 0.5])))
    assert won.startswith("The winner is original mode.")


def test_a_report_of_nothing_but_failures_can_be_written(tmp_path: Path) -> None:
    write_report(compare([run("O1", 0, status="failed", error="no data")]), tmp_path, {})
    text = (tmp_path / "report.md").read_text()
    assert "O1_seed0: failed: no data" in text
    assert "## Curves" not in text


def test_cells_show_mean_and_range() -> None:
    found = by_experiment(seeds("O1", [0.5, 0.7]))["O1"]
    assert cell(found.values("decoder_forwards"), ".0f") == "32000"
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}-0\.\d{3}\)", cell(found.values("exact")))
    assert cell(found.values("kl")) == "-"


def test_blocks_are_escaped(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")
    blocks: list[Block] = [
        Heading(2, "a < b"),
        Text("t & u"),
        Bullets(["x"]),
        Code(["y <z>"]),
        Table(("k", "v"), [("a|b", "1")]),
        Image(picture, "c"),
    ]
    text = as_markdown(blocks, tmp_path)
    assert "| a\\|b | 1 |" in text
    assert "![c](a.png)" in text
    page = as_html(blocks, "t<")
    assert "<title>t&lt;</title>" in page
    assert "a &lt; b" in page
    assert "y &lt;z&gt;" in page
