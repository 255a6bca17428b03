"""What HRM and TRM share: embeddings, heads, and the step around a recursion.

A subclass of `Inner` gives the networks and the recursion; `TokenModel` does refill -> one step ->
the halting policy decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hrm.carry import Carry, per_slot
from hrm.errors import UserError
from hrm.halting import Halting
from hrm.layers import (
    Attention,
    CastedEmbedding,
    CastedLinear,
    RotaryEmbedding,
    SwiGLU,
    cast_once,
    rms_norm,
    trunc_normal_init_,
)
from hrm.models.act import ACTModel, Column, relative_change
from hrm.models.config import TokenModelConfig
from hrm.models.sparse_embedding import CastedSparseEmbedding

Q_INPUT = "q_input"
"""What the Q-head read at the step before, per slot, without gradient."""


class Latents(NamedTuple):
    """The two latents that recur, each `(slots, positions, hidden_size)` in `forward_dtype`."""

    z_H: Tensor  # noqa: N815
    z_L: Tensor  # noqa: N815


class Block(nn.Module):
    """Attention, then SwiGLU, each followed by a norm of the sum (post-norm)."""

    def __init__(self, config: TokenModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.hidden_size, config.num_heads)
        self.mlp = SwiGLU(config.hidden_size, config.expansion, config.ffn_multiple)
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor, rotary: RotaryEmbedding | None, keep: int | None = None) -> Tensor:
        """The first `keep` positions of the output (None: all)."""
        x = rms_norm(x[:, :keep] + self.self_attn(x, rotary, keep), self.eps)
        return rms_norm(x + self.mlp(x), self.eps)


_compiled: dict[tuple[type[nn.Module], str], Callable[..., Tensor]] = {}


def compiled_forward(kind: type[nn.Module], device: str) -> Callable[..., Tensor]:
    """`kind.forward` compiled for a type of device, once for all layers of that kind: their weights
    are its inputs."""
    if (kind, device) not in _compiled:
        # A form for each batch size of training and of the engine, with and without gradient.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        # No CUDA graphs: one compiled layer is called many times a step, and a graph's outputs are
        # overwritten by its next call.
        mode = "max-autotune-no-cudagraphs" if device == "cuda" else None
        _compiled[kind, device] = torch.compile(kind.forward, dynamic=False, mode=mode)
    return _compiled[kind, device]


class ReasoningModule(nn.Module):
    """A level: the injection is added to the state, then the layers follow."""

    compiled = False
    """Layers run compiled (`TokenModel.compile_layers`)."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        state: Tensor,
        injection: Tensor,
        rotary: RotaryEmbedding | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """The first `keep` positions (None: all); the last layer computes no others."""
        x = state + injection
        if self.compiled:  # One form of a layer: another would be compiled apart.
            for layer in self.layers:
                x = compiled_forward(type(layer), x.device.type)(layer, x, rotary)
            return x[:, :keep]
        for layer in self.layers:
            x = layer(x, rotary, keep if layer is self.layers[-1] else None)
        return x


