"""What is run on both sides of the comparison with published code, and how it is recorded.

Weights, rows and gradients are not stored: each is drawn from a name, by Python's own generator,
whose numbers are the same everywhere. `benchmarks/golden.py` runs the published models and writes
`published.safetensors`; the tests run the models here and compare.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
TENSORS, RECORD = FOLDER / "published.safetensors", FOLDER / "published.json"

SLOTS, SEQ_LEN, VOCAB, PUZZLES = 5, 6, 5, 4
LABELLED = (1, 1, 1, 2, 5)
"""Labels of each slot's rows: few, so that some answers of an untrained model are right."""
STEPS = 6
"""More than `halt_max_steps`, so that every slot is refilled at least once."""


@dataclass(frozen=True)
class Case:
    """A model: the repository that published it, and `arch` as its `all_config.yaml` has it."""

    repository: str
    arch: dict[str, Any]
    seed: int
    """Of the weights, chosen such that sequences halt at different steps and some are right."""

    @property
    def sizes(self) -> dict[str, int]:
        """What published code reads from the data set and the batch size."""
        return {
            "batch_size": SLOTS,
            "seq_len": SEQ_LEN,
            "vocab_size": VOCAB,
            "num_puzzle_identifiers": PUZZLES,
        }


def _arch(name: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
        "halt_exploration_prob": 0.0,  # Exploration is random.
        "halt_max_steps": 4,
        "H_cycles": 2,
        "L_cycles": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "expansion": 4,
        "puzzle_emb_ndim": 0,
        "pos_encodings": "rope",
        "forward_dtype": "float32",
        **settings,
    }


def _hrm(seed: int, **settings: Any) -> Case:
    name = "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"
    return Case("hrm", _arch(name, **{"H_layers": 1, "L_layers": 1, **settings}), seed)


def _trm(seed: int, **settings: Any) -> Case:
    name = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
    own = {"H_layers": 0, "L_layers": 2, "mlp_t": False, "no_ACT_continue": True}
    return Case("trm", _arch(name, **{**own, **settings}), seed)


CASES = {
    "hrm": _hrm(12),
    "hrm_layers": _hrm(4, H_layers=2, H_cycles=3, L_cycles=1, hidden_size=32, num_heads=4),
    "hrm_puzzles": _hrm(0, L_layers=2, H_cycles=1, L_cycles=3, puzzle_emb_ndim=20),
    "hrm_learned": _hrm(24, pos_encodings="learned", puzzle_emb_ndim=16, num_heads=1),
    # Published TRM fails without puzzle embeddings unless `puzzle_emb_len` is 0.
    "trm": _trm(2, puzzle_emb_len=0),
    "trm_cycles": _trm(1, L_layers=1, H_cycles=3, L_cycles=4, puzzle_emb_len=0, num_heads=4),
    "trm_puzzles": _trm(0, puzzle_emb_ndim=16),  # 16 puzzle positions by default
    "trm_mlp": _trm(9, mlp_t=True, pos_encodings="none", puzzle_emb_len=0),
    "trm_mlp_puzzles": _trm(
        18, mlp_t=True, pos_encodings="learned", puzzle_emb_ndim=24, puzzle_emb_len=3, L_layers=1
    ),
}


def drawn(name: str, *shape: int) -> Tensor:
    """Evenly from -1 to 1, decided by `name`."""
    draw = random.Random(name).random
    count = int(torch.Size(shape).numel())
    return torch.tensor([2 * draw() - 1 for _ in range(count)], dtype=torch.float64).view(shape)


@torch.no_grad()
def fill(state: Mapping[str, Tensor], seed: int) -> None:
    """Set every tensor of a state dict, named as published.

    Small enough that a step contracts: with weights of 1.7 times the size rounding grows twentyfold
    a step, and published code leaves its own path by 1e-2 when a weight changes by one rounding.
    """
    for name, tensor in state.items():
        scale = tensor.shape[-1] ** -0.5 if tensor.ndim == 2 else 1.0
        tensor.copy_(scale * drawn(f"{seed} {name}", *tensor.shape))


