"""A training step compiled for TPUs, without a TPU: memory of each chip, and cycles by part.

    pip install -e '.[plan]'  # the version of libtpu that jax 0.10.2 works with
    python benchmarks/tpu_program.py --out=benchmarks/results/NAME.json

The step is that of `modjax.train_library`: experts of rank 4 at q, k, v and the output of attention, over a base in
bfloat16, from shapes alone. Nothing runs, so no time is measured: cycles are the compiler's estimates, and time spent
on waiting for memory or other chips is not in them; see modjax/parallel/program.py. Each row is one path, the case in
which attention has most to do: in a forest, tokens read less.

Parts, by the source file that an instruction comes from:

    attention   scores, softmax, weighted sum, and their gradients
    base        products with the frozen weights of blocks
    adapters    products with the experts' A and B
    rest        norms, rotary embedding, activation, embedding, head, loss, optimiser
"""

import argparse
import pathlib

import measuring

from modjax.models import local
from modjax.ops.attention_tpu import BLOCK
from modjax.parallel import aot
from modjax.parallel.mesh import make_mesh
from modjax.parallel.program import Program
from modjax.train.job import Job
from modjax.train.settings import Settings

PARTS = {
    "attention": ("ops/attention",),
    "base": ("models/layers.py",),
    "adapters": ("ops/lora.py", "train/lora.py"),
}
TARGETS = 512  # target tokens of a row


def part_of(path: str) -> str:
    """The part of a source file of modjax."""
    return next((part for part, starts in PARTS.items() if path.startswith(starts)), "rest")


def job(args, devices) -> Job:
    """The job of these sizes on these devices."""
    settings = Settings(batch=args.rows, length=args.length, remat=args.remat, micro=args.micro)
    mesh = make_mesh(*args.mesh, devices=devices)
    return Job(local.config(args.model), settings, args.experts, TARGETS, mesh)


def described(step: aot.Compiled, length: int) -> dict:
    """Memory, cycles and shares of the step."""
    blocks = -(-length // BLOCK)
    cycles = Program(step.text).cycles(part_of, {name: one.of_path(blocks) for name, one in step.kernels.items()})
    return {
        "gib_of_arguments": step.memory.argument_size_in_bytes / 2**30,
        "gib_of_temporaries": step.memory.temp_size_in_bytes / 2**30,
        "cycles": dict(cycles),
        "shares": {part: own / cycles.total() for part, own in cycles.items()},
        "kernels": {name: one._asdict() for name, one in step.kernels.items()},
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=local.KNOWN, default="phi-2")
    parser.add_argument("--topology", default="v5e:16x16", help="chips, by the name that libtpu has for them")
    parser.add_argument("--mesh", type=int, nargs=3, default=(32, 8, 1), help="sizes of expert, fsdp and tensor")
    parser.add_argument("--experts", type=int, default=256, help="E")
    parser.add_argument("--rows", type=int, default=8, help="rows of an expert in a step")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--micro", type=int, default=0, help="as in Settings, but 0 stands for all rows at a time")
    parser.add_argument("--remat", action=argparse.BooleanOptionalAction, default=True, help="as in Settings")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the result, which is also printed")
    args = parser.parse_args(argv)
    if args.length <= BLOCK:
        parser.error(f"--length={args.length}: expected more than {BLOCK}, so that attention has blocks to go through")
    return args


def main():
    args = arguments()
    target = aot.topology(args.topology)
    found = described(aot.compiled(job(args, target.devices).traced(), target), args.length)
    sizes = {key: value for key, value in vars(args).items() if key != "out"}
    measuring.report(sizes | found, ("libtpu",), args.out)


if __name__ == "__main__":
    main()
