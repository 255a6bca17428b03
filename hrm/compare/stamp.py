"""What a run is made by: commit, date and machine, noted when it starts."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hrm.compare.figures import RunFigures
from hrm.device import processor


def stamp() -> dict[str, str | None]:
    """`commit` (None outside of a checkout), `date` and `machine` of this moment."""
    return {"commit": commit(), "date": time.strftime("%Y-%m-%d"), "machine": machine()}


def machine() -> str:
    """Cores, processor and versions."""
    import torch

    cpu = processor()
    if torch.cuda.is_available():
        cpu += f", {torch.cuda.get_device_name()}"
    python, pytorch = platform.python_version(), torch.__version__
    return f"{os.cpu_count()} cores of {cpu}, Python {python}, PyTorch {pytorch}"


def commit() -> str | None:
    """The checkout's commit, with a + if its code has changes; None where there is none."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=package, capture_output=True, text=True, check=False
            )
        except OSError:
            return ""
        return done.stdout.strip()

    if git("rev-parse", "--show-prefix") != f"{package.name}/":
        return None  # Installed, maybe inside another project's checkout.
    changed = git("status", "--porcelain", "--", ".", "../configs")
    head = git("rev-parse", "--short", "HEAD")
    return head + ("+" if changed else "") if head else None


def made_told(runs: Sequence[RunFigures]) -> list[str]:
    """Commit, date and machine of the runs that share them, a sentence for each."""
    by_stamps: dict[str, list[str]] = {}
    for run in runs:
        told = "; resumed at ".join(
            f"commit {stamp.get('commit') or 'not known'}, {stamp.get('date') or 'no date'}, "
            f"{stamp.get('machine') or 'machine not known'}"
            for stamp in run.made
        )
        told = told or "commit, date and machine were not recorded"
        by_stamps.setdefault(told, []).append(run.name)
    return [f"{', '.join(names)}: {told}" for told, names in by_stamps.items()]
