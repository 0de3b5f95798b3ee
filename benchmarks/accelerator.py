"""The whole table of docs/performance.md on one accelerator, in one process of at most eight minutes.

    python benchmarks/accelerator.py --out=benchmarks/results/accelerator_NAME.json
    python benchmarks/accelerator.py --small        # every part at tiny size, on any machine

Two models with the sizes of SmolLM2-135M and Phi-2 and random weights in bfloat16, in modjax and beside it in
transformers and peft; nothing is downloaded. First the parts of correctness, then those of speed. Each part has a
budget of seconds, and the process one of its own; a part that fails or runs out of time is recorded with its error and
what it had found, and the next one goes on. The JSON is written after every part.

Examples are random token ids with the lengths of Super-NaturalInstructions: 85 tokens that a task's examples share, 25
to 55 of their own, and a target of 4 to 20.
"""

import functools
import gc
import os
import pathlib
import signal
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Both frameworks share the device: neither may take all of its memory at the start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import arrow_forward  # noqa: E402
import base_speed  # noqa: E402
import choices  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import library_training  # noqa: E402
import measuring  # noqa: E402
import numpy as np  # noqa: E402
import ours  # noqa: E402
import peer  # noqa: E402
import torch  # noqa: E402
import train_throughput  # noqa: E402

import modjax  # noqa: E402
from modjax.data.rows import Rows, pack  # noqa: E402
from modjax.data.tokenize import Encoded  # noqa: E402
from modjax.models.config import ModelConfig  # noqa: E402
from modjax.models.decoder import Decoder  # noqa: E402
from modjax.ops.attention import attend  # noqa: E402
from modjax.ops.lora import LoRA, mixture  # noqa: E402
from modjax.ops.top_k import TopK  # noqa: E402
from modjax.routing.base import hook  # noqa: E402
from modjax.train.settings import Settings  # noqa: E402

PACKAGES = ("flax", "optax", "torch", "transformers", "peft", "numpy")
SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
PHI2 = {
    "model_type": "phi",
    "vocab_size": 51_200,
    "hidden_size": 2560,
    "intermediate_size": 10_240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.4,
    "tie_word_embeddings": False,
}
TINY = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SHARED, OWN, TARGET = 85, (25, 55), (4, 20)  # tokens of an example


class Sizes(NamedTuple):
    """What the parts measure; the fields of `SMALL` are for a proof on a CPU."""

    models: dict[str, dict]  # config.json of each
    library: dict[str, tuple[int, int, int]]  # experts, rows per expert, tokens per row
    experts: tuple[int, ...] = (10, 40, 256)  # Arrow
    peer_experts: int = 10  # Arrow of peft
    prompt: int = 1024  # tokens that are read
    new: int = 64  # tokens that are decoded
    batches: tuple[int, ...] = (1, 8)
    questions: int = 64
    repeats: int = 3
    matrix: int = 8192
    clustered: int = 256  # experts that are clustered


FULL = Sizes({"smollm2": SMOLLM2, "phi2": PHI2}, {"smollm2": (64, 2, 1024), "phi2": (8, 4, 2048)})
SMALL = Sizes(
    models={
        "smollm2": SMOLLM2 | TINY | {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48},
        "phi2": PHI2 | TINY | {"num_attention_heads": 2, "num_key_value_heads": 2},
    },
    library={"smollm2": (3, 1, 256), "phi2": (2, 1, 256)},
    experts=(5,),
    peer_experts=5,
    prompt=32,
    new=4,
    batches=(2,),
    questions=2,
    repeats=1,
    matrix=256,
    clustered=12,
)


def config(sizes: Sizes, name: str) -> ModelConfig:
    return ModelConfig.from_hf(sizes.models[name], name)


def model_of(sizes: Sizes, name: str, dtype: Any = jnp.bfloat16) -> modjax.Model:
    """A model of random weights."""
    init = jax.jit(functools.partial(Decoder.init, config(sizes, name), dtype=dtype))
    return modjax.Model(name, init(jax.random.key(0)))


def torch_model(sizes: Sizes, name: str):
    """The same model in transformers, with random weights of its own."""
    return peer.random(sizes.models[name])


