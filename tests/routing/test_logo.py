import numpy as np
import pytest
from references.routing import logo_weights, updates

from modjax.errors import InputError
from modjax.routing import logo


def last_inputs(site_inputs, prompts, site, layer):
    return np.stack([site_inputs(tokens)[site][layer, -1] for tokens in prompts])


@pytest.mark.parametrize("signal", ["norm", "entropy"])
def test_weights_equal_the_definition(mixed, site_inputs, prompt_weights, prompts, signal, agrees):
    x_nI = last_inputs(site_inputs, prompts, "attn.q", 2)
    for top_k in (3, 20):
        got = prompt_weights(logo(mixed, top_k=top_k, signal=signal), mixed, prompts)
        expected = logo_weights(updates(mixed, "attn.q", 2), np.float64(mixed.scale), x_nI, signal, top_k)
        agrees(f"logo, {signal}", got, expected)


def test_another_layer_and_site(mixed, site_inputs, prompt_weights, prompts, agrees):
    got = prompt_weights(logo(mixed, layer=0, site="mlp.down"), mixed, prompts)
    x_nI = last_inputs(site_inputs, prompts, "mlp.down", 0)
    expected = logo_weights(updates(mixed, "mlp.down", 0), np.float64(mixed.scale), x_nI, "norm", -1)
    agrees("logo, norm", got, expected)


def test_experts_that_do_nothing_count_alike(mixed, prompt_weights, prompts):
    import jax
    import jax.numpy as jnp

    still = jax.tree.map(jnp.copy, mixed)
    for site, lora in mixed.loras.items():
        still.loras[site] = lora._replace(b=jnp.zeros_like(lora.b))
    np.testing.assert_allclose(prompt_weights(logo(still, top_k=2), still, prompts), 0.2, rtol=1e-6)


def test_the_first_site_stands_in_for_attention(random_library):
    assert logo(random_library({"mlp.down": (48, 32), "attn.o": (32, 32)})).site == "attn.o"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"site": "attn.v"}, "site='attn.v': expected one of attn.q, mlp.down"),
        ({"layer": 3}, "layer=3: expected a whole number, at least -3 and at most 2"),
        ({"layer": -4}, "layer=-4"),
        ({"signal": "loudness"}, "signal='loudness': expected one of norm, entropy"),
        ({"top_k": 0}, "top_k=0"),
    ],
)
def test_impossible_settings_are_named(mixed, settings, message):
    with pytest.raises(InputError, match=message):
        logo(mixed, **settings)


def test_a_router_for_another_library_is_refused(mixed, model):
    with pytest.raises(InputError, match="the Logo router is for 4 experts; the library has 5"):
        model.logits([[1, 2]], mixed, logo(mixed[:4]))
