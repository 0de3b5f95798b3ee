"""Supervised adaptation of a library to new tasks."""

from modjax.adapt.cat import cat

__all__ = ["cat"]
