"""Useful tokens per second when training a library of LoRA experts, one expert per task, on equal examples.

    python benchmarks/library_training.py --tasks=FOLDER --out=benchmarks/results/NAME.json

modjax trains all experts in lockstep on rows of prefix trees. peft trains one expert after another on padded batches
of 16 examples, as is usual: each batch as long as its longest example, labels -100 on prompts, the loss of
transformers, AdamW with clipping. Both train rank 4, alpha 16, on q, k, v, o, over the same float32 base.

The examples are the same: each expert has as many as fill --rows rows of --length tokens, once on both sides. Useful
tokens are the tokens of the examples, prompts and targets, each example counted whole: neither padding nor sharing
counts. `ratio` is of these rates; tasks whose examples share more have more of them. `ratio_of_equal_numbers` gives
every task the same number of examples instead, from the same times. Before training both sides must report the same
mean loss. Peak memory is that of training all experts here and of one expert in peft, each in a process of its own.
"""

import bisect
import functools
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import peer
import torch

import modjax
from modjax.data import loader
from modjax.data.rows import Rows, pack
from modjax.data.tokenize import Encoded, encode
from modjax.models import gguf, gguf_tokenizer
from modjax.models.decoder import Decoder
from modjax.train import memory
from modjax.train.lora import LoRATraining
from modjax.train.optim import Lengths
from modjax.train.programs import programs
from modjax.train.settings import Settings
from modjax.train.step import member_keys

PACKAGES = ("flax", "optax", "torch", "transformers", "peft", "numpy")
BATCH = 16  # examples per padded batch


def examples_by_task(args, words) -> dict[str, list[Encoded]]:
    """For each of the first tasks, as many training examples as fill the rows of its expert."""
    found = {}
    for task in list(modjax.data.load(args.tasks).training.values())[: args.experts]:
        examples = encode(words, task, task.split("train"), args.length, too_long="truncate")
        found[task.name] = filling(examples, args.rows, args.length)
    return found


def filling(examples: list[Encoded], rows: int, length: int) -> list[Encoded]:
    """The most examples from the start that fit in the rows."""
    numbers = range(1, len(examples) + 1)
    return examples[: bisect.bisect_right(numbers, rows, key=lambda n: pack(examples[:n], length).n_rows)]


class Modjax:
    """All experts in lockstep: each step trains --batch rows of every expert."""

    def __init__(self, decoder: Decoder, examples: Mapping[str, list[Encoded]], settings: Settings):
        rows = {name: pack(own, settings.length) for name, own in examples.items()}
        self.batches: list[Rows] = list(loader.padded(rows, settings.batch))
        self.decoder, self.recipe = decoder, LoRATraining(decoder.config, settings, len(examples))
        given, frozen = self.recipe.given, self.recipe.frozen
        start = functools.partial(self.recipe.start, n_members=len(examples))
        trained = jax.eval_shape(start, jax.random.key(0), given)
        self.settings = memory.settled(
            settings, None, lambda: memory.choice(decoder, self.recipe, trained, frozen, self.batches[0], settings)
        )
        keys_E = member_keys(tuple(examples), settings.seed)
        self.given = keys_E, Lengths.of(settings, [settings.steps] * len(examples))
        self.programs = programs(self.recipe, self.settings, given, keys_E, mesh=None)

    def loss(self) -> float:
        """Mean loss per target token of all examples, before training."""
        trained = self.programs.fresh(self.recipe.given).trained
        sums = [self.programs.loss_sums(self.decoder, trained, self.recipe.frozen, batch) for batch in self.batches]
        total, count = (float(sum(part.sum() for part in parts)) for parts in zip(*sums, strict=True))
        return total / count

    def __call__(self):
        """Trains every expert on its examples; returns their factors."""
        state = self.programs.fresh(self.recipe.given)
        for batch in self.batches:
            state, _ = self.programs.step(self.decoder, state, jax.device_put(batch), *self.given, self.recipe.frozen)
        return jax.block_until_ready(state.trained)


class Peft:
    """One expert after another, in padded batches."""

    def __init__(self, base, examples: Mapping[str, list[Encoded]], settings: Settings):

        self.examples, self.settings = examples, settings
        self.model = peer.with_experts(base, settings, list(examples))
        self.seconds = {name: [] for name in examples}

    def loss(self) -> float:

        batches = [batch for own in self.examples.values() for batch in self.batches(own)]
        with torch.no_grad():
            means = [self.model(**batch).loss.item() for batch in batches]
        return float(np.average(means, weights=[int((batch["labels"] >= 0).sum()) for batch in batches]))

    def __call__(self):
        for name, own in self.examples.items():
            self.seconds[name].append(measuring.timed(lambda name=name, own=own: self.train(name, own))[0])

    def train(self, name: str, examples: list[Encoded]):
        """Trains one expert on its examples."""

        self.model.set_adapter(name)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay)
        for batch in self.batches(examples):
            self.model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, self.settings.clip)
            optimizer.step()
            optimizer.zero_grad()
        peer.wait()

    def batches(self, examples: list[Encoded]):
        return ({name: array.to(self.model.device) for name, array in one.items()} for one in padded_batches(examples))


