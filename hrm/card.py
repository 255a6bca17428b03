"""A model card: what a model is, how well it does, how it is used and made, what it cannot do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from hrm.data.sudoku import Shape, shape_of
from hrm.models import ETRM, TRM, ACTModel
from hrm.models.base import TokenModel

_PAPERS = {
    "HRM": "Wang et al. 2025, arXiv:2506.21734",
    "TRM": "Jolicoeur-Martineau 2025, arXiv:2510.04871",
    "ETRM": "TRM that learns a task from its demonstrations, by an encoder",
    "ACT U-Net": "a U-Net whose bottleneck is applied again until a learned policy halts",
}
_HALTS = {
    "fixed": ".",
    "convergence": " and stops when they no longer change it.",
    "dual_value": " and stops where what they have contributed exceeds a learned threshold.",
    "graves": " and stops where its chances of halting sum to one.",
    "pondernet": " and stops where it is more likely than not to have halted.",
}
_SUDOKU_IN_PYTHON = """
```python
import torch

from hrm.data.sudoku import decode, encode, parse_puzzle, to_text
from hrm.inference import solve
from hrm.models import from_pretrained

model = from_pretrained("{name}")
_, digits = parse_puzzle("{puzzle}")
batch = {{
    "inputs": torch.from_numpy(encode(digits)).int()[None],
    "puzzle_identifiers": torch.zeros(1, dtype=torch.int32),
}}
done = solve(model, batch, "adaptive")
print(to_text(decode(done.predictions[-1, 0].numpy())), "after", int(done.stopped_at[0]), "steps")
```
"""
_PYTHON = """
```python
from hrm.models import from_pretrained

model = from_pretrained("{name}")
```
"""


def model_card(
    name: str, model: ACTModel, record: Mapping[str, Any], puzzle: str | None = None
) -> str:
    """The card as markdown, the hub's front matter on top.

    Args:
        name: what users give to `from_pretrained`.
        record: `metrics.json` of the exported model, as `hrm export` makes it.
        puzzle: an example for Sudoku.
    """
    config = model.config
    shape = shape_of(config.seq_len, config.vocab_size)
    family = "TRM" if isinstance(model, TRM) else "HRM"
    if isinstance(model, ETRM):
        family = "ETRM"
    if not isinstance(model, TokenModel):
        family = "ACT U-Net"
    front: dict[str, Any] = {
        "library_name": "hrm",
        "tags": [
            family.lower().replace(" ", "-"),
            "recursive-reasoning",
            "adaptive-computation-time",
        ],
        "metrics": ["accuracy"],
    }
    if shape:
        front["tags"].append("sudoku")
    if record["training"]:
        front |= {"license": "mit"}
    kind = f"{family}-MLP" if getattr(config, "mlp_t", False) else family
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name.rpartition('/')[2]}\n",
        f"{kind} ({_PAPERS[family]}) with {record['parameters']:,} parameters for "
        f"{_task(model, shape)}. It refines its answer in up to {config.halt_max_steps} steps"
        + _HALTS.get(config.halting, " and says itself when the answer is right.")
        + "\n",
        _use(name, shape, puzzle),
        _figures(record["test"]) + _calibration(model),
        _training(record),
        _limits(shape, record),
        "## Licence\n\n"
        + ("MIT." if record["training"] else "That of the weights' publisher.")
        + "\n",
    ]
    return "\n".join(parts)


def _task(model: ACTModel, shape: Shape | None) -> str:
    if shape is not None:
        return f"{shape.n}x{shape.n} Sudoku"
    config = model.config
    if not isinstance(model, TokenModel):
        return f"images of {config.height}x{config.width} pixels, {config.classes} classes"
    if isinstance(model, ETRM):
        side = math.isqrt(config.seq_len)
        return f"tasks told by demonstrations on grids of up to {side}x{side}"
    return "sequences of tokens"


def _use(name: str, shape: Shape | None, puzzle: str | None) -> str:
    if shape is None or puzzle is None:
        return "## Use\n" + _PYTHON.format(name=name)
    code = _SUDOKU_IN_PYTHON.format(name=name, puzzle=puzzle)
    return f'## Use\n\n```bash\nhrm solve {name} "{puzzle}"\n```\n{code}'


def _figures(test: Mapping[str, Any]) -> str:
    last, count = test["max_steps"], test["count"]
    if "iou" in test:
        return _table(test, _image_rows(test, last), count)
    auroc = test["q_halt_auroc"]
    rows = {
        f"exact accuracy, every row to the last step ({last})": f"{test['exact_accuracy']:.4f}",
        "exact accuracy where the policy halts": f"{test['policy_exact_accuracy']:.4f}",
        "mean steps where the policy halts": f"{test['policy_mean_steps']:.2f} of {last}",
        "token accuracy": f"{test['accuracy']:.4f}",
        "AUROC of q_halt at the last step": "none: all right or all wrong"
        if auroc is None
        else f"{auroc:.4f}",
    }
    return _table(test, rows, count)


def _image_rows(test: Mapping[str, Any], last: int) -> dict[str, str]:
    return {
        f"IoU, every image to the last step ({last})": f"{test['iou']:.4f}",
        "IoU where the policy halts": f"{test['halting/iou']:.4f}",
        "mean steps where the policy halts": f"{test['halting/mean_steps']:.2f} of {last}",
        "Dice": f"{test['dice']:.4f}",
        "images entirely right": f"{test['exact_accuracy']:.4f}",
    }


def _table(test: Mapping[str, Any], rows: Mapping[str, str], count: int) -> str:
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return (
        f"## Figures\n\nOn the {count:,} rows of the `{test['split']}` split of `{test['data']}`, "
        f"by `hrm evaluate`.\n\n| | |\n|---|---|\n{table}"
    )


def _calibration(model: ACTModel) -> str:
    if (made := model.calibration) is None:
        return ""
    at = "never early" if made["threshold"] is None else f"threshold {made['threshold']:.4g}"
    return (
        f"\nWhen it halts was chosen by `hrm calibrate`: stopper `{made['stopper']}`, {at}, "
        f"temperature {made['temperature']:.3g}.\n"
    )


def _training(record: Mapping[str, Any]) -> str:
    training, data = record["training"], record["data"]
    if not training:
        return f"## Training\n\nNot by this project: read from `{record['source']}`.\n"
    commands = [c for c in (data["command"], training["command"]) if c]
    text = "## Training\n\n"
    if commands:
        text += "```bash\n" + "\n".join(commands) + "\n```\n\n"
    if not training["command"]:
        text += "The settings are in `config.json`. "
    text += f"Seed {training['seed']}, {training['updates']:,} updates"
    if training["seconds"] is not None:
        text += f" in {training['seconds']:.0f} s"
    text += "; the weights are " + ("averaged (EMA).\n" if training["ema"] else "the last ones.\n")
    if made := data["summary"]:
        text += (
            f"Data: `{data['name']}`, {made['size']}x{made['size']} puzzles from "
            f"{'a CSV' if made['source'] == 'csv' else 'the generator'}, seed {made['seed']}, "
            f"{made['train']['puzzles']:,} for training ({_clues(made)}). "
            f"Splits share no {_unit(made)} under the symmetries of Sudoku.\n"
        )
    return text


def _unit(made: Mapping[str, Any]) -> str:
    return "solution grid" if made["split_by"] == "solution" else "puzzle"


def _clues(made: Mapping[str, Any]) -> str:
    low, high = made["train"]["clues"]["min"], made["train"]["clues"]["max"]
    return f"{low} clues" if low == high else f"{low} to {high} clues"


def _limits(shape: Shape | None, record: Mapping[str, Any]) -> str:
    lines = ["An answer can be wrong, and the model sure of it: check it."]
    made = record["data"]["summary"]
    if shape:
        lines[0] = lines[0][:-1] + ", as `hrm solve` does against the rules."
        lines.append(f"It reads {shape.n}x{shape.n} boards only.")
    if made:
        lines.append(
            f"It was trained on puzzles with {_clues(made)}, and the figures hold for such as the "
            "test split has; others were not tried."
        )
    lines.append("It knows this one task and was made to study halting, not for use in earnest.")
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)
