"""What a method costs: bytes that can be counted by hand, and times that are times."""

import jax
import pytest

from modjax.eval import Method
from modjax.eval.cost import measure
from modjax.routing import arrow, oracle, pooled

SETTINGS = {"examples": 3, "length": 32, "batch": 4}


def test_bytes_of_experts_and_router(model, library, tasks):
    """Two layers, three experts: A and B of rank 2 at two sites, three scales, one prototype an input width."""
    cost = measure(model, Method("arrow", library, arrow(library)), tasks, **SETTINGS)
    assert cost.experts == 4 * (2 * 3 * 2 * (16 + 16 + 24 + 16) + 3 + 2 * 3 * (16 + 24))
    assert measure(model, Method("base"), tasks, **SETTINGS).experts == 0


@pytest.mark.parametrize("make", [arrow, oracle, pooled])
def test_times_and_memory_of_the_compiled_program(model, library, tasks, make):
    cost = measure(model, Method("m", library, make(library)), tasks, **SETTINGS)
    assert 0 < cost.token < 1 and cost.compile > 0
    assert cost.temporary > 0
    assert cost.peak is None or jax.default_backend() != "cpu"
