"""Libraries to merge: of one rank, and of several."""

import pytest

SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}


@pytest.fixture
def library(random_library):
    tasks = [["x"], ["y", "x"], ["z"]]
    return random_library(SITES, rank=3, scale=[2.0, 0.5, 1.0], names=list("abc"), tasks=tasks, fingerprint="f" * 16)


@pytest.fixture
def mixed(random_library):
    """Experts of ranks 2 and 4; the last has only one site."""
    small = random_library(SITES, experts=2, rank=2, scale=[2.0, 0.5], names=["a", "b"])
    return small + random_library({"attn.q": (32, 32)}, experts=1, rank=4, seed=1, names=["c"])
