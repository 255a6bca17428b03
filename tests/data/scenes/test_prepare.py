"""Image data sets, end to end: the folder, its checks, the feeder, the command and training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.commands.train import augmenter, load_data
from hrm.config import ExperimentConfig, compose
from hrm.data import IGNORE, Feeder, ImageMetadata, SplitArrays, load_split, write_dataset
from hrm.data.scenes import DihedralAugment, prepare_scenes, scenes_request, symmetry
from hrm.errors import UserError
from tests.conftest import Run

SMALL = {"task": "flood_fill", "size": 8, "count": 12, "val_count": 3, "test_count": 4}
IMAGE = ImageMetadata(
    channels=2,
    height=2,
    width=3,
    classes=2,
    values="intensity",
    class_names=["a", "b"],
    task="toy",
)


def toy() -> SplitArrays:
    """Two images of two channels, 2x3; pixel p of row r has 10 * r + p and 100 more."""
    plane = np.arange(6, dtype=np.uint8) + np.array([[0], [10]], dtype=np.uint8)
    labels = (plane % 2).astype(np.uint8)
    labels[:, 5] = 255
    inputs = np.concatenate([plane, plane + 100], axis=1)
    return SplitArrays.from_rows(inputs, labels, difficulty=np.array([7, 3], dtype=np.int16))


def write_toy(root: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {"vocab_size": 256, "ignore_label_id": 255, "image": IMAGE}
    write_dataset(root, {"train": toy(), "test": toy()}, **settings | changes)
    return root


def test_a_data_set_of_images_round_trips(tmp_path: Path) -> None:
    split = load_split(write_toy(tmp_path / "set"), "train")
    assert split.metadata.image == IMAGE
    assert (split.metadata.seq_len, split.metadata.label_len) == (12, 6)
    assert split.difficulty is not None
    assert split.difficulty.tolist() == [7, 3]
    batch = split.take(np.array([1]))
    assert set(batch) == {"inputs", "labels", "puzzle_identifiers"}
    assert batch["inputs"][0, :6].tolist() == list(range(10, 16))
    assert batch["labels"].tolist() == [[0, 1, 0, 1, 0, IGNORE]]


def change(name: str, **values: Any) -> Callable[[Path], None]:
    def apply(train: Path) -> None:
        path = train / "dataset.json"
        record = json.loads(path.read_text())
        target = record if name == "" else record[name]
        target.update(values)
        path.write_text(json.dumps(record))

    return apply


def array(field: str, value: np.ndarray) -> Callable[[Path], None]:
    return lambda train: np.save(train / f"all__{field}.npy", value)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (array("labels", np.full((2, 6), 2)), "the label 2 in row 0: it may be 0 to 1"),
        (array("labels", np.full((2, 12), 1)), r"shape \(2, 12\) instead of \(2, 6\)"),
        (array("difficulty", np.arange(3)), "difficulty.npy has 3 entries for 2 rows"),
        (array("difficulty", np.ones(2)), "holds float64"),
        (change("image", width=4), r"seq_len is 12, but an image has 2 \* 2 \* 4 values"),
        (change("image", classes=3), "image.class_names has 2 of 3 names"),
        (change("image", values="categorical"), "channels is 2: categorical values have one"),
        (change("image", values="colour"), "image.values"),
        (change("", vocab_size=200), "vocab_size is 200: intensities have 256 values"),
        (change("", ignore_label_id=None), "the label 255 in row 0"),
    ],
)
def test_a_broken_folder_is_refused_by_name(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    root = write_toy(tmp_path / "set")
    break_it(root / "train")
    with pytest.raises(UserError, match=message) as caught:
        load_split(root, "train")
    assert "\n" not in str(caught.value)


def test_difficulties_of_several_sets_are_joined_and_all_have_theirs(tmp_path: Path) -> None:
    train = write_toy(tmp_path / "set") / "train"
    for path in list(train.glob("all__*.npy")):
        (train / path.name.replace("all", "more")).write_bytes(path.read_bytes())
    change("", sets=["all", "more"], total_groups=4)(train)
    difficulty = load_split(tmp_path / "set", "train").difficulty
    assert difficulty is not None
    assert difficulty.tolist() == [7, 3, 7, 3]
    (train / "more__difficulty.npy").unlink()
    with pytest.raises(UserError, match=r"more__difficulty.npy is missing"):
        load_split(tmp_path / "set", "train")


def test_the_feeder_augments_images_and_pads_labels_of_their_own_width(tmp_path: Path) -> None:
    split = load_split(write_toy(tmp_path / "set"), "train")
    feeder = Feeder(split, slots=3, seed=0, epochs=1, augment=DihedralAugment(2, 3, 2))
    batch = feeder.fill(np.ones(3, dtype=bool))
    assert (batch["inputs"].shape, batch["labels"].shape) == ((3, 12), (3, 6))
    assert (batch["labels"][2] == IGNORE).all()
    for slot, row in enumerate(feeder.rows[:2]):
        plane = split.inputs[row, :6].reshape(2, 3)
        new = batch["inputs"][slot].reshape(2, 2, 3)
        assert any(np.array_equal(symmetry(plane, which), new[0]) for which in range(4))
        assert np.array_equal(new[0] + 100, new[1])
        kept = batch["labels"][slot] != IGNORE
        assert np.array_equal(batch["labels"][slot][kept], new[0].reshape(-1)[kept] % 2)


@pytest.mark.parametrize("task", ["flood_fill", "pathfinder", "digits"])
def test_every_generated_task_writes_a_folder_that_loads(tmp_path: Path, task: str) -> None:
    size = 8 if task == "flood_fill" else 24
    out = tmp_path / "set"
    settings = SMALL | {"task": task, "size": size, "out": out}
    summary = prepare_scenes(scenes_request(**settings), progress=True)
    split = load_split(out, "val")
    image = split.metadata.image
    assert image is not None
    assert (image.task, image.height, image.classes) == (task, size, 2)
    assert split.metadata.ignore_label_id == 255
    assert split.difficulty is not None
    assert summary["val"]["difficulty"]["max"] == split.difficulty.max()
    counted = split.labels[split.labels < 255]
    assert summary["val"]["positive"] == pytest.approx(counted.mean(), abs=1e-4)
    record = json.loads((out / "prepare.json").read_text())
    assert record["task"] == "scenes"
    assert record["settings"]["task"] == task
    assert record["summary"] == {k: v for k, v in summary.items() if k != "out"}


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> dict[str, bytes]:
        out = tmp_path / name
        prepare_scenes(scenes_request(**SMALL, seed=seed, out=out))
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    first, again, other = content("a", 3), content("b", 3), content("c", 4)
    assert first == again
    assert first["train/all__inputs.npy"] != other["train/all__inputs.npy"]
    assert len(first) == 3 * 7 + 2


def test_the_command_prints_json_or_lines(hrm: Run, tmp_path: Path) -> None:
    words = [w for k, v in SMALL.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    status, out, _ = hrm("prepare", "scenes", *words, "--out", tmp_path / "a", "--json")
    assert status == 0
    summary = json.loads(out)
    assert summary["train"]["rows"] == 12
    status, out, _ = hrm("prepare", "scenes", *words, "--out", tmp_path / "b")
    assert status == 0
    assert out.splitlines()[0].endswith("8x8 flood_fill, 2 classes")
    assert "12 images, difficulty 2 to " in out
    assert "hrm prepare scenes --task flood_fill" in hrm("prepare", "scenes", "--help")[1]
    assert "prepare scenes" in hrm("prepare", "--help")[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task", "flood"], "task is 'flood'"),
        ([], "--task"),
        (["--task", "flood_fill", "--size", "9"], "size is 9"),
        (["--task", "flood_fill", "--count", "0"], "count is 0"),
        (["--task", "pairs"], "folder is missing"),
        (["--task", "digits", "--ignore", "3"], "ignore is for task pairs"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    hrm: Run, tmp_path: Path, words: list[str], expected: str
) -> None:
    status, out, err = hrm("prepare", "scenes", *words, "--out", tmp_path / "x")
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def config(path: Path, prepare: dict[str, Any] | None, augment: str) -> ExperimentConfig:
    plain = compose(["experiment=sudoku_4x4", "data.prepare=null", f"data.path={path}"])
    data = {"path": str(path), "prepare": prepare, "augment": augment}
    return ExperimentConfig.model_validate({**plain.model_dump(), "data": data})


def test_a_training_run_prepares_and_augments_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "set", {"kind": "scenes", **SMALL}, "dihedral")
    train, held_out = load_data(settings)
    assert (len(train), len(held_out), held_out.name) == (12, 3, "val")
    assert isinstance(augmenter(settings, train.metadata), DihedralAugment)
    assert "preparing" in capsys.readouterr().err
    load_data(settings)  # Found, and made as it is asked for: no warning.
    other = config(tmp_path / "set", {"kind": "scenes", **SMALL, "count": 13}, "dihedral")
    with pytest.warns(UserWarning, match="made with other settings: count=12"):
        load_data(other)


def test_wrong_kinds_and_augmentations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kind is 'scene': it may be one of sudoku, scenes"):
        load_data(config(tmp_path / "x", {"kind": "scene", **SMALL}, "none"))
    plain = config(tmp_path / "four", {"size": 4, "count": 5, "test_count": 2}, "dihedral")
    data = load_data(plain)[0].metadata
    with pytest.raises(UserError, match="dihedral needs images"):
        augmenter(plain, data)
