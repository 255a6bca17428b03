"""Pathfinder: the label is one contour, which starts at the marker, and nothing of another."""

import numpy as np
import pytest

from hrm.data.scenes import Task, lengths, make_pathfinder, orbit_keys
from hrm.errors import UserError
from tests.data.scenes.conftest import silent


def pieces(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mask, corners included, as masks."""
    left, found = mask.copy(), []
    while left.any():
        part = np.zeros_like(left)
        part[tuple(np.argwhere(left)[0])] = True
        while True:
            padded = np.pad(part, 1)
            grown = left & np.any(
                [
                    padded[r : r + left.shape[0], c : c + left.shape[1]]
                    for r in range(3)
                    for c in range(3)
                ],
                axis=0,
            )
            if (grown == part).all():
                break
            part = grown
        found.append(part)
        left &= ~part
    return found


def markers(image: np.ndarray) -> np.ndarray:
    """Pixels amid a full 3x3 square: a disc has them, a stroke of two pixels has not."""
    bright = image > 0.5 * image.max()
    padded = np.pad(bright, 1)
    size = len(image)
    return np.all([padded[r : r + size, c : c + size] for r in range(3) for c in range(3)], axis=0)


def test_the_label_is_one_part_that_begins_at_the_marker(contours: Task) -> None:
    for scenes in contours.splits.values():
        for image, label in zip(scenes.images[:, 0], scenes.labels, strict=True):
            parts = pieces(label == 1)
            assert len(parts) == 1
            marked = markers(image)
            assert marked.any()
            assert (label[marked] == 1).any()


def test_dashes_are_labelled_whole_or_not_at_all(contours: Task) -> None:
    for scenes in contours.splits.values():
        for image, label in zip(scenes.images[:, 0], scenes.labels, strict=True):
            shares = []
            for dash in pieces(image > 0.5 * image.max()):
                labelled = label[dash] == 1
                # The marker's disc is wider than the stroke.
                whole = labelled.any() if (dash & markers(image)).any() else labelled.all()
                assert whole or not labelled.any()
                shares.append(bool(whole))
            assert shares.count(True) >= 2  # gaps between them
            assert shares.count(False) >= 2


def test_the_label_holds_gaps(contours: Task) -> None:
    scenes = contours.splits["train"]
    dark = (scenes.images[:, 0] == 0) & (scenes.labels == 1)
    assert dark.any(axis=(1, 2)).mean() > 0.9


def test_a_longer_contour_has_more_pixels(contours: Task) -> None:
    scenes = contours.splits["train"]
    assert scenes.difficulty is not None
    pixels = (scenes.labels == 1).sum(axis=(1, 2))
    assert np.corrcoef(pixels, scenes.difficulty)[0, 1] > 0.95
    # A stroke of 2.4 pixels and half a disc at each end.
    assert np.abs(pixels - 2.4 * scenes.difficulty - 4).max() < 0.2 * pixels.max()


def test_lengths_are_flat_and_no_image_is_there_twice(contours: Task) -> None:
    low, high = lengths(32)
    counts = np.bincount(contours.splits["train"].difficulty, minlength=high + 1)  # type: ignore
    assert counts[low:].tolist() == [2] * (high - low + 1)
    keys = np.concatenate([orbit_keys(scenes.images) for scenes in contours.splits.values()])
    assert len(np.unique(keys)) == 84


def test_a_seed_fixes_all_and_another_gives_others() -> None:
    first, again, other = (
        make_pathfinder(24, {"train": 4}, seed, silent).splits["train"] for seed in (1, 1, 2)
    )
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_a_small_size_is_refused() -> None:
    with pytest.raises(UserError, match="size is 16: of pathfinder it may be 24 or more"):
        make_pathfinder(16, {"train": 4}, 0, silent)
