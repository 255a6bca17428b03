"""Small models and batches for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hrm.models import ETRM, TRM, ACTUNet, HRMACTv1

SMALL: dict[str, Any] = {
    "batch_size": 4,
    "seq_len": 6,
    "vocab_size": 11,
    "H_cycles": 2,
    "L_cycles": 2,
    "L_layers": 1,
    "hidden_size": 16,
    "num_heads": 2,
    "ffn_multiple": 8,
    "halt_max_steps": 3,
    "forward_dtype": "float32",
}


def small_hrm(**changes: Any) -> HRMACTv1:
    return HRMACTv1({**SMALL, "H_layers": 1, **changes})


def small_trm(**changes: Any) -> TRM:
    return TRM({**SMALL, **changes})


def small_batch(slots: int = 4, seed: int = 1, **config: Any) -> dict[str, Tensor]:
    """Random inputs, labels and puzzle identifiers 0, 1, 2, ..."""
    shape = (slots, config.get("seq_len", SMALL["seq_len"]))
    generator = torch.Generator().manual_seed(seed)
    vocab = config.get("vocab_size", SMALL["vocab_size"])
    return {
        "inputs": torch.randint(0, vocab, shape, generator=generator, dtype=torch.int32),
        "labels": torch.randint(0, vocab, shape, generator=generator, dtype=torch.int32),
        "puzzle_identifiers": torch.arange(slots, dtype=torch.int32),
    }


def awaken(model: HRMACTv1 | TRM | ETRM) -> None:
    """Give the Q-head weights, so that its values depend on the input."""
    with torch.no_grad():
        model.inner.q_head.weight.normal_()


UNET: dict[str, Any] = {
    "batch_size": 4,
    "height": 8,
    "width": 8,
    "channels": 1,
    "classes": 3,
    "vocab_size": 4,
    "values": "categorical",
    "base_channels": 4,
    "hidden_size": 16,
    "num_heads": 2,
    "window": 2,
    "halt_max_steps": 5,
}


def small_unet(**changes: Any) -> ACTUNet:
    return ACTUNet({**UNET, **changes})


def image_batch(model: ACTUNet, slots: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """Random images and labels."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    sizes = ((config.vocab_size, config.seq_len), (config.classes, config.label_len))
    inputs, labels = (
        torch.randint(0, end, (slots, length), generator=generator, dtype=torch.int32)
        for end, length in sizes
    )
    return {"inputs": inputs, "labels": labels}


ETRM_SMALL: dict[str, Any] = {
    **SMALL,
    "seq_len": 9,
    "demonstrations": 3,
    "context_tokens": 2,
    "encoder_num_layers": 1,
}


def small_etrm(**changes: Any) -> ETRM:
    return ETRM({**ETRM_SMALL, **changes})


def task_batch(slots: int = 4, seed: int = 1, demos: int = 3) -> dict[str, Tensor]:
    """Random grids with demonstrations; slot i lacks the last i % `demos` of them."""
    generator = torch.Generator().manual_seed(seed)
    shape, end = (slots, demos, ETRM_SMALL["seq_len"]), ETRM_SMALL["vocab_size"]
    grids = torch.randint(1, end, (2, *shape), generator=generator, dtype=torch.int32)
    mask = torch.arange(demos) < demos - (torch.arange(slots) % demos)[:, None]
    inputs, outputs = (grids * mask[..., None]).to(torch.int32)
    return {
        **small_batch(slots, seed, seq_len=shape[2]),
        "demo_inputs": inputs,
        "demo_outputs": outputs,
        "demo_mask": mask.to(torch.int32),
    }
