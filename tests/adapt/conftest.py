"""A small library of the tiny word model, and new tasks of three examples."""

import pytest

from modjax.adapt import few
from modjax.train import fit


@pytest.fixture(scope="package")
def library(word_model, random_library):
    """Three loud experts of rank 2, each of a scale of its own."""
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "mlp.down")}
    return random_library(sites, names=["a", "b", "c"], scale=[2.0, 0.5, 1.0])


@pytest.fixture(scope="package")
def new_tasks(word_tasks):
    """Two tasks of three examples to learn from and six for validation."""
    return few(word_tasks.select(["copy", "sort"]), examples=3)


class Killed(Exception):
    """Raised in place of a signal that ends the process."""


@pytest.fixture
def killed_before(monkeypatch):
    """killed_before(step, run): the run fails before that step, of all its steps."""

    def kill(step, run):
        batches = fit._Run._batches

        def cut_short(self, state):
            for index, batch in enumerate(batches(self, state), int(state.step) + 1):
                if index == step:
                    raise Killed
                yield batch

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(fit._Run, "_batches", cut_short)
            run()

    return kill
