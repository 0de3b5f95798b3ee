"""Supervised adaptation of a library to new tasks."""
