"""What every model is: a recursion with a halting policy, of which `forward` is one step.

`carry, outputs = model(carry, batch)` puts new sequences into halted slots, takes one step of all
and lets the policy decide. Training, the engine and the plain loop know nothing else of a model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from hrm.carry import Carry
from hrm.data.base import Metadata
from hrm.errors import UserError
from hrm.halting import Convergence, Fixed, Halting, HaltOnly
from hrm.halting.base import Exploration
from hrm.models.sparse_embedding import CastedSparseEmbedding
from hrm.rng import slot_states


class Column(NamedTuple):
    """What the model reads under a name: a row's shape, and integers from 0 to below `end`."""

    shape: tuple[int, ...]
    end: int
    shorter: bool = False
    """The first length is the most that there is room for: zeros fill what a row leaves."""


class ACTConfig(BaseModel):
    """What every model's settings offer, whatever their keys."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    from_data: ClassVar[Mapping[str, Any]] = {}
    """Keys that the data and the batch decide, so that an experiment does not set them, each with a
    value that is allowed, for checking the other keys before there is any data."""

    halting: str
    """The name of the policy, which each model chooses from."""
    halt_max_steps: int = Field(ge=1)
    """Steps after which every sequence ends."""
    train_max_steps: int | None = Field(default=None, ge=1)
    """The same limit in training, where a lower one teaches a small model faster: what it learns to
    do in a few steps it goes on doing in more. null: halt_max_steps, as published."""
    halt_exploration_prob: float = Field(default=0.0, ge=0, le=1)
    """Chance that halting is held back in training, where a dynamics lets the policy halt: more of
    it gives more steps."""
    exploration: Exploration = "per_step"
    halt_threshold: float = Field(default=0.5, gt=0, lt=1)
    """halt_only: halt above this chance of being right."""
    halt_temperature: float = Field(default=1.0, gt=0)
    halt_tolerance: float | None = Field(default=None, gt=0)
    """convergence: halt when a step moves the high-level latent, or the tokens, by less, relative
    to its norm. All that is set of this and the two below must hold; with all three null this one
    is 0.1."""
    halt_second_tolerance: float | None = Field(default=None, gt=0)
    """convergence: when this change differs from that of the step before by less."""
    halt_unchanged_steps: int | None = Field(default=None, ge=1)
    """convergence: when so many steps in a row have left the predictions as they were."""

    @model_validator(mode="after")
    def _check_limits(self) -> ACTConfig:
        if self.train_max_steps is not None and self.train_max_steps > self.halt_max_steps:
            raise ValueError(
                f"train_max_steps: {self.train_max_steps} is above halt_max_steps "
                f"{self.halt_max_steps}"
            )
        return self

    @classmethod
    def read_data(cls, data: Metadata) -> dict[str, Any]:
        """`from_data` of a data set, but for the batch.

        Raises:
            UserError: such a model cannot learn from such data.
        """
        raise NotImplementedError

    @property
    def label_len(self) -> int:
        """Predictions of a row."""
        raise NotImplementedError

    def policy_settings(self) -> dict[str, Any]:
        """The settings that every halting policy has."""
        return {
            "max_steps": self.halt_max_steps,
            "exploration_prob": self.halt_exploration_prob,
            "exploration": self.exploration,
            "train_max_steps": self.train_max_steps,
        }

    def make_halting(self) -> Halting:
        """The halting policy of these settings."""
        common = self.policy_settings()
        if self.halting == "fixed":
            return Fixed(**common)
        if self.halting == "convergence":
            return Convergence(
                **common,
                tolerance=self.halt_tolerance,
                second_tolerance=self.halt_second_tolerance,
                unchanged_steps=self.halt_unchanged_steps,
                seq_len=self.label_len,
            )
        return HaltOnly(**common, threshold=self.halt_threshold, temperature=self.halt_temperature)


class ACTModel(nn.Module):
    """A recursion with a halting policy: `carry, outputs = model(carry, batch)` is one step.

    `config` has, beside the model's own settings, `seq_len` (integers of a row of `inputs`),
    `vocab_size` (they are below it), `label_len` (predictions of a row), `classes` (those are below
    it) and `halt_max_steps`.
    """

    config_type: ClassVar[type[ACTConfig]]
    has_encoder: ClassVar[bool] = False
    """Whether it learns a task from demonstrations, by parameters in a group `encoder`."""
    compilable: ClassVar[bool] = False
    """Whether `compile_layers` does anything."""
    calibration: dict[str, Any] | None = None
    """The record of `hrm calibrate` that chose `halting`; None: it is the configured policy."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        given = config if isinstance(config, self.config_type) else self.config_type(**config)
        self.config: Any = given
        self.halting: Halting = given.make_halting()

    @abstractmethod
    def forward(
        self,
        carry: Carry,
        batch: Mapping[str, Tensor],
        *,
        adaptive: bool = False,
        halting: Halting | None = None,
        decode: bool = True,
        detach: bool = True,
    ) -> tuple[Carry, dict[str, Tensor]]:
        """Refill, one step, and the policy's decision.

        Args:
            carry: from `initial_carry` or the previous step.
            batch: rows for the halted slots; rows of running slots are not looked at.
            adaptive: in evaluation let the policy halt, instead of running to `halt_max_steps`.
            halting: a policy in place of the model's own.
            decode: False: `logits` may be missing, where the model saves work by it; `decode` has
                those of the slots that are wanted.
            detach: False: the carry keeps the graph, for gradient through several steps.

        Returns:
            The carry and `logits` `(slots, label_len, classes)`, `q_halt_logits` and
            `q_continue_logits` `(slots,)`, and what the policy reads.
        """

    @abstractmethod
    def empty_latents(self, slots: int, device: torch.device) -> Any:
        """Room for the latents, a NamedTuple; the first refill fills it."""

    def fresh_extra(self, halting: Halting, slots: int, device: torch.device) -> dict[str, Tensor]:
        """What a new sequence's slot keeps for the policy and the model."""
        return halting.fresh_extra(slots, device)

    def decode(
        self, carry: Carry, outputs: Mapping[str, Tensor], slots: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen label_len classes"]:
        """The logits of these slots, after the step that returned `carry` and `outputs`."""
        return outputs["logits"].index_select(0, slots)

    @property
    def columns(self) -> dict[str, Column]:
        """What the model reads of a batch, `inputs` first."""
        return {"inputs": Column((self.config.seq_len,), self.config.vocab_size)}

    @property
    def puzzle_emb(self) -> CastedSparseEmbedding:
        """The sparse puzzle embedding, of a model that has one; else an AttributeError."""
        raise AttributeError(f"{type(self).__name__} has no puzzle embedding")

    def compile_layers(self, compiled: bool = True) -> None:
        """Run the layers through `torch.compile`, or no longer, where a model has a use for it."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter in exactly one group. `trunk` learns the task, and so does `encoder`;
        others are heads whose losses do not reach it."""
        return {"trunk": list(self.parameters())}

    def halting_parameters(self) -> list[nn.Parameter]:
        """Those that only halting reads."""
        return []

    def initial_carry(
        self,
        batch: Mapping[str, Tensor],
        seed: int | None = None,
        first_slot: int = 0,
        *,
        halting: Halting | None = None,
    ) -> Carry:
        """A carry with every slot halted: the first step admits the batch it is given.

        Args:
            batch: an example of the batches to come, `inputs` `(slots, seq_len)` among its keys;
                keys that the model does not know travel along.
            seed, first_slot: of the slots' random numbers; by default drawn from torch's state.
            halting: a policy in place of the model's own, the one that `forward` will be given.
        """
        inputs = batch["inputs"]
        if inputs.ndim != 2 or inputs.shape[1] != self.config.seq_len:
            raise UserError(
                f"inputs: shape {tuple(inputs.shape)}, but the model reads (slots, "
                f"{self.config.seq_len})"
            )
        slots, device = inputs.shape[0], inputs.device
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        return Carry(
            inner_carry=self.empty_latents(slots, device),
            steps=torch.zeros(slots, dtype=torch.int32, device=device),
            halted=torch.ones(slots, dtype=torch.bool, device=device),
            current_data={k: torch.zeros_like(v) for k, v in batch.items()},
            rng=slot_states(seed, slots, first_slot, device),
            extra=self.fresh_extra(halting or self.halting, slots, device),
        )


@torch.no_grad()
def relative_change(new: Tensor, old: Tensor) -> Float[Tensor, " slots"]:
    """`||new - old|| / ||new||` over all axes but the first, in float32; 0 if nothing moved."""
    wide, before = (t.flatten(1).to(torch.float32) for t in (new, old))
    moved = torch.linalg.vector_norm(wide - before, dim=1)
    return torch.where(moved == 0, 0.0, moved / torch.linalg.vector_norm(wide, dim=1))
