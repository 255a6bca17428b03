"""Weights written by the published code of HRM and TRM, read into the models here.

Both save the state dict of a compiled loss head, so that names start with `_orig_mod.model.`, and
the run's settings beside it as `all_config.yaml`. TRM's averaged weights (EMA) have the same form.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from hrm.errors import UserError, sentence
from hrm.models.act import ACTModel
from hrm.models.hrm import HRMACTv1
from hrm.models.trm import TRM
from hrm.models.weights import load_weights, read_tensors

ARCHITECTURES: dict[str, type[ACTModel]] = {
    "hrm.hrm_act_v1": HRMACTv1,  # sapientinc/HRM
    "recursive_reasoning.hrm": HRMACTv1,  # TRM's copy of it
    "recursive_reasoning.trm": TRM,
    "hrm": HRMACTv1,
    "trm": TRM,
}
"""`arch.name` up to its `@` -> the model."""

CONFIG_NAME = "all_config.yaml"
WRAPPERS = ("_orig_mod.", "module.", "model.")
"""What `torch.compile`, `DistributedDataParallel` and the loss head put before a name."""
NOT_WEIGHTS = ("puzzle_emb.local_weights", "puzzle_emb.local_ids")
"""A batch's rows of the puzzle embedding. Published code does not save them either."""


def load_published(
    path: str | Path, config: Mapping[str, Any] | str | Path | None = None, **sizes: Any
) -> ACTModel:
    """The model of a state dict that published HRM or TRM code saved, in evaluation mode.

    Args:
        path: a file of `torch.save`, or one of safetensors if its name ends so.
        config: `arch` as published (a dict, or a yaml file that holds it, under `arch` or alone);
            None: `all_config.yaml` beside the weights.
        sizes: settings that go before those, and `seq_len`, which the weights show only where
            positions are learned or mixed. Vocabulary and puzzle embedding are read from the
            weights; `batch_size` is 1 if not given (only training puzzle embeddings needs more).

    Raises:
        UserError: the file is no state dict or holds more than tensors, the architecture is
            another, a setting is missing or wrong, or a tensor is missing, unknown or of another
            shape.
    """
    path = Path(path)
    weights = read_published(path)
    source, arch = read_arch(path, config)
    model_type, settings = translate(arch, source)
    settings = {"batch_size": 1, **settings, **shown_by(weights, path), **sizes}
    if "seq_len" not in settings:
        settings["seq_len"] = (
            _positions(weights, path)
            - _config(model_type, {**settings, "seq_len": 1}, source).puzzle_positions
        )
    model = model_type(_config(model_type, settings, source))
    load_weights(model, weights, path)
    return model.eval()


def read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of a published state dict under the names used here (`inner....`)."""
    if path.suffix == ".safetensors":
        tensors: Any = read_tensors(path)
    else:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except pickle.UnpicklingError:
            raise UserError(
                f"{path}: is not read, since it is no file of tensors alone; give a state dict "
                "saved by torch.save, or safetensors"
            ) from None
        except Exception as error:  # Of a damaged file: whatever the reader stumbles over.
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path}: is not a file that torch.save wrote ({reason})") from None
    if not isinstance(tensors, Mapping) or not all(isinstance(k, str) for k in tensors):
        raise UserError(f"{path}: is not a state dict (names and tensors)")
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: is not a state dict: {name} is no tensor")
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in plain.items() if not name.endswith(NOT_WEIGHTS)}


def plain_name(name: str) -> str:
    """A tensor's name without the names of what the model was wrapped in."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def read_arch(
    path: Path, config: Mapping[str, Any] | str | Path | None
) -> tuple[str, dict[str, Any]]:
    """Where the settings come from, in words, and those of `arch`."""
    if isinstance(config, Mapping):
        source, values = "config", config
    else:
        file = path.with_name(CONFIG_NAME) if config is None else Path(config)
        source = str(file)
        try:
            values = yaml.safe_load(file.read_text())
        except FileNotFoundError:
            raise UserError(
                f"{file}: missing; give the settings of {path.name} as config=..., a yaml file "
                "or a dict"
            ) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            raise UserError(f"{file}: is not a yaml file of settings") from None
    arch = values.get("arch", values) if isinstance(values, Mapping) else None
    if not isinstance(arch, Mapping):
        raise UserError(f"{source}: holds no settings of an architecture (arch)")
    return source, dict(arch)


def translate(arch: Mapping[str, Any], source: str) -> tuple[type[ACTModel], dict[str, Any]]:
    """The model of published settings, and these under the keys used here."""
    settings = {k: v for k, v in arch.items() if k not in ("name", "loss", "causal")}
    name = arch.get("name")
    model_type = ARCHITECTURES.get(str(name).partition("@")[0])
    if model_type is None:
        raise UserError(
            f"{source}: arch.name: got {name!r}, may be one of {', '.join(ARCHITECTURES)}; other "
            "variants cannot be loaded"
        )
    if model_type is TRM:
        settings.pop("H_layers", None)  # Published TRM asks for the key and reads it nowhere.
        if not settings.pop("no_ACT_continue", True):
            settings |= {"halting": "q_learning", "continue_target": "bootstrap"}
    elif settings.pop("mlp_t", False):
        raise UserError(f"{source}: arch.mlp_t: HRM that mixes positions cannot be loaded")
    return model_type, settings


def shown_by(weights: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """The sizes that shapes of weights show, but for the length."""
    sizes = {"vocab_size": _rows(weights, "inner.embed_tokens.embedding_weight", path)}
    table = "inner.puzzle_emb.weights"
    if table not in weights:
        return {**sizes, "puzzle_emb_ndim": 0}
    rows = _rows(weights, table, path)
    return {**sizes, "num_puzzle_identifiers": rows, "puzzle_emb_ndim": weights[table].shape[1]}


def _rows(weights: Mapping[str, Tensor], name: str, path: Path) -> int:
    """The first length of a matrix among the weights."""
    if name not in weights or weights[name].ndim != 2:
        fault = "has another shape" if name in weights else "is missing"
        raise UserError(f"{path}: belongs to another architecture: tensor {name} {fault}")
    return weights[name].shape[0]


def _positions(weights: Mapping[str, Tensor], path: Path) -> int:
    """Positions of tokens and puzzle together, from learned or mixed positions."""
    for name in ("embed_pos.embedding_weight", "L_level.layers.0.mlp_t.down_proj.weight"):
        if f"inner.{name}" in weights:
            return _rows(weights, f"inner.{name}", path)
    raise UserError(
        f"seq_len: the weights of {path} do not show it; give seq_len=..., as the dataset.json of "
        "their data set has it"
    )


def _config(model_type: type[ACTModel], settings: dict[str, Any], source: str) -> Any:
    try:
        return model_type.config_type(**settings)
    except ValidationError as error:
        raise UserError(f"{source}: {sentence(error, 'arch')}") from None
