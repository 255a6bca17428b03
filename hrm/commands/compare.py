"""`hrm compare`: run the document's series, or read finished runs, and write the report."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, print_json
from hrm.commands.train import load_data
from hrm.compare.comparison import Comparison, compare
from hrm.compare.data import prepared
from hrm.compare.figures import RunFigures, by_experiment
from hrm.compare.folder import (
    EVALUATED_SPLITS,
    evaluation_due,
    is_comparison,
    is_finished,
    outcomes_of,
    read_evaluations,
    read_jobs,
    read_run,
    read_settings,
    whose,
)
from hrm.compare.modes import mode_settings
from hrm.compare.plan import SERIES, Round, check_series, rounds_and_choices
from hrm.compare.provenance import about
from hrm.compare.report import summary, write_report
from hrm.compare.runs import Job, Runner
from hrm.compare.series import keep_series, read_series
from hrm.compare.tables import cell
from hrm.config import DataConfig, ExperimentConfig, compose
from hrm.errors import UserError
from hrm.files import write_text
from hrm.models.pretrained import find
from hrm.training.checkpoint import read_json
from hrm.training.trainer import FREE_TO_CHANGE

OWN_OPTIONS = {"experiment": "--series", "seed": "--seeds", "out": "--out", "resume": "--out"}
"""Settings that each run gets from an option."""
START = ("load_pretrained_decoder", "init_from")
"""What a run begins with, which a resumed one does not read again."""
SAME_IN_SEEDS = frozenset(
    "epochs max_steps stop_at_exact_accuracy stop_after_s eval_split eval_count max_eval_groups "  # noqa: SIM905
    "eval_halting load_pretrained_decoder init_from".split()
)
"""Of what a resumed run may change, what makes the figures of two runs differ."""


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
    splits = () if options.no_evaluation else EVALUATED_SPLITS
    runner = Runner(out, options.jobs, splits=splits, tell=tell)
    command = shlex.join(["hrm", "compare", *arguments])
    with ending_as_interrupted():
        if folders:
            comparison = read(runner, folders)
        else:
            given = (series, options.seeds, settings, options.all)
            comparison = run_series(runner, *given, command=command)
    told = about(comparison) | {"command": command} | ran_by(folders or [out])
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
    whole = [folder for folder in folders if is_comparison(folder)]
    own: dict[str, Path] = {}
    for folder in folders:
        name = folder.name
        while name in own:
            name += "'"
        if folder not in whole:
            own[name] = folder
    # Refused before others are evaluated for nothing.
    refuse_mixed(_read_all(runner.out, whole, own, {}))
    missing = due(whole)
    # What was noted of an evaluation that has been made since is over.
    evaluated = [o.name for f in whole for o in outcomes_of(f) if o.status == "finished"]
    errors: dict[str, str | None] = dict.fromkeys(n for n in evaluated if n not in missing)
    if runner.splits:
        finished = {name: path for name, path in own.items() if is_finished(path)}
        errors |= runner.evaluate(missing | finished)
    choices = [c for folder in whole if (s := read_series(folder)) for c in s.choices]
    return compare(_read_all(runner.out, whole, own, errors), choices)


def ran_by(folders: Iterable[Path]) -> dict[str, Any]:
    """The commands that ran the series in these folders, and whose choices are not known."""
    kept = {folder: read_series(folder) for folder in folders if is_comparison(folder)}
    unknown = [str(folder) for folder, series in kept.items() if series is None]
    told: dict[str, Any] = {
        "ran": [c for series in kept.values() if series for c in series.commands]
    }
    if unknown:
        told["undecided"] = f"What chose the experiments of {', '.join(unknown)} was not recorded."
    return told


def due(comparisons: Iterable[Path]) -> dict[str, Path]:
    """The finished runs of comparisons, by name, whose evaluation is missing or was interrupted."""
    return {
        outcome.name: folder / "runs" / outcome.name
        for folder in comparisons
        for outcome in outcomes_of(folder)
        if outcome.status == "finished"
        and any(
            evaluation_due(folder, outcome.name, folder / "runs" / outcome.name, split)
            for split in EVALUATED_SPLITS
        )
    }


def _read_all(
    out: Path,
    comparisons: Iterable[Path],
    own: Mapping[str, Path],
    errors: Mapping[str, str | None],
) -> list[RunFigures]:
    """The runs of comparisons and single ones; `errors` of their evaluation, by name."""
    found = [run for folder in comparisons for run in read_jobs(folder, out, errors)]
    found += [
        read_run(
            path,
            name=name,
            error=errors.get(name),
            evaluations=read_evaluations(out, name, whose(out, path)),
        )
        for name, path in own.items()
    ]
    return found


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
        free = FREE_TO_CHANGE - SAME_IN_SEEDS
        kept = {k: v for k, v in settings.items() if k not in (*free, "seed")}
        if settings:
            kept |= {"data": _data_of(settings)}
            kept |= {key: _place(settings.get(key)) for key in START}
        name, before = first.setdefault(found.experiment, (found.name, kept))
        for setting in kept.keys() & before.keys():
            if kept[setting] != before[setting]:
                raise UserError(
                    f"{found.name}: is {found.experiment} as {name} is, but differs in {setting}; "
                    "seeds of an experiment have the same settings"
                )


def _data_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's data are, wherever they lie: how they were made, or else their folder.

    A run may be older than a setting, and then it has had the default.
    """
    fields = DataConfig.model_fields.items()
    known = {name: field.default for name, field in fields if not field.is_required()}
    data = {k: v for k, v in (known | (settings.get("data") or {})).items() if k != "prepare"}
    root = Path(data.get("path") or "")
    return data | {"path": prepared(root).get("tasks") or _place(data.get("path"))}


