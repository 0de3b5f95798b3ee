"""A training step compiled for TPUs, without a TPU: memory of each chip, and cycles by part.

    pip install libtpu==0.0.42.1  # the version that jax 0.10.2 works with
    python benchmarks/tpu_program.py --out=benchmarks/results/NAME.json

The step is that of `modjax.train_library`: experts of rank 4 at q, k, v and the output of attention, over a base in
bfloat16, from shapes alone. Nothing runs, so no time is measured: cycles are the compiler's estimates, and time spent
on waiting for memory or other chips is not in them; see program_text.py. Each row is one path, the case in which
attention has most to do: in a forest, tokens read less.

Parts, by the source file that an instruction comes from:

    attention   scores, softmax, weighted sum, and their gradients
    base        products with the frozen weights of blocks
    adapters    products with the experts' A and B
    rest        norms, rotary embedding, activation, embedding, head, loss, optimiser
"""

import argparse
import importlib.util
import os
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import measuring
from jax.experimental import topologies
from program_text import Program, kernels

from modjax.data.rows import Rows
from modjax.models import weights
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.attention_tpu import BLOCK
from modjax.parallel import rules
from modjax.parallel.mesh import make_mesh
from modjax.train.lora import LoRATraining
from modjax.train.programs import along_members, programs
from modjax.train.settings import Settings

# libtpu asks no metadata server, and writes the final code of kernels, and nothing else, to a folder.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "LIBTPU_INIT_ARGS": "--xla_jf_dump_to={} --xla_jf_dump_llo_text --xla_jf_dump_llo_pass_label_regex=final_bundles",
}
CONFIGS = {
    "phi-2": ModelConfig(
        "phi", V=51200, D=2560, N=32, K=32, H=80, F=10240, L=32, context=2048, norm="layer", rope_dim=32, gated=False,
        parallel=True, activation="gelu_tanh", qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True,
    ),
    "smollm2-135m": ModelConfig(
        "llama", V=49152, D=576, N=9, K=3, H=64, F=1536, L=30, context=8192, rope_dim=64, gated=True, tied=True
    ),
    "mistral-7b": ModelConfig(
        "mistral", V=32000, D=4096, N=32, K=8, H=128, F=14336, L=32, context=32768, rope_dim=128, gated=True,
        window=4096,
    ),
}  # fmt: skip
PARTS = {
    "attention": ("ops/attention",),
    "base": ("models/layers.py",),
    "adapters": ("ops/lora.py", "train/lora.py"),
}
TARGETS = 512  # target tokens of a row


def part_of(path: str) -> str:
    """The part of a source file of modjax."""
    return next((part for part, starts in PARTS.items() if path.startswith(starts)), "rest")


def traced(args, devices) -> jax.stages.Traced:
    """The training step for these devices, from shapes."""
    config, mesh = CONFIGS[args.model], make_mesh(*args.mesh, devices=devices)
    settings = Settings(batch=args.rows, length=args.length, remat=args.remat, micro=args.micro)
    recipe = LoRATraining(config, settings, args.experts)

    def place(partition):
        return lambda leaf: _like(leaf, rules.sharding(leaf, partition, mesh))

    abstract = jax.eval_shape(lambda: Decoder.init(config, jax.random.key(0), jnp.bfloat16))
    layout = rules.layout(mesh)
    leaves = [_like(leaf, layout(path, leaf)) for path, leaf in weights.leaves(abstract).items()]
    decoder = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
    keys_E = place(rules.EXPERT)(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), args.experts)))
    made = programs(recipe, settings, recipe.given, keys_E, mesh)
    state = jax.eval_shape(made.fresh, recipe.given)
    state = jax.tree.map(_like, state, along_members(state, mesh, recipe))
    batch = jax.tree.map(place(rules.of_members(args.experts)), _batch(args))
    frozen = jax.tree.map(place(rules.LORA), recipe.frozen)
    return made.step.trace(decoder, state, batch, keys_E, frozen)


def _batch(args) -> Rows:
    widths = Rows(args.length, args.length, args.length, TARGETS, TARGETS, TARGETS, 1)
    types = Rows(*[jnp.int32] * len(widths))._replace(weights=jnp.float32)
    return jax.tree.map(lambda width, of: jax.ShapeDtypeStruct((args.experts, args.rows, width), of), widths, types)


def _like(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def described(step: jax.stages.Compiled, folder: pathlib.Path, length: int) -> dict:
    """Memory, cycles and shares of the step; folder: where libtpu has written the code of its kernels."""
    found = kernels(folder)
    blocks = -(-length // BLOCK)
    cycles = Program(step.as_text()).cycles(part_of, {name: one.of_path(blocks) for name, one in found.items()})
    memory = step.memory_analysis()
    return {
        "gib_of_arguments": memory.argument_size_in_bytes / 2**30,
        "gib_of_temporaries": memory.temp_size_in_bytes / 2**30,
        "cycles": dict(cycles),
        "shares": {part: own / cycles.total() for part, own in cycles.items()},
        "kernels": {name: one._asdict() for name, one in found.items()},
    }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CONFIGS, default="phi-2")
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
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("libtpu is not installed; it compiles for TPUs on any machine: pip install libtpu==0.0.42.1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {key: value.format(folder) for key, value in ENVIRONMENT.items()}
        jax.config.update("jax_platforms", "cpu")
        devices = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices
        step = traced(args, list(devices)).lower(lowering_platforms=("tpu",)).compile()
        found = described(step, pathlib.Path(folder), args.length)
    sizes = {key: value for key, value in vars(args).items() if key != "out"}
    measuring.report(sizes | found, ("libtpu",), args.out)


if __name__ == "__main__":
    main()
