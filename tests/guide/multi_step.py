# Run until all sequences halt
max_iterations = 10
carry = model.initial_carry(batch)

for step in range(max_iterations):
    carry, outputs = model(carry, batch)
    
    print(f"Step {step+1}:")
    print(f"  Halted: {carry.halted.sum().item()}/{len(carry.halted)}")
    print(f"  Steps: {carry.steps.tolist()}")
    
    # All sequences halted
    if carry.halted.all():
        break

# Final predictions
final_logits = outputs["logits"]
