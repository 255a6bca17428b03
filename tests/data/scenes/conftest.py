"""Small splits of the generated tasks, made once."""

import pytest

from hrm.data.scenes import Task, make_digit_scenes, make_flood_fill, make_pathfinder


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""


@pytest.fixture(scope="session")
def mazes() -> Task:
    """Flood fill, 16x16: 390 + 39 + 78 boards over 39 eccentricities."""
    return make_flood_fill(16, {"train": 390, "val": 39, "test": 78}, 0, silent)


@pytest.fixture(scope="session")
def contours() -> Task:
    """Pathfinder, 32x32: 74 + 10 images over 37 lengths."""
    return make_pathfinder(32, {"train": 74, "val": 0, "test": 10}, 0, silent)


@pytest.fixture(scope="session")
def digits() -> Task:
    """Digit scenes, 32x32: 60 + 10 + 12 over 5 numbers of digits."""
    return make_digit_scenes(32, {"train": 60, "val": 10, "test": 12}, 0, silent)
