import torch
import torch.nn as nn
from torch.optim import AdamW
from hrm.models import HRMACTv1, CastedSparseEmbeddingSignSGD_Distributed

# Create model
model = HRMACTv1(config).cuda()
model.train()

# Optimizer for main model
optimizer = AdamW(
    [p for n, p in model.named_parameters() if "puzzle_emb" not in n],
    lr=3e-4,
    weight_decay=0.01,
)

# Separate optimizer for sparse puzzle embeddings (if used)
if config["puzzle_emb_ndim"] > 0:
    sparse_optimizer = CastedSparseEmbeddingSignSGD_Distributed(
        model.puzzle_emb.parameters(),
        world_size=1,  # Single GPU
        lr=1e-3,
        weight_decay=1e-2,
    )

# Training step
def train_step(batch, targets):
    # Initialize carry
    carry = model.initial_carry(batch)
    
    # Forward pass
    carry, outputs = model(carry, batch)
    
    # Language modeling loss
    logits = outputs["logits"]
    lm_loss = nn.functional.cross_entropy(
        logits.reshape(-1, config["vocab_size"]),
        targets.reshape(-1),
    )
    
    # Q-learning loss (if in training mode with ACT)
    q_loss = 0.0
    if "target_q_continue" in outputs:
        q_continue = torch.sigmoid(outputs["q_continue_logits"])
        target_q = outputs["target_q_continue"]
        q_loss = nn.functional.mse_loss(q_continue, target_q)
    
    # Total loss
    loss = lm_loss + 0.1 * q_loss  # Weight Q-loss
    
    # Backward
    loss.backward()
    
    # Clip gradients
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    
    # Update
    optimizer.step()
    if config["puzzle_emb_ndim"] > 0:
        sparse_optimizer.step()
    
    optimizer.zero_grad()
    if config["puzzle_emb_ndim"] > 0:
        sparse_optimizer.zero_grad()
    
    return {
        "loss": loss.item(),
        "lm_loss": lm_loss.item(),
        "q_loss": q_loss if isinstance(q_loss, float) else q_loss.item(),
    }

# Training loop
for step in range(max_steps):
    batch = get_next_batch()  # Your data loader
    targets = batch["targets"]
    
    metrics = train_step(batch, targets)
    
    if step % 100 == 0:
        print(f"Step {step}: {metrics}")
