"""`hrm solve RUN IMAGE.png` and `hrm evaluate RUN` with a model of images, from end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hrm.commands.picture import read_picture
from hrm.data.base import load_split
from hrm.data.scenes import prepare_scenes, scenes_request
from hrm.inference.segmentation import record
from hrm.models import ACTUNet
from hrm.models.pretrained import save_pretrained
from tests.conftest import Run
from tests.data.scenes.test_pairs import save_sideways
from tests.inference.test_segmentation import IMAGE, unet

WHITE, BLACK, RED, GRAY = (255, 255, 255), (0, 0, 0), (220, 20, 20), (128, 128, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of mazes in `maze`, of gray in `gray`, of colours in `rgb`, and mazes in `data`."""
    root = tmp_path_factory.mktemp("solve")
    counts = {"count": 20, "val_count": 0, "test_count": 9}
    prepare_scenes(scenes_request(task="flood_fill", size=8, seed=1, out=root / "data", **counts))
    save_pretrained(unet(), root / "maze", data_root=str(root / "data"))
    save_pretrained(unet(halting="graves"), root / "graves")
    bright = {"values": "intensity", "vocab_size": 256, "classes": 3}
    save_pretrained(unet(**bright), root / "gray")
    save_pretrained(unet(**bright, channels=3), root / "rgb")
    return root


