"""Optimizers and the learning-rate schedule. Every parameter is in exactly one optimizer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from hrm.config import OptimizerConfig
from hrm.models import ACTModel
from hrm.models.sparse_embedding import (
    CastedSparseEmbedding,
    CastedSparseEmbeddingSignSGD_Distributed,
)
from hrm.training.adam_atan2 import AdamAtan2


def _adam_atan2(parameters: list[nn.Parameter], lr: float, config: OptimizerConfig) -> Optimizer:
    betas = (config.beta1, config.beta2)
    return AdamAtan2(parameters, lr, betas, config.weight_decay)


def _adamw(parameters: list[nn.Parameter], lr: float, config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(
        parameters,
        lr=lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def _dense(
    named: list[tuple[str, nn.Parameter]], lr: float, config: OptimizerConfig
) -> list[Optimizer]:
    """The optimizers of one group of parameters."""
    everything = [p for _, p in named]
    if config.optimizer == "adam_atan2":
        return [_adam_atan2(everything, lr, config)]
    if config.optimizer == "adamw":
        return [_adamw(everything, lr, config)]
    matrices = [p for n, p in named if p.ndim == 2 and ".layers." in n]
    if not matrices:
        return [_adamw(everything, lr, config)]
    chosen = {id(p) for p in matrices}
    muon = torch.optim.Muon(
        matrices,
        lr=lr,
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        adjust_lr_fn="match_rms_adamw",  # so that one rate serves both optimizers
    )
    return [muon, _adamw([p for p in everything if id(p) not in chosen], lr, config)]


def make_optimizers(
    model: nn.Module, config: OptimizerConfig, processes: int = 1
) -> list[Optimizer]:
    """The dense parameters' optimizers, group by group, then one SignSGD per sparse embedding.

    Each of the model's parameter groups has its own (`ACTModel.parameter_groups`), so that value
    functions that take turns leave each other's moments alone. Each optimizer's groups carry their
    own `base_lr`, which `set_lr` scales, and the model's group as `part`.

    Args:
        processes: whose gradients the SignSGD gathers; those of dense parameters are summed ahead.
    """
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    optimizers: list[Optimizer] = []
    groups = {"trunk": list(model.parameters())}
    if isinstance(model, ACTModel):
        groups = model.parameter_groups()
    for group, parameters in groups.items():
        named = [(names[id(p)], p) for p in parameters if id(p) in names]
        own_lr = {"trunk": None, "encoder": config.encoder_lr}.get(group, config.head_lr)
        made = _dense(named, config.lr if own_lr is None else own_lr, config) if named else []
        for optimizer in made:
            for settings in optimizer.param_groups:
                settings["part"] = group
        optimizers += made
    optimizers += [
        CastedSparseEmbeddingSignSGD_Distributed(
            module.optimizer_tensors(),
            world_size=processes,
            lr=config.puzzle_emb_lr,
            weight_decay=config.puzzle_emb_weight_decay,
        )
        for module in model.modules()
        if isinstance(module, CastedSparseEmbedding)
    ]
    for optimizer in optimizers:
        for settings in optimizer.param_groups:
            settings["base_lr"] = settings["lr"]
    return optimizers


def lr_factor(
    warmup: int, config: OptimizerConfig, step: int, progress: float, *, head: bool = False
) -> float:
    """Share of the base rate for update number `step` (from 1), of the trunk or a value function.

    progress: 0 at the start and 1 at the planned end; under halting it follows rows admitted, since
    the number of updates is not known ahead.
    """
    if step < warmup:
        return step / warmup
    schedule = (head and config.head_lr_schedule) or config.lr_schedule
    if schedule == "constant":
        return 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr_min_ratio + (1 - config.lr_min_ratio) * cosine


def set_lr(
    optimizers: list[Optimizer],
    factor: float,
    frozen: Collection[str] = frozenset(),
    head_factor: float | None = None,
) -> None:
    """Scale every group's base rate, that of value functions by `head_factor` (None: `factor`);
    the model's groups in `frozen` stand still.

    At a rate of 0 nothing moves, by weight decay neither, and the moments go on.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            part = group.get("part", "trunk")
            is_head = head_factor is not None and part not in ("trunk", "encoder")
            share = 0.0 if part in frozen else head_factor if is_head else factor
            group["lr"] = group["base_lr"] * share


def clip_groups(
    groups: Mapping[str, list[nn.Parameter]], frozen: Collection[str] = frozenset()
) -> list[list[nn.Parameter]]:
    """What one norm clips: each of the model's groups by itself, since a value function's gradient
    is no task gradient; but `trunk` and `encoder`, which one loss teaches, together.

    Of these a frozen one counts by itself: its gradient says nothing of the other's step.
    """
    if "encoder" not in groups or frozen:
        return list(groups.values())
    together = [*groups["trunk"], *groups["encoder"]]
    return [together, *(p for name, p in groups.items() if name not in ("trunk", "encoder"))]
