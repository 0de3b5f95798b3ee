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

import jax.numpy as jnp
import measuring
import numpy as np
import ours
import peer

import modjax

PACKAGES = ("flax", "torch", "transformers", "peft", "numpy")
PROMPT = 32  # tokens of each prompt that is answered


def prefill(base, their_base, batches: list[int], length: int, repeats: int, vocabulary: int = ours.VOCABULARY) -> dict:
    """{batch: tokens per second of both sides and their ratio}."""
    found = {}
    for batch in batches:
        tokens_BT = ours.random_tokens(batch, length, vocabulary)
        runs = {
            "modjax": lambda tokens_BT=tokens_BT: base.prefill(tokens_BT),
            "transformers": lambda tokens_BT=tokens_BT: their_base.prefill(tokens_BT),
        }
        logits = [run() for run in runs.values()]
        seconds = measuring.in_turn(runs, repeats)
        found[batch] = measuring.rates(seconds, tokens_BT.size) | {
            "ratio": measuring.ratio(seconds, "modjax", over="transformers"),
            "largest_difference_of_logits": difference(*logits),
        }
    return found


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number that is expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def decode(sides: dict, batches: list[int], new: int, repeats: int, vocabulary: int = ours.VOCABULARY) -> dict:
    """{batch: new tokens per second of every side and the ratios of the table}."""
    found = {}
    routed = [name for name in sides if name.startswith("modjax arrow")]
    beside = {name: name.replace("modjax", "peft") for name in routed if name.replace("modjax", "peft") in sides}
    for batch in batches:
        tokens_BT = ours.random_tokens(batch, PROMPT, vocabulary)
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


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--length", type=int, default=1024, help="tokens of each prompt that is read")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--experts", type=int, default=10, help="E, experts that Arrow routes between")
    parser.add_argument("--prefill", type=int, nargs="*", default=[1, 4], help="numbers of prompts read at once")
    parser.add_argument("--decode", type=int, nargs="*", default=[1, 8], help="numbers of answers at once")
    args = parser.parse_args(argv)
    if args.small:
        args.length, args.new, args.prefill, args.decode = 64, 8, [2], [2]
    return args


def main():

    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        path, adapters = peer.path(args, folder), pathlib.Path(folder) / "library"
        model = modjax.load(path, dtype=jnp.float32)
        library = ours.random_library(model.config, args.experts)
        library.save(adapters)
        base, their_base = ours.Side(model), peer.Side(peer.base(path))
        sides = {
            "modjax": base.decode,
            "transformers dynamic": their_base.decode,
            "transformers static": functools.partial(their_base.decode, cache="static"),
            f"modjax arrow {args.experts}": ours.Side(model, library).decode,
            f"peft arrow {args.experts}": peer.Side(peer.with_arrow(peer.base(path), adapters, ours.TOP_K)).decode,
        }
        found = {
            "prefill": prefill(base, their_base, args.prefill, args.length, args.repeats),
            "decode": decode(sides, args.decode, args.new, args.repeats),
        }
    sizes = {key: getattr(args, key) for key in ("length", "new", "experts", "small")}
    measuring.report(sizes | found, PACKAGES, args.out)


if __name__ == "__main__":
    main()
