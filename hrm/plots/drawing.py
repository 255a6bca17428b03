"""What every plot shares: colours, tidy axes, and a file that is whole or absent.

No pyplot, so that no state is shared with the caller.
"""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hrm.errors import UserError

BLUE, ORANGE, GREEN, GREY = "#3566a8", "#d2691e", "#3a8a4d", "#777777"
SMOOTH_FROM = 60
"""With more points than this a curve is drawn without markers, or as its running mean."""


def tidy(axes: Axes, grid: str) -> None:
    """No frame on top and right, and a faint grid along `grid`: x, y or both."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Write beside, then rename: a reader never sees half a picture."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(beside, format="png", dpi=120)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
