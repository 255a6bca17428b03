"""Settings of the token models, one schema per architecture; contradictions are refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from hrm.data.base import Metadata
from hrm.errors import UserError
from hrm.halting import ContinueTarget, Halting, QLearning
from hrm.models.act import ACTConfig

Dtype = Literal["float32", "bfloat16", "float16"]
HaltingName = Literal["q_learning", "halt_only", "convergence", "fixed"]


class TokenModelConfig(ACTConfig):
    """What HRM and TRM share. Keys and defaults are the published ones where those exist."""

    from_data: ClassVar[Mapping[str, Any]] = {
        "batch_size": 1,
        "seq_len": 1,
        "vocab_size": 2,
        "num_puzzle_identifiers": 1,
    }

    batch_size: int = Field(ge=1)
    """Most slots of an update, all accumulated batches of a process together; only the room for
    the gradients of puzzle embeddings depends on it."""
    seq_len: int = Field(ge=1)
    """Tokens of a sequence, puzzle positions not counted."""
    vocab_size: int = Field(ge=2)
    num_puzzle_identifiers: int = Field(default=1, ge=1)
    puzzle_emb_ndim: int = Field(default=0, ge=0)
    """Width of a puzzle's embedding; 0 means none."""

    H_cycles: int = Field(ge=1)
    """High-level cycles in a step."""
    L_cycles: int = Field(ge=1)
    """Low-level cycles in a high-level cycle."""
    grad_cycles: int | None = Field(default=None, ge=1)
    """How many of a step's last cycles, low and high together, carry gradient. None: as published
    (HRM the last low and the last high one; TRM the whole last high-level cycle)."""
    L_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    """Attention heads; they must divide hidden_size."""
    expansion: float = Field(default=4.0, gt=0)
    """Inner width of a SwiGLU is 2/3 * expansion * hidden_size, rounded up to ffn_multiple."""
    ffn_multiple: int = Field(default=256, ge=1)
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = Field(default=10000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    branch_init_scale: float = Field(default=1.0, ge=0)
    """Initial scale of what a block adds to its input (the last projection of attention, mixing and
    feed-forward). 1 as published. With post-norm every sublayer then damps its input by the root
    of 2, a step has a dozen of them in a row, and small models stand still at first; 0.1 lets the
    input through."""
    q_pool: Literal["first", "mean"] = "first"
    """What the Q-head reads: the latent at position 0 (published), or the mean over positions."""

    halting: HaltingName
    continue_target: ContinueTarget | Literal["none"]
    """How the continue value learns under q_learning (`hrm.halting.ContinueTarget`). `bootstrap`: a
    second forward without gradient (published HRM); `pseudocode`: one with gradient (the papers'
    text); `next_step`: from the sequence's own next step, without a second forward; `none`: no
    continue value, and the model halts where q_halt > 0, which is halt_only."""
    halt_exploration_prob: float = Field(default=0.1, ge=0, le=1)

    forward_dtype: Dtype = "bfloat16"
    """Type of the computation; parameters stay float32."""
    gradient_checkpointing: bool = False
    """Recompute the cycles with gradient in the backward pass instead of storing them."""

    @model_validator(mode="after")
    def _check(self) -> TokenModelConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads: {self.num_heads} heads do not divide hidden_size {self.hidden_size}"
            )
        head_dim = self.hidden_size // self.num_heads
        if self.pos_encodings == "rope" and head_dim % 2:
            raise ValueError(
                f"num_heads: hidden_size {self.hidden_size} / {self.num_heads} heads gives an odd "
                f"head dimension {head_dim}; rotary positions (pos_encodings=rope) need an even one"
            )
        return self

    @property
    def puzzle_positions(self) -> int:
        """Positions in front of the tokens that carry the puzzle's embedding."""
        return -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def label_len(self) -> int:
        """Predictions of a row: one a token."""
        return self.seq_len

    @property
    def classes(self) -> int:
        """Values of a prediction: those of a token."""
        return self.vocab_size

    @classmethod
    def read_data(cls, data: Metadata) -> dict[str, Any]:
        if data.label_len != data.seq_len:
            raise UserError(
                f"arch: a model of tokens predicts as many as it reads, but rows have "
                f"{data.seq_len} inputs and {data.label_len} labels; arch=act_unet reads images"
            )
        return {name: getattr(data, name) for name in cls.from_data if name != "batch_size"}

    def make_halting(self) -> Halting:
        if self.halting == "q_learning" and self.continue_target != "none":
            return QLearning(**self.policy_settings(), target=self.continue_target)
        return super().make_halting()


class HRMACTv1Config(TokenModelConfig):
    """HRM (Wang et al. 2025, arXiv:2506.21734) with its published keys."""

    H_layers: int = Field(ge=1)
    halting: HaltingName = "q_learning"
    continue_target: ContinueTarget | Literal["none"] = "bootstrap"


class OneNetworkConfig(TokenModelConfig):
    """What TRM and its relatives share: one network for both levels."""

    mlp_t: bool = False
    """Mix tokens by a SwiGLU over positions instead of attention (TRM-MLP)."""
    mix_expansion: float | None = Field(default=None, gt=0)
    """Expansion of that SwiGLU; none: `expansion`, as published."""
    mix_norm: Literal["positions", "features"] = "positions"
    """The axis of the norm after mixing: positions as published, or features."""
    halting: HaltingName = "halt_only"
    continue_target: ContinueTarget | Literal["none"] = "none"


class TRMConfig(OneNetworkConfig):
    """TRM (Jolicoeur-Martineau 2025, arXiv:2510.04871)."""

    puzzle_emb_len: int = Field(default=16, ge=0)
    """Puzzle positions if there are puzzle embeddings (the rest is zero padding); 0: as many as
    the embedding fills. Without puzzle embeddings there are none."""

    @property
    def puzzle_positions(self) -> int:
        filled = super().puzzle_positions
        return max(filled, self.puzzle_emb_len) if filled else 0
