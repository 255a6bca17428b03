"""A file of an image as what a model reads, and a mask of classes as a PNG.

A model of brightness reads gray or colours as they are. One of symbols reads a maze of flood fill,
whose colours are: white free, black wall, red or middle gray the seed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from hrm.data.scenes.flood_fill import FREE, SEED, WALL
from hrm.data.scenes.pictures import SUFFIXES, eight_bits, fitted, open_image
from hrm.errors import UserError

COLORS = "white is free, black is a wall, red or middle gray is the seed"
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff")
_OTHERS = (".gif", ".bmp", ".webp")  # images too, though none that can be read


class Picture(NamedTuple):
    """An image to solve."""

    inputs: Integer[np.ndarray, " seq_len"]
    """What the model reads, int32: channel by channel, each row by row."""
    rgb: Float[np.ndarray, "height width rgb"]
    """What it looks like, from 0 to 1."""
    counted: Bool[np.ndarray, "height width"]
    """Pixels that have an answer: not the walls of a maze."""


def is_picture(name: str) -> bool:
    """Whether an argument names an image: by its ending, or because the file is a PNG or a JPEG."""
    path = Path(name)
    if path.suffix.lower() in (*SUFFIXES, *_OTHERS):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_SIGNATURES)
    except (OSError, ValueError):  # A long puzzle is no file name.
        return False


def read_picture(path: Path, config: Any, size: int | None = None) -> Picture:
    """The image in `path` for a model with these settings (`values`, `channels`, `vocab_size`).

    Args:
        size: the largest square in the middle at so many pixels a side, as `hrm prepare scenes
            --task pairs` makes its images; None: as it is.

    Raises:
        UserError: it cannot be read, has colours that mean nothing, or is a maze with a `size`.
    """
    image = open_image(path)
    if config.values == "categorical":
        if size is not None:
            raise UserError("--size: a maze is read as it is; its cells mean nothing resized")
        if config.vocab_size != SEED + 1:
            raise UserError(
                f"{path}: the model reads {config.vocab_size} symbols, and an image has colours "
                f"for those of flood_fill alone ({SEED + 1})"
            )
        return _maze(np.asarray(eight_bits(image, path, gray=False)), path)
    if config.channels not in (1, 3):
        raise UserError(f"{path}: the model reads {config.channels} channels; an image has 1 or 3")
    image = eight_bits(image, path, gray=config.channels == 1)
    pixels = np.asarray(image) if size is None else fitted(image, size, "crop", smooth=True)
    planes = pixels.reshape(*pixels.shape[:2], config.channels)
    return Picture(
        inputs=planes.transpose(2, 0, 1).ravel().astype(np.int32),
        rgb=np.broadcast_to(planes / 255, (*pixels.shape[:2], 3)),
        counted=np.ones(pixels.shape[:2], dtype=bool),
    )


def write_mask(mask: Integer[np.ndarray, "height width"], classes: int, path: Path) -> None:
    """`mask` as a gray PNG, whole or not at all: class 0 black, the last class white, the others
    evenly between.

    Raises:
        UserError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            levels = mask.astype(np.int64) * 255 // (classes - 1)
            Image.fromarray(levels.astype(np.uint8)).save(beside, format="PNG")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def _maze(pixels: UInt8[np.ndarray, "height width rgb"], path: Path) -> Picture:
    low, high = pixels.min(-1), pixels.max(-1)
    free, wall = low >= 192, high < 64
    red = (pixels[..., 0] >= 128) & (pixels[..., 1:].max(-1) < 96)
    gray = (low >= 96) & (high < 160) & (high - low < 32)
    symbols = np.select([free, wall, red | gray], [FREE, WALL, SEED], default=0)
    if len(unknown := np.argwhere(symbols == 0)):
        row, column = unknown[0]
        color = "#" + "".join(f"{value:02x}" for value in pixels[row, column])
        raise UserError(
            f"{path}: {color} at row {row + 1}, column {column + 1} means nothing; {COLORS}"
        )
    if (seeds := int((symbols == SEED).sum())) != 1:
        raise UserError(f"{path}: has {seeds} seeds instead of one; {COLORS}")
    colors = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [0.9, 0.1, 0.1]])
    return Picture(symbols.ravel().astype(np.int32), colors[symbols], symbols != WALL)
