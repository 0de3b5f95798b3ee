"""The tutorial of the README: your own router is one class and one function, and everything takes it.

This one is "nearest A": a token goes to the experts that have a row of A close to its direction. It needs no training
and no change elsewhere. It is correct for experts of any ranks, because the zero rows that pad them are never nearest.
"""

import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.routing import top_k_softmax as top_k_weights

from modjax.eval import Sample, evaluate
from modjax.routing import Context, Router, per_site, static, top_k_softmax


# The tutorial begins here.
class NearestA(Router):
    rows: dict[str, jax.Array] = per_site("LERI")  # float32, unit rows of A
    top_k: int = static(2)
    temperature: float = static(0.1)

    def __call__(self, site, x_BTI, context):
        x_BTI = x_BTI.astype(jnp.float32)
        unit_BTI = x_BTI / jnp.linalg.norm(x_BTI, axis=-1, keepdims=True)
        cosine_BTER = jnp.einsum("bti,eri->bter", unit_BTI, self.rows[site])
        return top_k_softmax(jnp.abs(cosine_BTER).max(axis=-1), self.top_k, self.temperature)


def nearest_a(library, top_k=2, temperature=0.1):
    """score_e = max over r of |cos(x, A_e[r])|; weights = softmax over the top k of score / temperature."""
    norms = {site: jnp.linalg.norm(lora.a, axis=-1, keepdims=True) for site, lora in library.loras.items()}
    rows = {site: lora.a / jnp.where(norms[site] > 0, norms[site], 1) for site, lora in library.loras.items()}
    return NearestA(rows, top_k, temperature)


# The tutorial ends here.


def test_the_readme_shows_it():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    assert all(inspect.getsource(part) in readme for part in (NearestA, nearest_a))


def test_it_is_short():
    assert sum(len(inspect.getsourcelines(part)[0]) for part in (NearestA, nearest_a)) < 30


@pytest.fixture(scope="module")
def router(words):
    return nearest_a(words)


def test_it_weighs_as_its_formula_says(words, router, token_weights, agrees):
    x_BTI = np.float32(np.random.default_rng(0).normal(size=(2, 5, 32)))
    unit_BTI = np.float64(x_BTI) / np.linalg.norm(np.float64(x_BTI), axis=-1, keepdims=True)
    rows = [a_RI[a_RI.any(axis=1)] for a_RI in np.float64(words.loras["attn.v"].a[1])]
    cosines = [unit_BTI @ a_RI.T / np.linalg.norm(a_RI, axis=-1) for a_RI in rows]
    score_BTE = np.stack([np.abs(cosine_BTR).max(axis=-1) for cosine_BTR in cosines], axis=-1)
    agrees("nearest A (tutorial)", token_weights(router, 1, x_BTI, "attn.v"), top_k_weights(score_BTE, 2, 0.1))


def test_it_routes(word_model, words, router):
    """Without training: made of the experts alone, it routes per token and layer."""
    tokens_BT = np.random.default_rng(0).integers(4, 60, (2, 9))
    routed = word_model.logits(tokens_BT, words, router)
    assert np.abs(routed - word_model.logits(tokens_BT)).max() > 1e-3
    one = words[["copy"]]
    np.testing.assert_allclose(
        word_model.logits(tokens_BT, one, nearest_a(one)), word_model.logits(tokens_BT, one), atol=1e-5
    )


def test_it_is_evaluated(word_model, words, router, word_tasks):
    scores = evaluate(word_model, word_tasks, words, router, Sample(split="validation", length=32), max_new_tokens=4)
    assert set(scores) == set(word_tasks) and all(np.isfinite(score["loss"]) for score in scores.values())


def test_it_generates(decodes_as_recomputed, router):
    """Greedy answers through the cache equal those of full recomputation."""
    decodes_as_recomputed(router)


def test_it_is_saved_and_loaded(word_model, words, router, loaded):
    tokens_BT, again = np.arange(4, 12)[None], loaded(router)
    np.testing.assert_array_equal(
        word_model.logits(tokens_BT, words, again), word_model.logits(tokens_BT, words, router, Context())
    )
