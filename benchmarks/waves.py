"""What waves cost: more experts than slots, against all experts at once, on equal rows.

    python benchmarks/waves.py --experts=256 --slots=16 --steps=4 --out=benchmarks/results/NAME.json

Both train the same experts over the embedded SmolLM2-135M in float32, one row of 64 tokens per expert and step; the
tasks of open48 are taken in turn. Seconds are those of whole runs, without reading data and with compiled programs from
the cache. The seconds between the end of one wave and the start of the next, in which results go to the host and new
experts into the slots, are counted apart: they do not depend on the number of steps. One more step per wave measures
the last update.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import peer

import modjax
from modjax.data.tasks import Tasks
from modjax.models import gguf, gguf_tokenizer
from modjax.train.lora import lora_recipe
from modjax.train.run import Run
from modjax.train.settings import Settings

PACKAGES = ("flax", "optax", "numpy")


class TimedRun(Run):
    """A run that notes the seconds between its waves."""

    def __init__(self, *given):
        super().__init__(*given)
        self.between: list[float] = []

    def _leave(self, slots):
        jax.block_until_ready(self.state)
        start = time.perf_counter()
        super()._leave(slots)
        jax.block_until_ready(self.state)
        self.between.append(time.perf_counter() - start)


def groups(tasks: Tasks, experts: int) -> dict[str, tuple[str, ...]]:
    """{expert: its one task}."""
    names = list(tasks)
    return {f"expert {number}": (names[number % len(names)],) for number in range(experts)}


def trained(model: modjax.Model, tasks: Tasks, own: Mapping[str, tuple[str, ...]], settings: Settings) -> TimedRun:
    """A run that is ready to train."""
    recipe = lora_recipe(model.config, settings, len(own))
    return TimedRun(model, tasks, own, recipe, settings, None)


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=1)
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.slots, args.steps = 5, 2, 2
    return args


def compared(model: modjax.Model, tasks: Tasks, args) -> dict:
    """Seconds of both runs, and the largest difference of an expert's arrays."""
    sizes = {"batch": 1, "length": args.length, "steps": args.steps, "too_long": "truncate", "dropout": 0.0}
    own, found, seconds = groups(tasks, args.experts), {}, {"waves": [], "at_once": []}
    slots = {"waves": args.slots, "at_once": 0}
    between = []
    for repeat in range(args.repeats + 1):
        for side in slots:
            run = trained(model, tasks, own, Settings(slots=slots[side], **sizes))
            took, found[side] = measuring.timed(lambda run=run: run.train(progress=False))
            if repeat:  # the first ones compile
                seconds[side].append(took)
                between += run.between[:-1] if side == "waves" else []
    differences = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()),
        [found["waves"][expert].trained for expert in range(args.experts)],
        [found["at_once"][expert].trained for expert in range(args.experts)],
    )
    waves, at_once = (statistics.median(seconds[side]) for side in ("waves", "at_once"))
    return {
        "seconds": {"waves": waves, "at_once": at_once},
        "ratio": waves / at_once,
        "seconds_between_two_waves": statistics.median(between),
        "largest_difference": max(jax.tree.leaves(differences)),
    }


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        model = modjax.load(peer.path(args, folder), dtype=jnp.float32)
    model = dataclasses.replace(model, tokenizer=gguf_tokenizer.read(gguf.embedded()))  # a tiny model has none
    found = compared(model, modjax.data.load("open48").training, args)
    sizes = {key: getattr(args, key) for key in ("experts", "slots", "steps", "length", "small")}
    measuring.report(sizes | found, PACKAGES, args.out)


if __name__ == "__main__":
    main()
