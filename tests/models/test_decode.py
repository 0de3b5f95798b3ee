"""Prefill and chunks on a tiny decoder: equal to recomputing everything for each token, and few programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.models.decode import CHUNK, Prompts, advance, begin, prefill
from modjax.models.padding import right_padded
from modjax.models.sampling import Sampling

PROMPTS = [[5, 9, 11], [7], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
ROWS, COLUMNS, ROOM = 4, 16, 24  # the fourth row only fills the batch
NO_ENDS = np.zeros(0, np.int32)


@pytest.fixture(scope="module")
def programs():
    """The two functions, compiled once for all tests."""
    return jax.jit(prefill, static_argnames="room"), jax.jit(advance)


@pytest.fixture(scope="module")
def decoder(word_model):
    return word_model.params


def padded(seed=0):
    tokens_BT, lengths_B = right_padded([np.array(one) for one in PROMPTS], ROWS, COLUMNS)
    positions_BT = np.tile(np.arange(COLUMNS, dtype=np.int32), (ROWS, 1))
    ends_BT = np.where(positions_BT < lengths_B[:, None], COLUMNS, 0)
    keys_BX = jax.random.split(jax.random.key(seed), ROWS)[:, None]
    return Prompts(tokens_BT, positions_BT, ends_BT, np.maximum(lengths_B - 1, 0)[:, None], keys_BX)


def decoded(programs, decoder, how=None, counts=(CHUNK, 3), ends_Z=NO_ENDS, over_B=(False, False, False, True)):
    """The tokens of each row, int[ROWS, 1 + sum of counts], and the state at the end."""
    first, following = programs
    prompts = padded()
    first_BX, cache = first(decoder, prompts, ROOM, how)
    state = begin(cache, prompts.node_BX, first_BX, prompts.keys_BX)
    parts = [state.newest_BX]
    for steps in counts:
        out_BXG, state = following(decoder, state, np.array(over_B)[:, None], ends_Z, steps, how)
        assert out_BXG.shape == (ROWS, 1, CHUNK) and out_BXG.dtype == jnp.int32
        parts.append(out_BXG[:, 0, :steps])
    return np.concatenate(parts, axis=1), state


@functools.cache
def recomputed(decoder, prompt, n_tokens):
    """Greedy decoding without a cache: the whole row goes through the decoder for each token."""
    run = jax.jit(lambda tokens_BT: decoder.logits(decoder(tokens_BT)))
    tokens = list(prompt)
    for _ in range(n_tokens):
        row = np.pad(tokens, (0, 40 - len(tokens)))[None]  # attention is causal: the zeros after them are not read
        tokens.append(int(np.argmax(run(row)[0, len(tokens) - 1])))
    return tokens[len(prompt) :]


def test_cached_equals_recomputed(programs, decoder):
    tokens_BG, state = decoded(programs, decoder)
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(tokens_BG[row], recomputed(decoder, tuple(prompt), 20))
    assert state.drawn == 20 and state.cache.count == 19  # the newest token is not read yet


def test_the_size_of_chunks_changes_nothing(programs, decoder):
    for how in (None, Sampling(1.0, 12, 0.9)):
        whole, _ = decoded(programs, decoder, how)
        np.testing.assert_array_equal(decoded(programs, decoder, how, counts=(1, 2, 5, 11))[0][:3], whole[:3])


def test_it_stops_once_every_row_is_over(programs, decoder):
    tokens_BG, _ = decoded(programs, decoder)
    ends_Z = np.unique(tokens_BG[:3, 3])
    drawn = [2 + np.flatnonzero(np.isin(row, ends_Z))[0] for row in tokens_BG[:3, 1:]]
    assert decoded(programs, decoder, counts=(CHUNK,), ends_Z=ends_Z)[1].drawn == max(drawn) <= 4


def test_rows_that_are_over_hold_nothing_up(programs, decoder):
    _, state = decoded(programs, decoder, counts=(CHUNK,), over_B=(True,) * ROWS)
    assert state.drawn == 1


def test_one_program_for_all_numbers(programs, decoder):
    def compiled(how, **settings):
        before = [program._cache_size() for program in programs]
        decoded(programs, decoder, how, **settings)
        return [program._cache_size() - n for program, n in zip(programs, before, strict=True)]

    compiled(Sampling(1.0))
    assert compiled(Sampling(0.2, 5), counts=(4, 1)) == [0, 0]
    assert compiled(Sampling(3.0, 2, 0.4), counts=(7,), over_B=(True, False, True, False)) == [0, 0]
