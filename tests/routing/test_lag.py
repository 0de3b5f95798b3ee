import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import arrow, lag, spectr


def retrieved(library, layer, x_BTI, count):
    """bool[B,T,E]: whom the exact prototypes, from the SVD of the whole product, keep."""
    a_ERI, b_ERO = (np.float64(factor[layer]) for factor in library.loras["attn.q"])
    prototype_EI = np.stack([np.linalg.svd(b.T @ a)[2][0] for a, b in zip(a_ERI, b_ERO, strict=True)])
    order_BTE = np.argsort(-np.abs(np.float64(x_BTI) @ prototype_EI.T), axis=-1)
    kept_BTE = np.zeros(order_BTE.shape, bool)
    np.put_along_axis(kept_BTE, order_BTE[..., :count], True, axis=-1)
    return kept_BTE


@pytest.mark.parametrize("tokens", [1, 7])  # fetched and computed in full
@pytest.mark.parametrize(("retrieve", "top_k"), [(1, 4), (2, 1), (3, 2), (4, -1), (5, 2), (20, 4)])
def test_weights_equal_the_definition(mixed, x_BTI, token_weights, slow_lengths, slow_softmax, tokens, retrieve, top_k):
    x_BTI = x_BTI[:1, :tokens] if tokens == 1 else x_BTI
    router = lag(mixed, retrieve=retrieve, top_k=top_k, temperature=0.5)
    for layer in range(3):
        score_BTE = slow_lengths(mixed, "attn.q", layer, x_BTI)
        score_BTE = np.where(retrieved(mixed, layer, x_BTI, retrieve), score_BTE, -1e9)
        expected = slow_softmax(score_BTE, top_k, 0.5)
        np.testing.assert_allclose(token_weights(router, layer, x_BTI), expected, atol=1e-5)


def test_it_lies_between_arrow_and_spectr(mixed, x_BTI, token_weights):
    """One retrieved expert is Arrow's first; all retrieved is SpectR."""
    one = token_weights(lag(mixed, retrieve=1), 0, x_BTI)
    np.testing.assert_array_equal(one, token_weights(arrow(mixed, top_k=1), 0, x_BTI))
    every = token_weights(lag(mixed, retrieve=5, top_k=3), 0, x_BTI)
    np.testing.assert_array_equal(every, token_weights(spectr(mixed, top_k=3), 0, x_BTI))


def test_rows_of_zeros_change_nothing(mixed, padded, x_BTI, token_weights):
    got, expected = (token_weights(lag(library, retrieve=3), 1, x_BTI) for library in (padded, mixed))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_permuting_the_library_permutes_the_weights(mixed, x_BTI, token_weights):
    order = [4, 2, 0, 3, 1]
    got, expected = (token_weights(lag(library, 3, top_k=2), 1, x_BTI) for library in (mixed[order], mixed))
    np.testing.assert_allclose(got, expected[..., order], atol=1e-6)


def test_it_is_saved_and_loaded(mixed, loaded):
    loaded(lag(mixed, retrieve=3, top_k=2))


def test_decoding_equals_recomputing(words, decodes_as_recomputed):
    decodes_as_recomputed(lag(words, retrieve=2, top_k=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"retrieve": 0}, "retrieve=0"), ({"top_k": 0}, "top_k=0"), ({"retrieve": -1}, "retrieve=-1")],
)
def test_impossible_settings_are_named(mixed, settings, message):
    with pytest.raises(InputError, match=message):
        lag(mixed, **settings)
