"""Prototypes of tied sites and of whole weights; test_arrow has those of single updates."""

import dataclasses
from typing import get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest
from references.routing import leading, updates

from modjax.errors import InputError
from modjax.models.weights import quantised
from modjax.routing import arrow, load_router
from modjax.routing.prototypes import PrototypeOptions, prototypes_of

QKV = ("attn.q", "attn.k", "attn.v")


@pytest.fixture(scope="module")
def one_a(model, random_library):
    """Four experts with one A for q, k and v, and with an output projection."""
    library = random_library(
        {site: model.config.sites[site] for site in (*QKV, "attn.o")}, 4, 3, 3, scale=[1.0, 2.0, 0.5, 3.0]
    )
    loras = library.loras | {site: library.loras[site]._replace(a=library.loras["attn.q"].a) for site in QKV}
    return dataclasses.replace(library, loras=loras)


def aligned(got_EI, expected_EI):
    """The sign of a singular vector is arbitrary."""
    return got_EI * np.sign(np.sum(got_EI * expected_EI, axis=-1, keepdims=True))


def test_tied_sites_share_the_prototype_of_all_their_outputs(one_a, agrees):
    router = arrow(one_a, tie=(QKV,), length="singular")
    for layer in range(3):
        whole_EOI = np.concatenate([updates(one_a, site, layer) for site in QKV], axis=1)
        vector_EI, value_E = leading(whole_EOI)
        for site in QKV:
            got_EI = np.asarray(router.prototypes[site][layer])
            agrees("arrow, tied", aligned(got_EI, vector_EI), value_E[:, None] * vector_EI)
    alone = arrow(one_a)
    np.testing.assert_array_equal(arrow(one_a, tie=(QKV,)).prototypes["attn.o"], alone.prototypes["attn.o"])
    assert np.abs(alone.prototypes["attn.q"] - alone.prototypes["attn.k"]).max() > 0.01


def test_power_iterations_of_tied_sites_near_the_same(one_a):
    exact, iterated = (arrow(one_a, tie=(QKV,), prototypes=how).prototypes["attn.v"] for how in ("svd", "power"))
    assert np.abs(np.sum(exact * iterated, axis=-1)).mean() > 0.9


@pytest.mark.parametrize("quantize", [None, "int8", "nf4"])
@pytest.mark.parametrize("tie", [(), (QKV,)], ids=["apart", "tied"])
def test_whole_weights(model, one_a, agrees, quantize, tie):
    """Prototypes of W0 + dW, with W0 as the decoder has it, quantised or not."""
    if quantize:
        model = dataclasses.replace(model, params=quantised(model.params, quantize))
        one_a = dataclasses.replace(one_a, infos=tuple(dataclasses.replace(i, fingerprint="") for i in one_a.infos))
    router = arrow(one_a, of="weights", model=model, tie=tie, length="singular")
    for sites in (QKV, ("attn.o",)) if tie else [(site,) for site in one_a.sites]:
        for layer in range(3):
            whole_EOI = np.concatenate([weights(model, one_a, site, layer) for site in sites], axis=1)
            vector_EI, value_E = leading(whole_EOI)
            got_EI = np.asarray(router.prototypes[sites[-1]][layer]) / value_E[:, None]
            agrees("arrow, W0 + dW", aligned(got_EI, vector_EI), vector_EI)


def weights(model, library, site, layer):
    kernel = getattr(model.params.blocks.attn, site[-1]).kernel
    kernel_LIO = kernel.decode() if hasattr(kernel, "decode") else kernel[...]
    scale_E11 = np.float64(library.scale)[:, None, None]
    return np.float64(kernel_LIO[layer]).T[None] + scale_E11 * updates(library, site, layer)


def test_an_a_that_all_experts_share_may_be_stored_once(one_a, model, tmp_path):
    """All kinds of prototypes are those of the library with A repeated."""
    repeated, once = (
        dataclasses.replace(
            one_a, loras={site: lora._replace(a=form(lora.a[:, :1])) for site, lora in one_a.loras.items()}
        )
        for form in (lambda a: jnp.broadcast_to(a, (3, 4, *a.shape[2:])), lambda a: a)
    )
    for options in ({}, {"tie": (QKV,)}, {"prototypes": "power"}, {"of": "weights", "model": model}):
        got, expected = (arrow(library, **options).prototypes for library in (once, repeated))
        for site in one_a.sites:
            np.testing.assert_allclose(got[site], expected[site], atol=1e-6)


@pytest.mark.parametrize(
    ("tie", "message"),
    [
        ((("attn.q", "attn.o"),), "attn.o and attn.q have different A"),
        ((("attn.q", "attn.x"),), "unknown site 'attn.x'; expected one of attn.q, attn.k"),
        ((QKV, ("attn.o", "attn.k")), "'attn.k' is tied 2 times"),
    ],
)
def test_what_cannot_be_tied_is_named(one_a, tie, message):
    with pytest.raises(InputError, match=message):
        arrow(one_a, tie=tie)


@pytest.mark.parametrize("other", [{"prototypes": "power"}, {"scaled": True}])
def test_whole_weights_go_with_neither_power_nor_scale(one_a, model, other):
    with pytest.raises(InputError, match="prototypes='svd', and scaled=False"):
        arrow(one_a, of="weights", model=model, **other)


def test_the_options_are_the_parameters_after_the_library():
    """Names, order and types; the options are written out a second time, so that routers can pass them on."""
    parameters = get_type_hints(prototypes_of)
    assert list(parameters.items())[1:-1] == list(get_type_hints(PrototypeOptions).items())
    assert list(parameters)[0] == "library" and list(parameters)[-1] == "return"


def test_input_norms_are_remembered(one_a, tmp_path):
    arrow(one_a, input_norm="unit").save(tmp_path / "router")
    assert load_router(tmp_path / "router").input_norm == "unit"
