"""Tokens per second of reading prompts and of greedy decoding: base model, and with ten routed experts.

    python benchmarks/base_speed.py --out=benchmarks/results/NAME.json

The base runs in modjax and in transformers, in float32: one pass over prompts that returns the logits after the last
token (prefill, without a cache on either side), and greedy answers of fixed length to short prompts (decode, prompts
included). transformers decodes with its dynamic and its static cache; the faster one counts. The same answers are then
decoded with Arrow over random experts (rank 4 on q, k, v, o, top 4) in modjax and with the Arrow of peft. Token ids are
random; the base models must choose the same tokens.
"""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import peer
import torch

import modjax
from modjax import generation
from modjax.models.config import ModelConfig
from modjax.routing.base import hook

PACKAGES = ("flax", "torch", "transformers", "peft", "numpy")
VOCABULARY = 49_152
SITES = ("attn.q", "attn.k", "attn.v", "attn.o")
PROMPT = 32  # tokens of each prompt that is answered
TOP_K = 4


def random_library(config: ModelConfig, experts: int, rank: int = 4) -> modjax.Library:
    """Experts with both factors far from zero."""
    rng = np.random.default_rng(0)

    def factor(width):
        return rng.normal(0, 0.02, (config.L, experts, rank, width)).astype(np.float32)

    return modjax.Library.from_arrays(
        {site: tuple(map(factor, config.sites[site])) for site in SITES}, family=config.family
    )


class Numbers:
    """A tokenizer whose text is the ids: they are what is compared."""

    def decode(self, ids, **options) -> str:
        return "".join(f"{one} " for one in ids)

    def convert_ids_to_tokens(self, one: int) -> str:
        return f"{one} "


class Modjax:
    """modjax with a library or without."""

    def __init__(self, model: modjax.Model, library: modjax.Library | None = None):
        self.decoder = model.params
        bound = None if library is None else model.bind(library, modjax.routing.arrow(library, top_k=TOP_K))
        self.generator = generation.Generator(self.decoder, Numbers(), frozenset(), bound)  # no token ends an answer
        self.read = jax.jit(_last_logits)

    def prefill(self, tokens_BT: np.ndarray) -> np.ndarray:
        """The logits after the last token of each row."""
        return np.asarray(self.read(self.decoder, self.generator.bound, tokens_BT))

    def decode(self, tokens_BT: np.ndarray, new: int) -> list[str]:
        """The `new` tokens after each row."""
        answers = [""] * len(tokens_BT)
        request = generation.Request(max_new_tokens=new, batch=len(tokens_BT))
        for piece in generation.pieces(self.generator, list(tokens_BT), None, request):
            answers[piece.prompt] += piece.text
        return answers


def _last_logits(decoder, bound, tokens_BT):
    return decoder.logits(decoder(tokens_BT, **hook(bound))[:, -1])


class Transformers:
    """A model of transformers, or of peft with routed experts."""

    def __init__(self, model):
        self.model = model

    def prefill(self, tokens_BT: np.ndarray) -> np.ndarray:

        with torch.no_grad():
            tokens_BT = torch.as_tensor(tokens_BT, device=self.model.device).long()
            return self.model(tokens_BT, use_cache=False, logits_to_keep=1).logits[:, 0].float().cpu().numpy()

    def decode(self, tokens_BT: np.ndarray, new: int, cache: str | None = None) -> list[str]:

        tokens_BT = torch.as_tensor(tokens_BT, device=self.model.device).long()
        answers = self.model.generate(
            input_ids=tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            cache_implementation=cache,
            pad_token_id=0,
            eos_token_id=None,
        )
        return [Numbers().decode(answer) for answer in answers[:, tokens_BT.shape[1] :].tolist()]


def prefill(base, their_base, batches: list[int], length: int, repeats: int, vocabulary: int = VOCABULARY) -> dict:
    """{batch: tokens per second of both sides and their ratio}."""
    found = {}
    for batch in batches:
        tokens_BT = random_tokens(batch, length, vocabulary)
        runs = {
            "modjax": lambda tokens_BT=tokens_BT: base.prefill(tokens_BT),
            "transformers": lambda tokens_BT=tokens_BT: their_base.prefill(tokens_BT),
        }
        ours, theirs = (run() for run in runs.values())
        seconds = measuring.in_turn(runs, repeats)
        found[batch] = measuring.rates(seconds, tokens_BT.size) | {
            "ratio": measuring.ratio(seconds, "modjax", over="transformers"),
            "largest_difference_of_logits": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        }
    return found


def decode(sides: dict, batches: list[int], new: int, repeats: int, vocabulary: int = VOCABULARY) -> dict:
    """{batch: new tokens per second of every side and the ratios of the table}."""
    found = {}
    routed = [name for name in sides if name.startswith("modjax arrow")]
    beside = {name: name.replace("modjax", "peft") for name in routed if name.replace("modjax", "peft") in sides}
    for batch in batches:
        tokens_BT = random_tokens(batch, PROMPT, vocabulary)
        runs = {name: lambda run=run, tokens_BT=tokens_BT: run(tokens_BT, new) for name, run in sides.items()}
        answers = {name: run() for name, run in runs.items()}
        seconds = measuring.in_turn(runs, repeats)
        fastest = min(
            ("transformers dynamic", "transformers static"), key=lambda name: sorted(seconds[name])[repeats // 2]
        )
        found[batch] = measuring.rates(seconds, batch * new) | {
            "ratio": measuring.ratio(seconds, "modjax", over=fastest),
            "ratio_routed": {name: measuring.ratio(seconds, name, over=beside[name]) for name in beside},
            "routed_over_base": {name: measuring.ratio(seconds, name, over="modjax") for name in routed},
            "same_answers": answers["modjax"] == answers[fastest],
        }
    return found


def random_tokens(batch: int, length: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(batch).integers(100, vocabulary, (batch, length), np.int32)


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--length", type=int, default=1024, help="tokens of each prompt that is read")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--experts", type=int, default=10, help="E, experts that Arrow routes between")
    args = parser.parse_args(argv)
    args.prefill, args.decode = [1, 4], [1, 8]  # rows
    if args.small:
        args.length, args.new, args.prefill, args.decode = 64, 8, [2], [2]
    return args


def main():

    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        path, adapters = peer.path(args, folder), pathlib.Path(folder) / "library"
        model = modjax.load(path, dtype=jnp.float32)
        library = random_library(model.config, args.experts)
        library.save(adapters)
        base, their_base = Modjax(model), Transformers(peer.base(path))
        sides = {
            "modjax": base.decode,
            "transformers dynamic": their_base.decode,
            "transformers static": functools.partial(their_base.decode, cache="static"),
            f"modjax arrow {args.experts}": Modjax(model, library).decode,
            f"peft arrow {args.experts}": Transformers(peer.with_arrow(peer.base(path), adapters, TOP_K)).decode,
        }
        found = {
            "prefill": prefill(base, their_base, args.prefill, args.length, args.repeats),
            "decode": decode(sides, args.decode, args.new, args.repeats),
        }
    sizes = {key: getattr(args, key) for key in ("length", "new", "experts", "small")}
    measuring.report(sizes | found, PACKAGES, args.out)


if __name__ == "__main__":
    main()
