"""Small parts of the models, one idea a file."""

from hrm.layers.attention import Attention
from hrm.layers.casted import CastedEmbedding, CastedLinear, cast_once
from hrm.layers.init import trunc_normal_init_
from hrm.layers.norm import rms_norm
from hrm.layers.rotary import RotaryEmbedding, apply_rotary
from hrm.layers.swiglu import SwiGLU, inner_width

__all__ = [
    "Attention",
    "CastedEmbedding",
    "CastedLinear",
    "RotaryEmbedding",
    "SwiGLU",
    "apply_rotary",
    "cast_once",
    "inner_width",
    "rms_norm",
    "trunc_normal_init_",
]
