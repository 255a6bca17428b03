"""Optional places for the log's rows beside `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrm.errors import UserError


def tensorboard_listener(out: Path) -> Callable[[dict[str, Any]], None]:
    """Writes every number of a row to TensorBoard events in `out/tensorboard`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tensorboard=true needs the package tensorboard (pip install 'hrm[tensorboard]')"
        ) from None
    writers: list[SummaryWriter] = []

    def write(row: dict[str, Any]) -> None:
        if not writers:  # Not before the first row: the run's folder is the trainer's to make.
            folder = str(out / "tensorboard")
            writers.append(SummaryWriter(folder, purge_step=row["step"]))
        writer = writers[0]
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "step":
                writer.add_scalar(name, value, row["step"])
        writer.flush()

    return write
