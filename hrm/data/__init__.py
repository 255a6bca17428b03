"""On what: the on-disk format, the feeder, and the tasks. Knows no model."""

from hrm.data.base import (
    IGNORE,
    ImageMetadata,
    Metadata,
    PuzzleSplit,
    SplitArrays,
    check_target,
    has_split,
    load_split,
    write_dataset,
)
from hrm.data.demonstrations import Demonstrations
from hrm.data.feeder import Augmenter, Feeder

__all__ = [
    "IGNORE",
    "Augmenter",
    "Demonstrations",
    "Feeder",
    "ImageMetadata",
    "Metadata",
    "PuzzleSplit",
    "SplitArrays",
    "check_target",
    "has_split",
    "load_split",
    "write_dataset",
]
