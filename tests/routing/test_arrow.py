import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import Arrow, Context, arrow
from modjax.routing.arrow import torch_normal

SITE = "attn.q"


@pytest.fixture
def x_BTI():
    return jnp.float32(np.random.default_rng(1).normal(size=(2, 7, 32)))


def layer(router, i):
    return jax.tree.map(lambda leaf: leaf[i], router)


def slow_weights(library, i, x_BTI, top_k, temperature):
    """Prototypes from the SVD of the whole product, the softmax token by token, in float64."""
    lora = library.loras[SITE]
    products = [np.float64(lora.b[i, e]).T @ np.float64(lora.a[i, e]) for e in range(len(library))]
    prototypes_EI = np.stack([np.linalg.svd(product)[2][0] for product in products])
    temperature = temperature if temperature > 0 else np.sqrt(prototypes_EI.shape[1])
    weights_BTE = np.zeros((*x_BTI.shape[:2], len(library)))
    for b, t in np.ndindex(*x_BTI.shape[:2]):
        score_E = np.abs(prototypes_EI @ np.float64(x_BTI[b, t]))
        kept = np.argsort(-score_E)[: top_k if top_k > 0 else None]
        weights = np.exp((score_E[kept] - score_E.max()) / temperature)
        weights_BTE[b, t, kept] = weights / weights.sum()
    return weights_BTE


SETTINGS = [(1, 1.0), (2, 1.0), (3, 0.2), (4, 1.0), (9, 2.0), (-1, 1.0), (2, 0), (-1, -1)]


@pytest.mark.parametrize("top_k, temperature", SETTINGS)
def test_weights_equal_the_definition(library, x_BTI, top_k, temperature):
    router = arrow(library, top_k=top_k, temperature=temperature)
    for i in range(3):
        got = jax.jit(lambda router, x_BTI: router(SITE, x_BTI, Context()))(layer(router, i), x_BTI)
        np.testing.assert_allclose(got, slow_weights(library, i, x_BTI, top_k, temperature), atol=1e-5)


def test_prototypes_have_norm_one(library):
    for prototypes_LEI in arrow(library).prototypes.values():
        np.testing.assert_allclose(np.linalg.norm(prototypes_LEI, axis=-1), 1, atol=1e-5)


def test_untrained_experts_have_finite_weights(library, x_BTI):
    untrained = jax.tree.map(jnp.copy, library)
    untrained.loras[SITE] = untrained.loras[SITE]._replace(b=jnp.zeros_like(untrained.loras[SITE].b))
    assert jnp.isfinite(layer(arrow(untrained), 0)(SITE, x_BTI, Context())).all()


def test_permuting_the_library_permutes_the_weights(library, x_BTI):
    order = [2, 0, 3, 1]
    first, second = (layer(arrow(experts, top_k=2), 1) for experts in (library, library[order]))
    expected = first(SITE, x_BTI, Context())[..., np.array(order)]
    np.testing.assert_allclose(second(SITE, x_BTI, Context()), expected, atol=1e-6)


def test_half_precision_activations_are_scored_in_float32(library, x_BTI):
    weights_BTE = layer(arrow(library), 0)(SITE, x_BTI.astype(jnp.bfloat16), Context())
    assert weights_BTE.dtype == jnp.float32
    np.testing.assert_allclose(weights_BTE.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_logits_with_one_expert_chosen_are_that_experts(model, library, tokens_BT, mix):
    """With prototypes that point one expert's way, routing is that expert alone."""
    router = arrow(library, top_k=1, mix=mix)
    only = {site: leaf.at[:, jnp.array([0, 1, 3])].set(0) for site, leaf in router.prototypes.items()}
    got = model.logits(tokens_BT, library, Arrow(only, 1, 1.0, mix))
    np.testing.assert_allclose(got, model.logits(tokens_BT, library["c"]), rtol=1e-4, atol=1e-4)


def test_more_than_all_experts_is_all(model, library, tokens_BT):
    few, many = (model.logits(tokens_BT, library, arrow(library, top_k=top_k)) for top_k in (-1, 99))
    np.testing.assert_array_equal(few, many)


@pytest.mark.parametrize("top_k", [0, -2])
def test_no_experts_at_all(library, top_k):
    with pytest.raises(InputError, match=f"top_k={top_k}"):
        arrow(library, top_k=top_k)


@pytest.mark.parametrize("size", [16, 17, 31, 32, 48, 576, 2560, 10_241])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_start_vectors_are_torchs(size, seed):
    import torch

    expected = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(torch_normal(size, seed), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "seed"), [(15, 0), (32, -1), (32, 2**32)])
def test_start_vectors_that_cannot_be(size, seed):
    with pytest.raises(InputError, match=f"{size} values from seed {seed}"):
        torch_normal(size, seed)


def test_power_iteration_nears_the_singular_vector(library):
    """Where one singular value stands out, and up to the sign."""
    sharp = jax.tree.map(jnp.copy, library)
    for site, lora in library.loras.items():
        sharp.loras[site] = lora._replace(b=lora.b * jnp.array([1.0, 0.1, 0.1])[None, None, :, None])
    exact, iterated = (arrow(sharp, prototypes=how).prototypes for how in ("svd", "power"))
    for site, exact_LEI in exact.items():
        np.testing.assert_allclose(jnp.abs(jnp.sum(exact_LEI * iterated[site], axis=-1)), 1, atol=1e-5)


def test_unknown_prototypes_are_named(library):
    with pytest.raises(InputError, match="prototypes='pca': expected 'svd' or 'power'"):
        arrow(library, prototypes="pca")
