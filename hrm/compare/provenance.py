"""What stands beside the figures: machine, commit, data, and what a pretrained decoder has seen."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from hrm.compare.comparison import Comparison
from hrm.compare.runs import read_settings
from hrm.training.checkpoint import read_json


def about(comparison: Comparison) -> dict[str, Any]:
    """How a comparison was made, in words."""
    facts: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    settings = [read_settings(run.folder) for run in comparison.runs if run.folder]
    data = sorted({s["data"]["path"] for s in settings if s.get("data")})
    facts["data"] = "; ".join(data_told(Path(path)) for path in data)
    decoders = sorted({(s.get("load_pretrained_decoder") or "none") for s in settings if s})
    facts["decoder"] = "; ".join(
        "not pretrained" if path == "none" else decoder_told(Path(path), [Path(d) for d in data])
        for path in decoders
    )
    return facts


def machine() -> str:
    """Cores, processor and versions."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    if torch.cuda.is_available():
        cpu += f", {torch.cuda.get_device_name()}"
    python, pytorch = platform.python_version(), torch.__version__
    return f"{os.cpu_count()} cores of {cpu}, Python {python}, PyTorch {pytorch}"


def commit() -> str:
    """The checkout's commit, with a + if its code has changes; empty where there is none."""
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
        return ""  # Installed, maybe inside another project's checkout.
    changed = git("status", "--porcelain", "--", ".", "../configs")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def data_told(root: Path) -> str:
    """A data set in words, from its `prepare.json`."""
    made = _prepared(root)
    if not made:
        return str(root)
    settings = ", ".join(
        f"{key} {value}" for key, value in made.get("settings", {}).items() if value is not None
    )
    counts = ", ".join(f"{len(names)} {split}" for split, names in made.get("tasks", {}).items())
    return f"{root} ({settings})" + (f": {counts} tasks" if counts else "")


def decoder_told(path: Path, data: list[Path]) -> str:
    """Where a pretrained decoder comes from, and which held-out tasks of `data` it has seen."""
    run = next((p for p in (path, *path.parents) if (p / "config.yaml").is_file()), None)
    if run is None:
        return f"{path}: trained elsewhere; what it has seen is not known"
    settings = read_settings(run)
    root = Path(settings.get("data", {}).get("path", ""))
    seen = set(_prepared(root).get("tasks", {}).get("train", ()))
    told = f"{path}: experiment {settings.get('experiment_name')}, trained on {data_told(root)}"
    if not seen:
        return f"{told}; which tasks it has seen is not known"
    tasks = [_prepared(d).get("tasks", {}) for d in data]
    held = {name for some in tasks for split in ("val", "test") for name in some.get(split, ())}
    return f"{told}; of the {len(held)} held-out tasks it has seen {len(held & seen)}"


def _prepared(root: Path) -> dict[str, Any]:
    record = root / "prepare.json"
    return read_json(record) if record.is_file() else {}
