"""The whole table of docs/performance.md on one accelerator, in one process of at most eight minutes.

    python benchmarks/accelerator.py --out=benchmarks/results/accelerator_NAME.json
    python benchmarks/accelerator.py --small        # every part at tiny size, on any machine

Two models with the sizes of SmolLM2-135M and Phi-2 and random weights in bfloat16, in modjax and beside it in
transformers and peft; nothing is downloaded. First the parts of correctness, then those of speed. Each part has a
budget of seconds, and the process one of its own; a part that fails or runs out of time is recorded with its error and
what it had found, and the next one goes on. The JSON is written after every part.
"""

import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

# Both frameworks share the device: JAX takes memory as it needs it, up to a share.
os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.6"}
if "--small" in sys.argv:
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # small sizes spend their time on compiling

import accelerator_checks as checks  # noqa: E402
import accelerator_speed as speed  # noqa: E402
import measuring  # noqa: E402
from accelerator_sizes import FULL, SMALL, Sizes  # noqa: E402

PACKAGES = ("flax", "optax", "torch", "transformers", "peft", "numpy")
Part = Callable[[Sizes], Iterator[tuple[str, Any]]]  # yields (name, figures) as it finds them
PARTS: dict[str, tuple[int, Part]] = {  # seconds at most, function
    "bfloat16_logits": (60, checks.bfloat16_logits),
    "attention_plans": (60, checks.attention_plans),
    "mixture_plans": (60, checks.mixture_plans),
    "lockstep": (60, checks.lockstep),
    "cached": (60, checks.cached),
    "ceilings": (10, speed.ceilings),
    "library_smollm2": (60, functools.partial(speed.library, name="smollm2")),
    "library_phi2": (80, functools.partial(speed.library, name="phi2")),
    "arrow": (60, speed.arrow),
    "decoding": (70, speed.decoding),
    "prefilling": (30, speed.prefilling),
    "choosing": (30, speed.choosing),
    "clustering": (20, speed.clustering),
}


def measured(part: Part, sizes: Sizes, seconds: float) -> dict:
    """What a part found within its time; its error, if it ended with one, is under "error"."""

    def out_of_time(*_):
        raise TimeoutError(f"more than {seconds:.0f} seconds")

    found, start = {}, time.perf_counter()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        for name, value in part(sizes):
            found[name] = value
    except Exception as error:  # noqa: BLE001, recorded: the next part goes on
        found["error"] = f"{type(error).__name__}: {error}"[:1000]
        found["where"] = traceback.format_exc().splitlines()[-8:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    speed.free()
    return found | {"part_seconds": time.perf_counter() - start}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=470, help="of all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="run only these")
    return parser.parse_args(argv)


def main():
    args = arguments()
    sizes, end, found = (SMALL if args.small else FULL), time.perf_counter() + args.seconds, {}
    for name in args.parts:
        seconds, part = PARTS[name]
        if args.small:
            seconds = args.seconds  # a machine that proves the parts may be slow
        left = end - time.perf_counter()
        found[name] = measured(part, sizes, min(seconds, left)) if left > 1 else {"error": "no time left"}
        measuring.report({"small": args.small, "parts": found}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
