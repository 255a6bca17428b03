"""What benchmarks share: the command on one core, a figure over seeds, what stands beside it."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def hrm(*arguments: str) -> str:
    """What `hrm` with these arguments prints, on one core. RuntimeError with its error, if any."""
    command = [sys.executable, "-m", "hrm", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"hrm {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def spread(values: Sequence[float | None], digits: int) -> str:
    """Median and range of the values that are known: `0.87 (0.86 to 0.89)`; one alone, or `-`."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    low, mid, high = (f"{f(known):.{digits}f}" for f in (min, statistics.median, max))
    return mid if len(known) == 1 else f"{mid} ({low} to {high})"


def stamp() -> dict[str, str]:
    """Commit (with a + if the tree has changes), date, and the machine in words."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "../hrm", "../configs", "../benchmarks/*.py")
    commit = git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    return {"commit": commit, "date": time.strftime("%Y-%m-%d"), "machine": machine()}


def kept_networks(description: str | None, script: str) -> argparse.Namespace:
    """`keep` and `seeds` of a script that looks at networks which another script trained."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--keep", type=Path, required=True, help=f"folder of {script}'s runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


def machines_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The machines of runs, in the order in which they first stand there."""
    return list(dict.fromkeys(run["machine"] for run in runs))


def not_repeated(runs: Sequence[dict[str, Any]], again: bool) -> list[dict[str, Any]]:
    """The recorded runs that count as done: all, or with `again` this machine's own."""
    here = machine()
    return [run for run in runs if run["machine"] == here or not again]


def machine() -> str:
    """Cores, processor, memory and versions."""
    import torch

    from hrm.device import processor

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{os.cpu_count()} cores of {processor()}, {memory:.0f} GiB"
    return f"{words}, Python {platform.python_version()}, PyTorch {torch.__version__}"
