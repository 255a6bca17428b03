"""The commands that made a run and its data set, found again from their settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from hrm.config import ExperimentConfig, compose_dict, config_dir, validate
from hrm.errors import UserError
from hrm.models.registry import MODELS

NOT_TRAINING = frozenset(
    "out resume progress plots tensorboard wandb trackio run_name project_name".split()  # noqa: SIM905
)
"""Settings that say where things go, not what is computed."""

_MANY = 4
"""More settings of the architecture than this, and a group may say the same in one word; composing
takes a fifth of a second, so groups are not tried before."""

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)
_WORDS_OF_HYDRA = ("null", "true", "false", "nan", "inf")


def train_command(config: ExperimentConfig) -> str | None:
    """The `hrm train` with the fewest words that gives these settings, `NOT_TRAINING` left out.

    None if the experiment is none of the shipped ones.
    """
    if config.experiment_name not in _names("experiment"):
        return None
    wanted = _settings(config)
    groups = [f"experiment={config.experiment_name}"]
    best = _completed(groups, wanted)
    for group in ("scale", "arch"):
        if best is not None and sum("arch." in word for word in best) <= _MANY:
            break
        before = groups
        for name in _names(group):
            tried = [*before, f"{group}={name}"]
            found = _completed(tried, wanted)
            if found is not None and (best is None or len(found) < len(best)):
                best, groups = found, tried
    # Said only if it is true.
    if best is None or _settings(validate(compose_dict(best))) != wanted:
        return None
    return shlex.join(["hrm", "train", *best])


def prepare_command(settings: Mapping[str, Any], out: str, task: str = "sudoku") -> str:
    """The `hrm prepare` of these settings, of whose `kind` they are if they have one.

    A range of one number is that number.
    """
    words = ["hrm", "prepare", settings.get("kind", task)]
    for key, value in settings.items():
        if value is not None and key not in ("out", "kind"):
            ends = value if isinstance(value, (list, tuple)) else [value]
            words += [f"--{key.replace('_', '-')}", "-".join(map(str, dict.fromkeys(ends)))]
    return shlex.join([*words, "--out", out])


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def _settings(config: ExperimentConfig) -> dict[str, Any]:
    """What is computed, with every default of the architecture written out."""
    values = config.model_dump(mode="json", exclude=set(NOT_TRAINING))
    arch = dict(values["arch"])
    name = arch.pop("name")
    kind = MODELS[name].config_type
    schema = kind(**kind.from_data, **arch)
    values["arch"] = {"name": name, **schema.model_dump(mode="json", exclude=set(kind.from_data))}
    return values


def _completed(groups: list[str], wanted: dict[str, Any]) -> list[str] | None:
    """`groups` and what must be set beside them; None if the groups do not go together."""
    try:
        raw = compose_dict(groups)
        return [*groups, *_changes(_settings(validate(raw)), wanted, raw)]
    except UserError:  # An experiment's keys need not fit every architecture.
        return None


def _changes(
    base: Mapping[str, Any], wanted: Mapping[str, Any], raw: Any, prefix: str = ""
) -> Iterator[str]:
    """Hydra's words that turn `base` into `wanted`; `raw` says which keys it knows already."""
    known = raw if isinstance(raw, Mapping) else {}
    for key, value in wanted.items():
        was = base.get(key)
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _changes(was, value, known.get(key), f"{prefix}{key}.")
        elif key not in base or was != value:
            yield f"{'' if key in known else '+'}{prefix}{key}={_hydra(value)}"
    for key in base.keys() - wanted.keys():
        yield f"~{prefix}{key}"


def _hydra(value: Any) -> str:
    """`value` as Hydra's override grammar spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_hydra(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str) and not (
        _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_HYDRA
    ):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)
