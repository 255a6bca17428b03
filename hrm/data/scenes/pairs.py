"""Segmentation data of one's own: a folder of images and masks of the same names.

    FOLDER/images/NAME.png      gray or colour; also .jpg, .jpeg, .tif, .tiff
    FOLDER/masks/NAME.png       one channel, as large as its image; values are classes

Each is turned as its EXIF orientation says (`pictures`), which is how a photograph is seen when its
mask is drawn. The values of all masks in ascending order become classes 0 .. n - 1, except
`ignore`, which counts in no loss or metric. Images are resized with smoothing, masks by their
nearest pixel. Which image goes to which split depends on the names and the seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrm.data.base import ImageMetadata, SplitName
from hrm.data.keys import keys_of
from hrm.data.request import Report
from hrm.data.scenes.pictures import SUFFIXES, Fit, eight_bits, fitted, open_image
from hrm.data.scenes.scenes import IGNORED, Scenes, Task
from hrm.errors import UserError

Colour = Literal["gray", "rgb"]

_USE = 204  # what this task adds to the seed's keys
_SHARE = 0.1  # of the images, for each of val and test, if no count is given


def make_pairs(
    folder: Path,
    size: int,
    counts: Mapping[SplitName, int | None],
    seed: int,
    report: Report,
    *,
    colour: Colour = "gray",
    fit: Fit = "crop",
    ignore: int | None = None,
) -> Task:
    """The images and masks of `folder` at `size` squared, split by image.

    counts: images of each split; None: a tenth each for val and test, all the rest for train.
    fit: "crop" takes the largest square in the middle, "resize" squeezes the whole image.
    ignore: value of a mask's pixels that count in no loss or metric.

    Raises `UserError` for a missing folder, an image without a mask or a mask without an image, a
    file that cannot be read, an image and a mask of different sizes, fewer than two classes, or too
    few images.
    """
    pairs = find_pairs(folder)
    rows = _split(folder, len(pairs), counts, seed)
    images, masks, values = [], [], np.empty(0, dtype=np.int64)
    for done, (image_path, mask_path) in enumerate(pairs):
        image, mask = open_image(image_path), open_image(mask_path)
        if image.size != mask.size:
            raise UserError(
                f"{mask_path} is {mask.width}x{mask.height} pixels, but {image_path} is "
                f"{image.width}x{image.height}: a mask is as large as its image"
            )
        raw = _mask_values(mask, mask_path)
        values = np.union1d(values, raw)
        masks.append(fitted(Image.fromarray(raw.astype(np.int32)), size, fit, smooth=False))
        pixels = fitted(
            eight_bits(image, image_path, gray=colour == "gray"), size, fit, smooth=True
        )
        images.append(pixels.reshape(size, size, -1).transpose(2, 0, 1))
        report("images", done + 1, len(pairs))
    classes = values[values != ignore]
    if not 2 <= len(classes) <= IGNORED:
        raise UserError(
            f"{folder / 'masks'} has {len(classes)} values that count: it may have 2 to {IGNORED}"
        )
    labels = np.searchsorted(classes, masks)
    labels[np.array(masks) == ignore] = IGNORED
    whole = Scenes(np.array(images, dtype=np.uint8), labels.astype(np.uint8))
    image_metadata = ImageMetadata(
        channels=whole.images.shape[1],
        height=size,
        width=size,
        classes=len(classes),
        values="intensity",
        class_names=[str(value) for value in classes.tolist()],
        task="pairs",
    )
    splits = {name: whole.take(part) for name, part in rows.items() if len(part)}
    return Task(splits, image_metadata, vocab_size=256)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Each image of `folder` and the mask of the same name, in the order of their names."""
    images = _by_name(folder / "images", SUFFIXES)
    masks = _by_name(folder / "masks", (".png",))
    if not images:
        raise UserError(f"{folder / 'images'} holds no images ({', '.join(SUFFIXES)})")
    for name, path in images.items():
        if name not in masks:
            raise UserError(f"{path} has no mask: {folder / 'masks' / name}.png is missing")
    for name, path in masks.items():
        if name not in images:
            raise UserError(
                f"{path} has no image: there is no {folder / 'images' / name} with one of "
                f"{', '.join(SUFFIXES)}"
            )
    return [(images[name], masks[name]) for name in sorted(images)]


def _by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: images lie in images/ and masks in masks/")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            if path.stem in found:
                raise UserError(f"{path} and {found[path.stem].name} share one name")
            found[path.stem] = path
    return found


def _split(
    folder: Path, total: int, counts: Mapping[SplitName, int | None], seed: int
) -> dict[SplitName, NDArray[np.int64]]:
    """Rows of each split; train gets what is left if its count is None."""
    held = max(round(total * _SHARE), 1)
    given: dict[str, int] = {
        name: held if count is None else count for name, count in counts.items() if name != "train"
    }
    train = counts.get("train")
    needed = sum(given.values()) + (1 if train is None else train)
    if needed > total:
        raise UserError(
            f"{folder} has {total} images, fewer than count, val_count and test_count need "
            f"({needed})"
        )
    order = np.random.default_rng(keys_of(seed, _USE)).permutation(total)
    test, val = given.get("test", 0), given.get("val", 0)
    rest = order[test + val :]
    return {"train": rest[:train], "val": order[test : test + val], "test": order[:test]}


def _mask_values(mask: Image.Image, path: Path) -> NDArray[np.int64]:
    """The values of a mask, [height, width]; of a palette, its indices."""
    values: NDArray[Any] = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise UserError(f"{path}: has mode {mask.mode}: a mask has one channel of integers")
    return values.astype(np.int64)
