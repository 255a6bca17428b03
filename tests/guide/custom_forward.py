class CustomHRMTrainer(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    
    def forward(self, batch):
        carry = self.model.initial_carry(batch)
        
        # Custom multi-step logic
        all_logits = []
        
        for step in range(self.model.config.halt_max_steps):
            carry, outputs = self.model(carry, batch)
            all_logits.append(outputs["logits"])
            
            if carry.halted.all():
                break
        
        # Average predictions across steps
        avg_logits = torch.stack(all_logits).mean(dim=0)
        
        return avg_logits, carry.steps
