"""Settings of the ACT U-Net; contradictions are refused here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from hrm.data.base import Metadata
from hrm.errors import UserError
from hrm.halting import (
    ContributionLoss,
    DualValue,
    Graves,
    Halting,
    PonderNet,
    ThresholdTarget,
)
from hrm.models.act import ACTConfig
from hrm.models.config import Dtype


class ACTUNetConfig(ACTConfig):
    """A U-Net whose bottleneck is a recurrent transformer, and the policy that halts it."""

    from_data: ClassVar[Mapping[str, Any]] = {
        "batch_size": 1,
        "height": 1,
        "width": 1,
        "channels": 1,
        "classes": 2,
        "vocab_size": 2,
        "values": "categorical",
    }

    batch_size: int = Field(ge=1)
    """Slots of an update; nothing in this model depends on it."""
    height: int = Field(ge=1)
    """Pixels. Any number: images are padded with nothing inside, and the answer is cropped."""
    width: int = Field(ge=1)
    channels: int = Field(ge=1)
    """Of the input; `inputs` are `channels * height * width` integers, channel by channel."""
    classes: int = Field(ge=2)
    """Of a pixel."""
    vocab_size: int = Field(ge=2)
    """Inputs are integers below it."""
    values: Literal["categorical", "intensity"]
    """Inputs are symbols, each of which becomes a channel of its own, or brightness 0 .. 255."""

    base_channels: int = Field(default=16, ge=1)
    """Channels at full size; twice as many after each downsampling."""
    downsamplings: int = Field(default=1, ge=0)
    """How often the encoder halves the image."""
    patch_size: int = Field(default=1, ge=1)
    """Side of the square of bottleneck features that becomes one token."""
    hidden_size: int = Field(default=32, ge=1)
    """Width of a token."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads; hidden_size is a multiple of 4 * num_heads, for rotary positions in two
    dimensions. core=conv does not read it."""
    expansion: float = Field(default=4.0, gt=0)
    """Inner width of the SwiGLU is 2/3 * expansion * hidden_size, rounded up to ffn_multiple."""
    ffn_multiple: int = Field(default=8, ge=1)
    window: int | None = Field(default=None, ge=1)
    """Attention within windows of so many by so many tokens, shifted by half of it in half of the
    heads; null: every token sees all. The summary token sees all and is seen by all in any case."""
    rope_theta: float = Field(default=100.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    branch_init_scale: float = Field(default=0.1, ge=0)
    """Initial scale of what a sublayer adds to its input; a small one lets the input through."""
    core: Literal["transformer", "conv"] = "transformer"
    """conv: depthwise convolutions in place of attention. The summary token takes in the mean of
    the tokens there, and they do not read it: with detach_heads no loss shapes its first value."""
    core_layers: int = Field(default=1, ge=1)
    """Layers of a step, the same at every step."""
    local_conv: bool = False
    """A depthwise 3 x 3 convolution in the SwiGLU."""
    global_pool: bool = False
    """A summary of all tokens, pooled and projected, is added to each."""
    gate: bool = True
    """A learned gate mixes a step's result with the state before it."""
    inject: bool = True
    """The embedded input x^0 is added to the tokens at every step. With both off the recursion is
    x^{n+1} = f(x^n) and nothing else."""
    decoder: Literal["token", "full"] = "token"
    """token: every token gives its pixels by one light head, with the full-size features mixed in;
    cheap enough for a loss at every step. full: the U-Net's convolutional decoder."""
    detach_heads: bool | None = None
    """Whether the loss of halting is kept from the trunk. null: dual_value's is (its value
    functions judge states, and do not shape them), that of a policy which was published otherwise
    is not."""

    deep_supervision: bool = True
    """Every step's answer teaches the trunk; false: the last one alone, for a network that is to be
    good after halt_max_steps and nowhere else. graves and pondernet weigh the steps themselves."""

    halting: Literal["dual_value", "graves", "pondernet", "halt_only", "convergence", "fixed"] = (
        "dual_value"
    )
    halt_max_steps: int = Field(default=12, ge=1)
    """K: steps after which every image ends."""

    step_penalty: float = Field(default=0.01, gt=0)
    """dual_value: lambda, what a step costs in units of the task loss."""
    optimum_tolerance: float = Field(default=0.0, ge=0)
    """dual_value: the best step is the first whose cost is so close to the lowest."""
    threshold_target: ThresholdTarget = "midpoint"
    """dual_value: what the threshold learns; literal: as the document has it."""
    contribution_loss: ContributionLoss = "expected"
    temperature: tuple[float, float] = (1.0, 0.1)
    """dual_value: of the soft policy, at first and at last."""
    anneal_updates: int = Field(default=1000, ge=0)
    """dual_value: updates from the first temperature to the last."""
    floor: float = Field(default=0.01, ge=0, lt=0.5)
    """dual_value: least chance to halt, and to go on, of the soft policy."""
    alternate_every: int = Field(default=50, ge=0)
    """dual_value: updates until the other value function's turn; 0: both at once."""
    warmup_updates: int = Field(default=0, ge=0)
    """dual_value: updates of the task alone, at first."""
    conditional: bool = True
    """dual_value: learn only where the policy's step is not the best one."""
    anchor_weight: float = Field(default=0.01, ge=0)
    """dual_value: weight of what holds the mean contribution near 1."""
    early_weight: float = Field(default=1.0, ge=0)
    """dual_value: weight of what holds the threshold above S before the best step; 0: it learns at
    the best step alone, as the document has it, and with a transformer core it then collapses."""
    late_weight: float = Field(default=0.0, ge=0)
    """dual_value: weight of what holds the threshold below S after the best step, so that a policy
    which has missed it halts at the next one."""
    ponder_cost: float = Field(default=0.01, ge=0)
    """graves: what a step costs in units of the task loss."""
    slack: float = Field(default=0.01, ge=0, lt=1)
    """graves: eps, by which one step can be enough."""
    prior: float = Field(default=0.2, gt=0, lt=1)
    """pondernet: chance to halt at each step that the policy is drawn to."""
    beta: float = Field(default=0.01, ge=0)
    """pondernet: weight of the divergence from that prior."""

    forward_dtype: Dtype = "float32"
    """Type of the computation; parameters stay float32."""

    @model_validator(mode="after")
    def _check(self) -> ACTUNetConfig:
        if self.core == "transformer":
            if self.hidden_size % (4 * self.num_heads):
                raise ValueError(
                    f"num_heads: hidden_size {self.hidden_size} is no multiple of 4 * "
                    f"{self.num_heads} heads, which rotary positions in two dimensions need"
                )
            if self.window is not None and self.num_heads % 2:
                raise ValueError(
                    f"num_heads: {self.num_heads} is odd, but with a window half of the heads "
                    "shift theirs"
                )
        elif self.window is not None:
            raise ValueError(f"window: got {self.window}, but core=conv has no attention")
        if not self.deep_supervision and self.halting in ("graves", "pondernet"):
            raise ValueError(
                f"deep_supervision: got false, but halting={self.halting} weighs the steps itself"
            )
        if min(self.temperature) <= 0:
            raise ValueError(f"temperature: got {list(self.temperature)}, but both are above 0")
        return self

    @property
    def seq_len(self) -> int:
        """Integers of a row of inputs."""
        return self.channels * self.height * self.width

    @property
    def label_len(self) -> int:
        """Predictions of a row: one a pixel."""
        return self.height * self.width

    @property
    def token_side(self) -> int:
        """Pixels on a side of the square that a token stands for."""
        return 2**self.downsamplings * self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        rows, columns = (math.ceil(n / self.token_side) for n in (self.height, self.width))
        return rows, columns

    @property
    def heads_detached(self) -> bool:
        """`detach_heads` as it is meant."""
        return self.halting == "dual_value" if self.detach_heads is None else self.detach_heads

    @classmethod
    def read_data(cls, data: Metadata) -> dict[str, Any]:
        if (image := data.image) is None:
            raise UserError(
                "arch: act_unet reads images, but dataset.json has no 'image'; such data are made "
                "by hrm prepare scenes"
            )
        names = ("height", "width", "channels", "classes", "values")
        return {**{name: getattr(image, name) for name in names}, "vocab_size": data.vocab_size}

    def make_halting(self) -> Halting:
        policy = self._make_policy()
        policy.deep_supervision = self.deep_supervision
        return policy

    def _make_policy(self) -> Halting:
        common = self.policy_settings()
        match self.halting:
            case "dual_value":
                return DualValue(
                    **common,
                    step_penalty=self.step_penalty,
                    optimum_tolerance=self.optimum_tolerance,
                    threshold_target=self.threshold_target,
                    contribution_loss=self.contribution_loss,
                    temperature=self.temperature,
                    anneal_updates=self.anneal_updates,
                    floor=self.floor,
                    alternate_every=self.alternate_every,
                    warmup_updates=self.warmup_updates,
                    conditional=self.conditional,
                    anchor_weight=self.anchor_weight,
                    early_weight=self.early_weight,
                    late_weight=self.late_weight,
                )
            case "graves":
                return Graves(**common, ponder_cost=self.ponder_cost, slack=self.slack)
            case "pondernet":
                return PonderNet(**common, prior=self.prior, beta=self.beta)
            case _:
                return super().make_halting()
