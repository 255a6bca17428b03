"""`hrm compare`: run the document's series, or read finished runs, and write the report."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, print_json
from hrm.commands.train import load_data
from hrm.compare.comparison import Comparison, compare
from hrm.compare.figures import RunFigures, by_experiment
from hrm.compare.plan import SERIES, Round, check_series, rounds_and_choices
from hrm.compare.provenance import about
from hrm.compare.report import cell, summary, write_report
from hrm.compare.runs import (
    Job,
    Runner,
    is_finished,
    read_evaluations,
    read_jobs,
    read_run,
    read_settings,
)
from hrm.config import ExperimentConfig, compose
from hrm.errors import UserError
from hrm.files import write_text
from hrm.models.pretrained import find
from hrm.training.checkpoint import read_json
from hrm.training.trainer import FREE_TO_CHANGE

OWN_OPTIONS = {"experiment": "--series", "seed": "--seeds", "out": "--out", "resume": "--out"}
"""Settings that each run gets from an option."""
MODE_KEYS = ("dynamics", "num_act_steps", "stagger")
MODE_KEYS_OF_ARCH = ("halt_exploration_prob", "context")
"""What the E-series takes from the experiment that leads."""


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm compare",
        "Compare original and online training of the encoder-based TRM: run the series O, L and E\n"
        "by the document's decision tree, or read runs that are finished. Writes report.html (one\n"
        "file), report.md and comparison.json into DIR. Called again, it goes on where it stopped.",
        "hrm compare --out results/modes --seeds 0 1 2 --jobs 2 scale=cpu",
    )
    add = parser.add_argument
    add("runs", metavar="RUN|key=value", nargs="*", help="runs to read, or settings of all runs")
    add("--out", metavar="DIR", required=True, help="folder of the report, and of the runs")
    add("--series", nargs="+", default=["O", "L", "E"], metavar="S", help="of O L E (default: all)")
    add(
        "--all", action="store_true", help="every experiment, no choosing between O2, O3 and L2, L3"
    )
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default 0")
    add("--jobs", type=int, default=1, help="runs at once (default 1)")
    add("--max-steps", type=int, metavar="N", help="updates of each run")
    add("--no-evaluation", action="store_true", help="do not evaluate runs after their end")
    add("--json", action="store_true", help="print one JSON object")
    # Taken out first: an option that takes several words would take them too.
    settings = [word for word in arguments if "=" in word and not word.startswith("-")]
    options = parser.parse_intermixed_args([word for word in arguments if word not in settings])
    at_least(options, jobs=1, max_steps=1)
    series = check_series(options.series)
    if min(options.seeds) < 0:
        raise UserError(f"--seeds: got {min(options.seeds)}, but a seed is at least 0")
    folders = [Path(word) for word in options.runs]
    if folders and (settings or options.max_steps):
        raise UserError(f"{folders[0]}: settings are for new runs, and this is a run to read")
    for word in settings:
        key = word.partition("=")[0].lstrip("+")
        if option := OWN_OPTIONS.get(key):
            raise UserError(f"{key}: is for {option}; each run has its own")
    if options.max_steps:
        settings.append(f"max_steps={options.max_steps}")

    out = Path(options.out)
    splits = () if options.no_evaluation else ("train", "test")
    runner = Runner(out, options.jobs, splits=splits, tell=tell)
    with ending_as_interrupted():
        if folders:
            comparison = read(runner, folders)
        else:
            comparison = run_series(runner, series, options.seeds, settings, options.all)
    told = about(comparison) | {"command": shlex.join(["hrm", "compare", *arguments])}
    found = write_report(comparison, out, told)
    if options.json:
        print_json(found)
    else:
        show(comparison)
    print(f"hrm: {out}: report.html, report.md, comparison.json, curves", file=sys.stderr)
    failed = [run_.name for run_ in comparison.runs if run_.status == "failed"]
    if failed:
        print(f"hrm: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def ending_as_interrupted() -> Iterator[None]:
    """Being told to end is an interrupt, so that the runs are ended too."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(line: str) -> None:
    """A line of progress on standard error, with the time."""
    print(f"hrm: {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def read(runner: Runner, folders: Sequence[Path]) -> Comparison:
    """Runs that lie elsewhere, evaluated unless they have been.

    A folder that `hrm compare` made stands for all its runs.

    Raises:
        UserError: a folder is no run's, or two runs of one experiment differ in more than the seed.
    """
    found: list[RunFigures] = []
    own: dict[str, Path] = {}
    for folder in folders:
        if (folder / "jobs").is_dir():
            found += read_jobs(folder)
            continue
        name = folder.name
        while name in own:
            name += "'"
        own[name] = folder
        read_run(folder)  # Refused before others are evaluated for nothing.
    errors = runner.evaluate({name: path for name, path in own.items() if is_finished(path)})
    found += [
        read_run(
            folder,
            name=name,
            error=errors.get(name),
            evaluations=read_evaluations(runner.out, name),
        )
        for name, folder in own.items()
    ]
    refuse_mixed(found)
    return compare(found)


def refuse_mixed(runs: Sequence[RunFigures]) -> None:
    """Raises UserError unless runs of the same experiment differ in their seed alone."""
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    seeds: dict[tuple[str, int], str] = {}
    for found in runs:
        key = (found.experiment, found.seed)
        if key in seeds:
            raise UserError(
                f"{found.name}: is {found.experiment} with seed {found.seed}, and so is "
                f"{seeds[key]}; give one of them"
            )
        seeds[key] = found.name
        settings = read_settings(found.folder) if found.folder else {}
        kept = {k: v for k, v in settings.items() if k not in (*FREE_TO_CHANGE, "seed", "data")}
        name, before = first.setdefault(found.experiment, (found.name, kept))
        for setting in kept.keys() & before.keys():
            if kept[setting] != before[setting]:
                raise UserError(
                    f"{found.name}: is {found.experiment} as {name} is, but differs in {setting}; "
                    "seeds of an experiment have the same settings"
                )


def run_series(
    runner: Runner,
    series: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    everything: bool = False,
) -> Comparison:
    """Run round after round, as the decision tree says; what ran before is not repeated."""
    configs = {
        name: compose([f"experiment={name}", *settings])
        for letter in series
        for name in SERIES[letter]
    }
    refuse_other_settings(runner.out, settings)
    prepare(configs)
    wanted: dict[str, Job] = {}
    told = 0
    while True:
        runs = [run for run in read_jobs(runner.out) if run.name in wanted]
        rounds, choices = rounds_and_choices(by_experiment(runs), series, everything)
        for choice in choices[told:]:
            tell(f"{choice.question} {choice.answer} ({'; '.join(choice.why)})")
        told = len(choices)
        due = rounds[-1] if rounds else None
        jobs = [] if due is None else jobs_of(due, seeds, settings, configs)
        if all(job.name in wanted for job in jobs):
            reference = next((r.mode_of for r in rounds if r.mode_of), None)
            return compare(runs, choices, reference)
        wanted |= {job.name: job for job in jobs}
        runner.run(jobs)


def refuse_other_settings(out: Path, settings: Sequence[str]) -> None:
    """Raises UserError if `out` holds runs that were made with other settings.

    Such as may change when a run is resumed, its length above all, may differ.
    """
    kept = sorted(w for w in settings if w.partition("=")[0].lstrip("+~") not in FREE_TO_CHANGE)
    path = out / "settings.json"
    if path.is_file():
        before = read_json(path)["settings"]
        if before != kept:
            said = " ".join(before) or "none"
            raise UserError(
                f"--out: the runs in {out} were made with other settings ({said}); give the same, "
                "or another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"settings": kept}) + "\n")


def prepare(configs: Mapping[str, ExperimentConfig]) -> None:
    """Make missing data once, before runs that start together would, and find what is missing."""
    for config in {config.data.path: config for config in configs.values()}.values():
        load_data(config)
    for config in configs.values():
        if config.load_pretrained_decoder is not None:
            find(config.load_pretrained_decoder)


def jobs_of(
    due: Round,
    seeds: Sequence[int],
    settings: Sequence[str],
    configs: Mapping[str, ExperimentConfig],
) -> list[Job]:
    """The runs of a round, seed by seed, so that early seeds of all end first."""
    mode = [] if due.mode_of is None else mode_settings(configs[due.mode_of])
    suffix = "" if due.mode_of is None else f"_as_{due.mode_of}"
    return [
        Job(
            name=f"{name}{suffix}_seed{seed}",
            experiment=name,
            seed=seed,
            settings=(f"experiment={name}", f"seed={seed}", *mode, *settings),
            updates=configs[name].max_steps,
        )
        for seed in seeds
        for name in due.experiments
    ]


def mode_settings(config: ExperimentConfig) -> list[str]:
    """The settings that give another experiment the mode of this one."""
    values = config.model_dump(mode="json", include=set(MODE_KEYS))
    words = {key: values[key] for key in MODE_KEYS if key in values}
    words |= {f"arch.{key}": config.arch[key] for key in MODE_KEYS_OF_ARCH}
    return [f"{key}={'null' if value is None else value}" for key, value in words.items()]


def show(comparison: Comparison) -> None:
    """The summary, the figures that matter, and every ruling."""
    console = Console()
    console.print(summary(comparison), highlight=False)
    table = Table(box=None, pad_edge=False)
    columns = ("exact", "best_exact", "q_halt_accuracy", "steps", "held/exact_accuracy")
    for title in ("", "mode", "seeds", "exact", "best", "q_halt", "steps", "held out"):
        table.add_column(title, justify="left" if title in ("", "mode") else "right")
    for name, found in comparison.experiments.items():
        seeds = f"{len(found.finished)} of {len(found.runs)}"
        table.add_row(name, found.mode, seeds, *(cell(found.values(key)) for key in columns))
    console.print(table)
    for verdict in comparison.verdicts:
        console.print(f"{verdict.ruling:13} {verdict.claim}", highlight=False)
    for run_ in comparison.runs:
        if run_.status != "finished" or run_.error:
            console.print(f"{run_.name}: {run_.status}: {run_.error}", highlight=False, style="red")