def maze(path: Path, height: int = 8, width: int = 8, seed: tuple[int, int, int] = RED) -> Path:
    """A wall across, and a seed above it."""
    pixels = np.full((height, width, 3), WHITE, dtype=np.uint8)
    pixels[height // 2] = BLACK
    pixels[1, 1] = seed
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_a_maze_with_files(hrm: Run, folder: Path, tmp_path: Path) -> None:
    image, out = maze(tmp_path / "maze.png"), tmp_path / "out"
    status, text, _ = hrm("solve", folder / "maze", image, "--out", out, "--json")
    solved = json.loads(text)
    assert status == 0
    assert 1 <= solved["steps"] <= 5
    assert solved["steps"] == solved["policy_steps"]
    above = np.array(solved["accumulated"]) > np.array(solved["threshold"])
    assert solved["halts"] == above[-1]
    for name in ("q_halt", "contribution", "accumulated", "threshold"):
        assert len(solved[name]) == solved["steps"]
    assert np.cumsum(solved["contribution"]) == pytest.approx(solved["accumulated"])
    above = np.array(solved["accumulated"]) > np.array(solved["threshold"])
    assert above[:-1].sum() == 0
    assert above[-1] or solved["steps"] == 5

    assert solved["files"] == {name: str(out / f"{name}.png") for name in ("mask", "steps")}
    assert sorted(p.name for p in out.iterdir()) == ["mask.png", "steps.png"]
    mask = pixels_of(out / "mask.png")
    assert mask.shape == (8, 8)
    assert set(np.unique(mask)) <= {0, 255}
    assert not mask[4].any()  # A wall has no answer.
    assert solved["pixels"] == [int((mask == 0).sum()) - 8, int((mask == 255).sum())]
    assert min(pixels_of(out / "steps.png").shape[:2]) > 300


def test_max_steps_runs_on_and_says_what_the_policy_would_do(
    hrm: Run, folder: Path, tmp_path: Path
) -> None:
    image = maze(tmp_path / "maze.png")
    stops = json.loads(hrm("solve", folder / "maze", image, "--json")[1])
    runs = json.loads(hrm("solve", folder / "maze", image, "--halting", "max_steps", "--json")[1])
    assert runs["steps"] == len(runs["contribution"]) == 5
    assert runs["policy_steps"] == stops["steps"]
    assert runs["contribution"][: stops["steps"]] == stops["contribution"]
    assert runs["files"] == {}


def test_most_steps_are_given_and_a_larger_maze_is_told(
    hrm: Run, folder: Path, tmp_path: Path
) -> None:
    image = maze(tmp_path / "maze.png", 12, 8)
    more = ("--max-steps", 9, "--halting", "max_steps", "--json")
    status, text, told = hrm("solve", folder / "maze", image, *more)
    assert status == 0
    assert json.loads(text)["steps"] == len(json.loads(text)["threshold"]) == 9
    assert told == (
        f"hrm: {image} is 8x12 pixels, and the model learned from 8x8; what is larger than that it "
        "answers less well\n"
    )
    _, text, told = hrm("solve", folder / "maze", maze(image, 11), "--max-steps", 1, "--json")
    assert (json.loads(text)["policy_steps"], told) == (1, "")
    assert json.loads(text)["halts"] is False
    _, text, _ = hrm("solve", folder / "maze", image, "--max-steps", 1)
    assert text.startswith("steps: 1; the policy does not halt in them\n")
    status, _, told = hrm("solve", folder / "maze", image, "--max-steps", 0)
    assert (status, told) == (2, "hrm: --max-steps: got 0, but it is at least 1\n")


def test_the_mask_is_that_of_an_evaluation(hrm: Run, folder: Path, tmp_path: Path) -> None:
    """A row of the data set, as a picture, gets the answer and the steps that it gets there."""
    from hrm.data import load_split
    from hrm.models import from_pretrained

    split = load_split(folder / "data", "test")
    done = record(from_pretrained(folder / "maze"), split, predictions=True)
    assert done.predictions is not None
    colors = np.array([BLACK, WHITE, BLACK, RED], dtype=np.uint8)
    for row in range(2):
        board = np.asarray(split.inputs[row]).reshape(8, 8)
        image = tmp_path / f"{row}.png"
        Image.fromarray(colors[board]).save(image)
        out = tmp_path / str(row)
        text = hrm("solve", folder / "maze", image, "--out", out, "--json")[1]
        solved = json.loads(text)
        assert solved["steps"] == done.steps[row]
        answer = done.predictions[done.steps[row] - 1, row].reshape(8, 8)
        mask = pixels_of(out / "mask.png")
        np.testing.assert_array_equal(mask, np.where(board == 2, 0, 255 * answer))


@pytest.mark.parametrize("size", [(13, 17), (5, 9), (60, 50)])
def test_any_size(hrm: Run, folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    image = maze(tmp_path / "maze.png", *size, seed=GRAY)
    status, text, _ = hrm("solve", folder / "maze", image, "--json")
    solved = json.loads(text)
    assert status == 0
    assert (solved["height"], solved["width"]) == size
    assert sum(solved["pixels"]) == size[0] * size[1] - size[1]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_brightness_in_any_form_of_png(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    image = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(image)
    else:
        Image.fromarray(pixels).convert(mode).save(image)
    bright = {"values": "intensity", "vocab_size": 256}
    gray = read_picture(image, unet(**bright).config)
    color = read_picture(image, unet(**bright, channels=3).config)
    if mode == "1":
        assert set(gray.inputs.tolist()) == {0, 255}
    else:
        np.testing.assert_array_equal(gray.inputs, pixels.ravel())
    np.testing.assert_array_equal(color.inputs, np.tile(gray.inputs, 3))
    assert gray.rgb.shape == color.rgb.shape == (9, 7, 3)
    assert gray.counted.all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_photograph_is_turned_as_it_is_seen(tmp_path: Path, suffix: str) -> None:
    """As the data were that the model learned from."""
    seen = np.full((8, 16), 200, dtype=np.uint8)
    seen[:, :8] = 20
    image = tmp_path / f"a{suffix}"
    save_sideways(seen, image)
    picture = read_picture(image, unet(values="intensity", vocab_size=256).config)
    assert picture.counted.shape == seen.shape
    np.testing.assert_allclose(picture.inputs, seen.ravel(), atol=3)


@pytest.mark.parametrize("name", ["gray", "rgb"])
def test_a_model_of_brightness(hrm: Run, folder: Path, tmp_path: Path, name: str) -> None:
    image = maze(tmp_path / "maze.png", 13, 17)
    status, text, _ = hrm("solve", folder / name, image, "--out", tmp_path / "out", "--json")
    assert status == 0
    assert sum(json.loads(text)["pixels"]) == 13 * 17
    mask = pixels_of(tmp_path / "out" / "mask.png")
    assert mask.shape == (13, 17)
    assert set(np.unique(mask)) <= {0, 127, 255}


@pytest.mark.parametrize("name", ["gray", "rgb"])
def test_a_large_photograph_is_solved_at_a_size(
    hrm: Run, folder: Path, tmp_path: Path, name: str
) -> None:
    image, out = maze(tmp_path / "a.png", 40, 24), tmp_path / "out"
    status, _, told = hrm("solve", folder / name, image)
    assert status == 0
    assert told == (
        f"hrm: {image} is 24x40 pixels, and the model learned from 8x8; --size 8 would show it "
        "what it knows\n"
    )
    status, text, told = hrm("solve", folder / name, image, "--size", 8, "--out", out, "--json")
    assert (status, told) == (0, "")
    assert (json.loads(text)["height"], json.loads(text)["width"]) == (8, 8)
    assert pixels_of(out / "mask.png").shape == (8, 8)


def test_a_size_makes_an_image_as_data_are_made(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 15)).astype(np.uint8)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
        Image.fromarray((pixels > 99).astype(np.uint8)).save(tmp_path / f"masks/{i}.png")
    prepare_scenes(scenes_request(task="pairs", folder=tmp_path, size=4, out=tmp_path / "data"))
    config = unet(values="intensity", vocab_size=256).config
    picture = read_picture(tmp_path / "images/0.png", config, size=4)
    made = load_split(tmp_path / "data", "test").inputs[0]
    np.testing.assert_array_equal(picture.inputs, made)


def test_colours_lie_channel_by_channel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    config = unet(values="intensity", vocab_size=256, channels=3).config
    picture = read_picture(tmp_path / "a.png", config)
    np.testing.assert_array_equal(picture.inputs, pixels.transpose(2, 0, 1).ravel())
    np.testing.assert_allclose(picture.rgb, pixels / 255)


def test_a_maze_is_read_as_its_symbols(tmp_path: Path) -> None:
    picture = read_picture(maze(tmp_path / "a.png", 4, 3), unet().config)
    assert picture.inputs.tolist() == [1, 1, 1, 1, 3, 1, 2, 2, 2, 1, 1, 1]
    assert picture.counted.tolist()[2] == [False] * 3


def test_in_the_terminal_it_is_blocks_if_it_is_small(
    hrm: Run, folder: Path, tmp_path: Path
) -> None:
    status, text, _ = hrm("solve", folder / "maze", maze(tmp_path / "a.png"))
    assert status == 0
    lines = text.splitlines()
    assert "steps" in lines[0]
    assert len(lines) == 9
    assert lines[5].strip() == "##" * 8
    assert set("".join(lines[1:5])) <= set(" .1")
    text = hrm("solve", folder / "maze", maze(tmp_path / "b.png", 60, 50))[1]
    assert "give --out" in text


def test_a_policy_without_value_functions(hrm: Run, folder: Path, tmp_path: Path) -> None:
    image, out = maze(tmp_path / "a.png"), tmp_path / "out"
    solved = json.loads(hrm("solve", folder / "graves", image, "--out", out, "--json")[1])
    assert solved["contribution"] is solved["threshold"] is None
    assert len(solved["q_halt"]) == solved["steps"]
    assert (out / "steps.png").is_file()


def test_evaluate_with_plots(hrm: Run, folder: Path, tmp_path: Path) -> None:
    command = ("evaluate", folder / "maze", "--data", folder / "data")
    status, text, _ = hrm(*command, "--json", "--plots", tmp_path / "plots")
    figures = json.loads(text)
    assert status == 0
    assert figures["count"] == 9
    names = ("agreement", "agreement_within_1", "regret", "gap_closed", "spearman", "steps_std")
    assert all(f"halting/{name}" in figures for name in (*names, "mean_steps", "iou"))
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == [
        "iou_by_step.png",
        "steps_at_halt.png",
    ]
    adaptive = ("--halting", "adaptive", "--json", "--plots", tmp_path / "adaptive")
    stopped = json.loads(hrm(*command, *adaptive)[1])
    assert stopped["iou"] == pytest.approx(figures["halting/iou"])
    assert stopped["steps_histogram"] == figures["steps_histogram"]
    assert [p.name for p in (tmp_path / "adaptive").iterdir()] == ["steps_at_halt.png"]
    dear = json.loads(hrm(*command, "--step-penalty", "9", "--json")[1])
    assert dear["step_penalty"] == 9
    assert dear["optimal_steps_histogram"] == [9, 0, 0, 0, 0]


def test_evaluate_shows_a_table(hrm: Run, folder: Path) -> None:
    for halting in ("max_steps", "adaptive"):
        status, text, _ = hrm(
            "evaluate", folder / "maze", "--data", folder / "data", "--halting", halting
        )
        assert status == 0
        assert "intersection over union" in text
        assert "share of all operations" in text


def odd_colour(path: Path) -> Path:
    pixels = pixels_of(maze(path))
    pixels[2, 5] = (0, 0, 255)
    Image.fromarray(pixels).save(path)
    return path


def no_seed(path: Path) -> Path:
    return maze(path, seed=WHITE)


def text_file(path: Path) -> Path:
    path.write_text("1...")
    return path


def cut_short(path: Path) -> Path:
    whole = maze(path, 40, 40).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def a_gif(path: Path) -> Path:
    Image.new("L", (8, 8)).save(path, format="GIF")
    return path


def a_float(path: Path) -> Path:
    Image.new("F", (8, 8)).save(path, format="TIFF")
    return path


BAD: dict[str, tuple[Any, str, str]] = {
    "odd colour": (odd_colour, "maze", "#0000ff at row 3, column 6 means nothing; white is free"),
    "no seed": (no_seed, "maze", "has 0 seeds instead of one"),
    "not there": (lambda path: path, "maze", "there is no such file"),
    "no image": (text_file, "maze", "is no image that can be read: it may be PNG"),
    "cut short": (cut_short, "maze", "is damaged"),
    "another format": (a_gif, "gray", "is no image that can be read: it may be PNG, JPEG or TIFF"),
    "32 bits": (a_float, "gray", "has mode F: an image has 8 or 16 bits a channel"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_one_sentence(hrm: Run, folder: Path, tmp_path: Path, name: str) -> None:
    make, model, expected = BAD[name]
    image, out = make(tmp_path / "a.png"), tmp_path / "out"
    status, text, err = hrm("solve", folder / model, image, "--out", out)
    assert (status, text) == (2, "")
    assert err.startswith(f"hrm: {image}: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not out.exists()


def test_a_model_of_images_and_one_of_puzzles_are_not_confused(
    hrm: Run, folder: Path, tmp_path: Path
) -> None:
    status, _, err = hrm("solve", folder / "maze", "1.....2..3.....4")
    assert status == 2
    assert "reads images; give one" in err
    status, _, err = hrm("solve", folder / "maze", "1.....2..3.....4", "--out", tmp_path)
    assert status == 2
    assert "--out: is for an image" in err
    image = maze(tmp_path / "a.png")
    for size, sentence in ((8, "a maze is read as it is"), (0, "got 0, but it is at least 1")):
        status, _, err = hrm("solve", folder / "maze", image, "--size", size)
        assert status == 2
        assert err.startswith(f"hrm: --size: {sentence}")
    status, _, err = hrm("solve", folder / "maze", "1.....2..3.....4", "--size", 8)
    assert (status, err) == (2, "hrm: --size: is for an image\n")
    layers = {"H_cycles": 1, "L_cycles": 1, "L_layers": 1, "hidden_size": 8, "num_heads": 1}
    from hrm.models import TRM

    model = TRM({**layers, "batch_size": 1, "seq_len": 16, "vocab_size": 6, "halt_max_steps": 2})
    save_pretrained(model, tmp_path / "trm")
    status, _, err = hrm("solve", tmp_path / "trm", maze(tmp_path / "a.png"))
    assert status == 2
    assert "reads no images" in err


def test_the_folder_cannot_be_written(hrm: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image = maze(tmp_path / "a.png")
    status, _, err = hrm("solve", folder / "maze", image, "--out", tmp_path / "file")
    assert status == 2
    assert "mask.png: cannot be written" in err


def test_weights_of_one_size_serve_another() -> None:
    """The same image padded by hand: what is beyond an image is nothing to the model."""
    from hrm.commands.solve_image import sized

    model = unet()
    other = sized(model, 6, 10)
    assert isinstance(other, ACTUNet)
    assert (other.config.height, other.config.width) == (6, 10)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert sized(model, IMAGE["height"], IMAGE["width"]) is model  # type: ignore[arg-type]
