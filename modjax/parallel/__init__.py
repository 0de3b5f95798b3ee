"""Meshes, sharding rules, start-up of several processes, and collectives of compiled programs."""
