import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import logo


def slow_scores(library, site_inputs, prompts, signal, site="attn.q", layer=2):
    """Each expert's output at the last token, by the whole product in float64, and what it says."""
    a_ERI, b_ERO = (np.float64(factor[layer]) for factor in library.loras[site])
    scale_E = np.float64(library.scale)
    found = np.zeros((len(prompts), len(library)))
    for i, tokens in enumerate(prompts):
        x_I = site_inputs(tokens)[site][layer, -1]
        for e in range(len(library)):
            out_O = scale_E[e] * b_ERO[e].T @ a_ERI[e] @ x_I
            share_O = np.exp(out_O - out_O.max()) / np.exp(out_O - out_O.max()).sum()
            entropy = -(share_O * np.log(share_O)).sum()
            found[i, e] = np.linalg.norm(out_O) if signal == "norm" else 1 / entropy
    return found


def slow_shares(score_nE, top_k):
    kept = np.argsort(np.argsort(-score_nE, axis=1), axis=1) < (top_k if top_k > 0 else 99)
    score_nE = np.where(kept, score_nE, 0)
    return score_nE / score_nE.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("signal", ["norm", "entropy"])
def test_weights_equal_the_definition(mixed, site_inputs, prompt_weights, prompts, signal):
    score_nE = slow_scores(mixed, site_inputs, prompts, signal)
    for top_k in (3, 20):
        got = prompt_weights(logo(mixed, top_k=top_k, signal=signal), mixed, prompts)
        np.testing.assert_allclose(got, slow_shares(score_nE, top_k), atol=1e-5)


def test_another_layer_and_site(mixed, site_inputs, prompt_weights, prompts):
    got = prompt_weights(logo(mixed, layer=0, site="mlp.down"), mixed, prompts)
    score_nE = slow_scores(mixed, site_inputs, prompts, "norm", "mlp.down", 0)
    np.testing.assert_allclose(got, slow_shares(score_nE, -1), atol=1e-5)


def test_experts_that_do_nothing_count_alike(mixed, prompt_weights, prompts):
    import jax
    import jax.numpy as jnp

    still = jax.tree.map(jnp.copy, mixed)
    for site, lora in mixed.loras.items():
        still.loras[site] = lora._replace(b=jnp.zeros_like(lora.b))
    np.testing.assert_allclose(prompt_weights(logo(still, top_k=2), still, prompts), 0.2, rtol=1e-6)


def test_rows_of_zeros_change_nothing(mixed, padded, prompt_weights, prompts):
    got, expected = (prompt_weights(logo(library), library, prompts) for library in (padded, mixed))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_permuting_the_library_permutes_the_weights(mixed, prompt_weights, prompts):
    order = [4, 2, 0, 3, 1]
    got, expected = (prompt_weights(logo(library, top_k=2), library, prompts) for library in (mixed[order], mixed))
    np.testing.assert_allclose(got, expected[:, order], atol=1e-6)


def test_it_is_saved_and_loaded(mixed, loaded):
    loaded(logo(mixed, top_k=2, signal="entropy", layer=1))


def test_decoding_equals_recomputing(words, decodes_as_recomputed):
    decodes_as_recomputed(logo(words, top_k=2))


def test_the_first_site_stands_in_for_attention(random_library):
    assert logo(random_library({"mlp.down": (48, 32), "attn.o": (32, 32)})).site == "attn.o"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"site": "attn.v"}, "site='attn.v', layer=-1: expected one of attn.q, mlp.down, and a layer below 3"),
        ({"layer": 3}, "layer=3"),
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