def padded_batches(examples: list[Encoded]):
    """Batches of 16 examples in random order, padded on the right to the longest in each."""

    order = np.random.default_rng(0).permutation(len(examples))
    for start in range(0, len(order), BATCH):
        own = [examples[i] for i in order[start : start + BATCH]]
        shape = len(own), max(len(example.tokens) for example in own)
        tokens, mask, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -100)
        for row, example in enumerate(own):
            n = len(example.tokens)
            tokens[row, :n], mask[row, :n] = example.tokens, 1
            labels[row, example.n_prompt : n] = example.tokens[example.n_prompt :]
        arrays = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
        yield {name: torch.as_tensor(array) for name, array in arrays.items()}


def compared(sides: Mapping, examples: Mapping[str, list[Encoded]], repeats: int) -> dict:
    """Rates of both sides in useful tokens, and their ratios."""
    sides["modjax"]()  # compiles
    seconds = measuring.in_turn(sides, repeats)
    tokens = {name: sum(len(example.tokens) for example in own) for name, own in examples.items()}
    numbers = {name: len(own) for name, own in examples.items()}
    # Seconds for one example of each task: rows of all experts take equally long.
    ours = sum(statistics.median(seconds["modjax"]) / len(examples) / number for number in numbers.values())
    theirs = sum(statistics.median(own) / numbers[name] for name, own in sides["peft"].seconds.items())
    return {
        "examples": numbers,
        "micro": sides["modjax"].settings.micro,
        "useful_tokens": tokens,
        "row_tokens": int(sum((batch.ends > 0).sum() for batch in sides["modjax"].batches)),
        "padded_tokens": sum(batch["input_ids"].numel() for own in examples.values() for batch in padded_batches(own)),
        **measuring.rates(seconds, sum(tokens.values())),
        "ratio": measuring.ratio(seconds, "modjax", over="peft"),
        "ratio_of_equal_numbers": theirs / ours,
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--tasks", default="open48", help="a task folder, or the name of a collection")
    parser.add_argument("--experts", type=int, default=16, help="E, the first training tasks")
    parser.add_argument("--rows", type=int, default=1, help="rows per expert")
    parser.add_argument("--batch", type=int, default=1, help="B, rows per expert and step")
    parser.add_argument("--length", type=int, default=1024, help="T, tokens per row")
    parser.add_argument(
        "--micro", type=int, default=0, help="rows whose activations modjax holds at a time; 0: by the memory"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="skip the two memory runs")
    parser.add_argument(
        "--memory-of", choices=("modjax", "peft"), help="only print the peak memory of this side in MiB"
    )
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.length = min(args.experts, 3), min(args.length, 256)
    return args


def sides(path: pathlib.Path) -> dict:
    """{side: a function of examples and settings that loads the model and gives its side}."""

    return {
        "modjax": lambda *given: Modjax(modjax.load(path, dtype=jnp.float32).params, *given),
        "peft": lambda *given: Peft(peer.base(path), *given),
    }


def main():
    args = arguments()
    # Child processes run first, while this process is small and idle.
    peaks = {}
    if args.memory and not args.memory_of:
        peaks = {side: measuring.of_child(f"--memory-of={side}") for side in ("modjax", "peft")}
    settings = Settings(
        steps=args.rows // args.batch, batch=args.batch, length=args.length, micro=args.micro, dropout=0.0
    )
    words = gguf_tokenizer.read(gguf.embedded())
    examples = examples_by_task(args, words)
    with tempfile.TemporaryDirectory() as folder:
        builds = sides(peer.path(args, folder))
        if args.memory_of:
            own = examples if args.memory_of == "modjax" else dict([next(iter(examples.items()))])
            return print(json.dumps(measuring.peak_memory(lambda: builds[args.memory_of](own, settings))))
        built = {side: build(examples, settings) for side, build in builds.items()}
        found = {"loss_before": {side: run.loss() for side, run in built.items()}}
        found |= compared(built, examples, args.repeats)
    sizes = {key: getattr(args, key) for key in ("experts", "rows", "batch", "length", "small")}
    measuring.report(sizes | found | {"peak_memory_mib": peaks}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
