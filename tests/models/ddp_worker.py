"""Run by `test_distributed.py`: a few updates on this process's share of each batch.

Arguments: the file to write the result to. With WORLD_SIZE in the environment the model is wrapped
as in the guide's section on distributed training, with the backend of CPUs.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hrm.models import CastedSparseEmbeddingSignSGD_Distributed
from hrm.training.losses import step_loss
from tests.models.helpers import awaken, small_batch, small_hrm

SLOTS = 4
# Row 3 is held by slots of both processes, row 5 twice by one, row 0 by nobody.
IDS = ([3, 1, 3, 2], [1, 4, 2, 4], [4, 3, 5, 5], [2, 2, 5, 1], [1, 1, 4, 3])


def main(out: str) -> None:
    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group(backend="gloo")
    rank = dist.get_rank() if world > 1 else 0
    share = SLOTS // world
    mine = slice(rank * share, (rank + 1) * share)

    torch.manual_seed(0)
    model = small_hrm(
        batch_size=share,
        puzzle_emb_ndim=16,
        num_puzzle_identifiers=6,
        halt_max_steps=2,
        halt_exploration_prob=0.5,
    )
    awaken(model)  # so that slots halt at different steps
    step = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(
        [p for n, p in model.named_parameters() if "puzzle_emb" not in n], lr=0.1
    )
    sparse_optimizer = CastedSparseEmbeddingSignSGD_Distributed(
        model.puzzle_emb.parameters(), world_size=world, lr=0.01, weight_decay=0.1
    )

    carry = None
    local_ids, steps = [], []
    for number, ids in enumerate(IDS):
        batch = {**small_batch(SLOTS, seed=number), "puzzle_identifiers": torch.tensor(ids)}
        batch = {k: v[mine] for k, v in batch.items()}
        if carry is None:
            carry = model.initial_carry(batch, seed=0, first_slot=mine.start)
        carry, outputs = step(carry, batch)
        loss = step_loss(outputs, carry, model.halting, "stablemax").loss
        # DDP averages over processes: over the share here comes to over all slots there.
        (loss / share).backward()
        local_ids.append(model.puzzle_emb.local_ids.clone())
        steps.append(carry.steps)
        optimizer.step()
        sparse_optimizer.step()
        optimizer.zero_grad()
        sparse_optimizer.zero_grad()

    seen = torch.stack([torch.stack(local_ids), torch.stack(steps)])
    gathered = [seen]
    if world > 1:
        gathered = [torch.zeros_like(seen) for _ in range(world)]
        dist.all_gather(gathered, seen)
    if rank == 0:
        ids_and_steps = torch.cat(gathered, -1)
        torch.save({"state": model.state_dict(), "ids_and_steps": ids_and_steps}, out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
