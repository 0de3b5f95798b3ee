"""The cost of a method: bytes against a count by hand, and positive times."""

import jax
import numpy as np
import pytest

from modjax.data.tasks import Example, Task, Tasks
from modjax.eval import Method, Sample, cost
from modjax.eval.cost import longest, measure
from modjax.eval.sample import prepared
from modjax.routing import arrow, oracle, pooled

SETTINGS = {"sample": Sample(3, length=32), "batch": 4}


def test_bytes_of_experts_and_router(model, library, tasks):
    """Two layers, three experts: A and B of rank 2 at two sites, a scale each, and one prototype per input width."""
    cost = measure(model, Method("arrow", library, arrow(library)), tasks, **SETTINGS)
    assert cost.experts == 4 * (2 * 3 * 2 * (16 + 16 + 24 + 16) + 2 * 2 * 3 + 2 * 3 * (16 + 24))
    assert measure(model, Method("base"), tasks, **SETTINGS).experts == 0


@pytest.mark.parametrize("make", [arrow, oracle, pooled])
def test_times_and_memory_of_the_compiled_program(model, library, tasks, make):
    cost = measure(model, Method("m", library, make(library)), tasks, **SETTINGS)
    assert 0 < cost.token < 1 and cost.compile > 0
    assert cost.temporary > 0
    assert cost.peak is None or jax.default_backend() != "cpu"


@pytest.mark.parametrize("make", [arrow, oracle])
@pytest.mark.parametrize("examples", [1, 3, 9])
def test_the_whole_batch_is_read_even_with_few_examples(model, library, monkeypatch, make, examples):
    """With a pass of one second, the seconds per token count the tokens: eight in every one of the rows."""
    read = []
    monkeypatch.setattr(cost, "_seconds", lambda program, arguments: read.append(arguments[-1]) or 1.0)
    task = Task("a", tuple(Example("what is red green blue one two", "three", "test") for _ in range(examples)))
    found = measure(model, Method("m", library, make(library)), Tasks([task]), Sample(0, length=32), batch=4)
    assert 1 / found.token == pytest.approx(4 * 8)
    assert all(np.array_equal(np.sum(rows.ends > 0, axis=1), [8, 8, 8, 8]) for rows in read)


@pytest.mark.parametrize("batch", [1, 4, 9, 40])
def test_the_longest_examples_are_read_and_repeated_if_there_are_fewer(model, tasks, batch):
    chosen = prepared(model, tasks, Sample(2, length=32))
    lengths = [len(one.encoded.tokens) for one in longest(chosen, batch)]
    known = sorted((len(one.encoded.tokens) for one in chosen), reverse=True)
    assert len(set(known)) > 1
    assert lengths == [*known * batch][:batch]
