"""Cost of a method: time and memory of the program that reads prompts and targets in evaluation."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from modjax import arguments
from modjax.data.tasks import Tasks
from modjax.eval.answers import read
from modjax.eval.method import Method
from modjax.eval.sample import Chosen, Sample, prepared
from modjax.model import Model
from modjax.routing.batches import one_each

PASSES = 3
MOST = 2**16  # rows


@dataclasses.dataclass(frozen=True)
class Cost:
    """One method on one batch of examples.

    Attributes:
      experts: bytes of the arrays of library and router, without the base model.
      temporary: bytes that the compiled program needs in addition to its arguments and results; None where the
        compiler does not report them.
      peak: the most bytes in use on the first device since the process began, by any method; None on devices that do
        not report it, such as CPUs.
      compile: seconds to trace and compile the program, or to load it from JAX's compilation cache.
      token: seconds per token of prompts and targets: the fastest of three passes over one batch, including padding
        and the pass over the prompts that some routers need first.
    """

    experts: int
    temporary: int | None
    peak: int | None
    compile: float
    token: float


def measure(
    model: Model,
    method: Method,
    tasks: Tasks,
    sample: Sample = Sample(),  # noqa: B008, frozen
    batch: int = 32,
) -> Cost:
    """Compiles and times one batch: the longest examples of the tasks that the method covers, one per row.

    Args:
      batch: number of rows in the batch.
    """
    arguments.instance("model", model, Model)
    arguments.instance("method", method, Method)
    batch = arguments.whole("batch", batch, least=1, most=MOST)
    chosen = longest(prepared(model, method.covered(tasks), sample), batch)
    bound = model.bind(method.loaded, method.router)
    examples, choices = [one.encoded for one in chosen], method.choices_of(chosen)
    (own,) = one_each(examples, bound, choices, batch, model.params.row_shards)
    inputs = (model.params, bound, own.context, own.prompts, own.rows)
    start = time.perf_counter()
    program = read.lower(*inputs, room=0).compile()
    compiled = time.perf_counter() - start
    memory = program.memory_analysis()
    seconds = min(_seconds(program, inputs) for _ in range(PASSES))
    return Cost(
        experts=sum(leaf.nbytes for leaf in jax.tree.leaves(bound)),
        temporary=None if memory is None else memory.temp_size_in_bytes,
        peak=(jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        compile=compiled,
        token=seconds / int(np.sum(own.rows.ends > 0)),
    )


def longest(chosen: Sequence[Chosen], batch: int) -> list[Chosen]:
    """The `batch` longest examples; fewer are repeated, because an empty row takes time but holds no tokens."""
    ordered = sorted(chosen, key=lambda one: len(one.encoded.tokens), reverse=True)
    return [ordered[i % len(ordered)] for i in range(batch)]


def _seconds(program, inputs):
    start = time.perf_counter()
    jax.block_until_ready(program(*inputs))
    return time.perf_counter() - start
