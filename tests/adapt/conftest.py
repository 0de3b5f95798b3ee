"""A small library of the tiny word model, and new tasks of three examples."""

import pytest

from modjax.adapt import few
from tests.kills import killed_before  # noqa: F401


@pytest.fixture(scope="package")
def library(word_model, random_library):
    """Three loud experts of rank 2, each of a scale of its own."""
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "mlp.down")}
    return random_library(sites, names=["a", "b", "c"], scale=[2.0, 0.5, 1.0])


@pytest.fixture(scope="package")
def new_tasks(word_tasks):
    """Two tasks of three examples to learn from and six for validation."""
    return few(word_tasks.select(["copy", "sort"]), examples=3)
