"""Lockstep training: all experts of a library in one jitted step."""
