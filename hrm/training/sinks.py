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
    writer = SummaryWriter(str(out / "tensorboard"))

    def write(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "step":
                writer.add_scalar(name, value, row["step"])
        writer.flush()

    return write
