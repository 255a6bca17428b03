# Enable puzzle embeddings
config["puzzle_emb_ndim"] = 512  # Embedding dimension
config["num_puzzle_identifiers"] = 1000  # Number of unique puzzles

model = HRMACTv1(config).cuda()

# Each sequence can have a different puzzle
batch = {
    "inputs": torch.randint(0, 10000, (8, 128), device="cuda"),
    "puzzle_identifiers": torch.randint(0, 1000, (8,), device="cuda"),  # Different puzzles
}

carry = model.initial_carry(batch)
carry, outputs = model(carry, batch)
