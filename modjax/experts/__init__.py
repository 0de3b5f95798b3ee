"""Libraries of LoRA experts: what they are, how they are stored, clustered and merged."""
