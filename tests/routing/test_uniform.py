import dataclasses

import numpy as np
import pytest
from references.routing import mean_of_factors, mean_of_products

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing import uniform

SITE = "attn.q"
FORMS = [("factors", "parameters", mean_of_factors), ("products", "outputs", mean_of_products)]


def mean_expert(library, mix):
    """One expert computed by hand: mean factors, or all factors concatenated for the mean of the products."""
    merged = {}
    for site, (a, b, _) in library.loras.items():
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


@pytest.mark.parametrize("form, mix, mean", FORMS)
def test_the_update_equals_the_definition(mixed, x_BTI, site_delta, agrees, form, mix, mean):
    for layer in range(3):
        expected = np.float64(x_BTI) @ mean(mixed, SITE, layer).T
        agrees(f"uniform, of {form}", site_delta(mixed, uniform(mixed, mix), layer, x_BTI), expected)


def test_an_unknown_mix_is_named(model, library, tokens_BT):
    router = dataclasses.replace(uniform(library), mix="output")
    with pytest.raises(InputError, match="mix='output': expected one of parameters, outputs"):
        model.logits(tokens_BT, library, router)
