"""Sparse puzzle embedding: a large table of which a step reads, and updates, a row per slot.

The table takes no part in autograd. In training its rows are copied to a small leaf that does, and
the leaf's gradient goes back to the touched rows by SignSGD, which is what Adam comes to when a row
is hardly ever visited. After published HRM code and the HRM-ACT-v1 guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrm.errors import UserError
from hrm.layers.init import trunc_normal_init_

NO_ID = -1
AWAITED = "awaited_by_optimizer"
"""Attribute of a leaf that has an optimizer; those of another leaf (frozen rows) are dropped."""


class CastedSparseEmbedding(nn.Module):
    """Rows of a float32 table, returned in `cast_to`.

    `local_weights` (batch_size, width; the leaf) and `local_ids` (batch_size) are no parameters and
    no buffers: they differ by process, so DDP must not average or broadcast them, and a state dict
    needs them as little. Local rows that no slot uses have id -1.

    A batch whose gradient waits for an update keeps its local rows, and the next batch takes those
    behind it: gradients accumulate as those of one large batch.

    Args:
        rows: number of identifiers.
        width: width of a row.
        batch_size: most slots of an update, all its accumulated batches together.
        init_std: 0 as published: a new puzzle says nothing.
    """

    weights: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        batch_size: int,
        init_std: float = 0.0,
        cast_to: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.cast_to = cast_to
        self.check_ids = True
        """Refuse identifiers out of range. On a GPU that is a transfer a call: a caller whose
        data was checked when it was loaded switches it off."""
        self.register_buffer("weights", trunc_normal_init_(torch.empty(rows, width), std=init_std))
        self.local_weights = torch.zeros(batch_size, width).requires_grad_()
        self.local_ids = torch.full((batch_size,), NO_ID, dtype=torch.int64)
        self.latest = slice(0, 0)
        """Local rows of the latest training batch."""

    def forward(self, ids: Int[Tensor, " slots"]) -> Float[Tensor, "slots width"]:
        """Raises UserError for an identifier out of range, or a batch above `batch_size`."""
        if self.check_ids and not torch.compiler.is_compiling():
            self._refuse_out_of_range(ids)
        ids = ids.long()
        if not self.training:
            return self.weights[ids].to(self.cast_to)
        self.latest = self._free_rows(ids)
        with torch.no_grad():
            self.local_weights[self.latest].copy_(self.weights[ids])
            self.local_ids[self.latest].copy_(ids)
            self.local_ids[self.latest.stop :].fill_(NO_ID)
        return self.local_weights[self.latest].to(self.cast_to)

    def _free_rows(self, ids: Tensor) -> slice:
        """Local rows for a batch: from 0 on, or behind the rows whose gradient still waits."""
        slots, room = ids.shape[0], self.local_weights.shape[0]
        start = 0 if self.local_weights.grad is None else self._behind_waiting(ids)
        if start + slots > room:
            waiting = f" and {start} rows that wait for step() and zero_grad()" if start else ""
            raise UserError(
                f"batch_size: a training batch of {slots} rows{waiting}, but puzzle embeddings "
                f"were made for at most {room} in an update"
            )
        return slice(start, start + slots)

    def _behind_waiting(self, ids: Tensor) -> int:
        grad = self.local_weights.grad
        if grad is None or not grad.any():  # zero_grad(set_to_none=False) leaves zeros
            return 0
        if not getattr(self.local_weights, AWAITED, False):
            self.local_weights.grad = None
            return 0
        if torch.equal(self.local_ids[self.latest], ids):  # The same sequences, a step later.
            return self.latest.start
        return self.latest.stop

    def _refuse_out_of_range(self, ids: Tensor) -> None:
        rows = self.weights.shape[0]
        bad = ids[(ids < 0) | (ids >= rows)]
        if bad.numel():
            raise UserError(f"puzzle_identifiers: {int(bad[0])} is not in 0..{rows - 1}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CastedSparseEmbedding:
        table = self.weights
        super()._apply(fn, recurse)
        # Through .data, so that the leaf stays a leaf and an optimizer keeps hold of all three.
        table.data = self.weights.data
        self.weights = table
        self.local_weights.data = fn(self.local_weights.data)
        self.local_ids.data = fn(self.local_ids.data)
        self.local_weights.grad = None
        return self

    def optimizer_tensors(self) -> list[Tensor]:
        """Table, leaf and ids: what the SignSGD below works on."""
        return [self.weights, self.local_weights, self.local_ids]

    # The guide hands `puzzle_emb.parameters()` to the optimiser and published code
    # `puzzle_emb.buffers()`; asked directly, this module answers both with the same three tensors.
    # A parent's walk goes through `named_parameters` and `named_buffers` and sees the table alone.
    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        return iter(self.optimizer_tensors())

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return iter(self.optimizer_tensors())


class CastedSparseEmbeddingSignSGD_Distributed(torch.optim.Optimizer):
    """`w <- w (1 - lr * weight_decay) - lr * sign(g)` on the rows that any process touched.

    `g` is the sum over all slots of all processes that hold the row.

    Args:
        params: `embedding.parameters()` or `embedding.buffers()`, or groups of these.
        world_size: processes whose gradients are gathered; above 1 needs `torch.distributed`.
        lr, weight_decay: as in the formula, 0 or more.
    """

    def __init__(
        self,
        params: Any,
        world_size: int = 1,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr: {lr} is below 0")
        if weight_decay < 0:
            raise ValueError(f"weight_decay: {weight_decay} is below 0")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "world_size": world_size})
        for group in self.param_groups:
            _, leaf, _ = _roles(group["params"])
            setattr(leaf, AWAITED, True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the touched rows. Without a gradient (no backward pass yet) nothing happens."""
        for group in self.param_groups:
            table, leaf, ids = _roles(group["params"])
            grad, processes = leaf.grad, group["world_size"]
            if processes > 1:
                if grad is None:  # Others may have one, and all have to gather.
                    grad, ids = torch.zeros_like(leaf), torch.full_like(ids, NO_ID)
                grad, ids = _gather(grad, processes), _gather(ids, processes)
            if grad is not None:
                sign_sgd_rows(table, grad, ids, group["lr"], group["weight_decay"])


def sign_sgd_rows(
    table: Float[Tensor, "rows width"],
    grad: Float[Tensor, "slots width"],
    ids: Int[Tensor, " slots"],
    lr: float,
    weight_decay: float,
) -> None:
    """SignSGD in place on `table[ids]`, gradients of equal ids summed; ids of -1 are no rows."""
    held = ids != NO_ID
    touched, where = ids[held].unique(return_inverse=True)
    total = grad.new_zeros(len(touched), grad.shape[1])
    if grad.is_cuda:  # There `index_add_` adds in any order, and processes would drift apart.
        total.index_put_((where,), grad[held], accumulate=True)
    else:
        total.index_add_(0, where, grad[held])
    table[touched] = table[touched] * (1 - lr * weight_decay) - lr * total.sign()


def _roles(tensors: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Table, leaf and ids: the leaf wants a gradient, the ids are integers."""
    ids = [t for t in tensors if not t.is_floating_point()]
    leaf = [t for t in tensors if t.is_floating_point() and t.requires_grad]
    table = [t for t in tensors if t.is_floating_point() and not t.requires_grad]
    if not len(ids) == len(leaf) == len(table) == 1:
        raise ValueError("params: give one embedding's parameters() or buffers() in each group")
    return table[0], leaf[0], ids[0]


def _gather(tensor: Tensor, world_size: int) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(world_size)]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
