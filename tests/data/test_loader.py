"""Batches of lockstep training: the rows of each expert do not depend on the other experts."""

import numpy as np
import pytest

from modjax.data import loader
from modjax.data.rows import Rows, pack
from modjax.data.tokenize import Encoded

SIZES = {"a": 5, "b": 3, "c": 7}


def rows_of(seed, n_rows):
    """Rows that differ in their first token; numbers of targets differ between experts."""
    rng = np.random.default_rng(seed)
    return pack([Encoded(rng.integers(0, 10_000, 8).astype(np.int32), 8 - seed) for _ in range(n_rows)], 8)


@pytest.fixture
def rows():
    return {name: rows_of(seed, n) for seed, (name, n) in enumerate(SIZES.items(), 1)}


def taken(rows, batch=2, steps=30, seed=0):
    return [np.asarray(one.tokens) for one in loader.batches(rows, batch, steps, seed)]


def test_a_batch_is_experts_by_rows(rows):
    (batch,) = loader.batches(rows, 2, 1, 0)
    assert {field.shape[:2] for field in batch} == {(3, 2)}
    assert batch.tokens.shape == (3, 2, 8) and batch.labels.shape == (3, 2, 16)


def test_the_order_is_the_seeds(rows):
    first, again, other = taken(rows), taken(rows), taken(rows, seed=1)
    np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(x, y) for x, y in zip(first, other, strict=True))


def test_an_experts_rows_do_not_depend_on_the_others(rows):
    together = np.stack(taken(rows))
    for index, name in enumerate(rows):
        np.testing.assert_array_equal(together[:, index], np.stack(taken({name: rows[name]}))[:, 0])


def test_a_slice_is_the_tail_of_the_whole(rows):
    batches = loader.batches(rows, 2, 12, 0)
    whole = list(batches)
    for step, batch in enumerate(batches[5:], 5):
        for field, expected in zip(batch, whole[step], strict=True):
            np.testing.assert_array_equal(field, expected)
    assert step == 11


def test_every_epoch_has_each_row_once_in_an_order_of_its_own(rows):
    n_rows, steps = SIZES["a"], 2 * SIZES["a"]
    firsts = np.concatenate([tokens[0, :, 0] for tokens in taken(rows, batch=2, steps=steps)])
    epochs = firsts.reshape(-1, n_rows)
    expected = sorted(rows["a"].tokens[:, 0])
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_validation_batches_hold_every_row_once_and_empty_ones_after(rows):
    batches = list(loader.padded(rows, 4))
    whole = Rows(*(np.concatenate(fields, axis=1) for fields in zip(*batches, strict=True)))
    assert whole.tokens.shape[:2] == (3, 8)
    for index, own in enumerate(rows.values()):
        np.testing.assert_array_equal(whole.tokens[index, : own.n_rows], own.tokens)
        assert whole.weights[index].sum() == own.weights.sum()
        assert not whole.ends[index, own.n_rows :].any()


def test_a_key_belongs_to_name_and_seed():
    assert loader.key_of("a", 0) == loader.key_of("a", 0)
    assert len({loader.key_of(name, seed) for name in "ab" for seed in (0, 1)}) == 4
    assert 0 <= loader.key_of("a", 0) < 2**31
