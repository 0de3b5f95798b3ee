"""Supervised adaptation of a library to new tasks."""

from modjax.adapt.cat import cat
from modjax.adapt.lora import lora, mu
from modjax.adapt.lorahub import lorahub
from modjax.adapt.poly import poly
from modjax.adapt.retrieval import nearness, retrieve
from modjax.adapt.shots import few

__all__ = ["cat", "few", "lora", "lorahub", "mu", "nearness", "poly", "retrieve"]
