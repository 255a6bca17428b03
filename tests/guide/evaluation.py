model.eval()

def evaluate(val_loader):
    total_loss = 0.0
    total_steps = 0
    total_halts = []
    
    with torch.no_grad():
        for batch in val_loader:
            carry = model.initial_carry(batch)
            
            # Run until halt
            for _ in range(config["halt_max_steps"]):
                carry, outputs = model(carry, batch)
                if carry.halted.all():
                    break
            
            # Compute loss
            logits = outputs["logits"]
            targets = batch["targets"]
            loss = nn.functional.cross_entropy(
                logits.reshape(-1, config["vocab_size"]),
                targets.reshape(-1),
            )
            
            total_loss += loss.item()
            total_steps += 1
            total_halts.append(carry.steps.float().mean().item())
    
    return {
        "loss": total_loss / total_steps,
        "avg_steps": sum(total_halts) / len(total_halts),
    }
