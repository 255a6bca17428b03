"""A U-Net with adaptive computation time: a recurrent transformer at the bottleneck, halted by two
value functions.

After "Adaptive Computation Time (ACT) as Reinforcement Learning: Learning When to Stop Thinking",
section "Transformer-Based ACT Bottleneck":

    encoder       convolutions; runs once for an image, when it is admitted to a slot
    x^0           patches of the bottleneck as tokens, and a learned summary token (CLS)
    a step        x^{n+1} = f(x^n): one weight-shared transformer layer
    heads         contribution g(x^n, x^n - x^{n-1}) > 0, threshold o(CLS) > 0
    decoder       tokens and the encoder's features become the classes of the pixels; where nobody
                  asks for the answer of a step, it does not run

What the encoder found of an image lies in the carry and is replaced when the next one moves in. New
images are encoded as a batch of their own, whose size is chance, so answers equal those of solving
an image alone up to rounding, not to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrm.carry import Carry
from hrm.halting import Halting
from hrm.layers import CastedLinear, cast_once
from hrm.models.act import ACTModel, relative_change
from hrm.models.unet.config import ACTUNetConfig
from hrm.models.unet.core import Core, State
from hrm.models.unet.decoder import Decoder, FullDecoder, TokenDecoder
from hrm.models.unet.encoder import Encoder
from hrm.models.unet.heads import ContributionHead, LogitHead, ThresholdHead

X0, FEATURES, CONTRIBUTED = "x0", "features", "contributed"
"""In `extra`: the embedded input, what the decoder reads of the encoder's features, and S, the sum
of contributions, which the model keeps so that `q_halt_logits` are the same under any policy."""
Q_HALT_BIAS, GRAVES_BIAS = -5.0, -3.0
"""First biases: of a chance to be right, as published for HRM, and of a chance to halt here."""

__all__ = ["ACTUNet", "ACTUNetConfig", "Operations"]


class Operations(NamedTuple):
    """Multiply-adds of an image; norms, activations and sums are not counted."""

    encoder: int
    """Once."""
    iteration: int
    """Of each step: core and heads."""
    decoder: int
    """Of each answer that is decoded."""
    heads: int
    """Of each step, within `iteration`: what only halting needs."""

    def total(self, steps: int | float, decodes: int | float = 1) -> int | float:
        """Of an image that takes so many steps."""
        return self.encoder + steps * self.iteration + decodes * self.decoder

    def without_heads(self) -> Operations:
        """Of the same network where nothing asks when to halt."""
        return self._replace(iteration=self.iteration - self.heads, heads=0)


class ACTUNet(ACTModel):
    """`ACTUNet(config)`: `config` is a dict or `ACTUNetConfig`.

    Weights do not depend on the size of the images: those of a model for 16 x 16 pixels load into
    one for 32 x 32.
    """

    config_type = ACTUNetConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        config = self.config
        self.dtype: torch.dtype = getattr(torch, config.forward_dtype)
        self.encoder = Encoder(config)
        self.core = Core(config)
        self.decoder: Decoder = (TokenDecoder if config.decoder == "token" else FullDecoder)(config)
        self._linears = [m for m in self.core.modules() if isinstance(m, CastedLinear)]
        width = config.hidden_size
        self.contribution: ContributionHead | None = None
        self.threshold: ThresholdHead | None = None
        self.halt: LogitHead | None = None
        if config.halting == "dual_value":
            self.contribution = ContributionHead(width)
            self.threshold = ThresholdHead(width, config.halt_max_steps)
        elif config.halting in ("graves", "pondernet"):
            self.halt = LogitHead(width, GRAVES_BIAS)
        elif config.halting == "halt_only":
            self.halt = LogitHead(width, Q_HALT_BIAS)

    def empty_latents(self, slots: int, device: torch.device) -> State:
        rows, columns = self.config.grid
        shape = (slots, rows * columns, self.config.hidden_size)
        zeros = torch.zeros(shape, dtype=self.dtype, device=device)
        return State(zeros, zeros.new_zeros(slots, shape[-1]))

    def fresh_extra(self, halting: Halting, slots: int, device: torch.device) -> dict[str, Tensor]:
        shapes = {f"{FEATURES}.{i}": s for i, s in enumerate(self.decoder.prepared_shapes())}
        if self.config.inject:
            rows, columns = self.config.grid
            shapes[X0] = (rows * columns, self.config.hidden_size)
        encoded = {
            name: torch.zeros((slots, *shape), dtype=self.dtype, device=device)
            for name, shape in shapes.items()
        }
        return {**self._fresh_sums(halting, slots, device), **encoded}

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

        Returns:
            The carry and `logits` `(slots, height * width, classes)` (with `decode`, or if the
            policy compares predictions), `q_halt_logits` `(slots,)` (dual_value: S - o), zeros as
            `q_continue_logits`, and by policy `contribution` and `threshold`, or `halt_logits`,
            and `latent_change`. All but the logits are float32.
        """
        policy = halting or self.halting
        if self.training and (policy.looks_ahead or policy.looks_back):
            raise NotImplementedError(f"ACTUNet has no continue value for {type(policy).__name__}")
        carry = self._admit(carry, batch, policy)
        before, extra = carry.inner_carry, carry.extra
        with cast_once(self._linears, self.dtype):
            joined = before.joined()
            after = self.core(joined, extra.get(X0))
        state = State.split(after)
        outputs, contributed = self._values(after, joined, extra[CONTRIBUTED])
        if decode or policy.wants_predictions:
            outputs["logits"] = self.decoder(state.tokens, self._features(extra))
        if policy.wants_change:
            outputs["latent_change"] = relative_change(state.tokens, before.tokens)
        steps = carry.steps + 1
        decision = policy.decide(
            outputs, steps, carry.rng, extra, training=self.training, adaptive=adaptive
        )
        extra = {**decision.extra, CONTRIBUTED: contributed}
        if detach:
            state = State(*(t.detach() for t in state))
            extra = {name: tensor.detach() for name, tensor in extra.items()}
        decided = decision._replace(extra=extra)._asdict()
        return replace(carry, inner_carry=state, steps=steps, **decided), outputs

    def decode(
        self, carry: Carry, outputs: Mapping[str, Tensor], slots: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen pixels classes"]:
        if "logits" in outputs:
            return super().decode(carry, outputs, slots)
        features = [f.index_select(0, slots) for f in self._features(carry.extra)]
        return self.decoder(carry.inner_carry.tokens.index_select(0, slots), features)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`trunk`, and the two value functions, `contribution` and `threshold`, if there are any;
        a single logit's head belongs to the trunk."""
        heads = {"contribution": self.contribution, "threshold": self.threshold}
        groups = {name: list(head.parameters()) for name, head in heads.items() if head is not None}
        apart = {id(p) for parameters in groups.values() for p in parameters}
        return {"trunk": [p for p in self.parameters() if id(p) not in apart], **groups}

    def halting_parameters(self) -> list[nn.Parameter]:
        heads = (self.contribution, self.threshold, self.halt)
        return [p for head in heads if head is not None for p in head.parameters()]

    def operations(self) -> Operations:
        """Multiply-adds at this model's size of images."""
        heads = 0
        if self.contribution is not None and self.threshold is not None:
            heads += self.contribution.operations(self.core.positions)
            heads += self.threshold.operations()
        if self.halt is not None:
            heads += self.halt.operations(self.core.positions)
        encoder = self.encoder.operations() + self.decoder.preparing_operations()
        iteration = self.core.operations() + heads
        return Operations(encoder, iteration, self.decoder.operations(), heads)

    def _fresh_sums(self, policy: Halting, slots: int, device: torch.device) -> dict[str, Tensor]:
        """What of `extra` does not come from the encoder."""
        return {**policy.fresh_extra(slots, device), CONTRIBUTED: torch.zeros(slots, device=device)}

    def _features(self, extra: Mapping[str, Tensor]) -> list[Tensor]:
        """What `decoder.prepare` gave."""
        return [extra[f"{FEATURES}.{i}"] for i in range(len(self.decoder.prepared_shapes()))]

    def _admit(self, carry: Carry, batch: Mapping[str, Tensor], policy: Halting) -> Carry:
        """Refill, and the encoder for the new images only."""
        halted = carry.halted
        fresh = self._fresh_sums(policy, len(halted), halted.device)
        # What the encoder gave stays where it is; the new images' is put over it below.
        carry = carry.refill(batch, lambda state, _: state, {**carry.extra, **fresh})
        admitted = halted.nonzero().squeeze(1)
        if not len(admitted):
            return carry
        inputs = carry.current_data["inputs"]
        x0, features = self.encoder(inputs if len(admitted) == len(halted) else inputs[admitted])
        cls = self.core.first_cls.to(x0.dtype).expand(len(admitted), -1)
        prepared = self.decoder.prepare(features)
        encoded = {f"{FEATURES}.{i}": feature for i, feature in enumerate(prepared)}
        if self.config.inject:
            encoded[X0] = x0
        put = {k: _put(carry.extra[k], admitted, v) for k, v in encoded.items()}
        state = carry.inner_carry
        state = State(_put(state.tokens, admitted, x0), _put(state.cls, admitted, cls))
        return replace(carry, inner_carry=state, extra={**carry.extra, **put})

    def _values(
        self,
        state: Float[Tensor, "slots positions hidden"],
        before: Float[Tensor, "slots positions hidden"],
        contributed: Float[Tensor, " slots"],
    ) -> tuple[dict[str, Tensor], Float[Tensor, " slots"]]:
        """The heads' outputs, and S after this step."""
        if self.config.heads_detached:
            state, before = state.detach(), before.detach()
        outputs = {"q_continue_logits": torch.zeros_like(contributed)}
        if self.contribution is not None and self.threshold is not None:
            contribution = self.contribution(state, before)
            threshold = self.threshold(state[:, 0])
            outputs |= {"contribution": contribution, "threshold": threshold}
            contributed = contributed + contribution.detach()
            outputs["q_halt_logits"] = contributed - threshold.detach()
        elif self.halt is not None:
            outputs["q_halt_logits"] = self.halt(state, before)
            if self.config.halting != "halt_only":
                outputs["halt_logits"] = outputs["q_halt_logits"]
        else:
            outputs["q_halt_logits"] = torch.full_like(contributed, Q_HALT_BIAS)
        return outputs, contributed


def _put(old: Tensor, rows: Int[Tensor, " new"], new: Tensor) -> Tensor:
    """`new` in place of these rows, in rising order."""
    return new if len(new) == len(old) else old.index_copy(0, rows, new)
