"""The ten zero-shot benchmarks of the paper (arXiv 2405.11157): one file each, with its prompts and its version."""
