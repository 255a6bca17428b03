"""Pairs of image and mask: what is read, what becomes of it, and what is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from hrm.data import load_split
from hrm.data.scenes import prepare_scenes, scenes_request
from hrm.errors import UserError

COUNT = 12


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve colour images of 12x8; the left third has brightness 10 * i, the mask there 40, the
    rest 0 but for one pixel of 255."""
    root = tmp_path / "own"
    for i in range(COUNT):
        image = np.full((8, 12, 3), 200, dtype=np.uint8)
        image[:, :4] = 10 * i
        mask = np.where(np.arange(12) < 4, 40, 0)[None].repeat(8, axis=0).astype(np.uint8)
        mask[0, 11] = 255
        save(root / "images" / f"{i:02}.png", image)
        save(root / "masks" / f"{i:02}.png", mask)
    return root


def prepare(root: Path, **settings: Any) -> dict[str, Any]:
    request = {"task": "pairs", "folder": root, "size": 6, "out": root.parent / "set"}
    return prepare_scenes(scenes_request(**request | settings))


def test_resized_pairs_keep_together(folder: Path) -> None:
    summary = prepare(folder, fit="resize", ignore=255, val_count=2, test_count=3)
    assert [summary[name]["rows"] for name in ("train", "val", "test")] == [7, 2, 3]
    assert summary["train"]["difficulty"] is None
    seen = []
    for name in ("train", "val", "test"):
        split = load_split(folder.parent / "set", name)  # type: ignore[arg-type]
        image = split.metadata.image
        assert image is not None
        assert (image.channels, image.classes, image.class_names) == (1, 2, ["0", "40"])
        assert split.difficulty is None
        images, labels = (part.reshape(-1, 6, 6) for part in (split.inputs, split.labels))
        seen += images[:, 3, 0].tolist()
        assert (labels[:, :, :2] == 1).all()
        assert (labels[:, 1:, 2:] == 0).all()
        assert (images[:, 2:, 3:] == 200).all()
        assert set(labels[:, 0, 5].tolist()) <= {0, 255}
    assert sorted(seen) == [10 * i for i in range(COUNT)]


def test_cropped_colour_with_three_classes(folder: Path) -> None:
    summary = prepare(folder, colour="rgb")
    assert summary["classes"] == 3
    assert [summary[name]["rows"] for name in ("train", "val", "test")] == [10, 1, 1]
    split = load_split(folder.parent / "set", "train")
    assert split.metadata.image is not None
    assert split.metadata.image.class_names == ["0", "40", "255"]
    assert split.inputs.shape == (10, 3 * 36)
    planes = split.inputs.reshape(10, 3, 6, 6)
    assert (planes == planes[:, :1]).all()
    # The square in the middle has columns 2 to 9: two of the mask's four.
    assert (split.labels.reshape(10, 6, 6)[:, :, 0] == 1).all()
    assert (split.labels.reshape(10, 6, 6)[:, :, 2:] == 0).all()


