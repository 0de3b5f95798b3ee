"""Confident routing: its weights against the definition, new tasks, fallbacks, and how many experts decode."""

import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.tasks import Example, Task, Tasks
from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.ops.top_k import TopK, dense
from modjax.routing import Bound, PromptRows, confident, settle
from modjax.routing.task_space import TaskSpace, threshold


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
    router = confident(words, word_model, tasks, examples=8, shrinkage=0.3, directions=9, false_positives=0.2)
    texts = [*(one.source for one in tasks["sort"].split("test")), *new[:4]]
    known = [described([one.source for one in tasks[name].split("train")]) for name in tasks]
    centre = np.mean([one.mean(0) for one in known], axis=0)
    basis = np.linalg.svd(np.concatenate(known) - centre, full_matrices=False)[2][:9].T
    gaps = np.concatenate([one - one.mean(0) for one in known]) @ basis
    spread = gaps.T @ gaps / len(gaps)
    spread = 0.7 * spread + 0.3 * np.trace(spread) / 9 * np.eye(9)
    inverse = np.linalg.inv(spread)  # cosines need no square root of it

    def cosine(u, v):
        u, v = (u - centre) @ basis, (v - centre) @ basis
        return u @ inverse @ v / np.sqrt((u @ inverse @ u) * (v @ inverse @ v))

    own = [np.mean([1 - cosine(one[i], np.delete(one, i, 0).mean(0)) for i in range(8)]) for one in known]
    radii = (7 * np.asarray(own) + np.mean(own)) / 8  # the mean counts as one of eight
    cosines = np.asarray([[cosine(u, one.mean(0)) for one in known] for u in described(texts)])
    nearest = cosines.argmax(1)
    distance = (1 - cosines.max(1)) / radii[nearest]
    expected = np.where((distance < router.threshold)[:, None], np.eye(4)[nearest], 0.25)
    assert (expected[:6].max(1) == 1).any() and (expected.max(1) < 1).any()
    space = TaskSpace.of(known, 9, 0.3)
    task, found = space.nearest(jnp.float32(described(texts)))
    agrees("confident", found * space.radii_K[task], distance * radii[nearest])
    agrees("confident", space.radii_K, radii)
    np.testing.assert_array_equal(dense(weights_of(router, words, texts), 4)[0], expected)


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


def test_the_threshold_is_a_distance_that_few_prompts_of_left_out_tasks_are_below():
    """Of three tasks in three directions, each is at the same distance from the two others, of prompts all alike."""
    known = [np.tile(one, (20, 1)) for one in np.eye(3)]
    without = np.eye(3)[0] - np.array([0.0, 0.5, 0.5])  # a prompt of the first task, from the centre of the others
    other = np.array([0.0, 0.5, -0.5])
    cosine = without @ other / np.linalg.norm(without) / np.linalg.norm(other)
    radius = 1 / 20  # nothing to measure: 1, as if it were one of twenty
    assert threshold(known, 3, 0.5, 0.02) == pytest.approx((1 - cosine) / radius, rel=1e-5)


def test_a_task_of_varied_prompts_is_near_from_further_away():
    """Two tasks of the same spread in a third direction but one ten times as wide: the same shift is a tenth as far."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 64, 4)) * np.array([0.01, 0.1])[:, None, None]
    known = [np.eye(4)[k][None] + noise[k] for k in range(2)]
    space = TaskSpace.of(known, 4, 1.0)
    shifted = jnp.float32(np.eye(4)[:2] + np.array([[0.0, 0.0, 0.1, 0.1]]))
    task, distance = space.nearest(shifted)
    assert task.tolist() == [0, 1]
    assert float(distance[0] / distance[1]) == pytest.approx(float(space.radii_K[1] / space.radii_K[0]), rel=0.3)
    assert float(space.radii_K[1] / space.radii_K[0]) > 30  # 1 - cosine is quadratic in the angle


def test_one_prompt_per_task_leaves_nothing_to_measure():
    space = TaskSpace.of([one[None] for one in np.eye(3)], 3, 0.5)
    assert space.radii_K.tolist() == [1.0, 1.0, 1.0]


def test_what_cannot_be_is_named(word_model, words, collection):
    with pytest.raises(InputError, match=r"otherwise='sorted': did you mean 'sort'\?"):
        confident(words, word_model, collection[0], otherwise="sorted")
    with pytest.raises(InputError, match="no expert was trained on any of count"):
        confident(words[["sort"]], word_model, collection[0].select(["count"]))
