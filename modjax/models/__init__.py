"""The frozen base model: its config, its decoder, and the readers that fill it from files."""
