"""The symmetries of the square on images: as run-time augmentation, and to find equal images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hrm.data.keys import Keys, draws, mix

Value = TypeVar("Value", bound=np.generic)

_WEIGHTS = np.uint64(7 << 32)  # keeps the weights apart from other uses of `mix`
_CHUNK = 1024


def symmetry(images: NDArray[Value], which: int) -> NDArray[Value]:
    """Symmetry number `which` of the square on `images` [..., height, width]: 0 is the identity.

    1, 2 and 3 flip columns, rows and both; 4 to 7 transpose first and keep the shape of squares
    only.
    """
    if which & 4:
        images = images.swapaxes(-1, -2)
    if which & 2:
        images = images[..., ::-1, :]
    if which & 1:
        images = images[..., ::-1]
    return images


def symmetries(height: int, width: int) -> int:
    """How many symmetries keep the shape: 8, or 4 of a rectangle that is no square."""
    return 8 if height == width else 4


class DihedralAugment:
    """An `Augmenter`: a random symmetry of each image, applied to its mask alike.

    With a categorical or an intensity image of any number of channels. All that has a place moves,
    a cue in a corner too.
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.channels = channels
        places = np.arange(height * width).reshape(height, width)
        self._from = np.stack(
            [symmetry(places, which).reshape(-1) for which in range(symmetries(height, width))]
        )

    def __call__(
        self, columns: Mapping[str, NDArray[np.int32]], keys: Keys
    ) -> dict[str, NDArray[np.int32]]:
        """A batch's columns and keys [rows] -> the same with other `inputs` and `labels`."""
        inputs, labels = self.move(columns["inputs"], columns["labels"], keys)
        return {**columns, "inputs": inputs, "labels": labels}

    def move(
        self, inputs: NDArray[Value], labels: NDArray[Value], keys: Keys
    ) -> tuple[NDArray[Value], NDArray[Value]]:
        """Inputs [rows, channels * height * width], labels [rows, height * width] and keys [rows]
        -> the same rows, turned and flipped; dtypes stay."""
        rows, pixels = labels.shape
        pixel_from = self._from[draws(keys, 1)[:, 0] % np.uint64(len(self._from))]
        planes = inputs.reshape(rows, self.channels, pixels)
        moved = np.take_along_axis(planes, pixel_from[:, None], axis=2)
        return moved.reshape(rows, -1), np.take_along_axis(labels, pixel_from, axis=1)


def orbit_keys(images: NDArray[np.uint8]) -> Keys:
    """A hash of each of `images` [n, channels, height, width], equal for all its symmetries: [n].

    Images that are no symmetries of one another share one with a chance of about 1 in 2**60.
    """
    count, *shape = images.shape
    flat = images.reshape(count, math.prod(shape))
    weights = mix(np.arange(flat.shape[1], dtype=np.uint64) + _WEIGHTS).reshape(shape)
    # Turning the weights instead of the images, all forms in one product modulo 2**64.
    forms = range(symmetries(shape[1], shape[2]))
    turned = np.stack([symmetry(weights, which).reshape(-1) for which in forms], axis=1)
    keys = np.empty(count, dtype=np.uint64)
    for start in range(0, count, _CHUNK):
        sums = flat[start : start + _CHUNK].astype(np.uint64) @ turned
        keys[start : start + _CHUNK] = mix(sums).min(axis=1)
    return keys
