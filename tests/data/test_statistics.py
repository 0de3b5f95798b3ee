"""Counts of tokens against slow ones."""

import numpy as np
import pytest
from tiny import model, tasks  # noqa: F401, fixtures

from modjax.data.statistics import statistics, total
from modjax.data.tokenize import encode
from modjax.errors import InputError


def distinct(examples):
    """The nodes of the trie of all paths, which one row would hold."""
    return len({tuple(one.tokens[: end + 1]) for one in examples for end in range(len(one.tokens) - 1)})


def test_counts_are_those_of_the_encoded_examples(model, tasks):  # noqa: F811
    words, task = model.tokenizer, tasks["b"]
    encoded = encode(words, task, task.split("train"), 1000)
    found = statistics(words, task, "train", 1000)
    assert found.lengths_n.tolist() == [len(one.tokens) for one in encoded]
    assert found.median == np.median(found.lengths_n) // 1 and found.longest == max(found.lengths_n)
    assert found.targets == sum(len(one.tokens) - one.n_prompt for one in encoded) == 10 * 3  # "no cat" and the end
    assert (found.too_long, found.rows) == (0, 1)
    assert found.alone == sum(found.lengths_n - 1) and found.alone - found.shared == distinct(encoded)


def test_examples_longer_than_a_row_are_left_out_of_rows(model, tasks):  # noqa: F811
    words, task = model.tokenizer, tasks["b"]
    whole, found = statistics(words, task, "train", 1000), statistics(words, task, "train", 8)
    assert found.too_long == (whole.lengths_n > 8).sum() > 0 and found.lengths_n.tolist() == whole.lengths_n.tolist()
    assert found.alone == (whole.lengths_n[whole.lengths_n <= 8] - 1).sum() and found.rows > 1
    none = statistics(words, task, "train", 1)
    assert (none.too_long, none.rows, none.alone, none.shared) == (10, 0, 0, 0)
    empty = statistics(words, task, "validation", 8)
    assert (len(empty.lengths_n), empty.median, empty.longest, empty.rows) == (0, 0, 0, 0)


def test_the_total_is_the_sum(model, tasks):  # noqa: F811
    parts = [statistics(model.tokenizer, task, "train", 16) for task in tasks.values()]
    found = total(parts)
    assert found.rows == sum(part.rows for part in parts) and found.shared == sum(part.shared for part in parts)
    assert len(found.lengths_n) == 40 and found.longest == max(part.longest for part in parts)


def test_a_length_is_a_whole_number(model, tasks):  # noqa: F811
    with pytest.raises(InputError, match="length=0: expected a whole number, at least 1 and at most"):
        statistics(model.tokenizer, tasks["a"], "train", 0)
