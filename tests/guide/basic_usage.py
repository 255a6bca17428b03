import torch
from hrm.models import HRMACTv1

# Configuration
config = {
    "batch_size": 8,
    "seq_len": 128,
    "puzzle_emb_ndim": 0,  # Disable puzzle embeddings
    "num_puzzle_identifiers": 10,
    "vocab_size": 10000,
    "H_cycles": 3,
    "L_cycles": 2,
    "H_layers": 4,
    "L_layers": 4,
    "hidden_size": 512,
    "num_heads": 8,
    "pos_encodings": "rope",
    "halt_max_steps": 5,
    "halt_exploration_prob": 0.1,
    "forward_dtype": "bfloat16",
}

# Create model
model = HRMACTv1(config).cuda()

# Prepare batch
batch = {
    "inputs": torch.randint(0, 10000, (8, 128), device="cuda"),
    "puzzle_identifiers": torch.zeros(8, dtype=torch.int32, device="cuda"),
}

# Initialize carry state
carry = model.initial_carry(batch)

# Forward pass
carry, outputs = model(carry, batch)

# Get outputs
logits = outputs["logits"]  # (batch, seq_len, vocab_size)
q_halt = outputs["q_halt_logits"]  # (batch,)
q_continue = outputs["q_continue_logits"]  # (batch,)
