"""Make a data set of images: one of the tasks here, or image and mask pairs of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hrm.data.base import SplitName, check_target, write_dataset
from hrm.data.request import Report, checked, reporting
from hrm.data.scenes.digit_scenes import make_digit_scenes
from hrm.data.scenes.flood_fill import make_flood_fill
from hrm.data.scenes.pairs import make_pairs
from hrm.data.scenes.pathfinder import make_pathfinder
from hrm.data.scenes.scenes import IGNORED, Scenes, Task
from hrm.errors import UserError

TaskName = Literal["flood_fill", "pathfinder", "digits", "pairs"]

_GENERATED = {
    "flood_fill": make_flood_fill,
    "pathfinder": make_pathfinder,
    "digits": make_digit_scenes,
}
_SIZES: dict[TaskName, int] = {"flood_fill": 16, "pathfinder": 32, "digits": 32, "pairs": 64}
_COUNTS: dict[SplitName, int] = {"train": 10000, "val": 500, "test": 1000}
_OF_PAIRS = ("folder", "colour", "fit", "ignore")


class ScenesRequest(BaseModel):
    """What `prepare_scenes` makes. A count that is given must be met."""

    model_config = ConfigDict(extra="forbid")

    task: TaskName
    """`flood_fill`, `pathfinder` and `digits` are generated, `pairs` is read from `folder`."""
    size: int | None = Field(default=None, ge=4, le=1024)
    """Rows and columns of an image. Default: 16, 32, 32, 64."""
    count: int | None = Field(default=None, ge=1)
    """Training images. Default: 10000; of pairs all that are left."""
    val_count: int | None = Field(default=None, ge=0)
    """Default: 500; of pairs a tenth."""
    test_count: int | None = Field(default=None, ge=1)
    """Default: 1000; of pairs a tenth."""
    seed: int = 0
    folder: Path | None = None
    """Of pairs: `images/` and `masks/`."""
    colour: Literal["gray", "rgb"] | None = None
    """Of pairs: channels of the images. Default: gray."""
    fit: Literal["crop", "resize"] | None = None
    """Of pairs: the largest square in the middle, or the whole image squeezed. Default: crop."""
    ignore: int | None = Field(default=None, ge=0)
    """Of pairs: a value of the masks whose pixels count in no loss or metric, often 255."""
    out: Path
    """A new or empty folder."""


def scenes_request(**values: Any) -> ScenesRequest:
    """A checked request; `UserError` names the first wrong field."""
    return checked(ScenesRequest, "scenes", values)


def prepare_scenes(request: ScenesRequest, progress: bool = False) -> dict[str, Any]:
    """Make the data set that `request` describes and return a summary.

    The summary has `out`, `task`, `size`, `classes`, `seed`, and for each split `rows`,
    `difficulty` (min, median, max; None where it is not known) and `positive`, the share of the
    pixels that count whose class is not 0. It is also in `prepare.json`. `progress` shows a bar on
    standard error. Raises `UserError`, and then leaves no files.
    """
    check_target(request.out)
    with reporting(progress) as report:
        task = _make(request, report)
        summary: dict[str, Any] = {
            "task": request.task,
            "size": task.image.height,
            "classes": task.image.classes,
            "seed": request.seed,
        }
        summary |= {name: _figures(scenes) for name, scenes in task.splits.items()}
        settings = request.model_dump(mode="json", exclude={"out"})
        write_dataset(
            request.out,
            {name: scenes.arrays() for name, scenes in task.splits.items()},
            vocab_size=task.vocab_size,
            ignore_label_id=IGNORED,
            image=task.image,
            prepare={"task": "scenes", "settings": settings, "summary": summary},
        )
    return {"out": str(request.out), **summary}


def _make(request: ScenesRequest, report: Report) -> Task:
    size = request.size or _SIZES[request.task]
    given: dict[SplitName, int | None] = {
        "train": request.count,
        "val": request.val_count,
        "test": request.test_count,
    }
    if request.task != "pairs":
        for key in _OF_PAIRS:
            if getattr(request, key) is not None:
                raise UserError(f"{key} is for task pairs: {request.task} has no use for it")
        counts = {name: _COUNTS[name] if n is None else n for name, n in given.items()}
        return _GENERATED[request.task](size, counts, request.seed, report)
    if request.folder is None:
        raise UserError("folder is missing: task pairs needs one with images/ and masks/")
    return make_pairs(
        request.folder,
        size,
        given,
        request.seed,
        report,
        colour=request.colour or "gray",
        fit=request.fit or "crop",
        ignore=request.ignore,
    )


def _figures(scenes: Scenes) -> dict[str, Any]:
    hard = scenes.difficulty
    counted = scenes.labels != IGNORED
    return {
        "rows": len(scenes),
        "difficulty": None
        if hard is None
        else {"min": int(hard.min()), "median": float(np.median(hard)), "max": int(hard.max())},
        "positive": round(float((scenes.labels[counted] > 0).mean()), 4) if counted.any() else None,
    }
