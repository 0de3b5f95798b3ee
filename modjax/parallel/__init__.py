"""Meshes, sharding rules and many-process start-up."""
