"""`hrm export RUN`: a trained model as a folder with a model card, and on the hub if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hrm.card import model_card
from hrm.commands.arguments import Parser, print_json
from hrm.commands.evaluate import figures_of, seq_len_of
from hrm.config import ExperimentConfig, validate
from hrm.data.base import load_split
from hrm.data.sudoku import decode, shape_of, to_text
from hrm.device import pick_device
from hrm.errors import UserError
from hrm.hub import is_hub_id, library, upload
from hrm.models.pretrained import parameter_count, portable, refuse_taken, save_pretrained
from hrm.provenance import prepare_command, train_command
from hrm.training.checkpoint import LoadedRun, find_checkpoint, load_run, read_json
from hrm.training.metrics import finite


def run(arguments: list[str]) -> int:
    parser = Parser(
        "hrm export",
        "Write a trained model (averaged weights) as a folder: weights, settings, a model card\n"
        "with figures that are measured now on the test split. An exported model is a RUN of the\n"
        "other commands. With --push the folder goes to the Hugging Face hub.",
        "hrm export runs/six --out exports/six --push me/sudoku_6x6",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run's folder, a checkpoint, or a published file of weights")
    add("--out", metavar="DIR", help="a new folder (default: exports/ and the name of the run)")
    add("--push", metavar="USER/NAME", help="put it on the hub (extra: hub; an export as it is)")
    add("--data", metavar="DIR", help="measure on another data set (default: the run's own)")
    add("--device", default="auto")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)

    if options.push is not None:
        if not is_hub_id(options.push):
            raise UserError(f"--push: got '{options.push}', but it is USER/NAME")
        library("--push")
    path = find_checkpoint(options.run)
    if is_export(path):
        if options.push is None or options.out or options.data:
            raise UserError(f"{options.run}: is an export already; --push alone sends it")
        out, record = path, {}
    else:
        out = Path(options.out or Path("exports") / run_name(path))
        seq_len = seq_len_of(options.data, "test")
        loaded = load_run(path, pick_device(options.device), seq_len=seq_len)
        record = export(loaded, out, data=options.data, name=options.push or out.name)
    address = upload(out, options.push) if options.push else None
    if options.json:
        print_json({"out": str(out), "pushed": address, **record})
        return 0
    if record:
        test = record["test"]
        print(
            f"{out}: {record['parameters']:,} parameters, exact accuracy "
            f"{test['exact_accuracy']:.4f} on {test['count']} rows of {test['data']}"
        )
    if address:
        print(f"{out} is at {address}")
    return 0


def is_export(path: Path) -> bool:
    """Whether a folder of weights is no checkpoint: nothing in it could be trained on."""
    return path.is_dir() and not (path / "state.json").exists()


def run_name(path: Path) -> str:
    """The name of the run that a checkpoint belongs to, or of a file."""
    if path.parent.name == "checkpoints":
        return path.absolute().parents[1].name
    return path.stem if path.is_file() else path.name


def export(
    loaded: LoadedRun, out: Path, *, data: str | Path | None = None, name: str | None = None
) -> dict[str, Any]:
    """Measure a model on its test split, write it to `out`, and return what `metrics.json` has.

    Args:
        data: measure on this data set instead.
        name: what the card calls it; None: the folder's name.

    Raises:
        UserError: `out` is taken, or the data are not here.
    """
    refuse_taken(out)
    figures = figures_of(loaded, data=data)
    measured_on = Path(data or loaded.data_root)
    record = record_of(loaded, figures | {"data": data_name(loaded, data)})
    puzzle = example(loaded, measured_on)
    card = model_card(name or out.name, loaded.model, record, puzzle)
    config = portable_config(loaded)
    save_pretrained(
        loaded.model,
        out,
        experiment=None if config is None else config.model_dump(mode="json"),
        step=loaded.step,
        data_root=str(loaded.data_root) if config is None else config.data.path,
        card=card,
        metrics=record,
    )
    return record


def portable_config(loaded: LoadedRun) -> ExperimentConfig | None:
    """The experiment without this machine's folders; None if there was none."""
    if loaded.config is None:
        return None
    values = loaded.config.model_dump(mode="json") | {"out": None, "resume": False}
    return validate(portable(values))


def record_of(loaded: LoadedRun, test: dict[str, Any]) -> dict[str, Any]:
    """`metrics.json`: `parameters`, `source`, `training`, `data` and the figures as `test`.

    `training` (`command`, `seed`, `updates`, `seconds`, `ema`) is empty for a model that was
    trained elsewhere.
    """
    config = portable_config(loaded)
    training: dict[str, Any] = {}
    prepared: dict[str, Any] = {}
    if (loaded.data_root / "prepare.json").is_file():
        prepared = read_json(loaded.data_root / "prepare.json")
    name, settings = portable(str(loaded.data_root)), prepared.get("settings")
    if config is not None:
        name, settings = config.data.path, settings or config.data.prepare
        state = loaded.path / "state.json"
        training = {
            "command": train_command(config),
            "seed": config.seed,
            "updates": loaded.step,
            "seconds": read_json(state).get("train_s") if state.is_file() else None,
            "ema": config.ema,
        }
    task = prepared.get("task", "sudoku")
    command = prepare_command(portable(settings), name, task) if settings else None
    summary = prepared.get("summary") if task == "sudoku" else None
    record = {
        "parameters": parameter_count(loaded.model),
        "source": loaded.path.name,
        "training": training,
        "data": {"name": name, "command": command, "summary": summary},
        "test": test,
    }
    return dict(finite(record))


def data_name(loaded: LoadedRun, data: str | Path | None) -> str:
    """The data set that was measured on, without this machine's folders."""
    own = loaded.data_root if loaded.config is None else loaded.config.data.path
    return str(portable(str(data or own)))


def example(loaded: LoadedRun, data: Path) -> str | None:
    """The first test puzzle as text; None if it is no Sudoku."""
    sizes = loaded.sizes
    if "seq_len" not in sizes or shape_of(sizes["seq_len"], sizes["vocab_size"]) is None:
        return None
    return to_text(decode(load_split(data, "test").take(np.arange(1))["inputs"][0]))
