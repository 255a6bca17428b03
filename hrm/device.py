"""The device that a setting names, and the processor beside it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from hrm.errors import UserError


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(
            f"device: {name} is not here; it may be auto, cpu, cuda or cuda:N"
        ) from None
    return device


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()
