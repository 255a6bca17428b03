"""`hrm bench train|solve|gemm`: speed beside what the machine can do, in the same run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from hrm.commands.arguments import Parser, at_least, print_json
from hrm.device import pick_device
from hrm.errors import UserError, nearest

if TYPE_CHECKING:
    from hrm.config import ExperimentConfig
    from hrm.data.base import PuzzleSplit

USAGE = """usage: hrm bench KIND ... (hrm bench KIND --help shows all options)

  hrm bench train   whole updates, as a share of the rate of bare matrix products
  hrm bench solve   serving with halting, against the fastest plain loop of fixed depth
  hrm bench gemm    that rate of bare matrix products

example: hrm bench train arch=trm_mlp --json"""

FULL_SIZE = {"data.path": "synthetic", "global_batch_size": "16"}
"""What `hrm bench train` adds when neither an experiment nor data are given: 16 sequences."""
FULL_LENGTH, FULL_VOCAB = 81, 11


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    kind, *rest = arguments
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise UserError(f"bench {kind}: unknown{nearest(kind, KINDS)} (there are {known})")
    return KINDS[kind](rest)


def gemm(arguments: list[str]) -> int:
    parser = Parser(
        "hrm bench gemm",
        "Rate of bare matrix products, the largest ones of a full-size step, in turns.",
        "hrm bench gemm --dtype bfloat16 --threads 2",
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    parser.add_argument("--device", default="auto")
    _add_common(parser, repeats=20)
    options = parser.parse_args(arguments)
    at_least(options, repeats=1, threads=1)
    from hrm.benchmarking.products import product_rates
    from hrm.benchmarking.train import device_name

    device = pick_device(options.device)
    _set_threads(options.threads)
    rates = product_rates(getattr(torch, options.dtype), device, options.repeats)
    figures = {
        # Of the first, in which a step spends most.
        "operations_per_s": rates[0]["operations_per_s"],
        "operations_per_s_spread": rates[0]["operations_per_s_spread"],
        "products": rates,
        "dtype": options.dtype,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "repeats": options.repeats,
    }
    if options.json:
        print_json(figures)
        return 0
    table = _table("m x k x n", "GFLOP/s", "least", "most")
    for rate in rates:
        values = (rate["operations_per_s"], *rate["operations_per_s_spread"])
        shape = " x ".join(map(str, rate["shape"]))
        table.add_row(shape, *(f"{value / 1e9:.1f}" for value in values))
    Console().print(table)
    _print_machine(figures)
    return 0


def train(arguments: list[str]) -> int:
    parser = Parser(
        "hrm bench train",
        "Whole updates as hrm train does them, and their share of the rate of bare products.\n"
        "Settings are those of hrm train. Without experiment or data: the full-size step, width\n"
        "512 and 16 random sequences of 81 tokens. An experiment whose data are not there gets\n"
        "random rows of its size.",
        "hrm bench train arch=hrm arch.continue_target=next_step --json",
    )
    parser.add_argument("settings", metavar="key=value", nargs="*", help="as in hrm train")
    parser.add_argument("--length", type=int, help="random rows of so many tokens")
    parser.add_argument("--vocab", type=int, help="of so many values (default 11)")
    _add_common(parser, repeats=9)
    options = parser.parse_intermixed_args(arguments)
    at_least(options, repeats=1, threads=1, length=1, vocab=2)
    from hrm.benchmarking.train import bench_training
    from hrm.commands.train import augmenter

    config, given = compose_for_bench(options.settings)
    rows = rows_to_train(config, given, options.length, options.vocab)
    _set_threads(options.threads)
    augment = augmenter(config, rows.metadata)
    figures = bench_training(config, rows, options.repeats, augment)
    figures |= {"data": str(rows.path.parent), "settings": " ".join(options.settings)}
    if options.json:
        print_json(figures)
        return 0
    table = _table("", "median", "least", "most")
    for key, gloss, unit in (
        ("samples_per_s", "samples a second", 1),
        ("updates_per_s", "updates a second", 1),
        ("seconds_per_update", "seconds an update", 1),
        ("gemm_operations_per_s", "bare product, GFLOP/s", 1e9),
        ("gemm_share", "share of that rate", 1),
    ):
        values = (figures[key], *figures[f"{key}_spread"])
        table.add_row(gloss, *(f"{value / unit:.4g}" for value in values))
    table.add_row("GFLOP an update", f"{figures['operations_per_update'] / 1e9:.4g}")
    if figures["memory_bytes"] is not None:
        table.add_row("memory at most, MiB", f"{figures['memory_bytes'] / 2**20:.0f}")
    Console().print(table)
    _print_machine(figures)
    return 0


def compose_for_bench(settings: list[str]) -> tuple[ExperimentConfig, set[str]]:
    """The checked settings, and which keys were given.

    Raises:
        UserError: for anything wrong in them.
    """
    from hrm.benchmarking.train import ENDLESS
    from hrm.config import compose

    for setting in settings:
        if "=" not in setting:
            raise UserError(f"{setting}: settings are given as key=value")
    given = {setting.partition("=")[0].lstrip("+") for setting in settings}
    added = dict(FULL_SIZE) if not given & {"experiment", "data.path"} else {}
    if not given & {"epochs", "max_steps", "experiment"}:
        added["max_steps"] = str(ENDLESS)  # The schema asks how long a run is.
    added = {key: value for key, value in added.items() if key not in given}
    return compose([*settings, *(f"{key}={value}" for key, value in added.items())]), given


def rows_to_train(
    config: ExperimentConfig, given: set[str], length: int | None, vocab: int | None
) -> PuzzleSplit:
    """Rows of `data.path` where it is there, else random ones of the size that is known.

    Raises:
        UserError: it is given and not there, or the size is not known.
    """
    from hrm.benchmarking.train import synthetic_split
    from hrm.data.base import load_split
    from hrm.data.sudoku import SHAPES, sudoku_request

    if length is not None or not given & {"experiment", "data.path"}:
        return synthetic_split(length or FULL_LENGTH, vocab or FULL_VOCAB)
    if vocab is not None:
        raise UserError("--vocab: is of random rows; give --length too")
    root = Path(config.data.path)
    if root.exists():
        return load_split(root, "train")
    if "data.path" in given:
        raise UserError(f"data.path: {root} does not exist; --length N takes random rows instead")
    if config.data.prepare is None or config.data.prepare.get("kind", "sudoku") != "sudoku":
        raise UserError(
            f"data.path: {root} does not exist, and the experiment does not say its size; give "
            "--length and --vocab for random rows"
        )
    shape = SHAPES[sudoku_request(**config.data.prepare, out=root).size]
    return synthetic_split(shape.cells, shape.vocab_size)


def solve(arguments: list[str]) -> int:
    parser = Parser(
        "hrm bench solve",
        "Serving with halting (hrm.inference.Engine) against the fastest plain loop of fixed\n"
        "depth over the same rows, and whether its answers are those of solving each row alone.",
        "hrm bench solve runs/six --count 512 --json",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run, a checkpoint, an exported or shipped model, a file")
    add("--data", metavar="DIR", help="another data set (default: the run's own)")
    add("--split", choices=("test", "val", "train"), default="test")
    add("--count", type=int, default=512, help="rows, spread evenly over the split (default 512)")
    add("--slots", type=int, help="of the engine (default: the fastest of several)")
    add("--check", type=int, help="rows that are also solved alone (default: all)")
    add("--device", default="auto")
    _add_common(parser, repeats=5)
    options = parser.parse_args(arguments)
    at_least(options, repeats=1, threads=1, count=1, slots=1, check=1)
    from hrm.benchmarking.solve import bench_solving
    from hrm.benchmarking.train import device_name
    from hrm.commands.evaluate import root_of, seq_len_of
    from hrm.data.base import load_split
    from hrm.training.checkpoint import load_run

    device, seq_len = pick_device(options.device), seq_len_of(options.data, options.split)
    loaded = load_run(options.run, device, seq_len=seq_len)
    rows = load_split(root_of(loaded, options.data), options.split)
    _set_threads(options.threads)
    figures = bench_solving(
        loaded.model,
        rows,
        count=options.count,
        repeats=options.repeats,
        slots=options.slots,
        check=options.check,
    )
    figures |= {"device": device_name(device), "split": options.split}
    if options.json:
        print_json(figures)
        return 0
    table = _table("", "median", "least", "most")
    for key, gloss, unit in (
        ("puzzles_per_s", "puzzles a second, halting", 1),
        ("puzzles_per_s_max_steps", "to the last step", 1),
        ("fixed_puzzles_per_s", "plain loop of fixed depth", 1),
        ("ratio", "halting over the plain loop", 1),
        ("engine_overhead_s_per_step", "engine's overhead, ms a step", 1e-3),
        ("engine_overhead_share", "as a share of the step", 1),
    ):
        values = (figures[key], *figures[f"{key}_spread"])
        table.add_row(gloss, *(f"{value / unit:.4g}" for value in values))
    table.add_row("mean steps", f"{figures['mean_steps']:.2f} of {figures['max_steps']}")
    if figures["exact_accuracy"] is not None:
        values = (figures["exact_accuracy"], figures["fixed_exact_accuracy"])
        table.add_row("exact accuracy, loop's", *(f"{value:.4f}" for value in values))
    Console().print(table)
    same = f"{figures['mismatches']} of {figures['checked']} rows differ from the row alone"
    print(f"{figures['slots']} slots, {figures['fixed_batch_size']} rows in the loop; {same}")
    for mismatch in figures["mismatch_details"]:
        print(f"  {mismatch}")
    _print_machine(figures)
    return 0


def _add_common(parser: Parser, repeats: int) -> None:
    parser.add_argument("--repeats", type=int, default=repeats, help=f"default {repeats}")
    parser.add_argument("--threads", type=int, help="of the CPU (default: PyTorch's choice)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _print_machine(figures: dict[str, Any]) -> None:
    words = f"{figures['dtype']} on {figures['device']}, {figures['threads']} threads"
    print(f"hrm: {words}, medians of {figures['repeats']}", file=sys.stderr)


KINDS = {"train": train, "solve": solve, "gemm": gemm}
