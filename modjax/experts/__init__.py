"""Libraries of LoRA experts, in memory and on disk: stacked arrays, PEFT adapters, mttl checkpoints."""
