import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.models.sampling import Sampling, filtered, sample, sampling

V = 97
TEMPERATURES, TOP_KS, TOP_PS = (0.3, 1.0, 2.5), (None, 2, 7, V, 500), (None, 1e-6, 0.1, 0.5, 0.9, 0.999, 1.0)


apply = jax.jit(filtered)


def logits(seed, rows=4, scale=3.0):
    return np.float32(np.random.default_rng(seed).normal(size=(rows, V)) * scale)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def transformers_scores(logits_BV, temperature, top_k, top_p):
    """Scores after the logits processors of transformers' generate(do_sample=True)."""
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [TopPLogitsWarper(top_p)] if top_p is not None and top_p < 1 else []
    scores = torch.tensor(logits_BV)
    for warper in warpers:
        scores = warper(None, scores)
    return scores.numpy()


@pytest.mark.parametrize("top_k", TOP_KS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_scores_equal_transformers_processors(temperature, top_k):
    for seed, top_p in enumerate(TOP_PS):
        logits_BV = logits(seed)
        got = apply(jnp.array(logits_BV), sampling(temperature, top_k, top_p))
        expected = transformers_scores(logits_BV, temperature, top_k, top_p)
        np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_tokens_as_likely_as_the_last_one_kept_stay():
    logits_BV = jnp.array([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for how in (Sampling(1.0, top_k=2), Sampling(1.0, top_p=0.6)):
        np.testing.assert_array_equal(jnp.isfinite(filtered(logits_BV, how)), [[True, True, True, True, False]])


def test_zero_temperature_takes_the_likeliest():
    logits_BV = jnp.array([[0.0, 3.0, 1.0], [2.0, -1.0, 1.9]])
    got = sample(logits_BV, keys(2))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [1, 0])
    assert sampling(0.0, top_p=0.5) is None and sampling(1.0, top_k=1) is None


def test_draws_follow_the_softmax():
    logits_BV = jnp.broadcast_to(jnp.array([[0.0, 1.0, 2.0]]), (20_000, 3))
    for temperature in (1.0, 2.0):
        drawn = sample(logits_BV, keys(len(logits_BV), 1), Sampling(temperature))
        frequencies = np.bincount(drawn, minlength=3) / len(drawn)
        np.testing.assert_allclose(frequencies, jax.nn.softmax(logits_BV[0] / temperature), atol=0.015)


def test_draws_stay_inside_and_follow_what_is_left():
    logits_BV = jnp.broadcast_to(jnp.array([[0.0, 1.0, 2.0, 3.0]]), (20_000, 4))
    drawn = sample(logits_BV, keys(len(logits_BV), 2), Sampling(1.0, top_k=3, top_p=0.8))
    left = np.exp([2.0, 3.0]) / np.exp([2.0, 3.0]).sum()  # of 0.09, 0.24, 0.67 the last two make 0.8
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(drawn), [0, 0, *left], atol=0.015)


def test_a_row_draws_the_same_alone_and_in_company():
    logits_BV, keys_B = jnp.array(logits(0)), keys(4, 3)
    how = Sampling(1.5, 20, 0.9)
    together = sample(logits_BV, keys_B, how)
    for row in range(4):
        np.testing.assert_array_equal(sample(logits_BV[row : row + 1], keys_B[row : row + 1], how), together[row])


def test_other_numbers_need_no_other_program():
    program = jax.jit(sample)
    for how in (sampling(1.0), sampling(0.5, 3), sampling(2.0, None, 0.5), sampling(0.1, 40, 0.9)):
        program(jnp.array(logits(0)), keys(4), how)
    assert program._cache_size() == 1


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-30, np.float32(1e-12)])
def test_a_temperature_near_0_takes_the_likeliest(temperature):
    for scale in (1e-3, 3.0, 1e4):
        logits_BV = jnp.asarray(logits(5, scale=scale))
        for how in (sampling(temperature), sampling(temperature, 5, 0.9)):
            np.testing.assert_array_equal(sample(logits_BV, keys(4), how), jnp.argmax(logits_BV, axis=-1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-0.1,), "temperature=-0.1"),
        ((float("nan"),), "temperature=nan"),
        ((float("inf"),), "temperature=inf"),
        ((1.0, 0), "top_k=0"),
        ((1.0, 2.5), "top_k=2.5"),
        ((1.0, None, 0.0), "top_p=0.0"),
        ((0.0, None, 1.1), "top_p=1.1"),
        ((1.0, None, float("nan")), "top_p=nan"),
    ],
)
def test_impossible_settings_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        sampling(*arguments)
