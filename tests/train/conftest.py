"""Tiny training runs."""

import numpy as np
import pytest

from modjax.data.tasks import Example, Task, Tasks
from modjax.train.lora import train_library
from tests.kills import killed_before  # noqa: F401

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


@pytest.fixture
def two_tasks():
    """`steady` is validated on what it learns, `noisy` on answers that training makes ever less likely."""

    def examples(split, seed, answers):
        rng = np.random.default_rng(seed)
        words = [[f"w{i}" for i in (*rng.integers(0, 60, 4), rng.integers(*answers))] for _ in range(6)]
        return tuple(Example(" ".join(source), target, split) for *source, target in words)

    low, high = (0, 10), (50, 60)
    steady = examples("train", 0, low) + examples("validation", 0, low)
    noisy = examples("train", 1, low) + examples("validation", 1, high)
    return Tasks([Task("steady", steady), Task("noisy", noisy)])
