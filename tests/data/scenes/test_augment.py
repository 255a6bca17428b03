"""Symmetries of images: image and mask move alike, nothing is lost, keys decide alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm.data.keys import keys_of
from hrm.data.scenes import DihedralAugment, orbit_keys, symmetry


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_image_and_mask_move_alike(height: int, width: int, channels: int, seed: int) -> None:
    pixels, rows = height * width, 20
    labels = np.random.default_rng(seed).permuted(np.tile(np.arange(pixels), (rows, 1)), axis=1)
    labels = labels.astype(np.int32)
    # Channel c of a pixel is its label and c: whatever moves must move alike.
    inputs = np.concatenate([labels + c * pixels for c in range(channels)], axis=1)
    keys = keys_of(seed, np.arange(rows))
    augment = DihedralAugment(height, width, channels)
    new_inputs, new_labels = augment.move(inputs, labels, keys)
    assert new_inputs.dtype == new_labels.dtype == np.int32
    expected = np.concatenate([new_labels + c * pixels for c in range(channels)], axis=1)
    assert np.array_equal(new_inputs, expected)
    for before, after in zip(labels, new_labels, strict=True):
        forms = [symmetry(before.reshape(height, width), which) for which in range(8)]
        assert any(np.array_equal(form, after.reshape(height, width)) for form in forms)


@pytest.mark.parametrize(("width", "forms"), [(4, 8), (5, 4)])
def test_all_symmetries_come_equally_often(width: int, forms: int) -> None:
    labels = np.tile(np.arange(4 * width, dtype=np.int32), (4000, 1))
    augment = DihedralAugment(4, width, 1)
    got, _ = augment.move(labels, labels, keys_of(0, np.arange(4000)))
    _, counts = np.unique(got, axis=0, return_counts=True)
    assert len(counts) == forms
    assert counts.min() > 0.85 * 4000 / forms


def test_a_row_depends_on_its_own_key_alone_and_ignored_labels_move() -> None:
    inputs = np.arange(30 * 16, dtype=np.int32).reshape(30, 16)
    labels = np.where(inputs % 3 == 0, -100, inputs)
    keys, before = keys_of(1, np.arange(30)), inputs.copy()
    augment = DihedralAugment(4, 4, 1)
    whole = augment.move(inputs, labels, keys)
    part = augment.move(inputs[7:9], labels[7:9], keys[7:9])
    assert np.array_equal(whole[0][7:9], part[0])
    assert np.array_equal(whole[1][7:9], part[1])
    assert np.array_equal(np.where(whole[0] % 3 == 0, -100, whole[0]), whole[1])
    assert np.array_equal(inputs, before)


@given(side=st.integers(2, 6), channels=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_symmetric_images_share_a_key_and_others_do_not(
    side: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, size=(9, channels, side, side)).astype(np.uint8)
    keys = orbit_keys(images)
    for which in range(8):
        assert np.array_equal(orbit_keys(symmetry(images, which)), keys)
    assert len(np.unique(keys)) == len(
        {min(symmetry(image, which).tobytes() for which in range(8)) for image in images}
    )
    assert len(orbit_keys(images[:0])) == 0
