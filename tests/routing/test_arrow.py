import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import mixing
from references.routing import arrow_weights, leading, normed, power_prototypes, updates

from modjax.errors import InputError
from modjax.routing import Arrow, arrow
from modjax.routing.prototypes import peft_start

SITE = "attn.q"
SETTINGS = [(1, 1.0), (2, 1.0), (3, 0.2), (4, 1.0), (9, 2.0), (-1, 1.0), (2, 0), (-1, -1)]


@pytest.mark.parametrize("top_k, temperature", SETTINGS)
def test_weights_equal_the_definition(mixed, x_BTI, token_weights, agrees, top_k, temperature):
    router = arrow(mixed, top_k=top_k, temperature=temperature)
    for layer in range(3):
        prototype_EI, _ = leading(updates(mixed, SITE, layer))
        expected = arrow_weights(prototype_EI, x_BTI, top_k, temperature)
        agrees("arrow", token_weights(router, layer, x_BTI), expected)


@pytest.mark.parametrize("top_k, temperature", SETTINGS)
def test_outputs_mixed_equal_the_definition(mixed, x_BTI, site_delta, agrees, top_k, temperature):
    """The experts' outputs weighted by Arrow; ranks and scales differ."""
    router = arrow(mixed, top_k=top_k, temperature=temperature, mix="outputs")
    for layer in range(3):
        weights_BTE = arrow_weights(leading(updates(mixed, SITE, layer))[0], x_BTI, top_k, temperature)
        a_ERI, b_ERO = (factor[layer] for factor in mixed.loras[SITE][:2])
        expected = mixing.delta(x_BTI, a_ERI, b_ERO, mixed.scale, weights_BTE, "outputs")
        agrees("arrow, outputs mixed", site_delta(mixed, router, layer, x_BTI), expected)


@pytest.mark.parametrize("input_norm", ["unit", "layernorm"])
@pytest.mark.parametrize("prototype_norm", ["none", "unit", "layernorm"])
def test_inputs_and_prototypes_can_be_normed(mixed, x_BTI, token_weights, agrees, input_norm, prototype_norm):
    """The layer norm only changes sign with the singular vector, which |x . p| ignores."""
    router = arrow(mixed, top_k=3, temperature=0.5, input_norm=input_norm, prototype_norm=prototype_norm)
    prototype_EI = normed(leading(updates(mixed, SITE, 1))[0], prototype_norm)
    expected = arrow_weights(prototype_EI, x_BTI, 3, 0.5, input_norm)
    agrees("arrow, normed", token_weights(router, 1, x_BTI), expected)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("length", ["unit", "singular"])
def test_prototypes_can_be_as_long_as_their_singular_value(mixed, x_BTI, token_weights, agrees, length, scaled):
    """Singular values of B^T A or, scaled, of the whole update."""
    prototype_EI, value_E = leading(updates(mixed, SITE, 2))
    factor_E = (value_E if length == "singular" else 1) * (np.float64(mixed.scale) if scaled else 1) * np.ones(5)
    router = arrow(mixed, top_k=3, length=length, scaled=scaled)
    expected = arrow_weights(factor_E[:, None] * prototype_EI, x_BTI, 3, 1.0)
    agrees("arrow, scaled", token_weights(router, 2, x_BTI), expected)


def test_power_iterations_equal_the_definition(mixed, x_BTI, token_weights, agrees):
    router = arrow(mixed, top_k=3, prototypes="power", seed=4, length="singular")
    update_EOI = updates(mixed, SITE, 1)
    prototype_EI = power_prototypes(update_EOI, np.float64(peft_start(32, 4)))
    value_E = np.linalg.norm(np.einsum("eoi,ei->eo", update_EOI, prototype_EI), axis=-1)
    agrees("arrow, power", router.prototypes[SITE][1], value_E[:, None] * prototype_EI)
    expected = arrow_weights(value_E[:, None] * prototype_EI, x_BTI, 3, 1.0)
    agrees("arrow, power", token_weights(router, 1, x_BTI), expected)


def test_power_iteration_nears_the_singular_vector(library):
    """Equal up to the sign if one singular value is much larger than the others."""
    sharp = jax.tree.map(jnp.copy, library)
    for site, lora in library.loras.items():
        sharp.loras[site] = lora._replace(b=lora.b * jnp.array([1.0, 0.1, 0.1])[None, None, :, None])
    exact, iterated = (arrow(sharp, prototypes=how).prototypes for how in ("svd", "power"))
    for site, exact_LEI in exact.items():
        np.testing.assert_allclose(jnp.abs(jnp.sum(exact_LEI * iterated[site], axis=-1)), 1, atol=1e-5)


def test_prototypes_have_norm_one(library):
    for prototypes_LEI in arrow(library).prototypes.values():
        np.testing.assert_allclose(np.linalg.norm(prototypes_LEI, axis=-1), 1, atol=1e-5)


def test_untrained_experts_have_finite_weights(library, x_BTI, token_weights):
    untrained = jax.tree.map(jnp.copy, library)
    untrained.loras[SITE] = untrained.loras[SITE]._replace(b=jnp.zeros_like(untrained.loras[SITE].b))
    for options in ({}, {"prototypes": "power"}, {"length": "singular", "prototype_norm": "unit"}):
        assert np.isfinite(token_weights(arrow(untrained, **options), 0, x_BTI)).all()


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_logits_with_one_expert_chosen_are_that_experts(model, library, tokens_BT, mix):
    """If only one expert's prototype is aligned, routing uses only that expert."""
    router = arrow(library, top_k=1, mix=mix)
    only = {site: leaf.at[:, jnp.array([0, 1, 3])].set(0) for site, leaf in router.prototypes.items()}
    got = model.logits(tokens_BT, library, Arrow(only, 1, 1.0, mix))
    np.testing.assert_allclose(got, model.logits(tokens_BT, library["c"]), rtol=1e-4, atol=1e-4)


def test_more_than_all_experts_is_all(model, library, tokens_BT):
    few, many = (model.logits(tokens_BT, library, arrow(library, top_k=top_k)) for top_k in (-1, 99))
    np.testing.assert_array_equal(few, many)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"prototypes": "pca"}, "prototypes='pca': expected one of svd, power"),
        ({"of": "base"}, "of='base': expected one of update, weights"),
        ({"length": "long"}, "length='long': expected one of unit, singular"),
        ({"input_norm": "l2"}, "input_norm='l2': expected one of none, unit, layernorm"),
        ({"prototype_norm": "l2"}, "prototype_norm='l2'"),
        ({"of": "weights"}, "needs model="),
        ({"prototypes": "power", "seed": -1}, "seed=-1"),
    ],
)
def test_impossible_settings_are_named(library, settings, message):
    with pytest.raises(InputError, match=message):
        arrow(library, **settings)
