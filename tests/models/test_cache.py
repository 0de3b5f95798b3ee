import jax.numpy as jnp
import numpy as np
import pytest

from modjax.models.cache import Cache


@pytest.mark.parametrize("chunks", [[12], [5, 1, 1, 1, 4], [1] * 12])
def test_cached_decoding_equals_full_recompute(run, run_cached, decoder, tokens_BT, chunks):
    segments_BT = jnp.array([[1] * 12, [0] * 3 + [1] * 9], jnp.int32)
    positions_BT = jnp.maximum(jnp.cumsum(segments_BT, axis=1) - 1, 0)
    full_BTD = run(decoder, tokens_BT, positions_BT, segments_BT)
    cache, parts = Cache.empty(decoder.config, batch=2, length=15), []
    for start, end in zip(np.cumsum([0, *chunks]), np.cumsum(chunks), strict=False):
        columns = slice(int(start), int(end))
        x_BTD, cache = run_cached(
            decoder, cache, tokens_BT[:, columns], positions_BT[:, columns], segments_BT[:, columns]
        )
        parts.append(x_BTD)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), full_BTD, atol=2e-5, rtol=1e-4)
    assert cache.index == 12


def test_positions_go_on_from_the_cache(run, run_cached, decoder, tokens_BT):
    _, cache = run_cached(decoder, Cache.empty(decoder.config, batch=2, length=12), tokens_BT[:, :7])
    rest_BTD, cache = run_cached(decoder, cache, tokens_BT[:, 7:])
    np.testing.assert_allclose(rest_BTD, run(decoder, tokens_BT)[:, 7:], atol=2e-5, rtol=1e-4)
    np.testing.assert_array_equal(cache.positions[0], range(12))


def test_empty_cache_has_the_models_dtype_and_shape(decoder):
    cache = Cache.empty(decoder.config, batch=2, length=9, dtype=jnp.bfloat16)
    assert cache.k.shape == cache.v.shape == (2, 2, 9, decoder.config.K, 8) and cache.k.dtype == jnp.bfloat16
    assert not cache.segments.any() and cache.index == 0


@pytest.mark.parametrize("decoder", ["phi3"], indirect=True)
def test_rotary_factors_by_length_go_by_the_length_of_the_cache(run, run_cached, decoder, tokens_BT):
    """Factors differ for up to 5 tokens and for more; 4 tokens in a cache of 12 are rotated as the first 4 of 12."""
    for length in (4, 12):
        cache = Cache.empty(decoder.config, batch=2, length=length)
        got_BTD, _ = run_cached(decoder, cache, tokens_BT[:, :4])
        np.testing.assert_allclose(got_BTD, run(decoder, tokens_BT[:, :length])[:, :4], atol=2e-5, rtol=1e-4)
    assert np.abs(got_BTD - run(decoder, tokens_BT[:, :4])).max() > 1e-2
