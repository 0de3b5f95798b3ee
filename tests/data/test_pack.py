"""Packed rows contain every example once, and an example is not affected by others in its row."""

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.pack import pack, pad_targets
from modjax.data.tokenize import Encoded
from modjax.ops.losses import target_losses

LENGTH = 32


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 14, 40)
    return [Encoded(rng.integers(4, 64, n).astype(np.int32), int(rng.integers(1, n - 1))) for n in lengths]


@pytest.fixture
def rows(examples):
    return pack(examples, LENGTH)


def pieces(rows):
    """(tokens, positions, positions of targets within the segment, their labels) of each segment of each row."""
    for row in range(rows.n_rows):
        real = rows.weights[row] > 0
        for segment in range(1, rows.segments[row].max() + 1):
            (places,) = np.nonzero(rows.segments[row] == segment)
            assert np.all(np.diff(places) == 1)
            own = real & np.isin(rows.at[row], places)
            yield (
                rows.tokens[row, places],
                rows.positions[row, places],
                rows.at[row, own] - places[0],
                rows.labels[row, own],
            )


def test_every_example_is_whole_in_one_row_once(examples, rows):
    assert sorted(tuple(tokens) for tokens, *_ in pieces(rows)) == sorted(tuple(one.tokens) for one in examples)


def test_positions_begin_at_zero_in_each_segment(rows):
    for tokens, positions, _, _ in pieces(rows):
        np.testing.assert_array_equal(positions, np.arange(len(tokens)))


def test_targets_are_the_tokens_behind_the_prompt(examples, rows):
    expected = {tuple(one.tokens): one.n_prompt for one in examples}
    for tokens, _, at, labels in pieces(rows):
        n_prompt = expected[tuple(tokens)]
        np.testing.assert_array_equal(at, np.arange(n_prompt - 1, len(tokens) - 1))
        np.testing.assert_array_equal(labels, tokens[n_prompt:])


def test_there_are_as_many_targets_as_tokens_behind_prompts(examples, rows):
    assert rows.weights.sum() == sum(len(one.tokens) - one.n_prompt for one in examples)
    assert rows.labels.shape[1] == (rows.weights > 0).sum(axis=1).max()


def test_padding_is_nobodys_segment(rows):
    padding = rows.segments == 0
    assert not rows.tokens[padding].any() and not rows.positions[padding].any()


def test_little_is_padding(examples, rows):
    least = -(-sum(len(one.tokens) for one in examples) // LENGTH)
    assert rows.n_rows <= least + 1


def test_an_example_goes_to_the_fullest_row_that_holds_it():
    sizes = [7, 6, 3, 4]
    rows = pack([Encoded(np.full(n, n, np.int32), 1) for n in sizes], 10)
    assert sorted(sorted(set(row.tolist())) for row in rows.tokens) == [[3, 7], [4, 6]]


def test_padded_targets_weigh_nothing(rows):
    wide = pad_targets(rows, rows.labels.shape[1] + 5)
    assert wide.weights.shape == wide.at.shape == wide.labels.shape
    assert wide.weights.sum() == rows.weights.sum()


def test_packed_losses_are_those_of_each_example_alone(examples, rows, word_model):
    alone = pack_each_alone(examples)
    packed = losses(word_model.params, rows)
    single = losses(word_model.params, alone)
    np.testing.assert_allclose(sorted(packed), sorted(single), rtol=2e-5, atol=1e-6)


def pack_each_alone(examples):
    singles = [pack([one], LENGTH) for one in examples]
    width = max(one.labels.shape[1] for one in singles)
    return type(singles[0])(*(np.concatenate(f) for f in zip(*(pad_targets(s, width) for s in singles), strict=True)))


def losses(decoder, rows):
    hidden, _ = decoder(jnp.asarray(rows.tokens), jnp.asarray(rows.positions), jnp.asarray(rows.segments))
    found = target_losses(decoder.logits, hidden, jnp.asarray(rows.at), jnp.asarray(rows.labels))
    return np.asarray(found)[rows.weights > 0]