def instructions(vocabulary: int, experts: int, rows: int, length: int) -> dict[str, list[Encoded]]:
    """For each expert as many examples as fill its rows."""
    rng = np.random.default_rng(0)
    found = {}
    for expert in range(experts):
        shared = rng.integers(3, vocabulary, SHARED)
        most = 2 + rows * length // (OWN[0] + TARGET[0])
        sizes = zip(rng.integers(*OWN, most), rng.integers(*TARGET, most), strict=True)
        examples = [
            Encoded(np.append(shared, rng.integers(3, vocabulary, own + target)).astype(np.int32), SHARED + int(own))
            for own, target in sizes
        ]
        found[f"task{expert}"] = library_training.filling(examples, rows, length)
    return found


def held(found: Any, expected: Any, allowed: float) -> dict:
    """The error of an array relative to the norm of what is expected, and whether it is allowed."""
    found, expected = (np.asarray(array, np.float64) for array in (found, expected))
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return {"error": error, "allowed": allowed, "held": error <= allowed}


# Correctness. In float32 the products are exact ones: "highest" turns off TF32.


def bfloat16_logits(sizes: Sizes) -> Iterator[tuple[str, dict]]:
    """Logits with weights and activations in bfloat16 against float32, with the same weights."""
    rng = np.random.default_rng(0)
    for name in sizes.models:
        model = model_of(sizes, name)
        tokens_BT = rng.integers(3, model.config.V, (2, sizes.prompt // 4), np.int32)
        exact = modjax.Model(name, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params))
        with jax.default_matmul_precision("highest"):
            expected = exact.logits(tokens_BT)
        yield name, held(model.logits(tokens_BT), expected, 0.05)
        del model, exact
        gc.collect()


def attention_plans(sizes: Sizes) -> Iterator[tuple[str, dict]]:
    """Attention over trees and its gradients against all scores in float64 on the host."""
    for window in (None, 40):
        for dtype, allowed in ((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
            rows = tree_rows(sizes.prompt)
            q, k, v, out = (
                jax.random.normal(jax.random.key(i), (2, sizes.prompt, heads, 64), dtype)
                for i, heads in enumerate((4, 2, 2, 4))
            )

            def loss(q, k, v, out=out, rows=rows, window=window):
                found = attend(q, k, v, rows.positions, rows.ends, window=window)
                return jnp.sum(found.astype(jnp.float32) * out.astype(jnp.float32)), found

            with jax.default_matmul_precision("highest"):
                gradients, found = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
            expected = attention_reference(*(np.asarray(x, np.float64) for x in (q, k, v, out)), rows, window)
            parts = zip(("out", "dq", "dk", "dv"), (found, *gradients), expected, strict=True)
            for part, got, want in parts:
                yield f"{part} {jnp.dtype(dtype).name} window {window}", held(got, want, allowed)


def tree_rows(length: int) -> Rows:
    """Two rows of examples that share their beginnings."""
    (own,) = instructions(1024, 1, 2, max(length, 256)).values()
    rows = pack(own, max(length, 256))
    return Rows(*(field[:2, :length] for field in rows))._replace(ends=np.minimum(rows.ends[:2, :length], length))


def attention_reference(q, k, v, out, rows: Rows, window: int | None) -> list[np.ndarray]:
    """The attended values, and the gradients of their product with `out` to q, k and v."""
    index_T, ends_BT, share = np.arange(q.shape[1]), rows.ends, q.shape[2] // k.shape[2]
    reads_BTS = (index_T[:, None] >= index_T) & (index_T[:, None] < ends_BT[:, None, :])
    if window is not None:
        reads_BTS &= rows.positions[:, :, None] - rows.positions[:, None, :] < window
    k_, v_ = (np.repeat(x, share, axis=2) for x in (k, v))
    scores = np.where(reads_BTS[:, None], np.einsum("btnh,bsnh->bnts", q, k_) / q.shape[-1] ** 0.5, -np.inf)
    top = np.where(reads_BTS.any(-1), scores.max(-1).swapaxes(0, 1), 0).swapaxes(0, 1)
    weights = np.exp(scores - top[..., None])
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    back = np.einsum("btnh,bsnh->bnts", out, v_)
    slope = weights * (back - (weights * back).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    dk, dv = np.einsum("bnts,btnh->bsnh", slope, q), np.einsum("bnts,btnh->bsnh", weights, out)
    groups = [x.reshape(*k.shape[:3], share, -1).sum(3) for x in (dk, dv)]
    return [np.einsum("bnts,bsnh->btnh", weights, v_), np.einsum("bnts,bsnh->btnh", slope, k_), *groups]


def mixture_plans(sizes: Sizes) -> Iterator[tuple[str, dict]]:
    """Each plan of the mixture, with top 4 weights per token and with weights per example, in float64 on the host."""
    rng = np.random.default_rng(0)
    E, R, B, T = 12, 4, 2, 33
    x, a, b = (rng.standard_normal(shape) for shape in ((B, T, 64), (E, R, 64), (E, R, 96)))
    scale, ids = rng.uniform(1, 4, E), rng.permuted(np.broadcast_to(np.arange(E), (B, T, E)), axis=-1)[..., :4]
    top = TopK(jnp.asarray(ids, jnp.int32), jax.nn.softmax(jnp.asarray(rng.standard_normal(ids.shape), jnp.float32)))
    per_example = np.asarray(jax.nn.softmax(rng.standard_normal((B, E))))
    chosen = (("top", top, np.asarray(top.dense(E))), ("example", per_example, np.repeat(per_example[:, None], T, 1)))
    for kind, weights, dense in chosen:
        for mix in ("parameters", "outputs"):
            expected = mixture_reference(x, LoRA(a, b, scale), np.asarray(dense, np.float64), mix)
            for plan in ("dense", "gather" if kind == "top" else "merged", None):
                for dtype, allowed in ((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
                    given = jnp.asarray(x, dtype), LoRA(*(jnp.asarray(part, jnp.float32) for part in (a, b, scale)))
                    with jax.default_matmul_precision("highest"):
                        run = jax.jit(functools.partial(mixture, mix=mix, plan=plan))
                        found = run(*given, jax.tree.map(jnp.asarray, weights))
                    yield f"{kind} {mix} {plan} {jnp.dtype(dtype).name}", held(found, expected, allowed)


def mixture_reference(x_BTI: np.ndarray, lora: LoRA, weights_BTE: np.ndarray, mix: str) -> np.ndarray:
    """The update of one site, expert by expert."""
    z_BTER = np.einsum("bti,eri->bter", x_BTI, lora.a)
    if mix == "parameters":
        z_BTER = np.broadcast_to(np.einsum("bte,bter->btr", weights_BTE, z_BTER)[:, :, None], z_BTER.shape)
    return np.einsum("bte,e,bter,ero->bto", weights_BTE, lora.scale, z_BTER, lora.b)


def lockstep(sizes: Sizes) -> Iterator[tuple[str, dict]]:
    """The B of experts trained together, which start at 0, against each alone, after two steps in float32."""
    model = model_of(sizes, "smollm2", jnp.float32)
    examples = instructions(model.config.V, 3, 2, 256)
    settings = Settings(steps=2, batch=1, length=256, dropout=0.0, learning_rate=1e-3)
    with jax.default_matmul_precision("highest"):
        together = library_training.Modjax(model.params, examples, settings)()
        for expert, (name, own) in enumerate(examples.items()):
            alone = library_training.Modjax(model.params, {name: own}, settings)()
            yield name, held(flat_b(alone, 0), flat_b(together, expert), 1e-2)


def flat_b(trained: dict, expert: int) -> np.ndarray:
    return np.concatenate([np.ravel(factors.b[:, expert]) for factors in trained.values()])


def cached(sizes: Sizes) -> Iterator[tuple[str, dict]]:
    """Hidden states of tokens that are read one by one through the cache, against one pass, in float32."""
    model = model_of(sizes, "smollm2", jnp.float32)
    library = ours.random_library(model.config, sizes.experts[0])
    decoder, prompt, whole = model.params, base_speed.PROMPT, base_speed.PROMPT + sizes.new
    tokens_BT = ours.random_tokens(2, whole, model.config.V)
    node_BX = jnp.full((2, 1), prompt - 1)
    with jax.default_matmul_precision("highest"):
        for name, own in (("base", None), ("arrow", library)):
            router = None if own is None else modjax.routing.arrow(own, top_k=ours.TOP_K)
            experts = hook(model.bind(own, router))
            _, cache = decoder.prefill(tokens_BT[:, :prompt], None, None, node_BX, sizes.new, **experts)
            read, found = (
                jax.jit(lambda token_BX, cache, experts=experts: decoder.decode(token_BX, cache, **experts)),
                [],
            )
            for at in range(prompt, whole):
                hidden_BXD, cache = read(tokens_BT[:, at : at + 1], cache)
                found.append(hidden_BXD[:, 0])
            yield name, held(np.stack(found, axis=1), decoder(tokens_BT, **experts)[:, prompt:], 1e-4)


# Speed.


def ceilings(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """What the device gives at most: operations per second of a large product, bytes per second of a large copy."""
    yield "flops_bfloat16", measuring.matmul_peak(jnp.bfloat16, sizes.matrix)
    yield "flops_float32", measuring.matmul_peak(jnp.float32, sizes.matrix // 2)
    yield "bytes", measuring.copy_peak(sizes.matrix**2)


def library(sizes: Sizes, name: str) -> Iterator[tuple[str, Any]]:
    """Training a library against peft, and its share of the peak."""
    model, (experts, rows, length) = model_of(sizes, name), sizes.library[name]
    examples = instructions(model.config.V, experts, rows, length)
    settings = Settings(steps=rows, batch=1, length=length, dropout=0.0, sites=ours.SITES)
    sides = {"modjax": library_training.Modjax(model.params, examples, settings)}
    sides["modjax"]()
    yield "peak_mib", peak_mib()
    found = statistics.median(measuring.in_turn(sides, sizes.repeats)["modjax"])
    operations = train_throughput.flops(model.config, sides["modjax"].batches)
    yield "model_flops", operations / found
    yield "share_of_peak", operations / found / measuring.matmul_peak(jnp.bfloat16, sizes.matrix)
    sides["peft"] = library_training.Peft(torch_model(sizes, name), examples, settings)
    one = next(iter(examples))
    torch_peak = peer.peak_mib(lambda: sides["peft"].train(one, examples[one]))  # warms up as well
    yield "peft_peak_mib_of_one_expert", torch_peak
    yield "comparison", library_training.compared(sides, examples, 1)


def arrow(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Reading a prompt with Arrow over the base, and the temporary memory over its; and peft's Arrow over its base."""
    for name in sizes.models:
        model = model_of(sizes, name)
        tokens_BT = ours.random_tokens(1, sizes.prompt, model.config.V)
        base = ours.Side(model)
        for experts in sizes.experts:
            routed = ours.Side(model, ours.random_library(model.config, experts))
            found = arrow_forward.against_base(
                {"base": base.prefill, "routed": routed.prefill}, sizes.repeats, tokens_BT
            )
            memory = routed.temporary_mib(tokens_BT) / base.temporary_mib(tokens_BT)
            yield f"{name} {experts}", found | {"temporary_memory": memory}
        del model, base, routed
        free()
        sides = {"base": peer.Side(torch_model(sizes, name)), "routed": peer.Side(peer_arrow(sizes, name))}
        runs = {side: own.prefill for side, own in sides.items()}
        yield f"{name} {sizes.peer_experts} peft", arrow_forward.against_base(runs, sizes.repeats, tokens_BT)
        del sides, runs
        free()


def peer_arrow(sizes: Sizes, name: str):
    with tempfile.TemporaryDirectory() as folder:
        ours.random_library(config(sizes, name), sizes.peer_experts).save(folder + "/library")
        return peer.with_arrow(torch_model(sizes, name), pathlib.Path(folder) / "library", ours.TOP_K)


def decoding(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Greedy decoding of the base and with Arrow, against transformers and peft, and the share of the bandwidth."""
    bandwidth = measuring.copy_peak(sizes.matrix**2)
    for name in sizes.models:
        model = model_of(sizes, name)
        their_base = peer.Side(torch_model(sizes, name))
        sides = {
            "modjax": ours.Side(model).decode,
            "transformers dynamic": their_base.decode,
            "transformers static": functools.partial(their_base.decode, cache="static"),
            f"peft arrow {sizes.peer_experts}": peer.Side(peer_arrow(sizes, name)).decode,
        }
        for experts in sizes.experts:
            library = ours.random_library(model.config, experts)
            sides[f"modjax arrow {experts}"] = ours.Side(model, library).decode
        found = base_speed.decode(sides, list(sizes.batches), sizes.new, sizes.repeats, model.config.V)
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
        for batch, figures in found.items():
            steps = figures["modjax"]["per_second"] / batch
            yield f"{name} batch {batch}", figures | {"share_of_bandwidth": weights * steps / bandwidth}
        del model, their_base, sides
        free()


def prefilling(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Reading prompts with the base, against transformers."""
    for name in sizes.models:
        sides = ours.Side(model_of(sizes, name)), peer.Side(torch_model(sizes, name))
        yield name, base_speed.prefill(*sides, [1, 4], sizes.prompt, sizes.repeats, config(sizes, name).V)
        del sides
        free()


def choosing(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Likelihoods of the choices of questions, against one row per choice."""
    args = choices.arguments([f"--questions={sizes.questions}"])
    for name in sizes.models:
        model = model_of(sizes, name)
        examples = [one._replace(tokens=one.tokens % model.config.V) for one in choices.choices(args)]
        runs = {
            "modjax": choices.likelihoods(model, examples, 64),
            "transformers": choices.padded_likelihoods(torch_model(sizes, name), examples, 64),
        }
        yield name, choices.compared(runs, sizes.questions, sizes.repeats)
        del model, runs
        free()


def clustering(sizes: Sizes) -> Iterator[tuple[str, Any]]:
    """Prototypes and MBC of a library of the size for Phi-2, rank 4 on q, k, v, o; the first run compiles."""
    library = ours.random_library(config(sizes, "phi2"), sizes.clustered)
    runs = {
        "prototypes": lambda: jax.block_until_ready(modjax.routing.arrow(library).prototypes),
        "mbc": lambda: modjax.cluster.mbc(library, min(10, sizes.clustered)).labels,
    }
    yield "seconds_first", {side: measuring.timed(run)[0] for side, run in runs.items()}
    yield "seconds", {side: statistics.median(own) for side, own in measuring.in_turn(runs, sizes.repeats).items()}


def peak_mib() -> float | None:
    """Memory of the device that JAX has held at most so far, in MiB; None where it is not known."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def free() -> None:
    """Gives back what no longer has a name."""
    gc.collect()
    torch.cuda.empty_cache()


PARTS: dict[str, tuple[int, Callable[[Sizes], Iterator[tuple[str, Any]]]]] = {  # seconds at most, function
    "bfloat16_logits": (30, bfloat16_logits),
    "attention_plans": (30, attention_plans),
    "mixture_plans": (30, mixture_plans),
    "lockstep": (30, lockstep),
    "cached": (30, cached),
    "ceilings": (10, ceilings),
    "library_smollm2": (60, functools.partial(library, name="smollm2")),
    "library_phi2": (80, functools.partial(library, name="phi2")),
    "arrow": (60, arrow),
    "decoding": (70, decoding),
    "prefilling": (30, prefilling),
    "choosing": (30, choosing),
    "clustering": (20, clustering),
}


def measured(part: Callable[[Sizes], Iterator[tuple[str, Any]]], sizes: Sizes, seconds: float) -> dict:
    """What a part found within its time; its error, if it ended with one, is under "error"."""

    def out_of_time(*_):
        raise TimeoutError(f"more than {seconds:.0f} seconds")

    found, start = {}, time.perf_counter()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        for name, value in part(sizes):
            found[name] = value
    except Exception as error:  # noqa: BLE001, recorded: the next part goes on
        found["error"] = f"{type(error).__name__}: {error}"[:1000]
        found["where"] = traceback.format_exc().splitlines()[-8:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    free()
    return found | {"part_seconds": time.perf_counter() - start}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=470, help="of all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="run only these")
    return parser.parse_args(argv)


def main():
    args = arguments()
    sizes, end, found = (SMALL if args.small else FULL), time.perf_counter() + args.seconds, {}
    for name in args.parts:
        seconds, part = PARTS[name]
        if args.small:
            seconds = args.seconds  # a machine that proves the parts may be slow
        left = end - time.perf_counter()
        found[name] = measured(part, sizes, min(seconds, left)) if left > 1 else {"error": "no time left"}
        measuring.report({"small": args.small, "parts": found}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
