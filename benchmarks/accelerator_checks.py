"""The parts of `accelerator.py` that check results before any speed is measured.

In float32 matrix products are exact ones: "highest" turns off TF32.
"""

import functools
import gc
from collections.abc import Iterator
from typing import Any

import base_speed
import jax
import jax.numpy as jnp
import library_training
import numpy as np
import ours
from accelerator_sizes import Sizes, instructions, model_of

import modjax
from modjax.data.rows import Rows, pack
from modjax.ops.attention import attend
from modjax.ops.lora import LoRA, mixture
from modjax.ops.top_k import TopK
from modjax.routing.base import hook
from modjax.train.settings import Settings

einsum = functools.partial(np.einsum, optimize=True)  # by products of matrices


def held(found: Any, expected: Any, allowed: float) -> dict:
    """The error of an array relative to the norm of what is expected, and whether it is allowed."""
    found, expected = (np.asarray(array, np.float64) for array in (found, expected))
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return {"error": error, "allowed": allowed, "held": error <= allowed}


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
    scores = np.where(reads_BTS[:, None], einsum("btnh,bsnh->bnts", q, k_) / q.shape[-1] ** 0.5, -np.inf)
    top = np.where(reads_BTS.any(-1), scores.max(-1).swapaxes(0, 1), 0).swapaxes(0, 1)
    weights = np.exp(scores - top[..., None])
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    back = einsum("btnh,bsnh->bnts", out, v_)
    slope = weights * (back - (weights * back).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    dk, dv = einsum("bnts,btnh->bsnh", slope, q), einsum("bnts,btnh->bsnh", weights, out)
    groups = [x.reshape(*k.shape[:3], share, -1).sum(3) for x in (dk, dv)]
    return [einsum("bnts,bsnh->btnh", weights, v_), einsum("bnts,bsnh->btnh", slope, k_), *groups]


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
    z_BTER = einsum("bti,eri->bter", x_BTI, lora.a)
    if mix == "parameters":
        z_BTER = np.broadcast_to(einsum("bte,bter->btr", weights_BTE, z_BTER)[:, :, None], z_BTER.shape)
    return einsum("bte,e,bter,ero->bto", weights_BTE, lora.scale, z_BTER, lora.b)


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
            _, cache = decoder.prefill(tokens_BT[:, :prompt], None, None, sizes.new, **experts)
            read = jax.jit(lambda token_BX, cache, experts=experts: decoder.decode(token_BX, cache, **experts))
            cache, found = cache.branched(node_BX), []
            for at in range(prompt, whole):
                hidden_BXD, cache = read(tokens_BT[:, at : at + 1], cache)
                found.append(hidden_BXD[:, 0])
            yield name, held(np.stack(found, axis=1), decoder(tokens_BT, **experts)[:, prompt:], 1e-4)
