import dataclasses

import numpy as np
import pytest
from references.routing import alignments, lengths, pooled_scores, top_k_softmax

from modjax.errors import InputError
from modjax.routing import calibrate, pooled


@pytest.fixture(scope="module")
def neutral():
    rng = np.random.default_rng(9)
    return [rng.integers(3, 61, n).astype(np.int32) for n in (20, 11)]


@pytest.fixture(scope="module")
def seen(site_inputs, neutral, prompts):
    """The inputs of sites for the neutral prompts, and for the other prompts."""
    return [[site_inputs(tokens) for tokens in given] for given in (neutral, prompts)]


@pytest.mark.parametrize("kind", ["norm", "arrow"])
def test_weights_equal_the_definition(mixed, model, seen, prompt_weights, neutral, prompts, kind, agrees):
    router = calibrate(pooled(mixed, top_k=3, temperature=0.3, score=kind), model, neutral)
    score_nE = pooled_scores(mixed, lengths if kind == "norm" else alignments, *seen)
    agrees(f"pooled, {kind}", prompt_weights(router, mixed, prompts), top_k_softmax(score_nE, 3, 0.3))


@pytest.mark.parametrize(("otherwise", "weight"), [("uniform", 0.2), ("base", 0.0)])
def test_prompts_that_no_expert_claims(mixed, model, seen, prompt_weights, neutral, prompts, otherwise, weight):
    """With a threshold between the third and fourth largest of six scores, three prompts keep their expert."""
    score_nE = pooled_scores(mixed, lengths, *seen)
    least = np.sort(score_nE.max(1))[2:4].mean()
    router = calibrate(pooled(mixed, least=least, otherwise=otherwise), model, neutral)
    trusted_n1 = score_nE.max(1, keepdims=True) >= least
    first_nE = score_nE == score_nE.max(1, keepdims=True)
    got_nE = prompt_weights(router, mixed, prompts)
    np.testing.assert_allclose(got_nE, np.where(trusted_n1, first_nE, weight), atol=1e-6)
    assert trusted_n1.sum() == 3


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
