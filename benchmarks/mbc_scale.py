"""Time and memory of MBC at the size of the paper's library, against the same steps in NumPy and scikit-learn.

    python benchmarks/mbc_scale.py --out=benchmarks/results/NAME.json

The library has the size of one for Phi-2 with 256 experts of rank 4: q, k and v with one shared A (`attn.qkv`) and the
output projection, in 32 layers; 1,966,080 numbers per expert, 2 GB in all. Its experts are noisy copies of ten
originals, so that there are clusters to find. Each side runs in a separate process, whose peak resident memory is
reported, including the library:

    modjax      modjax.cluster.mbc on the stacked library; a first run, which compiles, and a second one
    homemade    the reference method on X[E, P]: quantiles per expert, TruncatedSVD (randomised, n_iter 5), cosine
                similarity, KMeans with 10 restarts

    exact       not measured: the same steps in float64, with the full eigendecomposition of X X^T

The result has seconds, CPU seconds over all cores, and memory of both sides with their ratios, whether they find the
planted clusters, and the difference of their similarities from the exact ones. Components of the noise are almost
equally large, and truncation keeps only some of them. Similarities differ by which ones are kept, most of all with a
randomised SVD.
"""

import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator

import measuring
import numpy as np

MEASURED = ("modjax", "homemade")
SITES = {"attn.qkv": (1, 3), "attn.o": (1, 1)}  # input and output width, in units of the model width


def planted(args) -> np.ndarray:
    """int[E], the original that each expert is a copy of."""
    return np.random.default_rng(args.seed).integers(0, args.clusters, args.experts)


def layers(args, factor: int, width: int) -> Iterator[np.ndarray]:
    """float32[E,R,W] of each layer: the originals of the experts, with noise of three times their size."""
    labels = planted(args)
    for layer in range(args.layers):
        rng = np.random.default_rng([args.seed, factor, layer])
        originals = rng.standard_normal((args.clusters, args.rank, width), np.float32)
        noise = rng.standard_normal((args.experts, args.rank, width), np.float32)
        yield originals[labels] + 3 * noise


def factors(args) -> list[tuple[str, int]]:
    """(site, width) of every factor, A before B."""
    return [(site, args.width * share) for site, shares in SITES.items() for share in shares]


def stacked(args, factor: int, width: int) -> np.ndarray:
    """One factor of all layers, float32[L,E,R,W]."""
    whole = np.empty((args.layers, args.experts, args.rank, width), np.float32)
    for layer, x_ERW in enumerate(layers(args, factor, width)):
        whole[layer] = x_ERW
    return whole


def flattened(args) -> np.ndarray:
    """X, float32[E, P], one expert per row."""
    x_EP = np.empty((args.experts, args.layers * args.rank * sum(width for _, width in factors(args))), np.float32)
    start = 0
    for factor, (_, width) in enumerate(factors(args)):
        for x_ERW in layers(args, factor, width):
            x_EP[:, start : start + args.rank * width] = x_ERW.reshape(args.experts, -1)
            start += args.rank * width
    return x_EP


def run_modjax(args) -> tuple[dict, np.ndarray, np.ndarray]:
    """Measurements, labels int[E] and similarity float32[E,E] of modjax."""
    import jax

    import modjax

    parts = [jax.device_put(stacked(args, factor, width)) for factor, (_, width) in enumerate(factors(args))]
    pairs = dict(zip(SITES, zip(parts[::2], parts[1::2], strict=True), strict=True))
    library = modjax.Library.from_arrays(pairs)
    jax.block_until_ready(library)
    del parts, pairs
    figures = {"device": jax.devices()[0].device_kind, "library_gib": peak_gib()}
    for kind in ("_first", ""):
        start, cpu = time.perf_counter(), time.process_time()
        found = modjax.cluster.mbc(library, args.clusters, args.sparsity, args.components)
        figures |= {f"seconds{kind}": time.perf_counter() - start, f"cpu_seconds{kind}": time.process_time() - cpu}
    return figures | {"peak_gib": peak_gib()}, found.labels, found.similarity


