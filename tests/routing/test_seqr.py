import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import routing as reference

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing import calibrate, seqr, spectr


@pytest.fixture(scope="module")
def frozen(mixed):
    """Experts that differ only in B."""
    return Library.from_arrays(
        {site: (jnp.broadcast_to(a[:, :1], a.shape), b) for site, (a, b, _) in mixed.loras.items()}, names=mixed.names
    )


@pytest.mark.parametrize("top_k", [1, 3, -1])
def test_weights_equal_the_definition(mixed, frozen, x_BTI, token_weights, agrees, top_k):
    for library in (mixed, frozen):
        router = seqr(library, top_k=top_k, temperature=0.5)
        for layer in range(3):
            expected = reference.seqr_weights(reference.updates(library, "attn.q", layer), x_BTI, None, top_k, 0.5)
            agrees("seqr", token_weights(router, layer, x_BTI), expected)


def test_an_a_that_all_share_is_kept_once(mixed, frozen):
    assert seqr(mixed).a["attn.q"].shape == (3, 5, 3, 32)
    assert seqr(frozen).a["attn.q"].shape == (3, 1, 3, 32)
    assert seqr(frozen.with_shared_a()).a["attn.q"].shape == (3, 1, 3, 32)


@pytest.mark.parametrize("scaled", [False, True])
def test_it_is_spectr_until_calibrated(mixed, x_BTI, token_weights, scaled):
    got, expected = (token_weights(make(mixed, scaled=scaled), 2, x_BTI) for make in (seqr, spectr))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_scores_are_standardised_by_what_they_are_on_the_calibrating_prompts(
    mixed, model, prompts, site_inputs, x_BTI, token_weights, agrees
):
    router = calibrate(seqr(mixed, top_k=2), model, prompts, batch=4)
    seen = [site_inputs(tokens) for tokens in prompts]
    for site in mixed.loras:
        for layer in range(3):
            neutral_nI = np.concatenate([one[site][layer] for one in seen])
            score_nE = reference.lengths(reference.updates(mixed, site, layer), neutral_nI)
            np.testing.assert_allclose(router.mean[site][layer], score_nE.mean(0), rtol=1e-5)
            np.testing.assert_allclose(router.deviation[site][layer], score_nE.std(0), rtol=1e-5)
    neutral_nI = np.concatenate([one["attn.q"][1] for one in seen])
    expected = reference.seqr_weights(reference.updates(mixed, "attn.q", 1), x_BTI, neutral_nI, 2, 1.0)
    agrees("seqr, calibrated", token_weights(router, 1, x_BTI), expected)


def test_calibration_makes_loudness_irrelevant(mixed, model, prompts, x_BTI, token_weights):
    """Scaled factors, and a second calibration that replaces the first, give the same weights."""
    loud = jax.tree.map(jnp.copy, mixed)
    for site, (a, b, _) in mixed.loras.items():
        loud.loras[site] = loud.loras[site]._replace(a=a, b=b * jnp.array([1, 9, 0.2, 3, 1])[None, :, None, None])
    expected = token_weights(calibrate(seqr(mixed), model, prompts), 1, x_BTI)
    router = calibrate(seqr(loud), model, prompts[:2])
    np.testing.assert_allclose(token_weights(calibrate(router, model, prompts), 1, x_BTI), expected, atol=1e-5)
    assert np.abs(token_weights(seqr(loud), 1, x_BTI) - expected).max() > 0.1


def test_calibration_does_not_depend_on_the_batch(mixed, model, prompts):
    one, all_at_once = (calibrate(seqr(mixed), model, prompts, batch=batch) for batch in (1, 16))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, all_at_once)


def test_an_expert_that_does_nothing_has_finite_weights(mixed, model, prompts, x_BTI, token_weights):
    still = jax.tree.map(jnp.copy, mixed)
    for site, lora in mixed.loras.items():
        still.loras[site] = lora._replace(b=lora.b.at[:, 1].set(0))
    assert np.isfinite(token_weights(calibrate(seqr(still), model, prompts), 0, x_BTI)).all()


def test_texts_are_read_as_generation_reads_them(words, word_model):
    from modjax.data.tokenize import prompts as encode_prompts

    texts = ["w1 w2 w3", "w9 w4"]
    ids = encode_prompts(word_model.tokenizer, texts)
    got, expected = (calibrate(seqr(words), word_model, given) for given in (texts, ids))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no prompts"),
        (["w1"], "no tokenizer; expected one"),
        ([np.zeros(0, np.int32)], "prompt 0 has no tokens"),
        ([np.zeros(3, np.int32), np.zeros(65, np.int32)], "prompt 1 has 65 tokens; expected at most 64, the context"),
    ],
)
def test_prompts_that_cannot_be_read(mixed, model, given, message):
    with pytest.raises(InputError, match=message):
        calibrate(seqr(mixed), model, given)


def test_routers_without_such_scores_are_named(mixed, model, prompts):
    with pytest.raises(InputError, match="the Spectr router cannot be calibrated; expected a router of `seqr`"):
        calibrate(spectr(mixed), model, prompts)
