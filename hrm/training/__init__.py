"""How it learns: one trainer, a dynamics that turns batches into updates, losses, checkpoints."""
