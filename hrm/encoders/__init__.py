"""What the demonstrations of a task become: a few tokens of context."""

from hrm.encoders.base import Encoded, Encoder
from hrm.encoders.registry import ENCODERS
from hrm.encoders.settings import EncoderSettings, Layout, NormStyle

__all__ = ["ENCODERS", "Encoded", "Encoder", "EncoderSettings", "Layout", "NormStyle"]