class Inner(nn.Module):
    """One step from latents to latents and heads. Subclasses set the levels and `cycles`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.dtype: torch.dtype = getattr(torch, config.forward_dtype)
        width, positions = config.hidden_size, config.seq_len + config.puzzle_positions
        std = 1 / math.sqrt(width)

        self.embed_tokens = CastedEmbedding(config.vocab_size, width, std, self.dtype)
        self.lm_head = CastedLinear(width, config.vocab_size)
        self.q_head = CastedLinear(width, 2, bias=True)
        if config.puzzle_emb_ndim:
            self.puzzle_emb = CastedSparseEmbedding(
                config.num_puzzle_identifiers,
                config.puzzle_emb_ndim,
                config.batch_size,
                cast_to=self.dtype,
            )
        if config.pos_encodings == "rope":
            head_dim = width // config.num_heads
            self.rotary_emb = RotaryEmbedding(head_dim, positions, config.rope_theta)
        elif config.pos_encodings == "learned":
            self.embed_pos = CastedEmbedding(positions, width, std, self.dtype)
        self.make_levels(config)
        with torch.no_grad():
            for name, layer in self.named_modules():
                if name.endswith((".o_proj", ".down_proj")):
                    layer.weight *= config.branch_init_scale

        # Initial latents are drawn once and stay: buffers, saved with the weights.
        self.register_buffer("H_init", trunc_normal_init_(torch.empty(width)))
        self.register_buffer("L_init", trunc_normal_init_(torch.empty(width)))
        # An untrained head ties at about 0.7 %, and halting needs a strict lead.
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(-5.0)
        self._linears = [m for m in self.modules() if isinstance(m, CastedLinear)]

    H_init: Tensor
    L_init: Tensor

    def make_levels(self, config: Any) -> None:
        """Create the networks of the two levels."""
        raise NotImplementedError

    def cycles(self) -> list[Callable[[Latents, Tensor], Latents]]:
        """A step's cycles in order: `(latents, input embedding) -> latents`."""
        raise NotImplementedError

    def high(self, z: Latents, x: Tensor, keep: int | None = None) -> Latents:
        """The last of the cycles: a high-level one, of whose `z_H` the first `keep` positions."""
        raise NotImplementedError

    def default_grad_cycles(self) -> int:
        """How many of the last cycles carry gradient as published."""
        raise NotImplementedError

    @property
    def rotary(self) -> RotaryEmbedding | None:
        return getattr(self, "rotary_emb", None)

    def casted(self) -> Any:
        """Within this block parameters are cast to `forward_dtype` once."""
        return cast_once(self._linears, self.dtype)

    def empty_latents(self, slots: int, device: torch.device) -> Latents:
        """Room for the latents; the first refill fills it, since every slot counts as halted."""
        config = self.config
        shape = (slots, config.seq_len + config.puzzle_positions, config.hidden_size)
        return Latents(*(torch.zeros(shape, dtype=self.dtype, device=device) for _ in range(2)))

    def reset_latents(self, latents: Latents, where: Bool[Tensor, " slots"]) -> Latents:
        """Initial latents where asked for."""
        return Latents(
            torch.where(per_slot(where, latents.z_H), self.H_init.to(self.dtype), latents.z_H),
            torch.where(per_slot(where, latents.z_L), self.L_init.to(self.dtype), latents.z_L),
        )

    def in_front(
        self, data: Mapping[str, Tensor]
    ) -> Float[Tensor, "slots puzzle_positions width"] | None:
        """What the puzzle positions hold: the puzzle's embedding, or nothing."""
        if not self.config.puzzle_emb_ndim:
            return None
        puzzle = self.puzzle_emb(data["puzzle_identifiers"])
        shape = (-1, self.config.puzzle_positions, self.config.hidden_size)
        missing = shape[1] * shape[2] - puzzle.shape[-1]
        return nn.functional.pad(puzzle, (0, missing)).view(shape)

    def embed(self, data: Mapping[str, Tensor]) -> Float[Tensor, "slots positions width"]:
        """Tokens, puzzle embedding in front, learned positions; scaled by the root of the width."""
        x = self.embed_tokens(data["inputs"])
        front = self.in_front(data)
        if front is not None:
            x = torch.cat((front, x), dim=1)
        if self.config.pos_encodings == "learned":
            # Keeps the variance of the sum at that of one part.
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding_weight.to(self.dtype))
        return math.sqrt(self.config.hidden_size) * x

    def recur(self, latents: Latents, x: Tensor, keep: int | None = None) -> Latents:
        """All cycles of a step: the first without gradient, the last with it.

        keep: return only so many first positions of `z_H`, and compute no others in its last layer.
        """
        cycles = self.cycles()
        if keep is not None:
            cycles[-1] = partial(self.high, keep=keep)
        first_with_grad = max(
            0, len(cycles) - (self.config.grad_cycles or self.default_grad_cycles())
        )
        with torch.no_grad():
            for cycle in cycles[:first_with_grad]:
                latents = cycle(latents, x)
        for cycle in cycles[first_with_grad:]:
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                latents = checkpoint(cycle, latents, x, use_reentrant=False)
            else:
                latents = cycle(latents, x)
        return latents

    def values_ahead(self, latents: Latents, x: Tensor) -> dict[str, Float[Tensor, " slots"]]:
        """The two values after one more step, without the rest of that step."""
        keep = 1 if self.config.q_pool == "first" else None
        return self.q_values(self.pool(self.recur(latents, x, keep).z_H))

    def pool(self, z_H: Tensor) -> Float[Tensor, "slots width"]:
        """What the Q-head reads."""
        return z_H[:, 0] if self.config.q_pool == "first" else z_H.mean(1)

    def q_values(self, pooled: Tensor) -> dict[str, Float[Tensor, " slots"]]:
        """The two values as float32 logits."""
        q = self.q_head(pooled).to(torch.float32)
        return {"q_halt_logits": q[:, 0], "q_continue_logits": q[:, 1]}

    def heads(self, z_H: Tensor) -> dict[str, Tensor]:
        """Token logits `(slots, seq_len, vocab_size)`, none for puzzle positions, and values."""
        logits = self.lm_head(z_H[:, self.config.puzzle_positions :])
        return {"logits": logits, **self.q_values(self.pool(z_H))}


