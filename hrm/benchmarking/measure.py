"""Timings in turns, with median and spread, and peak memory."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """Wall time of one call; on a GPU until its work is done."""
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Return when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(
    works: Mapping[str, Work], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of `repeats` calls of each, in turns, so that a slow moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return times


def with_spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The median as `name`, least and largest as `{name}_spread`."""
    return {name: statistics.median(values), f"{name}_spread": [min(values), max(values)]}


class PeakMemory:
    """Bytes that are taken at most from now on, beyond those that are taken now.

    On a GPU those of tensors on it; elsewhere the process's resident set, which holds all else that
    the process does and may reuse what was freed before: least noisy in a fresh process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before: int | None
        if device.type == "cuda":
            self.before = torch.cuda.memory_allocated(device)
            self.restart()
        else:
            self.before = _resident("VmRSS") if self.restart() else _peak()

    def restart(self) -> bool:
        """Forget the peak so far, where the system can; what was taken before stays as it is."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux
        except OSError:
            return False
        return True

    def read(self) -> int | None:
        """The increase so far; None where the system does not tell."""
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if cuda else _peak()
        return None if self.before is None or peak is None else max(0, peak - self.before)


def _resident(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(key))
    return next((int(kib) * 1024 for kib in found), None)


def _peak() -> int | None:
    if (peak := _resident("VmHWM")) is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
