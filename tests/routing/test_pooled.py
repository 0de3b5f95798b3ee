import dataclasses

import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import calibrate, pooled


@pytest.fixture(scope="module")
def neutral():
    rng = np.random.default_rng(9)
    return [rng.integers(3, 61, n).astype(np.int32) for n in (20, 11)]


def slow_alignment(library, site, layer, x):
    """|x . p_e| with prototypes from the SVD of the whole product."""
    pairs = zip(*(np.float64(factor[layer]) for factor in library.loras[site]), strict=True)
    return np.stack([np.abs(x @ np.linalg.svd(b_RO.T @ a_RI)[2][0]) for a_RI, b_RO in pairs], axis=-1)


def slow_scores(library, score, site_inputs, neutral, prompts):
    """Mean standardised scores of each prompt, token by token and site by site, float64[n,E]."""
    total_nE = np.zeros((len(prompts), len(library)))
    before, seen = ([site_inputs(tokens) for tokens in given] for given in (neutral, prompts))
    for site in library.loras:
        for layer in range(3):
            reference = score(library, site, layer, np.concatenate([one[site][layer] for one in before]))
            for i, one in enumerate(seen):
                score_TE = (score(library, site, layer, one[site][layer]) - reference.mean(0)) / reference.std(0)
                total_nE[i] += score_TE.mean(0) / 6
    return total_nE


@pytest.mark.parametrize("kind", ["norm", "arrow"])
def test_weights_equal_the_definition(
    mixed, model, site_inputs, slow_lengths, slow_softmax, prompt_weights, neutral, prompts, kind
):
    router = calibrate(pooled(mixed, top_k=3, temperature=0.3, score=kind), model, neutral)
    score = slow_lengths if kind == "norm" else slow_alignment
    expected = slow_softmax(slow_scores(mixed, score, site_inputs, neutral, prompts), 3, 0.3)
    np.testing.assert_allclose(prompt_weights(router, mixed, prompts), expected, atol=1e-5)


@pytest.mark.parametrize(("otherwise", "weight"), [("uniform", 0.2), ("base", 0.0)])
def test_prompts_that_no_expert_claims(
    mixed, model, site_inputs, slow_lengths, prompt_weights, neutral, prompts, otherwise, weight
):
    """Between the third and the fourth of the prompts' largest scores, half are trusted."""
    score_nE = slow_scores(mixed, slow_lengths, site_inputs, neutral, prompts)
    least = np.sort(score_nE.max(1))[2:4].mean()
    router = calibrate(pooled(mixed, least=least, otherwise=otherwise), model, neutral)
    trusted_n1 = score_nE.max(1, keepdims=True) >= least
    first_nE = score_nE == score_nE.max(1, keepdims=True)
    got_nE = prompt_weights(router, mixed, prompts)
    np.testing.assert_allclose(got_nE, np.where(trusted_n1, first_nE, weight), atol=1e-6)
    assert trusted_n1.sum() == 3


def test_rows_of_zeros_change_nothing(mixed, padded, model, prompt_weights, neutral, prompts):
    first, second = (calibrate(pooled(library, top_k=2), model, neutral) for library in (mixed, padded))
    got, expected = prompt_weights(second, padded, prompts), prompt_weights(first, mixed, prompts)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_permuting_the_library_permutes_the_weights(mixed, prompt_weights, prompts):
    order = [4, 2, 0, 3, 1]
    got, expected = (prompt_weights(pooled(library, top_k=2), library, prompts) for library in (mixed[order], mixed))
    np.testing.assert_allclose(got, expected[:, order], atol=1e-5)


def test_it_is_saved_and_loaded(mixed, model, neutral, loaded):
    loaded(calibrate(pooled(mixed, top_k=2, least=0.1, otherwise="base"), model, neutral))
    loaded(pooled(mixed, score="arrow"))


def test_decoding_equals_recomputing(words, word_model, decodes_as_recomputed):
    decodes_as_recomputed(calibrate(pooled(words, top_k=2), word_model, ["w5 w6 w7 w8"]))


def test_a_router_for_another_library_is_refused(mixed, model):
    with pytest.raises(InputError, match=r"Pooled router's directions, site attn.q has shape \(3, 4, 3, 32\)"):
        model.logits([[1, 2]], mixed, pooled(mixed[:4]))


def test_impossible_settings_are_named(mixed):
    for settings in ({"score": "cosine"}, {"otherwise": "oracle"}, {"top_k": 0}, {"temperature": -1.0}):
        with pytest.raises(InputError, match=str(*settings.values())):
            pooled(mixed, **settings)


def test_settings_are_static(mixed):
    import jax

    router = pooled(mixed)
    assert jax.tree.structure(router) != jax.tree.structure(dataclasses.replace(router, least=0.5))
