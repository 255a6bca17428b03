"""What thinks: HRM, TRM, its form with an encoder, the ACT U-Net; and trained models."""

from hrm.models.act import ACTModel
from hrm.models.act_unet import ACTUNet, ACTUNetConfig
from hrm.models.config import HRMACTv1Config, TokenModelConfig, TRMConfig
from hrm.models.etrm import ETRM, ETRMConfig
from hrm.models.hrm import HRMACTv1
from hrm.models.pretrained import from_pretrained, load_pretrained, save_pretrained, shipped
from hrm.models.sparse_embedding import (
    CastedSparseEmbedding,
    CastedSparseEmbeddingSignSGD_Distributed,
)
from hrm.models.trm import TRM

__all__ = [
    "ETRM",
    "TRM",
    "ACTModel",
    "ACTUNet",
    "ACTUNetConfig",
    "CastedSparseEmbedding",
    "CastedSparseEmbeddingSignSGD_Distributed",
    "ETRMConfig",
    "HRMACTv1",
    "HRMACTv1Config",
    "TRMConfig",
    "TokenModelConfig",
    "from_pretrained",
    "load_pretrained",
    "save_pretrained",
    "shipped",
]
