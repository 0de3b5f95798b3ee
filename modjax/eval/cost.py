"""What a method costs: time and memory of the program that reads tokens with it."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from modjax.data.tasks import Tasks
from modjax.eval.evaluate import Chosen, Method, prepared, told
from modjax.eval.likelihood import batches, losses, prompts_of
from modjax.model import Model

PASSES = 3


@dataclasses.dataclass(frozen=True)
class Cost:
    """One method on one batch of examples.

    Attributes:
      experts: bytes of the library's and the router's arrays, beside the base model.
      temporary: bytes that the compiled program needs beside its arguments and results; None where the compiler
        does not say.
      peak: the most bytes in use on the first device since the process began, whichever method needed them; None on
        devices that do not count, as CPUs.
      compile: seconds to trace and compile the program, or to find it in JAX's compilation cache.
      token: seconds for each token of prompts and targets that the compiled program reads: the least of three passes
        over one batch, padding and what a router of prompts reads before included.
    """

    experts: int
    temporary: int | None
    peak: int | None
    compile: float
    token: float


def measure(model: Model, method: Method, tasks: Tasks, batch: int = 32, **chosen) -> Cost:
    """Runs the loss of one batch, the longest examples of the sample, until its time is known.

    Args:
      batch: rows side by side.
      chosen: which examples, as in `evaluate`: examples, split, seed, length, system, too_long.
    """
    sample = longest(list(prepared(model, method, tasks, **chosen)), batch)
    ((_, own, context, rows),) = batches([one.encoded for one in sample], told(method, sample), batch)
    bound = model.bind(method.library, method.router)
    arguments = (model.params, bound, context, prompts_of(own, rows), rows)
    start = time.perf_counter()
    program = _program.lower(*arguments).compile()
    compiled = time.perf_counter() - start
    memory = program.memory_analysis()
    seconds = min(_seconds(program, arguments) for _ in range(PASSES))
    return Cost(
        experts=sum(leaf.nbytes for leaf in jax.tree.leaves(bound)),
        temporary=None if memory is None else memory.temp_size_in_bytes,
        peak=(jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        compile=compiled,
        token=seconds / int(np.sum(rows.segments > 0)),
    )


def longest(sample: Sequence[Chosen], batch: int) -> list[Chosen]:
    """So many of the longest examples; of fewer some stand again, for an empty row would cost and not count."""
    ordered = sorted(sample, key=lambda one: len(one.encoded.tokens), reverse=True)
    return [ordered[i % len(ordered)] for i in range(batch)]


_program = jax.jit(losses)


def _seconds(program, arguments):
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start
