import dataclasses

import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing import uniform


def mean_expert(library, mix):
    """One expert computed by hand: mean factors, or all factors side by side for the mean of the products."""
    merged = {}
    for site, (a, b) in library.loras.items():
        a, b = np.asarray(a), np.asarray(b) * np.asarray(library.scale)[None, :, None, None]
        if mix == "parameters":
            merged[site] = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
        else:
            n_layers, n_experts, rank, _ = a.shape
            flat = (n_layers, 1, n_experts * rank, -1)
            merged[site] = a.reshape(flat), b.reshape(flat) / n_experts
    return Library.from_arrays(merged)


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_uniform_is_the_mean(model, library, tokens_BT, mix):
    got = model.logits(tokens_BT, library, uniform(library, mix))
    expected = model.logits(tokens_BT, mean_expert(library, mix))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(got - model.logits(tokens_BT)).max() > 0.1


def test_weights_are_one_over_the_number(mixed, x_BTI, token_weights, agrees):
    agrees("uniform", token_weights(uniform(mixed), 0, x_BTI), np.full(5, 1 / 5))


def test_an_unknown_mix_is_named(model, library, tokens_BT):
    router = dataclasses.replace(uniform(library), mix="output")
    with pytest.raises(InputError, match="mix='output': expected one of parameters, outputs"):
        model.logits(tokens_BT, library, router)
