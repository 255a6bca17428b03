"""What a training mode is made of, and which experiment has the mode of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hrm.compare.figures import ExperimentFigures
from hrm.config import ExperimentConfig

MODE_KEYS = ("dynamics", "num_act_steps", "stagger")
MODE_KEYS_OF_ARCH = ("halt_exploration_prob", "context")
"""What the E-series takes from the experiment that leads."""
OF_HALTING = ("stagger", "halt_exploration_prob")
"""Without meaning in online mode, in which nothing halts."""


def mode_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The mode in a run's settings, by the keys' names; None where it does not say."""
    arch = settings.get("arch") or {}
    found = {key: settings.get(key) for key in MODE_KEYS}
    found |= {key: arch.get(key) for key in MODE_KEYS_OF_ARCH}
    if found["dynamics"] == "online":
        found = {key: value for key, value in found.items() if key not in OF_HALTING}
    return found


def mode_settings(config: ExperimentConfig) -> list[str]:
    """The settings that give another experiment the mode of this one."""
    values = config.model_dump(mode="json", include=set(MODE_KEYS))
    words = {key: values[key] for key in MODE_KEYS if key in values}
    words |= {f"arch.{key}": config.arch[key] for key in MODE_KEYS_OF_ARCH}
    return [f"{key}={'null' if value is None else value}" for key, value in words.items()]


def reference_of(figures: Mapping[str, ExperimentFigures], name: str) -> str | None:
    """Of the O- and L-series, whose encoder is the shallow one, the experiment that ran in the mode
    of experiment `name`, steps and exploration included.

    None: there is none, or nothing of one of the two finished.
    """
    mode = figures[name].mode_settings if name in figures else None
    if mode is None:
        return None
    shallow = [f for f in figures.values() if f.name[:1] in ("O", "L")]
    return next((f.name for f in shallow if f.mode_settings == mode), None)
