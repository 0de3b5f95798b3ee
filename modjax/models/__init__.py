"""The frozen base model: its config, its decoder, and readers that load it from files."""
