"""Tiny training runs."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from modjax.train.loop import train_library

SMALL = {
    "steps": 6,
    "batch": 2,
    "length": 32,
    "rank": 2,
    "alpha": 8.0,
    "sites": ("attn.q", "mlp.down"),
    "learning_rate": 3e-3,
    "dropout": 0.1,
}


@pytest.fixture(scope="package", autouse=True)
def quick_compilation(tmp_path_factory):
    """Runs of one program compile it once, and with little effort: most of the time would go there."""
    options = {
        "jax_disable_most_optimizations": True,
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def small():
    """The settings of a tiny run."""
    return SMALL


@pytest.fixture(scope="session")
def train(word_model, word_tasks):
    """train(groups=None, ..., **settings): a library of experts of the tiny model on the word tasks."""

    def run(groups=None, model=word_model, tasks=word_tasks, **settings):
        return train_library(model, tasks, groups, progress=False, **(SMALL | settings))

    return run


@pytest.fixture(scope="session")
def together(train):
    """One expert for each of the four tasks, trained in lockstep."""
    return train()
