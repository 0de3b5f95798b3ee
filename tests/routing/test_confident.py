"""Confident routing: its weights against the definition, new tasks, fallbacks, and how many experts decode."""

import numpy as np
import pytest

from modjax.data.tasks import Example, Task, Tasks
from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.ops.top_k import TopK, dense
from modjax.routing import Bound, PromptRows, confident, settle
from modjax.routing.task_space import threshold


@pytest.fixture(scope="module")
def collection():
    """Four tasks, each of prompts with words of its own, and prompts of a task that has none of them."""
    rng = np.random.default_rng(0)
    splits = ["train"] * 8 + ["validation"] * 8 + ["test"] * 6

    def prompts(first):
        return [" ".join(f"w{first + n}" for n in rng.integers(0, 5, 12)) for _ in splits]

    own = {name: prompts(5 * i + 1) for i, name in enumerate(("copy", "count", "reverse", "sort"))}
    tasks = Tasks(
        Task(name, tuple(Example(source, "w1", split) for source, split in zip(one, splits, strict=True)))
        for name, one in own.items()
    )
    return tasks, prompts(45)


@pytest.fixture(scope="module")
def described(hidden_states):
    """A function that gives the unit mean and the unit last hidden state of prompts, float64[n, 2D]."""

    def one(own_nD):
        return np.concatenate([v / np.linalg.norm(v) for v in (own_nD.mean(0), own_nD[-1])])

    return lambda texts: np.stack([one(own_nD) for own_nD in hidden_states(texts)])


@pytest.fixture(scope="module")
def weights_of(word_model):
    def make(router, library, texts):
        rows = PromptRows.one_each(encode_prompts(word_model.tokenizer, texts), len(texts), 16)
        settled = settle(word_model.params, Bound(library.loras, router), rows).router
        return settled("", None, None)

    return make


def test_weights_equal_the_definition(word_model, words, collection, described, weights_of, agrees):
    tasks, new = collection
    router = confident(
        words, word_model, tasks, examples=8, shrinkage=0.3, temperature=0.4, top_k=2, directions=9, false_positives=0.2
    )
    texts = [*(one.source for one in tasks["sort"].split("test")), *new[:4]]
    known = [described([one.source for one in tasks[name].split("train")]) for name in tasks]
    means = np.stack([one.mean(0) for one in known])
    centre = means.mean(0)
    basis = np.linalg.svd(np.concatenate(known) - centre, full_matrices=False)[2][:9].T
    gaps = np.concatenate([one - one.mean(0) for one in known]) @ basis
    spread = gaps.T @ gaps / len(gaps)
    spread = 0.7 * spread + 0.3 * np.trace(spread) / 9 * np.eye(9)
    inverse = np.linalg.inv(spread)  # cosines need no square root of it

    def cosines(u):
        u, t = (u - centre) @ basis, (means - centre) @ basis
        lengths = np.sqrt(np.einsum("np,pq,nq->n", u, inverse, u))[:, None] * np.sqrt(np.diag(t @ inverse @ t.T))[None]
        return u @ inverse @ t.T / lengths

    found = cosines(described(texts))
    order = np.argsort(-found, 1)[:, :2]
    top = np.take_along_axis(found, order, 1) / 0.4
    top = np.exp(top - top.max(1, keepdims=True))
    expected = np.full((10, 4), 0.25)
    known_n = found.max(1) > router.threshold
    assert known_n[:6].any() and not known_n.all()
    for row in np.flatnonzero(known_n):
        expected[row] = 0
        expected[row, order[row]] = top[row] / top[row].sum()
    agrees("confident", dense(weights_of(router, words, texts), 4)[0], expected)


def test_it_is_sure_of_known_tasks_and_not_of_new_ones(word_model, words, collection, weights_of):
    """Without a threshold the right expert is found; with one, prompts of known tasks more often have an expert."""
    tasks, new = collection
    always, router = (confident(words, word_model, tasks, examples=8, false_positives=rate) for rate in (1, 0.1))
    spread = np.asarray(dense(weights_of(router, words, new), 4)[0])
    for e, name in enumerate(words.names):
        texts = [one.source for one in tasks[name].split("test")]
        weights_BE = np.asarray(dense(weights_of(always, words, texts), 4)[0])
        assert (weights_BE.argmax(1) == e).mean() > 0.8
        sure_BE = np.asarray(dense(weights_of(router, words, texts), 4)[0])
        assert sure_BE.max(1).mean() > spread.max(1).mean() + 0.1


def test_the_fallback_may_be_an_expert_or_the_base_model(word_model, words, collection, weights_of):
    """An expert that is the fallback has no task of its own, and one expert alone decodes."""
    tasks, new = collection
    router = confident(words, word_model, tasks, otherwise="sort", examples=8)
    assert router.tasks.shape[0] == 3
    weights = weights_of(router, words, new)
    assert isinstance(weights, TopK) and weights.ids.shape[-1] == 1
    assert np.all(np.asarray(weights.dense(4)[0]) == np.eye(4)[3], axis=1).mean() >= 0.9
    nothing = confident(words, word_model, tasks, otherwise="base", examples=8)
    weights = weights_of(nothing, words, new)
    assert weights.ids.shape[-1] == 1 and float(weights.weights.max()) == 0


def test_the_threshold_is_what_few_prompts_of_left_out_tasks_exceed():
    """Of three tasks in three directions, each is at the same distance from the two others."""
    known = [np.tile(one, (20, 1)) for one in np.eye(3)]
    without = np.eye(3)[0] - np.array([0.0, 0.5, 0.5])  # a prompt of the first task, from the centre of the others
    other = np.array([0.0, 0.5, -0.5])
    cosine = without @ other / np.linalg.norm(without) / np.linalg.norm(other)
    assert threshold(known, 3, 0.5, 0.02) == pytest.approx(cosine, abs=1e-6)


def test_what_cannot_be_is_named(word_model, words, collection):
    with pytest.raises(InputError, match=r"otherwise='sorted': did you mean 'sort'\?"):
        confident(words, word_model, collection[0], otherwise="sorted")
    with pytest.raises(InputError, match="no expert was trained on any of count"):
        confident(words[["sort"]], word_model, collection[0].select(["count"]))
