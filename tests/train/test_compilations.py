"""Programs are compiled once: not again in later steps, and not again in a run of equal shapes."""

import contextlib

import jax
import pytest

from modjax import compile_cache
from modjax.train import run

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


@pytest.fixture
def at_step(monkeypatch):
    """at_step(events, counts): from here on the number of events before each step goes to the counts."""

    def watch(events, counts):
        step = run.Run._step

        def watched(self, batch):
            counts.append(len(events))
            return step(self, batch)

        monkeypatch.setattr(run.Run, "_step", watched)

    return watch


def test_later_steps_compile_nothing(train, events, at_step, tmp_path):
    """Once it has validated and saved, a run compiles nothing more."""
    with events(COMPILED) as compilations:
        at_step(compilations, counts := [])
        train({"copy": ("copy",)}, evaluate_every=2, patience=3, workdir=tmp_path, save_every=2)
    assert 0 < counts[1] < counts[2] == counts[3] == counts[5]


def test_the_second_expert_of_a_slot_compiles_nothing_in_its_steps(train, events, at_step):
    with events(COMPILED) as compilations:
        at_step(compilations, counts := [])
        train({name: (name,) for name in ("copy", "sort", "count")}, slots=1, steps=2)
    assert len(counts) == 9 and counts[4] == counts[6] == counts[8]


def test_experts_of_other_lengths_compile_nothing(train, events, at_step):
    groups = {"copy": ("copy",), "two": ("copy", "sort"), "three": ("copy", "sort", "count")}
    with events(COMPILED) as compilations:
        at_step(compilations, counts := [])
        train(groups, slots=1, epochs=0.5)
    assert len(counts) == 3 + 4 + 5 and counts[4] == counts[7] == counts[11]


def test_a_run_of_equal_shapes_compiles_nothing(train, events, compiled, monkeypatch):
    monkeypatch.setattr(compile_cache, "LEAST", 0.0)
    compile_cache.keep()
    found = []
    for seed in (0, 1):
        with events(MISSED) as missed:
            train({"copy": ("copy",)}, steps=2, seed=seed)
        found.append(len(missed))
    assert found[0] > 0 == found[1]
