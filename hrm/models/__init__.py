"""What thinks: HRM and TRM, the sparse puzzle embedding, and models that are trained already."""

from hrm.models.base import ACTModel
from hrm.models.config import HRMACTv1Config, TokenModelConfig, TRMConfig
from hrm.models.hrm import HRMACTv1
from hrm.models.pretrained import from_pretrained, load_pretrained, save_pretrained, shipped
from hrm.models.sparse_embedding import (
    CastedSparseEmbedding,
    CastedSparseEmbeddingSignSGD_Distributed,
)
from hrm.models.trm import TRM

__all__ = [
    "TRM",
    "ACTModel",
    "CastedSparseEmbedding",
    "CastedSparseEmbeddingSignSGD_Distributed",
    "HRMACTv1",
    "HRMACTv1Config",
    "TRMConfig",
    "TokenModelConfig",
    "from_pretrained",
    "load_pretrained",
    "save_pretrained",
    "shipped",
]
