"""What thinks: HRM and TRM, and the sparse puzzle embedding."""

from hrm.models.base import ACTModel
from hrm.models.config import HRMACTv1Config, TokenModelConfig, TRMConfig
from hrm.models.hrm import HRMACTv1
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
]
