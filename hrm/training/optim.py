"""Optimizers and the learning-rate schedule. Every parameter is in exactly one optimizer."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer

from hrm.config import OptimizerConfig
from hrm.models.sparse_embedding import (
    CastedSparseEmbedding,
    CastedSparseEmbeddingSignSGD_Distributed,
)
from hrm.training.adam_atan2 import AdamAtan2


def _adam_atan2(parameters: list[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    betas = (config.beta1, config.beta2)
    return AdamAtan2(parameters, config.lr, betas, config.weight_decay)


def _adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """The dense parameters' optimizers, then one SignSGD per sparse embedding.

    Each group carries its own `base_lr`, which `set_lr` scales.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizers: list[Optimizer]
    if config.optimizer == "muon":
        matrices = [p for n, p in named if p.ndim == 2 and "_level." in n]
        chosen = {id(p) for p in matrices}
        muon = torch.optim.Muon(
            matrices,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.muon_momentum,
            adjust_lr_fn="match_rms_adamw",  # so that one rate serves both optimizers
        )
        optimizers = [muon, _adamw([p for _, p in named if id(p) not in chosen], config)]
    elif config.optimizer == "adam_atan2":
        optimizers = [_adam_atan2([p for _, p in named], config)]
    else:
        optimizers = [_adamw([p for _, p in named], config)]
    optimizers += [
        CastedSparseEmbeddingSignSGD_Distributed(
            module.optimizer_tensors(),
            lr=config.puzzle_emb_lr,
            weight_decay=config.puzzle_emb_weight_decay,
        )
        for module in model.modules()
        if isinstance(module, CastedSparseEmbedding)
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def lr_factor(warmup: int, config: OptimizerConfig, step: int, progress: float) -> float:
    """Share of the base rate for update number `step` (from 1).

    progress: 0 at the start and 1 at the planned end; under halting it follows rows admitted, since
    the number of updates is not known ahead.
    """
    if step < warmup:
        return step / warmup
    if config.lr_schedule == "constant":
        return 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr_min_ratio + (1 - config.lr_min_ratio) * cosine


def set_lr(optimizers: list[Optimizer], factor: float) -> None:
    """Scale every group's base rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
