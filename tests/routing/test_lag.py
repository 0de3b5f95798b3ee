import numpy as np
import pytest
from references.routing import lag_weights, updates

from modjax.errors import InputError
from modjax.routing import arrow, lag, spectr


@pytest.mark.parametrize("tokens", [1, 7])  # gathered, and computed for all experts
@pytest.mark.parametrize(("retrieve", "top_k"), [(1, 4), (2, 1), (3, 2), (4, -1), (5, 2), (20, 4)])
def test_weights_equal_the_definition(mixed, x_BTI, token_weights, agrees, tokens, retrieve, top_k):
    x_BTI = x_BTI[:1, :tokens] if tokens == 1 else x_BTI
    router = lag(mixed, retrieve=retrieve, top_k=top_k, temperature=0.5)
    for layer in range(3):
        expected = lag_weights(updates(mixed, "attn.q", layer), x_BTI, retrieve, top_k, 0.5)
        agrees("lag", token_weights(router, layer, x_BTI), expected)


def test_it_lies_between_arrow_and_spectr(mixed, x_BTI, token_weights):
    """With one selected expert it is Arrow's first; with all it is SpectR."""
    one = token_weights(lag(mixed, retrieve=1), 0, x_BTI)
    np.testing.assert_array_equal(one, token_weights(arrow(mixed, top_k=1), 0, x_BTI))
    every = token_weights(lag(mixed, retrieve=5, top_k=3), 0, x_BTI)
    np.testing.assert_allclose(every, token_weights(spectr(mixed, top_k=3), 0, x_BTI), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"retrieve": 0}, "retrieve=0"), ({"top_k": 0}, "top_k=0"), ({"retrieve": -1}, "retrieve=-1")],
)
def test_impossible_settings_are_named(mixed, settings, message):
    with pytest.raises(InputError, match=message):
        lag(mixed, **settings)
