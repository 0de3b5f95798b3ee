"""Seconds of one value of LoraHub's objective: the loss of a weighted sum of experts on a few examples.

    python benchmarks/lorahub.py --out=benchmarks/results/NAME.json

Twenty random experts (rank 4 on q, k, v, o) and five examples of random tokens, which begin alike, as examples of one
instruction do. modjax calls its compiled objective with other weights. peft does the same in two ways: `reload` reads
the adapters' files, sums them and loads the sum into the model, for every value; `kept` sums adapters that stay in
memory, as LoraHub's own code does. The losses of all sides must agree; the penalty is 0.
"""

import functools
import pathlib
import tempfile

import jax.numpy as jnp
import measuring
import numpy as np
import ours
import peer
import peft
import torch
from safetensors.torch import load_file

import modjax
from modjax.adapt.lorahub import _objective
from modjax.data.tokenize import Encoded

PACKAGES = ("torch", "transformers", "peft", "numpy")


def random_examples(count: int, length: int, shared: int) -> list[Encoded]:
    """Examples with the same first tokens, whose last quarter is the target."""
    tokens_BT = ours.random_tokens(count, length)
    tokens_BT[:, :shared] = tokens_BT[0, :shared]
    return [Encoded(tokens_T, length - length // 4) for tokens_T in tokens_BT]


class Peer:
    """A model with one adapter, into which sums of the adapters of a library folder are loaded."""

    def __init__(self, path: pathlib.Path, folder: pathlib.Path, names: tuple[str, ...], examples: list[Encoded]):
        self.files = [folder / name / "adapter_model.safetensors" for name in names]
        self.model = peft.PeftModel.from_pretrained(peer.base(path), str(self.files[0].parent)).eval()
        self.kept = list(map(load_file, self.files))
        self.tokens_BT = torch.from_numpy(np.stack([one.tokens for one in examples])).long()
        self.first = examples[0].n_prompt

    def with_kept(self, weights_E: np.ndarray) -> float:
        return self.loss(self.kept, weights_E)

    def with_reload(self, weights_E: np.ndarray) -> float:
        return self.loss(list(map(load_file, self.files)), weights_E)

    def loss(self, adapters: list[dict], weights_E: np.ndarray) -> float:
        weighted = list(zip(weights_E.tolist(), adapters, strict=True))
        summed = {key: sum(weight * one[key] for weight, one in weighted) for key in adapters[0]}
        peft.set_peft_model_state_dict(self.model, summed)
        with torch.no_grad():
            logits_BTV = self.model(self.tokens_BT, use_cache=False).logits[:, self.first - 1 : -1]
            return torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), self.tokens_BT[:, self.first :].flatten()
            ).item()


def compare(args, path: pathlib.Path, folder: pathlib.Path) -> dict:
    """Seconds of every side, their ratios to modjax, and the losses."""
    model = modjax.load(path, dtype=jnp.float32)
    library = ours.random_library(model.config, args.experts)
    examples = random_examples(args.examples, args.length, args.shared)
    library.save(folder)
    theirs = Peer(path, folder, library.names, examples)
    objectives = {
        "modjax": _objective(model, library, examples, 0.0, args.examples),
        "reload": theirs.with_reload,
        "kept": theirs.with_kept,
    }
    weights_E = np.random.default_rng(0).normal(0, 1, args.experts)
    losses = {side: float(objective(weights_E)) for side, objective in objectives.items()}
    runs = {side: functools.partial(objective, -weights_E) for side, objective in objectives.items()}
    seconds = measuring.in_turn(runs, args.repeats)
    ratios = {side: measuring.ratio(seconds, "modjax", over=side) for side in ("reload", "kept")}
    return {"seconds": seconds, "ratio": ratios, "loss": losses}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--experts", type=int, default=20, help="E")
    parser.add_argument("--examples", type=int, default=5, help="examples of the new task")
    parser.add_argument("--length", type=int, default=128, help="tokens per example")
    parser.add_argument("--shared", type=int, default=64, help="first tokens that all examples have in common")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.length, args.shared = 3, 16, 8
    return args


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(args, peer.path(args, folder), pathlib.Path(folder) / "library")
    sizes = {key: getattr(args, key) for key in ("experts", "examples", "length", "shared", "small")}
    measuring.report(sizes | found, PACKAGES, args.out)


if __name__ == "__main__":
    main()
