"""Images to segment: flood fill, Pathfinder, digit scenes, and pairs of one's own."""

from hrm.data.scenes.augment import DihedralAugment, orbit_keys, symmetry
from hrm.data.scenes.digit_scenes import digit_counts, make_digit_scenes, real_digits
from hrm.data.scenes.flood_fill import eccentricities, make_flood_fill, spread_from
from hrm.data.scenes.pairs import find_pairs, make_pairs
from hrm.data.scenes.pathfinder import lengths, make_pathfinder
from hrm.data.scenes.prepare import ScenesRequest, prepare_scenes, scenes_request
from hrm.data.scenes.scenes import IGNORED, Counts, Scenes, Task

__all__ = [
    "IGNORED",
    "Counts",
    "DihedralAugment",
    "Scenes",
    "ScenesRequest",
    "Task",
    "digit_counts",
    "eccentricities",
    "find_pairs",
    "lengths",
    "make_digit_scenes",
    "make_flood_fill",
    "make_pairs",
    "make_pathfinder",
    "orbit_keys",
    "prepare_scenes",
    "real_digits",
    "scenes_request",
    "spread_from",
    "symmetry",
]
