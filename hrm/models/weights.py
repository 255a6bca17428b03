"""A folder of weights: safetensors and JSON, written aside and renamed, nothing unpickled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hrm.errors import UserError

FORMAT = 1


def save(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    objects: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write `{name}.safetensors`, `{name}.json` and texts as one folder that appears at once.

    Raises:
        UserError: it cannot be written (a full disk).
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        for name, group in tensors.items():
            # Copies: safetensors refuses tensors that share memory.
            copies = {k: v.detach().cpu().contiguous().clone() for k, v in group.items()}
            try:
                save_file(copies, aside / f"{name}.safetensors")
            except SafetensorError as error:  # Of a full disk too: it is no OSError.
                raise UserError(f"{folder}: cannot be written ({error})") from None
        for name, value in objects.items():
            (aside / f"{name}.json").write_text(json.dumps(value, indent=1))
        for name, text in (texts or {}).items():
            (aside / name).write_text(text, encoding="utf-8")
        for file in aside.iterdir():
            file.chmod(aside.stat().st_mode & 0o666)  # safetensors' are the owner's alone.
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if folder.exists():  # An earlier try at the same step, equal to this one.
            shutil.rmtree(folder)
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Raises UserError if the file is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; this is not a whole checkpoint") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: is not JSON; this is not a whole checkpoint") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a checkpoint or an exported model.

    Raises:
        UserError: it is missing or not of `FORMAT`.
    """
    path = folder / "config.json"
    saved = read_json(path)
    kinds = {"experiment": dict, "sizes": dict, "step": int, "data_root": str}
    whole = isinstance(saved, dict) and saved.get("format") == FORMAT
    if not whole or any(not isinstance(saved.get(k), kind) for k, kind in kinds.items()):
        raise UserError(f"{path}: is not the configuration of a checkpoint")
    return saved


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError if the file is missing or no safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; this is not a whole checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a safetensors file ({error})") from None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load all weights; UserError if names or shapes are another architecture's."""
    mine = model.state_dict()
    missing, extra = sorted(mine.keys() - weights.keys()), sorted(weights.keys() - mine.keys())
    shapes = [k for k in mine.keys() & weights.keys() if mine[k].shape != weights[k].shape]
    if missing or extra or shapes:
        name = (missing + extra + sorted(shapes))[0]
        kind = "is missing" if missing else "is unknown" if extra else "has another shape"
        raise UserError(f"{source}: belongs to another architecture: tensor {name} {kind}")
    model.load_state_dict(dict(weights))
