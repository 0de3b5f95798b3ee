"""Pure array functions: attention, rotary positions, norms, the LoRA mixture, losses, linear algebra."""
