import jax.numpy as jnp
import numpy as np
import pytest
from references import routing as reference

from modjax.errors import InputError
from modjax.routing import spectr
from modjax.routing.spectr import lengths


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_are_the_lengths_of_outputs(mixed, x_BTI, scaled, agrees):
    scale_E = np.float64(mixed.scale) if scaled else 1.0
    router = spectr(mixed, scaled=scaled)
    for site, x in (("attn.q", x_BTI), ("mlp.down", np.concatenate([x_BTI, x_BTI[..., :16]], axis=-1))):
        for layer in range(3):
            expected = reference.lengths(reference.updates(mixed, site, layer), x) * scale_E
            agrees("spectr", lengths(x, router.directions[site][layer]), expected)


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (2, 0.5), (5, 1.0), (-1, 2.0), (9, 1.0)])
def test_weights_equal_the_definition(mixed, x_BTI, token_weights, agrees, top_k, temperature):
    router = spectr(mixed, top_k=top_k, temperature=temperature)
    for layer in range(3):
        expected = reference.spectr_weights(reference.updates(mixed, "attn.q", layer), x_BTI, top_k, temperature)
        agrees("spectr", token_weights(router, layer, x_BTI), expected)


def test_half_precision_activations_are_scored_in_float32(mixed, x_BTI, token_weights):
    weights_BTE = token_weights(spectr(mixed), 0, jnp.asarray(x_BTI, jnp.bfloat16))
    assert weights_BTE.dtype == np.float32
    np.testing.assert_allclose(weights_BTE.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"top_k": 0}, {"top_k": -2}, {"temperature": 0.0}])
def test_impossible_settings_are_named(mixed, settings):
    with pytest.raises(InputError, match="=".join(map(str, *settings.items()))):
        spectr(mixed, **settings)
