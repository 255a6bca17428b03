"""What a run starts from: another's weights, and which of its own will learn."""

from __future__ import annotations

from collections.abc import Collection

from hrm.errors import UserError
from hrm.models import ACTModel
from hrm.training.checkpoint import load_run


def start_from(model: ACTModel, run: str, but: Collection[str] = ()) -> set[str]:
    """Copy the weights of `run` that agree in name and shape; what remains, by name, is as it was.

    Averaged weights where there are any; none of those named in `but`.

    Raises:
        UserError: `run` is no model, or nothing of it fits.
    """
    weights, own = load_run(run, calibrated=False).model.state_dict(), model.state_dict()
    wanted = own.keys() & weights.keys() - set(but)
    fitting = {name: weights[name] for name in wanted if own[name].shape == weights[name].shape}
    if not fitting:
        raise UserError(
            f"init_from: no weight of {run} has a name and shape of {type(model).__name__}'s"
        )
    model.load_state_dict(fitting, strict=False)
    return own.keys() - fitting.keys()


def learn_only_halting(model: ACTModel, run: str | None) -> None:
    """Leave everything but what halts as it is in `run`; what halts starts anew.

    Args:
        run: None: the weights are there already.

    Raises:
        UserError: `run` lacks weights, or the policy has nothing to learn.
    """
    halting = {id(p) for p in model.halting_parameters()}
    if not halting:
        name = getattr(model.config, "halting", type(model.halting).__name__)
        raise UserError(f"learn=halting: arch.halting={name} has nothing to learn")
    names = {name for name, p in model.named_parameters() if id(p) in halting}
    if run is not None and (missing := sorted(start_from(model, run, but=names) - names)):
        raise UserError(f"learn=halting: {run} has no weights for {', '.join(missing)}")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in halting)
