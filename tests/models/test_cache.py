"""Decoding with a cache of prefix trees equals reading each branch as a row of its own."""

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.rows import filled
from modjax.data.tokenize import Encoded

ROOM = 5


def paths(tokens_BT):
    """Two rows of prompts: three that share tokens, and two, of which one begins with the other."""
    a, b = np.asarray(tokens_BT)
    return [[a[:7], np.r_[a[:4], b[:3]], b[:5]], [a[3:9], a[3:6], a[3:6]]]


def row_of(prompts, length=16):
    """(tokens, positions, ends) of one row and the index of each prompt's last token."""
    examples = sorted((Encoded(one, len(one)) for one in prompts), key=lambda one: one.tokens.tolist())
    row = filled(examples, length)
    nodes = []
    for prompt in prompts:
        at = [i for i in range(length) if row.positions[i] == len(prompt) - 1 and i < row.ends[i]]
        read = {i: [j for j in range(i + 1) if i < row.ends[j]] for i in at}
        nodes.append(next(i for i in at if row.tokens[read[i]].tolist() == prompt.tolist()))
    return row.tokens, row.positions, row.ends, np.array(nodes)


def decoded(run_cached, decoder, prompts_BX, new_BXG):
    """Hidden states of the new tokens of every branch, float[B, X, G, D]."""
    prefill, decode = run_cached
    *places, node_BX = (jnp.asarray(np.stack(part)) for part in zip(*map(row_of, prompts_BX), strict=True))
    cache = prefill(decoder, *places, ROOM)[1].branched(node_BX)
    parts = []
    for step in range(new_BXG.shape[2]):
        hidden_BXD, cache = decode(decoder, jnp.asarray(new_BXG[:, :, step]), cache)
        parts.append(hidden_BXD)
    assert cache.count == new_BXG.shape[2]
    return np.stack(parts, axis=2)


def test_branches_equal_rows_of_their_own(run, run_cached, decoder, tokens_BT):
    prompts_BX = paths(tokens_BT)
    new_BXG = np.random.default_rng(0).integers(0, 61, (2, 3, ROOM))
    got_BXGD = decoded(run_cached, decoder, prompts_BX, new_BXG)
    for b, prompts in enumerate(prompts_BX):
        for x, prompt in enumerate(prompts):
            tokens = np.concatenate([prompt, new_BXG[b, x]])
            whole = run(decoder, jnp.asarray(tokens[None]))
            np.testing.assert_allclose(got_BXGD[b, x], whole[0, len(prompt) :], atol=2e-5, rtol=1e-4)


def test_branches_can_start_elsewhere(run, run_cached, decoder, tokens_BT):
    """The same rows, read once, with other branches, which start within them."""
    prefill, decode = run_cached
    tokens_1T = tokens_BT[:1]
    _, cache = prefill(decoder, tokens_1T, None, None, ROOM)
    hidden_1XD, _ = decode(decoder, jnp.array([[7, 9]]), cache.branched(jnp.array([[2, 5]])))
    for x, (node, token) in enumerate([(2, 7), (5, 9)]):
        tokens = jnp.concatenate([tokens_1T[:, : node + 1], jnp.array([[token]])], axis=1)
        if decoder.config.original is None:  # else other factors, as its row has longer paths
            np.testing.assert_allclose(hidden_1XD[0, x], run(decoder, tokens)[0, -1], atol=2e-5, rtol=1e-4)


def test_a_cache_has_the_dtype_and_the_sizes_of_the_model(run_cached, decoder, tokens_BT):
    _, cache = run_cached[0](decoder, tokens_BT, None, None, ROOM)
    cache = cache.branched(jnp.zeros((2, 3), jnp.int32))
    L, K, H = decoder.config.L, decoder.config.K, decoder.config.H
    assert cache.k.shape == cache.v.shape == (L, 2, K, 12, H) and cache.k.dtype == decoder.embed.dtype
    assert cache.new_k.shape == cache.new_v.shape == (L, 2, 3, K, ROOM, H) and cache.room == ROOM


@pytest.mark.parametrize("decoder", ["phi3"], indirect=True)
def test_rotary_factors_by_length_go_by_prompt_and_room(run, run_cached, decoder, tokens_BT):
    """Factors differ for up to 5 tokens and for more; 4 tokens with room for 8 are rotated as the first 4 of 12."""
    positions_BT = jnp.tile(jnp.arange(12), (2, 1))

    def places(length):
        return tokens_BT, positions_BT, jnp.where(positions_BT < length, 12, 0)

    for room in (1, 8):
        got_BTD, _ = run_cached[0](decoder, *places(4), room)
        expected_BTD = run(decoder, *places(4 + room))
        np.testing.assert_allclose(got_BTD[:, :4], expected_BTD[:, :4], atol=2e-5, rtol=1e-4)
    assert np.abs(got_BTD - run(decoder, *places(4)))[:, :4].max() > 1e-2
