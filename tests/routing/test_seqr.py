import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing import calibrate, seqr, spectr


@pytest.fixture(scope="module")
def frozen(mixed):
    """Experts that differ in B alone."""
    return Library.from_arrays(
        {site: (jnp.broadcast_to(a[:, :1], a.shape), b) for site, (a, b) in mixed.loras.items()}, names=mixed.names
    )


@pytest.mark.parametrize("top_k", [1, 3, -1])
def test_weights_equal_the_definition(mixed, frozen, x_BTI, token_weights, slow_lengths, slow_softmax, top_k):
    for library in (mixed, frozen):
        router = seqr(library, top_k=top_k, temperature=0.5)
        for layer in range(3):
            expected = slow_softmax(slow_lengths(library, "attn.q", layer, x_BTI), top_k, 0.5)
            np.testing.assert_allclose(token_weights(router, layer, x_BTI), expected, atol=1e-5)


def test_an_a_that_all_share_is_kept_once(mixed, frozen):
    assert seqr(mixed).a["attn.q"].shape == (3, 5, 3, 32)
    assert seqr(frozen).a["attn.q"].shape == (3, 1, 3, 32)


@pytest.mark.parametrize("scaled", [False, True])
def test_it_is_spectr_until_calibrated(mixed, x_BTI, token_weights, scaled):
    got, expected = (token_weights(make(mixed, scaled=scaled), 2, x_BTI) for make in (seqr, spectr))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_scores_are_standardised_by_what_they_are_on_the_calibrating_prompts(
    mixed, model, prompts, site_inputs, slow_lengths, x_BTI, token_weights, slow_softmax
):
    router = calibrate(seqr(mixed, top_k=2), model, prompts, batch=4)
    seen = [site_inputs(tokens) for tokens in prompts]
    for site in mixed.loras:
        for layer in range(3):
            score_nE = slow_lengths(mixed, site, layer, np.concatenate([one[site][layer] for one in seen]))
            np.testing.assert_allclose(router.mean[site][layer], score_nE.mean(0), rtol=1e-5)
            np.testing.assert_allclose(router.deviation[site][layer], score_nE.std(0), rtol=1e-5)
    mean_E, deviation_E = (np.float64(field["attn.q"][1]) for field in (router.mean, router.deviation))
    score_BTE = (slow_lengths(mixed, "attn.q", 1, x_BTI) - mean_E) / deviation_E
    np.testing.assert_allclose(token_weights(router, 1, x_BTI), slow_softmax(score_BTE, 2), atol=1e-5)


def test_calibration_makes_loudness_irrelevant(mixed, model, prompts, x_BTI, token_weights):
    """Factors of another size, and a second calibration in place of the first, give the same weights."""
    loud = jax.tree.map(jnp.copy, mixed)
    for site, (a, b) in mixed.loras.items():
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
        (["w1"], "no tokenizer; expected prompts as arrays"),
        ([np.zeros(0, np.int32)], "prompt 0 has 0 tokens; expected 1 to 64"),
        ([np.zeros(3, np.int32), np.zeros(65, np.int32)], "prompt 1 has 65 tokens; expected 1 to 64"),
    ],
)
def test_prompts_that_cannot_be_read(mixed, model, given, message):
    with pytest.raises(InputError, match=message):
        calibrate(seqr(mixed), model, given)


def test_rows_of_zeros_change_nothing(mixed, padded, x_BTI, token_weights):
    got, expected = (token_weights(seqr(library), 1, x_BTI) for library in (padded, mixed))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_permuting_the_library_permutes_the_weights(mixed, x_BTI, token_weights):
    order = [4, 2, 0, 3, 1]
    got, expected = (token_weights(seqr(library, top_k=2), 1, x_BTI) for library in (mixed[order], mixed))
    np.testing.assert_allclose(got, expected[..., order], atol=1e-6)


def test_it_is_saved_and_loaded(mixed, model, prompts, loaded):
    loaded(calibrate(seqr(mixed, top_k=2), model, prompts))


def test_decoding_equals_recomputing(words, word_model, decodes_as_recomputed):
    decodes_as_recomputed(calibrate(seqr(words, top_k=2), word_model, ["w5 w6 w7 w8"]))