def rows(step: int) -> dict[str, Tensor]:
    """The rows that may move in before `step`.

    Every row has a label: published code counts one without as solved, this project as nothing.
    """
    draw = random.Random(f"rows {step}")
    inputs = [[draw.randrange(VOCAB) for _ in range(SEQ_LEN)] for _ in range(SLOTS)]
    labels = [[draw.randrange(VOCAB) for _ in range(SEQ_LEN)] for _ in range(SLOTS)]
    for row, labelled in zip(labels, LABELLED, strict=True):
        for position in draw.sample(range(SEQ_LEN), SEQ_LEN - labelled):
            row[position] = -100
    puzzles = [draw.randrange(PUZZLES) for _ in range(SLOTS)]
    return {
        "inputs": torch.tensor(inputs, dtype=torch.int32),
        "labels": torch.tensor(labels, dtype=torch.int32),
        "puzzle_identifiers": torch.tensor(puzzles, dtype=torch.int32),
    }


Run = Callable[[Any, dict[str, Tensor]], tuple[Any, dict[str, Tensor], Tensor, dict[str, Tensor]]]
"""`(carry, rows) -> carry, outputs, loss, parts of the loss and metrics`."""


def trajectory(model: nn.Module, run: Run, training: bool) -> dict[str, Tensor]:
    """Several steps of a filled model, each with its backward pass, stacked over steps.

    Of a large matrix's gradient its product with a fixed vector over the longer axis is kept.
    """
    model.train(training)
    carry = model.initial_carry(rows(1))
    leaves = dict(model.named_parameters())
    if training and hasattr(model.inner, "puzzle_emb"):
        leaves["inner.puzzle_emb.local_weights"] = model.puzzle_emb.local_weights
    seen: list[dict[str, Tensor]] = []
    for step in range(1, STEPS + 1):
        for leaf in leaves.values():
            leaf.grad = None
        carry, outputs, loss, parts = run(carry, rows(step))
        loss.backward()
        seen.append(
            {
                **{f"output.{name}": value for name, value in outputs.items()},
                **{f"part.{name}": value for name, value in parts.items()},
                **{f"grad.{name}": _along(name, leaf.grad) for name, leaf in leaves.items()},
                "carry.steps": carry.steps,
                "carry.halted": carry.halted.to(torch.int32),
                "loss": loss,
            }
        )
    stacked = {name: torch.stack([one[name].detach() for one in seen]) for name in seen[0]}
    # One row: the latents after the last step.
    stacked |= {f"carry.{n}": getattr(carry.inner_carry, n)[None] for n in ("z_H", "z_L")}
    return {name: _stored(value) for name, value in stacked.items()}


def _along(name: str, grad: Tensor | None) -> Tensor:
    assert grad is not None, name
    if grad.ndim < 2 or grad.numel() <= 200:
        return grad
    long = grad if grad.shape[0] < grad.shape[1] else grad.T
    return long.double() @ drawn(f"along {name}", long.shape[1])


def _stored(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value.to(torch.int32)


def sign_sgd(embedding: Any, optimizer: Any) -> dict[str, Tensor]:
    """The table of a sparse embedding after each of three updates.

    Two slots share an identifier: their gradients add up, in one place to zero.
    """
    table = embedding(PUZZLES, 3, SLOTS, 0.0, torch.float32).train()
    with torch.no_grad():
        table.weights.copy_(drawn("table", PUZZLES, 3))
    optimizer = optimizer(table.buffers(), world_size=1, lr=0.25, weight_decay=0.5)
    tables = []
    for update in range(3):
        table(torch.tensor([2, 0, 2, 1, 0], dtype=torch.int32))
        grad = drawn(f"gradient {update}", SLOTS, 3).float()
        grad[0, 0] = -grad[2, 0]
        table.local_weights.grad = grad
        optimizer.step()
        optimizer.zero_grad()
        tables.append(table.weights.clone())
    return {"table": torch.stack(tables)}


ADAM_BETAS = {"adam_atan2": (0.9, 0.95), "adam_atan2_no_momentum": (0.0, 0.95)}
ADAM = {"lr": 0.01, "weight_decay": 0.1}
ADAM_UPDATES = 8


def adam_start() -> Tensor:
    """The parameter before the first update."""
    return drawn("parameter", 12).float()


def adam_gradient(update: int) -> Tensor:
    """Of update 1, 2, ...; its entries have many sizes, since the rule hardly sees them."""
    return (drawn(f"gradient {update}", 12) * 10.0 ** torch.arange(-8, 4)).float()
