"""Rows hold every example once as a path of a prefix tree, and an example is not affected by others in its row."""

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.rows import OPEN, filled, forests, joined, pack, pad_targets
from modjax.data.tokenize import Encoded
from modjax.ops.losses import target_losses

LENGTH = 32


def example(*tokens, prompt=1):
    return Encoded(np.array(tokens, np.int32), prompt)


@pytest.fixture
def examples():
    """Forty examples of three tasks; those of one begin with the same tokens."""
    rng = np.random.default_rng(0)
    starts = [rng.integers(4, 64, n) for n in (0, 6, 9)]
    found = []
    for number in range(40):
        own = np.concatenate([starts[number % 3], rng.integers(4, 64, rng.integers(3, 12))]).astype(np.int32)
        found.append(Encoded(own, int(rng.integers(1, len(own) - 1))))
    return found


@pytest.fixture
def rows(examples):
    return pack(examples, LENGTH)


def targets(rows):
    """(tokens that the target's query reads, label) of each target."""
    found = []
    for row in range(rows.n_rows):
        index = np.arange(rows.tokens.shape[1])
        for at, label, weight in zip(rows.at[row], rows.labels[row], rows.weights[row], strict=True):
            if weight:
                path = index[(index <= at) & (at < rows.ends[row])]
                np.testing.assert_array_equal(rows.positions[row, path], np.arange(len(path)))
                found.append((tuple(rows.tokens[row, path].tolist()), int(label)))
    return sorted(found)


def expected(examples):
    return sorted(
        (tuple(one.tokens[:i].tolist()), int(one.tokens[i]))
        for one in examples
        for i in range(one.n_prompt, len(one.tokens))
    )


def test_each_target_reads_the_tokens_before_it_in_its_example(examples, rows):
    assert targets(rows) == expected(examples)


def test_what_examples_begin_with_is_in_a_row_once():
    one = pack([example(1, 2, 3, 4), example(1, 2, 5, 6, 7), example(1, 2, 3, 8), example(9, 3)], 8)
    np.testing.assert_array_equal(one.tokens, [[1, 2, 3, 5, 6, 9, 0, 0]])
    np.testing.assert_array_equal(one.positions, [[0, 1, 2, 2, 3, 0, 0, 0]])
    np.testing.assert_array_equal(one.ends, [[5, 5, 3, 5, 5, 6, 0, 0]])
    assert targets(one) == [
        ((1,), 2),
        ((1,), 2),
        ((1,), 2),
        ((1, 2), 3),
        ((1, 2), 3),
        ((1, 2), 5),
        ((1, 2, 3), 4),
        ((1, 2, 3), 8),
        ((1, 2, 5), 6),
        ((1, 2, 5, 6), 7),
        ((9,), 3),
    ]


def test_choices_of_one_token_take_no_room():
    one = pack([example(1, 2, 3, choice, prompt=3) for choice in (5, 6, 7, 5)], 3)
    assert one.tokens.shape == (1, 3) and sorted(one.labels[0]) == [5, 5, 6, 7] and one.at.tolist() == [[2] * 4]


def test_a_prompt_alone_is_read_whole():
    one = pack([example(1, 2, 3, prompt=3)], 4)
    assert one.tokens.tolist() == [[1, 2, 3, 0]] and one.labels.shape == (1, 0)


def test_the_order_is_the_seeds(examples, rows):
    again, other = pack(examples, LENGTH), pack(examples, LENGTH, seed=1)
    for field, same in zip(rows, again, strict=True):
        np.testing.assert_array_equal(field, same)
    assert other.tokens.shape != rows.tokens.shape or (other.tokens != rows.tokens).any()
    assert targets(other) == targets(rows)


def test_an_example_goes_to_the_row_that_has_most_of_it():
    first, second = example(1, 2, 3, 4, 5), example(6, 7, 8, 9, 5)
    assert forests([first, second, example(6, 7, 8, 3), example(1, 2, 3, 3)], 6) == [[3, 0], [2, 1]]


def test_only_few_rows_are_open():
    numbers = [example(*range(100 * i, 100 * i + 9)) for i in range(OPEN + 1)]  # 8 of 10 tokens each
    late = example(0, 1, 2, 3, 4, 5, 6, 7, 0, 0)
    assert len(forests([*numbers, late], 10)) == OPEN + 2  # the first row was closed before the late example came


def test_longer_examples_can_be_kept_apart():
    short, long = example(1, 2, 3, 4), example(1, 2, 3, 4, 5)
    assert (pack([short, long], 8).ends > 0).sum() == 4
    apart = pack([short, long], 8, split=3)
    assert apart.tokens.tolist() == [[1, 2, 3, 1, 2, 3, 4, 0]] and apart.ends.tolist() == [[3, 3, 3, 7, 7, 7, 7, 0]]


def test_padding_is_no_tokens(rows):
    padding = rows.ends == 0
    assert not rows.tokens[padding].any() and not rows.positions[padding].any()


def test_little_is_padding(examples):
    rows = pack(examples, 64)
    assert (rows.ends > 0).mean() > 0.8


def test_padded_targets_weigh_nothing(rows):
    wide = pad_targets(rows, rows.labels.shape[1] + 5)
    assert wide.weights.shape == wide.at.shape == wide.labels.shape
    assert targets(wide) == targets(rows)


def test_parts_are_joined(examples):
    parts = [pack(examples[:7], LENGTH, task=3), pack(examples[7:], LENGTH, task=4)]
    whole = joined(parts)
    assert targets(whole) == expected(examples)
    assert whole.task[:, 0].tolist() == [3] * parts[0].n_rows + [4] * parts[1].n_rows


def test_losses_are_those_of_each_example_alone(examples, rows, word_model):
    alone = joined([filled_alone(one) for one in examples])
    packed, single = losses(word_model.params, rows), losses(word_model.params, alone)
    np.testing.assert_allclose(sorted(packed), sorted(single), rtol=2e-5, atol=1e-6)


def filled_alone(one):
    row = filled([one], LENGTH)
    return type(row)(*(field[None] for field in row))


def losses(decoder, rows):
    hidden = decoder(jnp.asarray(rows.tokens), jnp.asarray(rows.positions), jnp.asarray(rows.ends))
    found = target_losses(decoder.logits, hidden, jnp.asarray(rows.at), jnp.asarray(rows.labels))
    return np.asarray(found)[rows.weights > 0]