class TokenModel(ACTModel):
    """A model of token sequences around an `Inner`."""

    compilable = True

    config_type: ClassVar[type[TokenModelConfig]]
    inner_type: ClassVar[type[Inner]]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.inner = self.inner_type(self.config)

    @property
    def puzzle_emb(self) -> CastedSparseEmbedding:
        """The sparse puzzle embedding; AttributeError when `puzzle_emb_ndim` is 0."""
        return self.inner.puzzle_emb

    def halting_parameters(self) -> list[nn.Parameter]:
        return list(self.inner.q_head.parameters())

    def compile_layers(self, compiled: bool = True) -> None:
        """Run the layers through `torch.compile`, or no longer.

        Elementwise work between the matrix products is fused. The first step of each batch shape
        takes half a minute on a CPU, which needs a C++ compiler.
        """
        for module in self.modules():
            if isinstance(module, ReasoningModule):
                module.compiled = compiled

    @property
    def columns(self) -> dict[str, Column]:
        config = self.config
        puzzles = {"puzzle_identifiers": Column((), config.num_puzzle_identifiers)}
        return super().columns | (puzzles if config.puzzle_emb_ndim else {})

    def empty_latents(self, slots: int, device: torch.device) -> Latents:
        return self.inner.empty_latents(slots, device)

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
        """Refill, one step, and the policy's decision; see `ACTModel.forward`.

        Logits are always there. Cycles without gradient cut the graph within a step, so without
        `detach` gradient reaches earlier steps only where a step has none of them.

        Returns:
            The carry and `logits` `(slots, seq_len, vocab)`, `q_halt_logits` and
            `q_continue_logits` `(slots,)`, in training also what the policy's targets need
            (`target_q_continue` `(slots,)`); `latent_change` `(slots,)` if the policy wants it.
        """
        policy = halting or self.halting
        carry, noted = self.admit(carry, batch, policy)
        steps = carry.steps + 1
        with self.inner.casted():
            x = self.embed(carry)
            latents = self.inner.recur(carry.inner_carry, x)
            outputs = self.inner.heads(latents.z_H) | noted
            # What a look ahead starts from is constant in any case.
            detached = Latents(latents.z_H.detach(), latents.z_L.detach())
            if policy.wants_change:
                outputs["latent_change"] = relative_change(latents.z_H, carry.inner_carry.z_H)
            decision = policy.decide(
                outputs, steps, carry.rng, carry.extra, training=self.training, adaptive=adaptive
            )
            if self.training and policy.train_max_steps > 1:
                outputs |= self._targets(policy, outputs, detached, x, steps, decision.extra)
        if detach:
            latents = detached
            extra = {name: tensor.detach() for name, tensor in decision.extra.items()}
            decision = decision._replace(extra=extra)
        return replace(carry, inner_carry=latents, steps=steps, **decision._asdict()), outputs

    def admit(
        self, carry: Carry, batch: Mapping[str, Tensor], policy: Halting
    ) -> tuple[Carry, dict[str, Tensor]]:
        """Refill, and what a model has to tell of it among its outputs."""
        fresh = self.fresh_extra(policy, carry.steps.shape[0], carry.steps.device)
        return carry.refill(batch, self.inner.reset_latents, fresh), {}

    def embed(self, carry: Carry) -> Float[Tensor, "slots positions width"]:
        """The input of a step, from what the carry holds after `admit`."""
        return self.inner.embed(carry.current_data)

    def input_of(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "slots positions width"]:
        """The input of sequences that start with these rows, for what takes steps by itself."""
        return self.inner.embed(batch)

    def _targets(
        self,
        halting: Halting,
        outputs: dict[str, Tensor],
        latents: Latents,
        x: Tensor,
        steps: Tensor,
        extra: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """What the policy's losses need from a step ahead or behind."""
        inner = self.inner
        is_last = steps >= halting.train_max_steps
        if halting.looks_ahead:
            with torch.set_grad_enabled(halting.learns_ahead and torch.is_grad_enabled()):
                ahead = inner.values_ahead(latents, x)
            return halting.look_ahead(ahead, is_last)
        if halting.looks_back:
            before = inner.q_values(extra[Q_INPUT])
            extra[Q_INPUT] = inner.pool(latents.z_H)
            return halting.look_back(before, outputs, steps == 1, is_last)
        return {}

    def fresh_extra(self, halting: Halting, slots: int, device: torch.device) -> dict[str, Tensor]:
        extra = halting.fresh_extra(slots, device)
        if halting.looks_back:
            shape = (slots, self.config.hidden_size)
            extra[Q_INPUT] = torch.zeros(shape, dtype=self.inner.dtype, device=device)
        return extra


def token_model(model: ACTModel) -> TokenModel:
    """`model`, for what looks into the recursion of a token model.

    Raises:
        UserError: it is another.
    """
    if not isinstance(model, TokenModel):
        raise UserError(f"{type(model).__name__} has no cycles of z_H and z_L to look into")
    return model