def run_homemade(args) -> tuple[dict, np.ndarray, np.ndarray]:
    """The same for NumPy and scikit-learn; rows are sparsified in place, so there is only one run."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.metrics.pairwise import cosine_similarity

    x_EP = flattened(args)
    figures = {"library_gib": peak_gib()}
    start, cpu = time.perf_counter(), time.process_time()
    for row_P in x_EP:
        row_P[np.abs(row_P) <= np.quantile(np.abs(row_P), args.sparsity)] = 0
    sparsified = time.perf_counter()
    svd = TruncatedSVD(args.components, algorithm="randomized", n_iter=5, n_oversamples=10, random_state=42)
    similarity_EE = cosine_similarity(svd.fit_transform(x_EP))
    decomposed = time.perf_counter()
    labels = KMeans(args.clusters, n_init=10, random_state=42).fit(similarity_EE).labels_
    end = time.perf_counter()
    steps = {"quantile": sparsified - start, "svd": decomposed - sparsified, "kmeans": end - decomposed}
    figures |= {"seconds": end - start, "cpu_seconds": time.process_time() - cpu, "steps": steps}
    return figures | {"peak_gib": peak_gib()}, labels, similarity_EE


def run_exact(args) -> tuple[dict, np.ndarray, np.ndarray]:
    """The same for the exact steps, with no measurements; labels are those of KMeans."""
    from sklearn.cluster import KMeans

    x_EP = flattened(args)
    for row_P in x_EP:
        row_P[np.abs(row_P) <= np.quantile(np.abs(row_P), args.sparsity)] = 0
    gram_EE = sum(part @ part.T for part in map(np.float64, np.array_split(x_EP, 64, axis=1)))
    variance_E, u_EE = np.linalg.eigh(gram_EE)
    kept_EC = u_EE[:, -args.components :] * np.sqrt(np.maximum(variance_E[-args.components :], 0))
    kept_EC /= np.linalg.norm(kept_EC, axis=1, keepdims=True)
    similarity_EE = kept_EC @ kept_EC.T
    return {}, KMeans(args.clusters, n_init=10, random_state=42).fit(similarity_EE).labels_, similarity_EE


SIDES = {"modjax": run_modjax, "homemade": run_homemade, "exact": run_exact}


def peak_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compared(found: dict[str, dict], outputs: dict[str, dict], labels: np.ndarray) -> dict:
    """Ratios of the homemade side to modjax, and the agreement of all labels and similarities."""
    from sklearn.metrics import adjusted_rand_score

    ratios = {key: found["homemade"][key] / found["modjax"][key] for key in ("seconds", "cpu_seconds", "peak_gib")}
    rand = {side: adjusted_rand_score(labels, outputs[side]["labels"]) for side in SIDES}
    differences = {side: np.abs(outputs[side]["similarity"] - outputs["exact"]["similarity"]) for side in MEASURED}
    return {
        "ratios": ratios | {"seconds_first": found["homemade"]["seconds"] / found["modjax"]["seconds_first"]},
        "adjusted_rand_planted": rand,
        "similarity_error": {
            side: {"largest": float(difference_EE.max()), "mean": float(difference_EE.mean())}
            for side, difference_EE in differences.items()
        },
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--experts", type=int, default=256, help="E")
    parser.add_argument("--layers", type=int, default=32, help="L")
    parser.add_argument("--width", type=int, default=2560, help="D")
    parser.add_argument("--rank", type=int, default=4, help="R")
    parser.add_argument("--clusters", type=int, default=10, help="number of clusters, both planted and searched for")
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of each expert that is set to 0")
    parser.add_argument("--components", type=int, default=64, help="components of the SVD that are kept")
    parser.add_argument("--seed", type=int, default=0, help="seed of the library")
    parser.add_argument("--side", choices=SIDES, help="run only this side and write its result to --arrays")
    parser.add_argument("--arrays", type=pathlib.Path, help=".npz file for labels and similarity, with --side")
    args = parser.parse_args(argv)
    if args.small:
        args.experts, args.layers, args.width, args.clusters = 12, 2, 32, 3
    return args


def main() -> None:
    """Runs the benchmark and prints one JSON object."""
    args = arguments()
    if args.side:
        figures, labels, similarity_EE = SIDES[args.side](args)
        np.savez(args.arrays, labels=labels, similarity=similarity_EE)
        print(json.dumps(figures))
        return
    found, outputs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            arrays = pathlib.Path(folder) / f"{side}.npz"
            found[side] = measuring.of_child(f"--side={side}", f"--arrays={arrays}")
            outputs[side] = dict(np.load(arrays))
    sizes = ("experts", "layers", "width", "rank", "clusters", "sparsity", "components", "seed")
    numbers = args.layers * args.rank * sum(width for _, width in factors(args))
    figures = {
        **{key: getattr(args, key) for key in sizes},
        "numbers_an_expert": numbers,
        **{side: found[side] for side in MEASURED},
        **compared(found, outputs, planted(args)),
    }
    measuring.report(figures, ("numpy", "scikit-learn"), args.out)


if __name__ == "__main__":
    main()
