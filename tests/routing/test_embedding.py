"""Embeddings of prompts: means of the last hidden states, whatever else their row of prefix trees has."""

import sys

import numpy as np

from modjax.data.tasks import Example, Task, Tasks
from modjax.routing.embedding import embed, example_embeddings
from modjax.routing.task_space import described

MODULE = sys.modules["modjax.routing.embedding"]
INSTRUCTION = " ".join(f"w{n}" for n in range(20, 40))
TEXTS = [f"{INSTRUCTION} w{n} w{n + 1}" for n in range(9)] + ["w1", "w1 w2", f"{INSTRUCTION} w3", INSTRUCTION]


def test_prompts_that_share_their_first_tokens_have_their_own_means(word_model, hidden_states, agrees):
    expected = np.stack([own_nD.mean(axis=0) for own_nD in hidden_states(TEXTS)])
    agrees("embeddings", embed(word_model, TEXTS), expected)
    agrees("embeddings", embed(word_model, TEXTS, batch=1), expected)


def test_a_description_may_have_the_last_hidden_state_too(word_model, hidden_states, agrees):
    tasks = Tasks([Task("one", tuple(Example(text, "w1", "train") for text in TEXTS))])
    found_nX = example_embeddings(word_model, tasks, len(TEXTS), "train", None, 16, described)["one"]
    last_nD = np.stack([own_nD[-1] for own_nD in hidden_states(TEXTS)])
    last_nD /= np.linalg.norm(last_nD, axis=1, keepdims=True)
    agrees("descriptions", found_nX[:, last_nD.shape[1] :], last_nD)


def test_the_prompts_of_the_last_four_times_are_not_read_again(word_model, monkeypatch):
    reads, packed = [], MODULE.packed
    monkeypatch.setattr(MODULE, "packed", lambda *given: reads.append(1) or packed(*given))
    first = embed(word_model, TEXTS[:3])
    kept = first.copy()
    first[:] = 0  # the caller's own
    for change in ({"prompts": TEXTS[:2]}, {"prompts": TEXTS[:2], "batch": 1}, {"prompts": TEXTS[:1]}):
        embed(word_model, **change)
    assert len(reads) == 4
    np.testing.assert_array_equal(embed(word_model, TEXTS[:3]), kept)  # which makes it the last
    assert len(reads) == 4
    embed(word_model, TEXTS[:4])
    embed(word_model, TEXTS[:3])
    assert len(reads) == 5
    embed(word_model, TEXTS[:2])
    assert len(reads) == 6
