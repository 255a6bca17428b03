"""Small parts of the models, one idea a file."""

from hrm.layers.attention import Attention
from hrm.layers.casted import CastedEmbedding, CastedLinear, cast_once
from hrm.layers.conv import CastedConv2d, ConvBlock, GroupNorm, PixelShuffleUp
from hrm.layers.depthwise import GridConv, GridDepthwise, LocalSwiGLU
from hrm.layers.grid_attention import GridAttention
from hrm.layers.init import trunc_normal_init_
from hrm.layers.norm import rms_norm
from hrm.layers.rotary import RotaryEmbedding, apply_rotary
from hrm.layers.rotary_2d import RotaryEmbedding2d
from hrm.layers.swiglu import SwiGLU, inner_width
from hrm.layers.windows import WindowAttention, visible_tokens

__all__ = [
    "Attention",
    "CastedConv2d",
    "CastedEmbedding",
    "CastedLinear",
    "ConvBlock",
    "GridAttention",
    "GridConv",
    "GridDepthwise",
    "GroupNorm",
    "LocalSwiGLU",
    "PixelShuffleUp",
    "RotaryEmbedding",
    "RotaryEmbedding2d",
    "SwiGLU",
    "WindowAttention",
    "apply_rotary",
    "cast_once",
    "inner_width",
    "rms_norm",
    "trunc_normal_init_",
    "visible_tokens",
]
