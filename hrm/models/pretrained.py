"""Models that are trained already: written to a folder, found by name, read back.

A folder has `model.safetensors`, `config.json` (as a checkpoint has it: experiment, sizes), a model
card `README.md`, `metrics.json` where the model was measured, and `calibration.json` where its
halting was calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from pydantic import ValidationError

from hrm.errors import UserError, nearest, sentence
from hrm.halting import CalibratedHalting
from hrm.hub import download, is_hub_id
from hrm.models.act import ACTModel
from hrm.models.published import load_published
from hrm.models.registry import MODELS
from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.models.weights import FORMAT, load_weights, read_config, read_json, read_tensors, save

CALIBRATION = "calibration.json"
SHIPPED = Path(__file__).parents[1] / "pretrained"
"""Where the models lie that come with the package, one a folder."""


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model.safetensors"))


def is_model_folder(path: Path) -> bool:
    """Whether `path` is a checkpoint or an exported model."""
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def find(name: str | Path) -> Path:
    """The folder or file that `name` stands for: its own path, a shipped model, a hub id.

    A name whose first part is a folder here is a path, and the hub is not asked.

    Raises:
        UserError: it is none of them.
    """
    path = Path(name)
    if path.exists():
        return path
    if str(name) in shipped():
        return SHIPPED / name
    if is_hub_id(str(name)) and not path.parent.is_dir():
        return download(str(name))
    known = ", ".join(shipped()) or "none"
    raise UserError(
        f"{name}: no such folder or file, and no shipped model (there are {known})"
        f"{nearest(str(name), shipped())}"
    )


def from_pretrained(
    name: str | Path, device: torch.device | str = "cpu", *, calibrated: bool = True
) -> ACTModel:
    """A trained model in evaluation mode.

    Args:
        name: an exported model's folder or a checkpoint, a published file of weights with its
            `all_config.yaml` beside it, a shipped model's name (`shipped()`), or USER/NAME on the
            Hugging Face hub (extra `hub`). What exists here comes first.
        calibrated: see `load_pretrained`.

    Raises:
        UserError: there is no such model, or it is not whole.
    """
    return load_pretrained(find(name), calibrated=calibrated).to(device)


def load_pretrained(
    path: str | Path,
    config: Mapping[str, Any] | str | Path | None = None,
    *,
    calibrated: bool = True,
    **sizes: int,
) -> ACTModel:
    """A model from a folder (checkpoint or export) or a published file, in evaluation mode.

    Args:
        config, sizes: of a published file only, see `load_published`.
        calibrated: halt as the folder's `calibration.json` says, if there is one. False: by the
            policy that it was trained with, as further training needs it.

    Raises:
        UserError: it is not a whole one, or a folder is given settings.
    """
    path = Path(path)
    if not path.is_dir():
        return load_published(path, config, **sizes)
    if config is not None or sizes:
        raise UserError(f"{path}: has its own config.json; only a published file takes settings")
    if not is_model_folder(path):
        raise UserError(
            f"{path}: holds no config.json with model.safetensors; give an exported model or one "
            "of a run's checkpoints"
        )
    saved = read_config(path)
    model = _build(saved["experiment"].get("arch"), saved["sizes"], path / "config.json")
    averaged = path / "ema.safetensors"
    source = averaged if averaged.is_file() else path / "model.safetensors"
    load_weights(model, read_tensors(source), source)
    if calibrated and (record := read_calibration(path)):
        policy = CalibratedHalting.model_validate(record)
        model.halting = policy.make(model.config.halt_max_steps, model.config.label_len)
        model.calibration = record
    return model.eval()


def read_calibration(folder: Path) -> dict[str, Any] | None:
    """A folder's `calibration.json`, of which `CalibratedHalting` reads the policy; None without.

    Raises:
        UserError: it is not one.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    record = read_json(path)
    try:
        CalibratedHalting.model_validate(record)
    except ValidationError as error:
        raise UserError(f"{path}: is not a calibration: {sentence(error)}") from None
    return dict(record)


def save_pretrained(
    model: ACTModel,
    folder: str | Path,
    *,
    experiment: Mapping[str, Any] | None = None,
    step: int = 0,
    data_root: str = "",
    card: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` as a folder that appears at once and return the folder.

    Args:
        experiment: the settings it was trained with; None: those of the architecture alone.
        step: updates of the training.
        data_root: the data set it was trained on. Of absolute paths, here and in `experiment`, the
            last part is kept.
        card: text of `README.md`; None: a short one.
        metrics: what becomes `metrics.json`.

    Raises:
        UserError: the folder is taken, or the disk is full.
    """
    folder = Path(folder)
    refuse_taken(folder)
    values = portable(dict(experiment or {"arch": _arch(model)}))
    config = {
        "format": FORMAT,
        "step": step,
        "sizes": sizes_of(model),
        "data_root": portable(data_root),
        "experiment": values,
    }
    objects: dict[str, Any] = {"config": config}
    if metrics is not None:
        objects["metrics"] = metrics
    if model.calibration is not None:
        objects["calibration"] = model.calibration
    text = _short_card(model, folder) if card is None else card
    save(folder.absolute(), {"model": model.state_dict()}, objects, {"README.md": text})
    return folder


def refuse_taken(folder: Path) -> None:
    """Raises UserError unless `folder` is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is taken; give a new or empty folder")


def portable(value: Any) -> Any:
    """`value` without this machine's folders: of an absolute path the last part."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if isinstance(value, str):
        windows = PureWindowsPath(value)
        if PurePosixPath(value).is_absolute() or windows.is_absolute():
            return windows.name
    return value


def sizes_of(model: ACTModel) -> dict[str, Any]:
    """What the data and the batch decided."""
    return {key: getattr(model.config, key) for key in model.config.from_data}


def parameter_count(model: ACTModel) -> int:
    """Numbers that were learned, rows of puzzle embeddings among them."""
    tables = [m.weights for m in model.modules() if isinstance(m, CastedSparseEmbedding)]
    return sum(p.numel() for p in [*tables, *model.parameters()])


def _arch(model: ACTModel) -> dict[str, Any]:
    name = next(name for name, kind in MODELS.items() if type(model) is kind)
    return {
        "name": name,
        **model.config.model_dump(mode="json", exclude=set(model.config.from_data)),
    }


def _build(arch: Any, sizes: Mapping[str, Any], source: Path) -> ACTModel:
    settings = dict(arch) if isinstance(arch, Mapping) else {}
    name = settings.pop("name", None)
    if name not in MODELS:
        raise UserError(
            f"{source}: arch.name: got {name!r}, may be one of {', '.join(MODELS)}"
            f"{nearest(str(name), MODELS)}"
        )
    try:
        return MODELS[name]({**settings, **sizes})
    except ValidationError as error:
        raise UserError(f"{source}: {sentence(error, 'arch')}") from None


def _short_card(model: ACTModel, folder: Path) -> str:
    return (
        f"# {folder.name}\n\n{type(model).__name__} with {parameter_count(model):,} parameters.\n\n"
        "```python\nfrom hrm.models import from_pretrained\n\n"
        f'model = from_pretrained("{folder.name}")\n```\n'
    )
