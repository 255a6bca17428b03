"""A decoder that is trained already: TRM's weights for the recursion of a model with an encoder.

What the weights do not show is refused where it differs, since a recursion with other cycles is
another function: the settings are read from the `config.json` of a run or an exported model, or
from the `all_config.yaml` beside a published file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from hrm.errors import UserError
from hrm.models.etrm import ETRM
from hrm.models.pretrained import find, is_model_folder
from hrm.models.published import CONFIG_NAME, read_published
from hrm.models.weights import read_json, read_tensors

MUST_AGREE = (
    "H_cycles",
    "L_cycles",
    "num_heads",
    "pos_encodings",
    "rope_theta",
    "mix_norm",
    "rms_norm_eps",
    "q_pool",
)
"""Settings that shapes do not show and without which the same weights are another function."""
NOT_DECODER = ("inner.puzzle_emb.", "encoder.")
"""Names of what is left out: the context takes the puzzle embedding's place."""


@dataclass(frozen=True)
class LoadedDecoder:
    """What `load_decoder` did."""

    path: Path
    loaded: list[str]
    """Tensors, by their names in the model."""
    left_out: list[str]
    """Tensors of the file that no decoder has."""
    numbers: int
    """Of what was loaded."""
    settings: dict[str, Any] | None
    """Those of its training, whole; None: unknown."""

    def __str__(self) -> str:
        left_out = f"; left out {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"decoder from {self.path}: {len(self.loaded)} tensors, {self.numbers:,} numbers"
            f"{left_out}; the encoder starts untrained"
        )

    def record(self) -> dict[str, Any]:
        """As plain values; `settings` say on what data it was trained."""
        return {
            "path": str(self.path),
            "loaded": self.loaded,
            "left_out": self.left_out,
            "settings": self.settings,
        }


def load_decoder(model: ETRM, source: str | Path) -> LoadedDecoder:
    """Give `model` the decoder of `source`: every weight but the encoder's.

    Args:
        source: a run (its newest checkpoint), a checkpoint, an exported model, a shipped model's
            name, a published folder (its newest `step_N`) or file. Averaged weights where there are
            any. Names may begin with `_orig_mod.`, `module.` or `model.`.

    Raises:
        UserError: there is no such, a tensor is missing, unknown or of another shape, or its
            training had other cycles, heads or positions.
    """
    path = find_weights(source)
    settings = _settings(path)
    _refuse_other_settings(model, settings, path)
    weights = _read(path)
    mine = {f"inner.{name}": tensor for name, tensor in model.inner.state_dict().items()}
    left_out = sorted(name for name in weights if name.startswith(NOT_DECODER))
    theirs = {name: tensor for name, tensor in weights.items() if name not in left_out}
    _refuse_other_shapes(mine, theirs, path)
    model.inner.load_state_dict({k.removeprefix("inner."): v for k, v in theirs.items()})
    numbers = sum(tensor.numel() for tensor in theirs.values())
    return LoadedDecoder(path, sorted(theirs), left_out, numbers, settings)


def find_weights(source: str | Path) -> Path:
    """The file, or the folder of weights, that `source` stands for; see `load_decoder`."""
    path = find(source)
    if path.is_file() or is_model_folder(path):
        return path
    own = [folder for folder in (path / "checkpoints").glob("step_*") if is_model_folder(folder)]
    published = [file for file in path.glob("step_*") if re.fullmatch(r"step_\d+", file.name)]
    found = own or [file for file in published if file.is_file()]
    if not found:
        raise UserError(
            f"{source}: holds no weights of a decoder; give a run, a checkpoint, an exported "
            "model, or a published folder or file (step_N)"
        )
    return max(found, key=lambda one: int(one.name.removeprefix("step_")))


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_file():
        return read_published(path)
    averaged = path / "ema.safetensors"
    return read_tensors(averaged if averaged.is_file() else path / "model.safetensors")


def _settings(path: Path) -> dict[str, Any] | None:
    """Those of the training, with `arch` among them."""
    folder = path.parent if path.is_file() else path
    values: Any = None
    if (folder / CONFIG_NAME).is_file() and path.is_file():
        try:
            values = yaml.safe_load((folder / CONFIG_NAME).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            raise UserError(f"{folder / CONFIG_NAME}: is not a yaml file of settings") from None
    elif (folder / "config.json").is_file():
        values = read_json(folder / "config.json")
        values = values.get("experiment") if isinstance(values, Mapping) else None
    return dict(values) if isinstance(values, Mapping) else None


def _refuse_other_settings(model: ETRM, settings: Mapping[str, Any] | None, path: Path) -> None:
    arch = (settings or {}).get("arch", settings)
    arch = arch if isinstance(arch, Mapping) else {}
    for key in MUST_AGREE:
        mine, theirs = getattr(model.config, key), arch.get(key, None)
        if theirs is not None and theirs != mine:
            raise UserError(
                f"load_pretrained_decoder: {path} was trained with {key}={theirs}, but "
                f"arch.{key} is {mine}; the same weights would be another function"
            )
    if unknown := [key for key in ("H_cycles", "L_cycles") if key not in arch]:
        warnings.warn(
            f"load_pretrained_decoder: {path} does not say its {' and '.join(unknown)} (there is "
            f"no {CONFIG_NAME} beside it); taken to be as here",
            stacklevel=3,
        )


def _refuse_other_shapes(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], path: Path
) -> None:
    faults = dict.fromkeys(mine.keys() - theirs.keys(), "is missing")
    faults |= dict.fromkeys(theirs.keys() - mine.keys(), "is unknown here")
    for name in mine.keys() & theirs.keys():
        if mine[name].shape != theirs[name].shape:
            faults[name] = f"is {tuple(theirs[name].shape)}, but {tuple(mine[name].shape)} here"
    if faults:
        name = min(faults)
        raise UserError(
            f"load_pretrained_decoder: {path} holds another architecture: tensor {name} "
            f"{faults[name]}"
        )
