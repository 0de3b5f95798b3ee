import numpy as np

from modjax.models.padding import batched_by_length, bucket, filled, finer_bucket, largest, right_padded


def test_lengths_come_in_few_sizes():
    assert [bucket(n) for n in (1, 63, 64, 65, 128, 200)] == [64, 64, 64, 128, 128, 256]
    assert [bucket(n, 1) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 8]
    assert [finer_bucket(n) for n in (0, 1, 17, 33, 130, 690, 769, 1024)] == [16, 16, 32, 48, 160, 768, 896, 1024]
    assert [largest(n) for n in (1, 2, 3, 7, 8)] == [1, 2, 2, 4, 8]


def test_batches_hold_neighbours_in_length_and_every_index_once():
    batches = batched_by_length([9, 1, 5, 2, 7], 2)
    assert batches == [[1, 3], [2, 4], [0]]
    assert batched_by_length([], 2) == []


def test_sequences_are_followed_by_padding():
    tokens_BT, lengths_B = right_padded([np.array([1, 2]), np.array([3])], rows=3, columns=4)
    np.testing.assert_array_equal(tokens_BT, [[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(lengths_B, [2, 1, 0])
    np.testing.assert_array_equal(filled([5, 6], 3, -1), [5, 6, -1])