def test_jpeg_sixteen_bits_palettes_and_black_and_white_are_read(folder: Path) -> None:
    images, masks = folder / "images", folder / "masks"
    (images / "00.png").unlink()
    save(images / "00.jpg", np.full((8, 12), 77, dtype=np.uint8))
    (images / "01.png").unlink()
    save(images / "01.tif", np.full((8, 12), 88 * 256 + 5, dtype=np.uint16))
    for path in masks.iterdir():
        save(path, np.arange(12)[None].repeat(8, axis=0) < 6)  # mode 1
    palette = Image.fromarray(np.ones((8, 12), dtype=np.uint8), mode=None).convert("P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(masks / "02.png")
    summary = prepare(folder, fit="resize")
    assert summary["classes"] == 2
    split = load_split(folder.parent / "set", "train")
    uniform = {int(row[0]) for row in split.inputs if len(set(row.tolist())) == 1}
    test = load_split(folder.parent / "set", "test"), load_split(folder.parent / "set", "val")
    uniform |= {int(r[0]) for s in test for r in s.inputs if len(set(r.tolist())) == 1}
    assert {77, 88} <= uniform


def save_sideways(seen: np.ndarray, path: Path) -> None:
    """As a camera held upright stores what is `seen`: rows as columns, and orientation 6."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = Image.fromarray(seen).transpose(Image.Transpose.ROTATE_90)
    assert stored.size == seen.shape
    stored.save(path, exif=exif)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_photograph_is_turned_as_it_is_seen(folder: Path, suffix: str) -> None:
    seen = np.full((8, 12), 200, dtype=np.uint8)
    seen[:, :4] = 20
    for path in (folder / "images").iterdir():
        path.unlink()
        save_sideways(seen, path.with_suffix(suffix))
    prepare(folder, fit="resize", ignore=255)
    split = load_split(folder.parent / "set", "train")
    images, labels = (part.reshape(-1, 6, 6) for part in (split.inputs, split.labels))
    assert (images[:, :, 0] < 60).all()
    assert (images[:, :, 3:] > 160).all()
    assert (labels[:, :, 0] == 1).all()
    assert (labels[:, 1:, 3:] == 0).all()


def test_a_mask_is_turned_as_its_image_is(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for path in (folder / "masks").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    prepare(folder, fit="resize", ignore=255)
    labels = load_split(folder.parent / "set", "train").labels.reshape(-1, 6, 6)
    assert (labels[:, :, :2] == 1).all()
    assert (labels[:, 1:, 2:] == 0).all()


def test_far_too_many_pixels_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "images" / "05.png", np.zeros((80, 120), dtype=np.uint8))
    # Pillow warns above this and refuses above twice that.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UserError, match=r"images/05\.png: is damaged or no image: .*9600 pixels"):
        prepare(folder)
    assert not (folder.parent / "set").exists()


def test_the_seed_decides_the_split(folder: Path) -> None:
    def order(seed: int, out: str) -> list[int]:
        prepare(folder, seed=seed, out=folder.parent / out)
        return load_split(folder.parent / out, "train").inputs[:, 18].tolist()

    assert order(0, "a") == order(0, "b") != order(1, "c")


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: save(folder / name, array)


def flat(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        save(path, np.zeros((8, 12), dtype=np.uint8))


def empty(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        path.unlink()


def bad_exif(folder: Path) -> None:
    Image.fromarray(GRAY).save(folder / "images" / "03.png", exif=b"Exif\0\0turned")


GRAY = np.zeros((8, 12), dtype=np.uint8)


@pytest.mark.parametrize(
    ("break_it", "settings", "message"),
    [
        (drop("masks/03.png"), {}, "03.png has no mask: .*masks/03.png is missing"),
        (write("masks/03.png", GRAY[:4]), {}, "03.png is 12x4 pixels, but .*03.png is 12x8"),
        (write("masks/03.png", np.stack([GRAY] * 3, 2)), {}, "03.png: has mode RGB"),
        (write("images/03.tif", GRAY.astype(np.float32)), {}, "share one name"),
        (write("images/99.tif", GRAY.astype(np.float32)), {}, "99.tif has no mask"),
        (drop("images/03.png"), {}, "masks/03.png has no image: there is no .*images/03 with one"),
        (write("masks/3.png", GRAY), {}, "masks/3.png has no image"),
        (
            lambda f: (f / "images/03.png").write_text("x"),
            {},
            "03.png: is no image that can be read: it may be PNG, JPEG or TIFF",
        ),
        (bad_exif, {}, "images/03.png: has damaged EXIF data"),
        (
            lambda f: (f / "masks/03.png").write_bytes((f / "masks/03.png").read_bytes()[:50]),
            {},
            "masks/03.png: is damaged",
        ),
        (empty, {}, "holds no images"),
        (flat, {}, "masks has 1 values that count: it may have 2 to 255"),
        (lambda f: None, {"count": 11}, "has 12 images, fewer than .* need .13"),
        (lambda f: None, {"folder": Path("absent")}, "absent/images is no folder"),
        (lambda f: None, {"folder": None}, "folder is missing"),
        (lambda f: None, {"task": "flood_fill", "size": 8}, "folder is for task pairs"),
    ],
)
def test_bad_folders_are_refused_by_name_and_leave_nothing(
    folder: Path, break_it: Callable[[Path], None], settings: dict[str, Any], message: str
) -> None:
    break_it(folder)
    with pytest.raises(UserError, match=message) as caught:
        prepare(folder, **settings)
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "set").exists()
