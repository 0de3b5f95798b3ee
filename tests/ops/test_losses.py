import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modjax.ops.losses import target_losses

N, T, D, V, M = 3, 20, 16, 31, 11


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    hidden_NTD, head_DV = jnp.float32(rng.normal(size=(N, T, D))), jnp.float32(rng.normal(size=(D, V)))
    positions_NM, labels_NM = jnp.array(rng.integers(0, T, (N, M))), jnp.array(rng.integers(0, V, (N, M)))
    return hidden_NTD, head_DV, positions_NM, labels_NM, jnp.float32(rng.uniform(size=(N, M)))


def chunked(hidden_NTD, head_DV, positions_NM, labels_NM, chunk):
    return target_losses(lambda hidden: hidden @ head_DV, hidden_NTD, positions_NM, labels_NM, chunk)


def full(hidden_NTD, head_DV, positions_NM, labels_NM):
    """The reference, from the logits of every position."""
    logits_NTV = hidden_NTD @ head_DV
    logits_NMV = jnp.take_along_axis(logits_NTV, positions_NM[..., None], axis=1)
    return optax.softmax_cross_entropy_with_integer_labels(logits_NMV, labels_NM)


@pytest.mark.parametrize("chunk", [1, 4, 11, 64])
def test_losses_and_gradients_equal_those_of_all_logits(case, chunk):
    *arrays, weights_NM = case
    pieces = functools.partial(chunked, chunk=chunk)
    np.testing.assert_allclose(jax.jit(pieces)(*arrays), full(*arrays), rtol=1e-5, atol=1e-5)

    def gradients(losses):
        return jax.jit(jax.grad(lambda *xs: jnp.sum(losses(*xs) * weights_NM), argnums=(0, 1)))(*arrays)

    for got, expected in zip(gradients(pieces), gradients(full), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_memory_is_one_chunk_of_logits():
    n_targets, vocabulary = 256, 999
    hidden_NTD, head_DV = jnp.ones((N, T, D)), jnp.ones((D, vocabulary))
    places_NM = jnp.zeros((N, n_targets), jnp.int32)

    def bytes_of(loss):
        compiled = jax.jit(jax.grad(lambda hidden_NTD: loss(hidden_NTD, head_DV, places_NM, places_NM).sum()))
        return compiled.lower(hidden_NTD).compile().memory_analysis().temp_size_in_bytes

    all_logits = 4 * N * n_targets * vocabulary
    assert bytes_of(functools.partial(chunked, chunk=4)) < all_logits / 4 < all_logits < bytes_of(full)
