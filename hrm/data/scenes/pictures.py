"""Files of images as they are seen: whole, turned as their EXIF orientation says, 8 bits a channel.

What data are made of and what is solved later must be read alike.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hrm.errors import UserError

Fit = Literal["crop", "resize"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings of files that are images."""

# The last, for far more pixels than a photograph has, is none of the others.
_UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
_FORMATS = ("PNG", "JPEG", "TIFF")


def open_image(path: Path) -> Image.Image:
    """The image in `path`, turned as it is seen. Raises `UserError` if it cannot be read."""
    try:
        # Of a path, Pillow maps a plain TIFF into memory, and spoils one that is to be turned.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            image.load()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path}: is no image that can be read: it may be PNG, JPEG or TIFF"
        ) from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: is damaged or no image: {error}") from error
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, struct.error) as error:
        raise UserError(
            f"{path}: has damaged EXIF data, which may tell how it is turned: save it without them"
        ) from error


def eight_bits(image: Image.Image, path: Path, *, gray: bool) -> Image.Image:
    """`image` in gray or in colours. Raises `UserError`, naming `path`, for 32 bits a channel."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError(f"{path}: has mode {image.mode}: an image has 8 or 16 bits a channel")
    return image.convert("L" if gray else "RGB")


def fitted(image: Image.Image, size: int, fit: Fit, *, smooth: bool) -> np.ndarray:
    """`image` as [size, size] or [size, size, channels].

    fit: "crop" takes the largest square in the middle, "resize" squeezes the whole image.
    smooth: of brightness; else the nearest pixel, for classes.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side) if fit == "crop" else None
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(image.resize((size, size), method, box=box))
