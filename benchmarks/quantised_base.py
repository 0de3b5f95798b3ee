"""Savings and costs of quantising the frozen base: bytes, host memory of loading, speed, and added loss.

    python benchmarks/quantised_base.py --out=benchmarks/results/NAME.json

The model is loaded with full weights, in int8 and in nf4, each in a separate process, whose peak memory is reported.
Then these are measured on the same packed rows of the first open48 tasks: the mean loss of the base model over all
target tokens of validation rows, the speed of that forward pass, and the speed of a lockstep training step with one
LoRA expert per task (rank 4 on q, k, v, o) on training rows. First runs, which compile, are not timed; then the three
bases take turns, and medians are reported. Tokens are counted without padding.
"""

import functools
import json
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np

import modjax
from modjax.data import loader
from modjax.data.rows import Rows, pack
from modjax.data.tasks import Task
from modjax.data.tokenize import encode
from modjax.model import Model
from modjax.ops.losses import target_losses
from modjax.train.lora import LoRATraining
from modjax.train.optim import Lengths
from modjax.train.programs import programs
from modjax.train.settings import Settings
from modjax.train.step import member_keys

PACKAGES = ("flax", "optax", "numpy", "gguf", "safetensors")
BASES = {"full": None, "int8": "int8", "nf4": "nf4"}


class Work(NamedTuple):
    """Data and settings for the measurements of every base."""

    validation: list[Rows]  # [E, B, ...] each
    training: list[Rows]
    settings: Settings


def packed_work(words, tasks: Sequence[Task], rows: int, settings: Settings) -> Work:
    """Work with one expert per task: the first `rows` validation rows of each task, and training rows for all steps."""

    def packed(task, split):
        return pack(encode(words, task, task.split(split), settings.length), settings.length)

    validation = {task.name: Rows(*(field[:rows] for field in packed(task, "validation"))) for task in tasks}
    training = {task.name: packed(task, "train") for task in tasks}
    batches = list(loader.batches(training, settings.batch, settings.steps, settings.seed))
    return Work(list(loader.padded(validation, settings.batch)), batches, settings)


def forward(model: Model, work: Work) -> Callable[[], float]:
    """A function that returns the mean loss over the target tokens of all validation rows, in nats."""

    @jax.jit
    def loss_sum(decoder, rows):
        flat = jax.tree.map(lambda field: field.reshape(-1, field.shape[-1]), rows)  # [E * B, ...]
        hidden_BTD = decoder(flat.tokens, flat.positions, flat.ends)
        losses_BM = target_losses(decoder.logits, hidden_BTD, flat.at, flat.labels, work.settings.loss_chunk)
        return jnp.sum(losses_BM * flat.weights)

    def run():
        sums = [loss_sum(model.params, jax.device_put(rows)) for rows in work.validation]
        return float(sum(sums)) / sum(float(rows.weights.sum()) for rows in work.validation)

    return run


def lockstep(model: Model, work: Work) -> Callable[[], float]:
    """A function that trains new experts for all steps and returns their mean loss at the last one, in nats."""
    experts = len(work.training[0].tokens)
    keys_E = member_keys(tuple(map(str, range(experts))), work.settings.seed)
    recipe = LoRATraining(model.config, work.settings, experts)
    made = programs(recipe, work.settings, recipe.given, keys_E, mesh=None)
    lengths = Lengths.of(work.settings, [work.settings.steps] * experts)

    def run():
        state = made.fresh(recipe.given)
        for batch in work.training:
            state, metrics = made.step(model.params, state, jax.device_put(batch), keys_E, lengths, recipe.frozen)
        return float(metrics.loss_E.mean())

    return run


def measure(models: dict[str, Model], work: Work, repeats: int) -> dict[str, dict]:
    """{base: its measurements}; the bases take turns, `repeats` times after one run that is not timed."""
    rows = {"forward": work.validation, "train": work.training}
    tokens = {kind: sum(int((batch.ends > 0).sum()) for batch in batches) for kind, batches in rows.items()}
    runs = {
        (name, kind): build(model, work)
        for name, model in models.items()
        for kind, build in (("forward", forward), ("train", lockstep))
    }
    losses = {key: run() for key, run in runs.items()}
    speeds = {key: [tokens[key[1]] / one for one in own] for key, own in measuring.in_turn(runs, repeats).items()}
    reference = losses["full", "forward"]
    return {
        name: {
            "fingerprint": model.fingerprint,
            "weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
            "block_weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params.blocks)),
            "mean_target_loss": losses[name, "forward"],
            "loss_difference": losses[name, "forward"] - reference,
            "train_loss_last_step": losses[name, "train"],
            "forward_tokens_per_second": statistics.median(speeds[name, "forward"]),
            "train_tokens_per_second": statistics.median(speeds[name, "train"]),
            "forward_runs": speeds[name, "forward"],
            "train_runs": speeds[name, "train"],
        }
        for name, model in models.items()
    } | {"tokens_per_run": tokens}


def reading_memory(read: Callable[[], Model]) -> dict | None:
    """Peak resident memory of loading beyond that before it, and size of the model, in MiB; None if not on Linux."""
    if not measuring.STATUS.exists():
        return None
    import gguf.quants  # noqa: F401, imported so that its code is resident before the measurement
    import transformers.models.auto  # noqa: F401

    jnp.ones(1).block_until_ready()
    before = measuring.resident("VmRSS")
    model = read()
    leaves = jax.tree.leaves(model.params)
    return {"peak_mib": measuring.resident("VmHWM") - before, "model_mib": sum(leaf.nbytes for leaf in leaves) / 2**20}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="name or path for modjax.load")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of weights that are not quantised"
    )
    parser.add_argument("--experts", type=int, default=4, help="E")
    parser.add_argument("--batch", type=int, default=1, help="B, rows per expert and step")
    parser.add_argument("--length", type=int, default=256, help="T, tokens per row")
    parser.add_argument("--rows", type=int, default=4, help="most validation rows per expert")
    parser.add_argument("--steps", type=int, default=2, help="steps per training run")
    parser.add_argument("--memory-of", choices=BASES, help="only print the memory of loading this base")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.length, args.rows, args.steps = 1, 64, 1, 1
    return args


def main():
    """Runs the benchmark and prints one JSON object."""
    args = arguments()

    def read(name):
        return modjax.load(args.model, dtype=jnp.dtype(args.dtype), quantize=BASES[name])

    if args.memory_of:
        print(json.dumps(reading_memory(functools.partial(read, args.memory_of))))
        return
    memory = {}
    for name in BASES:
        memory[name] = measuring.of_child(f"--memory-of={name}")
    models = {name: read(name) for name in BASES}
    settings = Settings(steps=args.steps, batch=args.batch, length=args.length, dropout=0.0)
    tasks = list(modjax.data.load("open48").training.values())[: args.experts]
    work = packed_work(models["full"].tokenizer, tasks, args.rows, settings)
    sizes = {key: getattr(args, key) for key in ("model", "dtype", "experts", "batch", "length", "rows", "steps")}
    figures = {
        **sizes,
        "target_tokens": int(np.sum([rows.weights.sum() for rows in work.validation])),
        **measure(models, work, args.repeats),
        "reading_memory": memory,
    }
    measuring.report(figures, PACKAGES, args.out)


if __name__ == "__main__":
    main()
