"""Time and memory of routing over many experts, relative to the base model: Arrow with the top 4, prefill and decoding.

    python benchmarks/arrow_forward.py --out=benchmarks/results/NAME.json

Two models in float32: SmolLM2-135M, with experts on q, k, v and o, and a random decoder of four layers whose six
linear maps have the width 512, with experts on all of them. For each number of experts and rank: seconds of a forward
pass over one row, temporary memory of the compiled program, and seconds of greedy decoding, each divided by the base
model's. Base and routed model take turns; medians are reported. Experts are random, so tokens choose all of them about
equally often. With --peft, SmolLM2 in transformers, with and without the Arrow of peft, reads the same row for up to 10
experts.
"""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import measuring
import ours

import modjax
from modjax.models import gguf
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

PACKAGES = ("flax", "numpy")
PROMPT = 32  # tokens of each prompt that is answered
WIDE = dict(family="llama", V=512, D=512, N=8, K=8, H=64, F=512, L=4, context=4096, rope_dim=64, gated=False, tied=True)


def wide(sizes: dict) -> modjax.Model:
    """A random model whose six sites have equal input and output width."""
    return modjax.Model("wide", Decoder.init(ModelConfig(**sizes), jax.random.key(0)))


def compared(
    base: ours.Side, routed: ours.Side, tokens: int, length: int, new: int, batches: list[int], repeats: int
) -> dict:
    """Ratios of the routed model to the base; `tokens` is the size of the vocabulary."""
    row_BT = ours.random_tokens(1, length, tokens)
    found = {"forward": against_base({"base": base.prefill, "routed": routed.prefill}, repeats, row_BT)}
    found["temporary_memory"] = routed.temporary_mib(row_BT) / base.temporary_mib(row_BT)
    for batch in batches:
        prompts_BT = ours.random_tokens(batch, PROMPT, tokens)
        seconds = against_base({"base": base.decode, "routed": routed.decode}, repeats, prompts_BT, new)
        found[f"decode_{batch}"] = seconds | {"speed_over_base": 1 / seconds["routed_over_base"]}
    return found


def against_base(sides: dict, repeats: int, *given) -> dict:
    """Seconds of each run of both sides, and the ratio of their medians."""
    runs = {side: functools.partial(run, *given) for side, run in sides.items()}
    for run in runs.values():
        run()
    seconds = measuring.in_turn(runs, repeats)
    return {"seconds": seconds, "routed_over_base": measuring.ratio(seconds, "base", over="routed")}


def of_peft(path: pathlib.Path, library: modjax.Library, length: int, repeats: int) -> dict:
    """Ratio of peft's Arrow to the same model in transformers."""
    import peer

    with tempfile.TemporaryDirectory() as folder:
        library.save(folder)
        sides = {"base": peer.base(path), "routed": peer.with_arrow(peer.base(path), pathlib.Path(folder), ours.TOP_K)}

    runs = {side: peer.Side(model).prefill for side, model in sides.items()}
    return against_base(runs, repeats, ours.random_tokens(1, length))


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--length", type=int, default=1024, help="tokens of the row that is read")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--experts", type=int, nargs="+", default=[10, 40, 256], help="E")
    parser.add_argument("--rank", type=int, nargs="+", default=[4, 16], help="R")
    parser.add_argument("--model", choices=("wide", "smollm2"), nargs="+", default=["wide", "smollm2"])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8], help="answers at once")
    parser.add_argument("--peft", action="store_true", help="measure peft too")
    args = parser.parse_args(argv)
    if args.small:
        args.length, args.new, args.experts, args.rank, args.model = 32, 4, [5], [2], ["wide"]
    return args


def main():
    args = arguments()
    found = {}
    for name in args.model:
        if name == "wide":
            model = wide(WIDE | {"D": 32, "H": 4, "F": 32, "rope_dim": 4} if args.small else WIDE)
            sites = tuple(model.config.sites)
        else:
            model, sites = modjax.load("smollm2-135m", dtype=jnp.float32), ours.SITES
        base = ours.Side(model)
        for rank in args.rank:
            for count in args.experts:
                library = ours.random_library(model.config, count, rank, sites)
                key = f"{name}, {count} experts, rank {rank}"
                sizes = (model.config.V, args.length, args.new, args.batch, args.repeats)
                found[key] = compared(base, ours.Side(model, library), *sizes)
                if args.peft and name == "smollm2" and count <= 10:
                    found[key]["peft"] = of_peft(gguf.embedded(), library, args.length, args.repeats)
    sizes = {key: getattr(args, key) for key in ("length", "new", "small")}
    measuring.report(sizes | found, PACKAGES + (("torch", "transformers", "peft") if args.peft else ()), args.out)


if __name__ == "__main__":
    main()
