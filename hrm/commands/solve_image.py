"""`hrm solve RUN IMAGE.png`: the classes of an image's pixels, after each step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Integer
from rich.console import Console
from rich.text import Text

from hrm.commands.arguments import limit_steps, print_json
from hrm.commands.picture import Picture, read_picture, write_mask
from hrm.device import pick_device
from hrm.errors import UserError
from hrm.halting import CalibratedHalting
from hrm.inference.image_steps import image_steps
from hrm.inference.loop import HaltingMode
from hrm.models import ACTModel
from hrm.training.checkpoint import load_run

SMALL = 48
"""Most rows and columns of a mask that is shown in the terminal."""
MUCH_LARGER = 1.5
"""So many times the rows or columns that a model learned from are told."""
_STYLES = ("dim", "black on bright_blue", "black on bright_green", "black on bright_yellow")


def solve_image(
    run: str,
    file: str,
    *,
    size: int | None,
    out: str | None,
    halting: HaltingMode,
    max_steps: int | None,
    device: str,
    as_json: bool,
) -> int:
    """Solve one image and show it, or write it to the folder `out`; the exit status.

    Args:
        size: see `read_picture`.
        max_steps: most steps, None: as the model was trained.

    Raises:
        UserError: the model reads no images, the image cannot be read, or `out` not be written.
    """
    loaded = load_run(run, pick_device(device))
    if not reads_images(loaded.model):
        raise UserError(f"{run}: this model reads no images; give a puzzle as text")
    config = loaded.model.config
    picture = read_picture(Path(file), config, size)
    height, width = picture.counted.shape
    if size is None and max(height / config.height, width / config.width) >= MUCH_LARGER:
        advice = (
            f"--size {config.height} would show it what it knows"
            if config.values == "intensity"
            else "what is larger than that it answers less well"
        )
        print(
            f"hrm: {file} is {width}x{height} pixels, and the model learned from {config.width}x"
            f"{config.height}; {advice}",
            file=sys.stderr,
        )
    model = sized(loaded.model, height, width)
    limit_steps(model, max_steps)
    predictions, found = answers(model, picture, halting)
    classes, mask = config.classes, predictions[-1]
    files: dict[str, str] = {}
    if out is not None:
        from hrm.plots import plot_steps

        paths = {name: Path(out) / f"{name}.png" for name in ("mask", "steps")}
        write_mask(mask, classes, paths["mask"])
        plot_steps(
            picture.rgb,
            predictions,
            paths["steps"],
            halted_at=found["policy_steps"],
            values={k: v for k, v in found.items() if isinstance(v, list)},
            shown=picture.counted,
        )
        files = {name: str(path) for name, path in paths.items()}
    if as_json:
        pixels = [int(((mask == c) & picture.counted).sum()) for c in range(classes)]
        about = {"image": file, "height": height, "width": width}
        print_json({**about, **found, "pixels": pixels, "files": files})
        return 0
    console = Console()
    when = (
        f"halts after step {found['policy_steps']}" if found["halts"] else "does not halt in them"
    )
    console.print(f"steps: {found['steps']}; the policy {when}")
    for name, path in files.items():
        console.print(f"{name}: {path}", soft_wrap=True)
    if not files:
        if max(height, width) <= SMALL:
            console.print(blocks(mask, picture.counted))
        else:
            console.print(f"{height}x{width} pixels are too many for the terminal; give --out DIR")
    return 0


def reads_images(model: ACTModel) -> bool:
    """Whether the model's settings say how large its images are."""
    return hasattr(model.config, "height")


def sized(model: ACTModel, height: int, width: int) -> ACTModel:
    """The model for images of another size; its weights do not depend on that."""
    if (model.config.height, model.config.width) == (height, width):
        return model
    other = type(model)(model.config.model_copy(update={"height": height, "width": width}))
    other.load_state_dict(model.state_dict())
    if model.calibration is not None:
        policy = CalibratedHalting.model_validate(model.calibration)
        other.halting = policy.make(other.config.halt_max_steps, other.config.label_len)
    return other.to(next(model.parameters()).device).eval()


def answers(
    model: ACTModel, picture: Picture, halting: HaltingMode
) -> tuple[Integer[np.ndarray, "steps height width"], dict[str, Any]]:
    """The classes after each step that counts, 0 where a pixel has no answer, and for JSON:

    `steps` taken (the policy's, or all of them with max_steps), `policy_steps`, `halts` (whether it
    is the policy that ends them there, and not the limit), and after each step
    `q_halt`, `contribution`, `accumulated` and `threshold`, None where the policy has none.
    """
    device = next(model.parameters()).device
    batch = {
        "inputs": torch.from_numpy(picture.inputs)[None].to(device),
        "puzzle_identifiers": torch.zeros(1, dtype=torch.int32, device=device),
    }
    steps = list(image_steps(model, batch))
    wants = [bool(step.wants[0]) for step in steps]
    policy_steps = wants.index(True) + 1 if any(wants) else len(steps)
    if halting == "adaptive":
        steps = steps[:policy_steps]
    predictions = np.stack([step.logits[0].argmax(-1).cpu().numpy() for step in steps])
    found: dict[str, Any] = {"steps": len(steps), "policy_steps": policy_steps, "halts": any(wants)}
    for name in ("q_halt", "contribution", "accumulated", "threshold"):
        known = name in steps[0].values
        found[name] = [float(step.values[name][0]) for step in steps] if known else None
    masks = predictions.reshape(-1, *picture.counted.shape)
    return np.where(picture.counted, masks, 0), found


def blocks(
    mask: Integer[np.ndarray, "height width"], counted: Bool[np.ndarray, "height width"]
) -> Text:
    """Two characters a pixel: its class on a colour, `.` for class 0, `##` where there is none.

    ASCII, so that a log and a pipe show the same.
    """
    text = Text(no_wrap=True)
    for row, known in zip(mask.tolist(), counted.tolist(), strict=True):
        for value, has_answer in zip(row, known, strict=True):
            style = _STYLES[min(value, len(_STYLES) - 1)]
            text.append(
                f" {value or '.'}"[-2:] if has_answer else "##", style if has_answer else ""
            )
        text.append("\n")
    text.right_crop(1)
    return text
