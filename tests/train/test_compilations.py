"""Programs are compiled once: not again in later steps, and not again in a run of equal shapes."""

import contextlib

import jax
import pytest

from modjax import compile_cache
from modjax.train import fit

COMPILED = "/jax/core/compile/backend_compile_duration"
MISSED = "/jax/compilation_cache/cache_misses"


@pytest.fixture
def events():
    """events(name): a context whose value grows with each event of that name."""
    listening = []

    def listen(name, *_, **__):
        for own, found in listening:
            if own == name:
                found.append(name)

    jax.monitoring.register_event_listener(listen)
    jax.monitoring.register_event_duration_secs_listener(listen)

    @contextlib.contextmanager
    def counted(name):
        listening.append((name, []))
        yield listening[-1][1]
        del listening[-1]

    yield counted
    jax.monitoring.unregister_event_listener(listen)
    jax.monitoring.unregister_event_duration_listener(listen)


def test_later_steps_compile_nothing(train, events, monkeypatch, tmp_path):
    """Once it has validated and saved, a run compiles nothing more."""
    at_step, batches = [], fit._Run._batches

    def watched(run, state):
        for batch in batches(run, state):
            at_step.append(len(compilations))
            yield batch

    monkeypatch.setattr(fit._Run, "_batches", watched)
    with events(COMPILED) as compilations:
        train({"copy": ("copy",)}, evaluate_every=2, patience=3, workdir=tmp_path, save_every=2)
    assert 0 < at_step[1] < at_step[2] == at_step[3] == at_step[5]


def test_a_run_of_equal_shapes_compiles_nothing(train, events, compiled, monkeypatch):
    monkeypatch.setattr(compile_cache, "LEAST", 0.0)
    compile_cache.keep()
    found = []
    for seed in (0, 1):
        with events(MISSED) as missed:
            train({"copy": ("copy",)}, steps=2, seed=seed)
        found.append(len(missed))
    assert found[0] > 0 == found[1]
