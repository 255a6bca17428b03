"""Parameter names as published, so that published weights load."""

import pytest

from hrm.models import TRM, HRMACTv1
from tests.models.helpers import small_hrm, small_trm

COMMON = {
    "inner.H_init": (16,),
    "inner.L_init": (16,),
    "inner.embed_tokens.embedding_weight": (11, 16),
    "inner.lm_head.weight": (11, 16),
    "inner.q_head.weight": (2, 16),
    "inner.q_head.bias": (2,),
    "inner.puzzle_emb.weights": (7, 20),
}
HRM = {
    **COMMON,
    "inner.H_level.layers.0.self_attn.qkv_proj.weight": (48, 16),
    "inner.H_level.layers.0.self_attn.o_proj.weight": (16, 16),
    "inner.H_level.layers.0.mlp.gate_up_proj.weight": (96, 16),
    "inner.H_level.layers.0.mlp.down_proj.weight": (16, 48),
    "inner.L_level.layers.0.self_attn.qkv_proj.weight": (48, 16),
    "inner.L_level.layers.0.self_attn.o_proj.weight": (16, 16),
    "inner.L_level.layers.0.mlp.gate_up_proj.weight": (96, 16),
    "inner.L_level.layers.0.mlp.down_proj.weight": (16, 48),
    "inner.L_level.layers.1.self_attn.qkv_proj.weight": (48, 16),
    "inner.L_level.layers.1.self_attn.o_proj.weight": (16, 16),
    "inner.L_level.layers.1.mlp.gate_up_proj.weight": (96, 16),
    "inner.L_level.layers.1.mlp.down_proj.weight": (16, 48),
}
TRM_ATTENTION = {
    **COMMON,
    "inner.L_level.layers.0.self_attn.qkv_proj.weight": (48, 16),
    "inner.L_level.layers.0.self_attn.o_proj.weight": (16, 16),
    "inner.L_level.layers.0.mlp.gate_up_proj.weight": (96, 16),
    "inner.L_level.layers.0.mlp.down_proj.weight": (16, 48),
}
TRM_MLP = {  # the mixing layer is as wide as there are positions: 16 of the puzzle and 6 tokens
    **COMMON,
    "inner.L_level.layers.0.mlp_t.gate_up_proj.weight": (128, 22),
    "inner.L_level.layers.0.mlp_t.down_proj.weight": (22, 64),
    "inner.L_level.layers.0.mlp.gate_up_proj.weight": (96, 16),
    "inner.L_level.layers.0.mlp.down_proj.weight": (16, 48),
}
PUZZLES = {"puzzle_emb_ndim": 20, "num_puzzle_identifiers": 7}


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (small_hrm(L_layers=2, **PUZZLES), HRM),
        (small_trm(**PUZZLES), TRM_ATTENTION),
        (small_trm(mlp_t=True, **PUZZLES), TRM_MLP),
    ],
    ids=["hrm", "trm", "trm_mlp"],
)
def test_state_has_the_published_names(
    model: HRMACTv1 | TRM, names: dict[str, tuple[int, ...]]
) -> None:
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == names


def test_learned_positions_add_their_table() -> None:
    names = set(small_hrm(pos_encodings="learned").state_dict())
    assert names - set(HRM) == {"inner.embed_pos.embedding_weight"}


def test_published_sizes_give_the_published_number_of_parameters() -> None:
    config = {
        "batch_size": 1,
        "seq_len": 81,
        "vocab_size": 11,
        "hidden_size": 512,
        "num_heads": 8,
        "halt_max_steps": 16,
        "H_cycles": 3,
        "L_cycles": 6,
        "L_layers": 2,
    }
    trm = TRM({**config, "expansion": 4})
    # Per layer 4 * 512^2 of attention and 3 * 512 * 1536 of SwiGLU: 7M with two layers.
    layer = 4 * 512**2 + 3 * 512 * 1536
    assert sum(p.numel() for p in trm.parameters()) == 2 * layer + 2 * 11 * 512 + 2 * 512 + 2
