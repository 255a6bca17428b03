"""ARC-AGI-1 on grids of up to 10 x 10: original and online training compared, and TRM beside them.

    python benchmarks/arc.py --keep DIR --jobs 2

Trains a decoder on training tasks alone (TRM with puzzle embeddings), then the O, L and E series
from it on 32 of those tasks (`hrm compare`), and TRM with puzzle embeddings on the same 32 tasks
and on the demonstrations of the evaluation tasks. Nothing was chosen on evaluation tasks. What is
finished in DIR is not repeated; `--report` trains nothing. Writes results/arc_modes/ (the report of
`hrm compare`) and results/arc_trm.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from machine import hrm, stamp

RESULTS = Path(__file__).parent.parent / "results"
UPDATES = 800
QUIET = ("compile=false", "plots=false", "progress=false")
TOLD = ("accuracy", "exact_accuracy", "policy_exact_accuracy", "pass@1", "pass@2")


def train(root: Path, seeds: list[str], jobs: int) -> None:
    """Everything, as far as it is not there."""
    decoder, trm = root / "decoder", root / "arc_trm"
    for experiment, out, data in (
        ("arc_decoder", decoder, "arc_10_decoder"),
        ("arc_trm", trm, "arc_10_trm"),
    ):
        given = (f"experiment={experiment}", "scale=cpu", f"data.path={root / data}", f"out={out}")
        resume = ("resume=true",) if out.is_dir() else ()
        hrm("train", *given, *QUIET, *resume)
    settings = [f"data.path={root / 'arc_10'}", f"load_pretrained_decoder={decoder}"]
    settings = ["scale=cpu", *settings, "compile=false", "eval_every_steps=400"]
    where = ["--out", str(root / "modes"), "--jobs", str(jobs), "--max-steps", str(UPDATES)]
    hrm("compare", *where, "--all", "--seeds", *seeds, *settings)


def report_modes(root: Path) -> None:
    """The report of `hrm compare`, without the folder in which its runs lie."""
    made, out = root / "report", RESULTS / "arc_modes"
    shutil.rmtree(made, ignore_errors=True)
    hrm("compare", "--out", str(made), str(root / "modes"), "--no-evaluation")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made, out)
    for file in (out / "report.md", out / "report.html", out / "comparison.json"):
        file.write_text(file.read_text().replace(f"{root}", "DIR"))


def report_trm(root: Path) -> None:
    """TRM's figures on what it trained on, and on the test pairs of evaluation tasks."""
    figures: dict[str, Any] = {}
    for name, given in (
        ("train: the 32 tasks", ("train", "--groups", "32")),
        ("train: all that it trained on", ("train",)),
        ("val: test pairs", ("val",)),
        ("test: test pairs", ("test",)),
    ):
        steps = ("--max-steps", "2", "--json")
        told = json.loads(hrm("evaluate", str(root / "arc_trm"), "--split", *given, *steps))
        figures[name] = {key: told[key] for key in (*TOLD, "count", "tasks")}
    command = "python benchmarks/arc.py --keep DIR"
    last = json.loads((root / "arc_trm" / "metrics.jsonl").read_text().splitlines()[-1])
    done = {"updates": last["step"], "rows": last["samples"], "train_s": last["time/train_s"]}
    minutes = done["train_s"] / 60
    record = {"command": command, **stamp(), **done, "splits": figures}
    (RESULTS / "arc_trm.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# TRM with puzzle embeddings on ARC-AGI-1, grids of up to 10 x 10",
        "",
        f"`{command}` at commit {record['commit']}, {record['date']},",
        f"{record['machine']}. One seed, {done['updates']} updates of 32 sequences,",
        f"{done['rows']} rows drawn, {minutes:.0f} minutes; two steps a row.",
        "Trained on the 32 tasks of the O, L and E series (demonstrations and test pairs) and on",
        "the demonstrations of the val and test tasks, each in five forms.",
        "",
        "| split | tasks | rows | tokens right | exactly right | where it halts | pass@1 "
        "| pass@2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for split, told in figures.items():
        # Votes on training rows would count demonstrations as questions.
        asked = [k for k in TOLD if not (split.startswith("train") and k.startswith("pass"))]
        shares = [f"{told[k]:.3f}" if k in asked else "-" for k in TOLD]
        lines.append(
            f"| {split} | {told['tasks']} | {told['count']} | " + " | ".join(shares) + " |"
        )
    (RESULTS / "arc_trm.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--report", action="store_true", help="of what is there already")
    options = parser.parse_args()
    root = options.keep.resolve()
    if not options.report:
        train(root, options.seeds, options.jobs)
    report_modes(root)
    report_trm(root)


if __name__ == "__main__":
    main()
