"""The carry: all a slot keeps between two steps, and `refill`, which lets the next sequence in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def per_slot(flags: Bool[Tensor, " slots"], like: Tensor) -> Tensor:
    """`flags` with trailing axes of length 1, so that it broadcasts over `like` (slots first)."""
    return flags.view(-1, *(1,) * (like.ndim - 1))


def _where(flags: Bool[Tensor, " slots"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(per_slot(flags, old), new, old)


@dataclass
class Carry:
    """State of every slot between steps; all tensors have one row per slot and share a device."""

    inner_carry: Any
    """The model's latents: a NamedTuple of tensors whose shapes only the model knows."""
    steps: Int[Tensor, " slots"]
    """Steps that the slot's sequence has had; a sequence's first step is number 1."""
    halted: Bool[Tensor, " slots"]
    """The slot's sequence has ended; the next step's `refill` replaces it."""
    current_data: dict[str, Tensor]
    """The batch row that each slot works on. Labels are read from here, never from the batch."""
    rng: Int[Tensor, " slots"]
    """Random state per slot (`hrm.rng`). It belongs to the slot, so refill leaves it."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What a policy or model keeps per slot; refill resets it."""

    def refill(
        self,
        batch: Mapping[str, Tensor],
        reset_latents: Callable[[Any, Tensor], Any],
        fresh_extra: Mapping[str, Tensor],
    ) -> Carry:
        """Put row i of `batch` into slot i where that slot has halted; running slots keep all.

        Args:
            batch: tensors with one row per slot; rows of running slots are not looked at.
            reset_latents: `(latents, halted) -> latents` with the initial latents where halted.
            fresh_extra: the value of each `extra` tensor for a new sequence, one row per slot.

        Raises:
            KeyError: the batch lacks a key that the carry holds.
        """
        halted = self.halted
        return replace(
            self,
            inner_carry=reset_latents(self.inner_carry, halted),
            steps=torch.where(halted, 0, self.steps),
            halted=torch.zeros_like(halted),
            current_data={k: _where(halted, batch[k], v) for k, v in self.current_data.items()},
            extra={k: _where(halted, fresh_extra[k], v) for k, v in self.extra.items()},
        )

    def gather(self, rows: Int[Tensor, " kept"]) -> Carry:
        """The carry of the slots `rows` alone, in that order."""
        return self._map(lambda t: t.index_select(0, rows))

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under a stable name, for a checkpoint."""
        for name in ("steps", "halted", "rng"):
            yield name, getattr(self, name)
        for name, value in self.inner_carry._asdict().items():
            yield f"inner_carry.{name}", value
        for group in ("current_data", "extra"):
            for name, value in getattr(self, group).items():
                yield f"{group}.{name}", value

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> Carry:
        """The inverse of `named_tensors`, on this carry's structure and device.

        Raises:
            KeyError, ValueError: a tensor is missing, or has another shape.
        """
        names = iter([name for name, _ in self.named_tensors()])

        def read(old: Tensor) -> Tensor:
            name = next(names)
            new = tensors[name].to(old.device, old.dtype)
            if new.shape != old.shape:
                raise ValueError(f"carry tensor {name}: {tuple(new.shape)}, not {tuple(old.shape)}")
            return new

        return self._map(read)

    def _map(self, f: Callable[[Tensor], Tensor]) -> Carry:
        # Same order as named_tensors.
        steps, halted, rng = f(self.steps), f(self.halted), f(self.rng)
        inner = type(self.inner_carry)(*map(f, self.inner_carry))
        data = {k: f(v) for k, v in self.current_data.items()}
        return Carry(inner, steps, halted, data, rng, {k: f(v) for k, v in self.extra.items()})