def _place(path: str | None) -> str | None:
    """A path however it is written; a name of a shipped model or of the hub as it is."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def run_series(
    runner: Runner,
    series: Sequence[str],
    seeds: Sequence[int],
    settings: Sequence[str],
    everything: bool = False,
    *,
    command: str = "hrm compare",
) -> Comparison:
    """Run round after round, as the decision tree says; what ran before is not repeated.

    The choices, and the `command` that asked for them, are kept in the folder as they are made.
    """
    configs = {
        name: compose([f"experiment={name}", *settings])
        for letter in series
        for name in SERIES[letter]
    }
    refuse_other_settings(runner.out, settings)
    refuse_other_start(runner.out, configs)
    prepare(configs)
    wanted: dict[str, Job] = {}
    told = 0
    while True:
        runs = [run for run in read_jobs(runner.out) if run.name in wanted]
        rounds, choices = rounds_and_choices(by_experiment(runs), series, everything)
        for choice in choices[told:]:
            tell(f"{choice.question} {choice.answer} ({'; '.join(choice.why)})")
        told = len(choices)
        keep_series(runner.out, command, choices)
        due = rounds[-1] if rounds else None
        jobs = [] if due is None else jobs_of(due, seeds, settings, configs)
        if all(job.name in wanted for job in jobs):
            return compare(runs, choices)
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


def refuse_other_start(out: Path, configs: Mapping[str, ExperimentConfig]) -> None:
    """Raises UserError if `out` holds a run that began with another decoder or model.

    A resumed run does not read them again: it would be noted with what it never had.
    """
    for path in sorted((out / "runs").glob("*/config.yaml")):
        settings = read_settings(path.parent)
        config = configs.get(str(settings.get("experiment_name")))
        for key in START:
            was, now = settings.get(key), getattr(config, key, None)
            if config is not None and _place(was) != _place(now):
                raise UserError(
                    f"{key}: {path.parent.name} in {out} began with {was or 'none'}, and now it is "
                    f"{now or 'none'}; give the same, or another folder"
                )


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
