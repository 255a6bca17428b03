"""Digit scenes: the label is the ink of the cued class, and splits share no real digit."""

import sys

import numpy as np
import pytest

from hrm.data.scenes import Task, digit_counts, make_digit_scenes, orbit_keys, real_digits
from hrm.data.scenes.digit_scenes import INK
from hrm.errors import UserError
from tests.data.scenes.conftest import silent

NAMES = ("train", "val", "test")


def found(image: np.ndarray, table: dict[bytes, int]) -> dict[tuple[int, int], int]:
    """Every place of `image` whose 8x8 pixels are exactly a real digit, with its class."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8))
    places = {}
    for row, column in np.ndindex(windows.shape[:2]):
        digit = table.get(windows[row, column].tobytes())
        if digit is not None:
            places[row, column] = digit
    return places


def test_labels_are_the_ink_of_the_cued_class(digits: Task) -> None:
    real = real_digits(0)
    for name in NAMES:
        images, classes = real[name]  # type: ignore[index]
        table = {image.tobytes(): int(digit) for image, digit in zip(images, classes, strict=True)}
        scenes = digits.splits[name]  # type: ignore[index]
        assert scenes.difficulty is not None
        for image, label, count in zip(
            scenes.images[:, 0], scenes.labels, scenes.difficulty, strict=True
        ):
            places = found(image, table)  # A scene of test digits shows digits of test alone.
            cue = places.pop((0, 0))
            assert len(places) == count
            expected = np.zeros_like(label)
            for (row, column), digit in places.items():
                window = np.s_[row : row + 8, column : column + 8]
                expected[window] |= (digit == cue) & (image[window] > INK)
            assert np.array_equal(label, expected)
            assert {digit == cue for digit in places.values()} == {True, False}
            same = [image[r : r + 8, c : c + 8] for (r, c), d in places.items() if d == cue]
            assert not any(np.array_equal(image[:8, :8], digit) for digit in same)


def test_real_digits_are_disjoint_over_splits_and_complete() -> None:
    real = real_digits(3)
    names = [{image.tobytes() for image in real[name].images} for name in NAMES]  # type: ignore
    assert sum(map(len, names)) == len(set.union(*names)) == 1797
    for name in NAMES:
        assert np.bincount(real[name].classes).min() >= 26  # type: ignore[index]


def test_numbers_are_flat_and_no_scene_is_there_twice(digits: Task) -> None:
    low, high = digit_counts(32)
    assert (low, high) == (2, 6)
    counts = np.bincount(digits.splits["train"].difficulty, minlength=high + 1)  # type: ignore
    assert counts[low:].tolist() == [12] * 5
    keys = np.concatenate([orbit_keys(scenes.images) for scenes in digits.splits.values()])
    assert len(np.unique(keys)) == 82


def test_a_seed_fixes_all_and_another_gives_others() -> None:
    first, again, other = (
        make_digit_scenes(24, {"train": 6}, seed, silent).splits["train"] for seed in (1, 1, 2)
    )
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_a_small_size_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="size is 16: of digits it may be 24 or more"):
        make_digit_scenes(16, {"train": 4}, 0, silent)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"need scikit-learn: pip install 'hrm\[scenes\]'"):
        make_digit_scenes(32, {"train": 4}, 0, silent)
