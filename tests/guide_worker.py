"""Run by `test_guide.py` under torchrun: the guide's distributed snippet, and an update on it."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.test_guide import fixed_batch, run, vars_of_training


def main(out: str) -> None:
    torch.set_num_threads(1)
    space = run("basic_usage puzzle_embeddings distributed", os=os, **vars_of_training())
    model, optimizer = space["model"], space["sparse_optimizer"]
    rank = dist.get_rank()
    batch = fixed_batch(space["config"]["vocab_size"])
    if rank == 1:  # Puzzles 1 and 3 here, 7 and 3 there.
        batch["puzzle_identifiers"] = batch["puzzle_identifiers"].where(
            batch["puzzle_identifiers"] == 3, 1
        )
    _, outputs = model(model.module.initial_carry(batch), batch)
    loss = outputs["logits"].float().square().mean() + outputs["q_halt_logits"].mean()
    loss.backward()
    optimizer.step()
    torch.save(model.module.puzzle_emb.weights, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
