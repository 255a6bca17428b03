"""How far the truncated gradient of a step is from the whole one.

A training step lets gradient through its last `grad_cycles` cycles only: HRM's 1-step gradient
(Wang et al. 2025, arXiv:2506.21734) through the last low and the last high one. Here the same loss
is differentiated through the last 1, 2, ..., all cycles of the step, and through all steps from the
first, each time by exact back-propagation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hrm.carry import Carry
from hrm.errors import UserError
from hrm.models import ACTModel
from hrm.models.base import Latents, token_model
from hrm.token_loss import TokenLoss
from hrm.training.losses import step_loss

Gradient = Sequence[Tensor]
"""One tensor per parameter."""
REFERENCES = ("to_all_cycles", "to_all_steps")


def compare(gradient: Gradient, reference: Gradient) -> dict[str, float | None]:
    """`cosine` of the two as long vectors and `norm_ratio`, |gradient| / |reference|.

    None where undefined: the cosine if either is zero, the ratio if the reference is.
    """
    norms = [math.sqrt(_dot(g, g)) for g in (gradient, reference)]
    ratio = norms[0] / norms[1] if norms[1] else None
    cosine = _dot(gradient, reference) / (norms[0] * norms[1]) if all(norms) else None
    return {"cosine": cosine, "norm_ratio": ratio}


def _dot(a: Gradient, b: Gradient) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


class StepGradients:
    """Gradients of the training loss of the steps of one batch, which all slots start together.

    Nothing halts, and as in training each step starts from latents without gradient. The losses are
    those of training mode, the halting policy's included.

    Args:
        model: its mode and `grad_cycles` are changed; its type should be float32, or rounding shows
            in the figures.
        batch: `inputs` and `labels` `(rows, length)`, `puzzle_identifiers` `(rows,)`.
        loss: the token loss.
    """

    def __init__(self, model: ACTModel, batch: Mapping[str, Tensor], loss: TokenLoss) -> None:
        self.model, self.batch, self.loss = model.train(), batch, loss
        inner = token_model(model).inner
        # Puzzle embeddings are no parameters: they learn from signs of their own gradient.
        named = dict(inner.named_parameters())
        self.names, self.parameters = list(named), list(named.values())
        self.cycles = len(inner.cycles())
        empty = model.initial_carry(batch, seed=0)
        self.carry: Carry = empty.refill(batch, inner.reset_latents, empty.extra)
        self.earlier: list[Latents] = []
        """Latents before each step that is over."""

    def groups(self) -> dict[str, list[int]]:
        """Indices of the parameters: `all`, each level, `embeddings`."""
        found: dict[str, list[int]] = {"all": list(range(len(self.names)))}
        for i, name in enumerate(self.names):
            part = name.split(".")[0]
            part = "embeddings" if part.startswith("embed") else part
            if part == "embeddings" or part.endswith("_level"):
                found.setdefault(part, []).append(i)
        return found

    def within_step(self, grad_cycles: int) -> list[Tensor]:
        """Through the last `grad_cycles` cycles of the coming step."""
        return self._backward(grad_cycles)[0]

    def through_all_steps(self) -> list[Tensor]:
        """Through all cycles of the coming step and of the steps before: no latent is detached."""
        total, pulled = self._backward(self.cycles)
        inner = token_model(self.model).inner
        for latents in reversed(self.earlier):
            start = _leaves(latents)
            with inner.casted():
                after = inner.recur(start, inner.embed(self.batch))
            more, pulled = self._split(
                torch.autograd.grad(
                    tuple(after),
                    (*self.parameters, *start),
                    grad_outputs=pulled,
                    materialize_grads=True,
                )
            )
            total = _sum([total, more])
        return total

    @torch.no_grad()
    def advance(self) -> None:
        """Take the coming step; the one after it becomes the coming one."""
        self.earlier.append(self.carry.inner_carry)
        after, _ = self.model(self.carry, self.batch)
        self.carry = replace(after, halted=torch.zeros_like(after.halted))

    def _backward(self, grad_cycles: int) -> tuple[list[Tensor], list[Tensor]]:
        """The loss's gradient to the parameters, and to the latents before the step."""
        self.model.config.grad_cycles = grad_cycles
        start = _leaves(self.carry.inner_carry)
        after, outputs = self.model(replace(self.carry, inner_carry=start), self.batch)
        loss = step_loss(outputs, after, self.model.halting, self.loss).loss
        return self._split(
            torch.autograd.grad(loss, (*self.parameters, *start), materialize_grads=True)
        )

    def _split(self, gradients: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        count = len(self.parameters)
        return list(gradients[:count]), list(gradients[count:])


def _leaves(latents: Latents) -> Latents:
    return Latents(*(z.detach().requires_grad_() for z in latents))


def gradient_truncation(
    model: ACTModel,
    batches: Sequence[Mapping[str, Tensor]],
    loss: TokenLoss,
    steps: Sequence[int],
    on_step: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Cosine and norm ratio of the truncated gradients to the whole ones, all batches together.

    Where most puzzles are solved a few others make the gradient: take hundreds.

    Args:
        model: left as it is; see `StepGradients`.
        batches: as many rows at once as there is room for the activations of a step.
        steps: the steps whose losses are differentiated, from 1 and rising. They may go beyond the
            model's limit, to where the latents have settled.
        on_step: called with the number of steps taken, for a progress bar.

    Returns:
        `count` (rows), `steps`, `cycles` (of a step), `grad_cycles` (those of the model's own
        training), and for each of `to_all_cycles` (the reference is the gradient through all cycles
        of the step) and `to_all_steps` (through all steps from the first): `cosine` and
        `norm_ratio`, each {group: [steps][last cycles with gradient, from 1]}, groups `all`,
        `L_level`, `H_level`, `embeddings`; None where undefined, as where a level gets no gradient.
        The gradient of heads is the same in each and counts in `all`.
    """
    if model.has_encoder:
        raise UserError(
            "gradients: those of a model with an encoder are not compared, since they run on into "
            "the encoder; --gradient-count 0 leaves them out"
        )
    trained = model.config.grad_cycles or token_model(model).inner.default_grad_cycles()
    model = copy.deepcopy(model)
    parts = [StepGradients(model, batch, loss) for batch in batches]
    groups, total = parts[0].groups(), parts[0].cycles

    def within_step(grad_cycles: int) -> Gradient:
        return _sum([part.within_step(grad_cycles) for part in parts])

    compared: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in REFERENCES}
    for step in range(1, max(steps) + 1):
        if step > 1:
            for part in parts:
                part.advance()
        if step in steps:
            whole = within_step(total)
            through = _sum([part.through_all_steps() for part in parts])
            references = dict(zip(REFERENCES, (whole, through), strict=True))
            for rows in compared.values():
                rows.append([])
            for n in range(1, total + 1):
                gradient = whole if n == total else within_step(n)
                for name, reference in references.items():
                    compared[name][-1].append(_by_group(gradient, reference, groups))
        if on_step:
            on_step(step)
    figures = {
        name: {
            kind: {group: [[at[group][kind] for at in row] for row in rows] for group in groups}
            for kind in ("cosine", "norm_ratio")
        }
        for name, rows in compared.items()
    }
    return {
        "count": sum(len(batch["inputs"]) for batch in batches),
        "steps": list(steps),
        "cycles": total,
        "grad_cycles": min(trained, total),
        **figures,
    }


def _sum(gradients: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(each).sum(0) for each in zip(*gradients, strict=True)]


def _by_group(
    gradient: Gradient, reference: Gradient, groups: Mapping[str, list[int]]
) -> dict[str, dict[str, float | None]]:
    return {
        group: compare([gradient[i] for i in where], [reference[i] for i in where])
        for group, where in groups.items()
    }
