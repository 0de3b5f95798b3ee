"""Tiny training runs."""

import pytest

from modjax.train.lora import train_library

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
