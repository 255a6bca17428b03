"""Whether a model can be run on a data set."""

from __future__ import annotations

from hrm.data.base import PuzzleSplit
from hrm.errors import UserError
from hrm.models import ACTModel


def check_fits(model: ACTModel, split: PuzzleSplit) -> None:
    """Raises UserError if `split` was made for other sizes, or knows more puzzles or
    demonstrations."""
    data, config = split.metadata, model.config
    theirs = config.read_data(data)
    identifiers = theirs.pop("num_puzzle_identifiers", 0)
    shown = theirs.pop("demonstrations", 0)  # No weight depends on how many there are.
    for name, value in theirs.items():
        if value != getattr(config, name):
            raise UserError(
                f"{split.path}: its {name} is {value}, but the model's is {getattr(config, name)}"
            )
    if shown and shown > (room := model.columns["demo_mask"].shape[0]):
        raise UserError(
            f"{split.path}: its puzzles have up to {shown} demonstrations, but the model has room "
            f"for {room}"
        )
    if "puzzle_identifiers" in model.columns and identifiers > config.num_puzzle_identifiers:
        raise UserError(
            f"{split.path}: it has {identifiers} puzzle identifiers, but the model "
            f"knows {config.num_puzzle_identifiers}"
        )
