"""The device that a setting names."""

from __future__ import annotations

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
