"""The run's log: sums over slots between two logged updates, and `metrics.jsonl`."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm.files import write_text
from hrm.training.distributed import ALONE, Processes

PER_ENDED = ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")
"""Averaged over the sequences that ended; the rest are losses, averaged over rows and steps. But
`encoder_share` is the share of these that gave the encoder a gradient, and `kl` is averaged over
that share."""


class Sums:
    """Running sums of a step's detached sums; kept on the device until they are read."""

    def __init__(self, processes: Processes = ALONE) -> None:
        self.processes = processes
        self.values: dict[str, Tensor] = {}
        """Of this process."""

    def add(self, sums: Mapping[str, Tensor]) -> None:
        for name, value in sums.items():
            wide = value.to(torch.float64) if value.device.type == "cpu" else value.float()
            self.values[name] = self.values[name] + wide if name in self.values else wide

    def total(self) -> dict[str, Tensor]:
        """Of all processes, each of which has to ask; from now on the first one holds them."""
        total = self.processes.sum_figures(self.values)
        self.values = total if self.processes.first else {}
        return total

    def read(self) -> dict[str, float | None]:
        """Means over all processes under `train/` names, and start anew; each has to ask. None
        where no sequence ended."""
        numbers = {name: float(value) for name, value in self.total().items()}
        self.values = {}
        ended, rows = numbers.pop("count", 0.0), numbers.pop("rows", 0.0)
        row: dict[str, float | None] = {"train/count": ended}
        if "encoded" in numbers:
            encoded = numbers.pop("encoded")
            row["train/encoder_share"] = encoded / rows if rows else None
            if "kl" in numbers:
                kl = numbers.pop("kl")
                row["train/kl"] = kl / encoded if encoded else None
        for name, value in numbers.items():
            if name in PER_ENDED:
                row[f"train/{name}"] = value / ended if ended else None
            else:
                row[f"train/{name}"] = value / rows if rows else None
        return row


def finite(value: Any) -> Any:
    """`value` as strict JSON has it: what is not a finite number is None."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


LOG_NAME = "metrics.jsonl"
"""In a run's folder."""


class MetricsLog:
    """`metrics.jsonl`, one object a line, each line written by one call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        line = (json.dumps(finite(row)) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(handle).st_size
            if os.write(handle, line) < len(line):
                os.ftruncate(handle, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(handle)

    def keep_until(self, step: int) -> None:
        """Drop rows after update `step` and a line that a kill cut short."""
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))


def is_number(value: Any) -> bool:
    """A figure that can be compared: not missing, not a list."""
    return isinstance(value, (int, float)) and math.isfinite(value)


LESS_IS_BETTER = ("cost", "loss", "regret", "error", "steps")
"""Endings of the names of such figures."""


def best_step(rows: Sequence[Mapping[str, Any]], figure: str) -> int | None:
    """The update after which `eval/figure` was best, the first of equals; None: it has no value."""
    key, sign = f"eval/{figure}", -1 if figure.endswith(LESS_IS_BETTER) else 1
    found = [row for row in rows if is_number(row.get(key))]
    return max(found, key=lambda row: sign * row[key])["step"] if found else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
