import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import spectr
from modjax.routing.spectr import lengths


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_are_the_lengths_of_outputs(mixed, x_BTI, slow_lengths, scaled):
    scale_E = np.float64(mixed.scale) if scaled else 1.0
    for site, x in (("attn.q", x_BTI), ("mlp.down", np.concatenate([x_BTI, x_BTI[..., :16]], axis=-1))):
        for layer in range(3):
            got = lengths(x, spectr(mixed, scaled=scaled).directions[site][layer])
            np.testing.assert_allclose(got, slow_lengths(mixed, site, layer, x) * scale_E, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("top_k", "temperature"), [(1, 1.0), (2, 0.5), (5, 1.0), (-1, 2.0), (9, 1.0)])
def test_weights_equal_the_definition(mixed, x_BTI, token_weights, slow_lengths, slow_softmax, top_k, temperature):
    router = spectr(mixed, top_k=top_k, temperature=temperature)
    for layer in range(3):
        expected = slow_softmax(slow_lengths(mixed, "attn.q", layer, x_BTI), top_k, temperature)
        np.testing.assert_allclose(token_weights(router, layer, x_BTI), expected, atol=1e-5)


def test_rows_of_zeros_change_nothing(mixed, padded, x_BTI, token_weights):
    got, expected = (token_weights(spectr(library), 1, x_BTI) for library in (padded, mixed))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_permuting_the_library_permutes_the_weights(mixed, x_BTI, token_weights):
    order = [4, 2, 0, 3, 1]
    got, expected = (token_weights(spectr(library, top_k=2), 1, x_BTI) for library in (mixed[order], mixed))
    np.testing.assert_allclose(got, expected[..., order], atol=1e-6)


def test_half_precision_activations_are_scored_in_float32(mixed, x_BTI, token_weights):
    weights_BTE = token_weights(spectr(mixed), 0, jnp.asarray(x_BTI, jnp.bfloat16))
    assert weights_BTE.dtype == np.float32
    np.testing.assert_allclose(weights_BTE.sum(-1), 1, rtol=1e-6)


def test_it_is_saved_and_loaded(mixed, loaded):
    loaded(spectr(mixed, top_k=2, temperature=0.5, mix="parameters"))


def test_decoding_equals_recomputing(words, decodes_as_recomputed):
    decodes_as_recomputed(spectr(words, top_k=2))


@pytest.mark.parametrize("settings", [{"top_k": 0}, {"top_k": -2}, {"temperature": 0.0}])
def test_impossible_settings_are_named(mixed, settings):
    with pytest.raises(InputError, match="=".join(map(str, *settings.items()))):
        spectr(mixed, **settings)
