"""Seconds of the prototypes of a whole library: exact ones in modjax, power iterations in peft.

    python benchmarks/prototypes.py --out=benchmarks/results/NAME.json

256 random experts of rank 4 on four sites of width 2560 in 32 layers, the size of the paper's library for Phi-2. modjax
computes the first right singular vector of every update, by `modjax.routing.prototypes.prototypes_of`; peft estimates
each by 15 power iterations, with the code of its Arrow layer. Sites take turns, so that only one of them is in memory,
and the sides alternate; the seconds of all sites are added up. `cosine` tells how well they agree, as the smallest and
the mean |cos| of two prototypes; where the first two singular values are close, peft's iterations have not converged.
"""

import jax
import measuring
import numpy as np
import torch
from peft import ArrowConfig
from peft.tuners.lora.arrow import ArrowLoraLinearLayer

import modjax
from modjax.routing.prototypes import prototypes_of

PACKAGES = ("torch", "peft", "numpy")


def library_of(args, site: int) -> modjax.Library:
    """Random experts on one site."""
    rng = np.random.default_rng(site)
    shape = (args.layers, args.experts, args.rank, args.width)
    return modjax.Library.from_arrays({"attn.q": tuple(rng.standard_normal(shape, np.float32) for _ in range(2))})


def in_modjax(library: modjax.Library) -> np.ndarray:
    """float32[L,E,I]."""
    return np.asarray(prototypes_of(library)["attn.q"])


def in_peft(library: modjax.Library) -> np.ndarray:
    """float32[L,E,I], expert by expert and layer by layer."""
    a_LERI, b_LERO = (torch.from_numpy(np.array(factor)) for factor in library.loras["attn.q"][:2])
    config = ArrowConfig(top_k=1, rng_seed=0)
    config.task_adapter_names, config.gks_adapter_names = [], []
    layer = ArrowLoraLinearLayer(a_LERI.shape[-1], config)
    found = [
        [layer.top_right_singular_vec_from_BA(a_RI, b_RO.T) for a_RI, b_RO in zip(*own, strict=True)]
        for own in zip(a_LERI, b_LERO, strict=True)
    ]
    return torch.stack([torch.stack(own) for own in found]).numpy()


SIDES = {"modjax": in_modjax, "peft": in_peft}


def compare(args) -> dict:
    """Seconds of both sides, and how well their prototypes agree."""
    seconds, cosines = {side: [] for side in SIDES}, []
    for site in range(args.sites):
        library = library_of(args, site)
        jax.block_until_ready(library.loras)
        if site == 0:
            first = measuring.timed(lambda library=library: in_modjax(library))[0]
        found = {}
        for side, run in SIDES.items():
            taken, found[side] = measuring.timed(lambda run=run, library=library: run(library))
            seconds[side].append(taken)
        cosines.append(np.abs(np.einsum("lei,lei->le", *found.values())))
    return {
        "seconds": {side: sum(own) for side, own in seconds.items()},
        "seconds_per_site": seconds,
        "seconds_first_with_compilation": first,
        "ratio": sum(seconds["peft"]) / sum(seconds["modjax"]),
        "cosine": {"smallest": float(np.min(cosines)), "mean": float(np.mean(cosines))},
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--experts", type=int, default=256, help="E")
    parser.add_argument("--layers", type=int, default=32, help="L")
    parser.add_argument("--sites", type=int, default=4, help="sites per layer")
    parser.add_argument("--width", type=int, default=2560, help="input and output width of a site")
    parser.add_argument("--rank", type=int, default=4, help="R")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.layers, args.sites, args.width = 3, 2, 2, 32
    return args


def main():
    args = arguments()
    torch.set_num_threads(measuring.cores())
    sizes = {key: getattr(args, key) for key in ("experts", "layers", "sites", "width", "rank", "small")}
    measuring.report(sizes | compare(args), PACKAGES, args.out)


if __name__ == "__main__":
    main()
