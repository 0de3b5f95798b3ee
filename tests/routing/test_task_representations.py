import numpy as np
import pytest
from references.routing import task_weights

from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.ops.top_k import dense
from modjax.routing import Bound, PromptRows, settle, task_representations


@pytest.mark.parametrize(("top_k", "temperature"), [(2, 0.3), (3, 0.1)])
def test_weights_equal_the_definition(
    word_model, word_tasks, clustered, texts, embeddings, text_weights, agrees, top_k, temperature
):
    options = {"examples": 3, "top_k": top_k, "temperature": temperature, "batch": 2}
    router = task_representations(clustered, word_model, word_tasks, **options)
    own = [[one.source for one in word_tasks[name].split("validation")[:3]] for name in ("reverse", "copy", "sort")]
    experts_KE = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 0.5]])
    expected = task_weights(embeddings(texts), [embeddings(one) for one in own], experts_KE, top_k, temperature)
    agrees("task representations", text_weights(router, clustered), expected)


def test_tasks_without_an_expert_are_left_out(word_model, word_tasks, clustered, text_weights):
    router = task_representations(clustered, word_model, word_tasks, examples=2)
    assert router.tasks.shape == (3, 1, 32)  # reverse, copy, sort; not count
    np.testing.assert_allclose(router.experts, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 0.5]])
    one = task_representations(clustered[[1, 2]], word_model, word_tasks, examples=2)
    np.testing.assert_allclose(text_weights(one, clustered[[1, 2]]), [[1, 0]] * 3)


def test_a_tasks_own_examples_go_to_its_expert(word_model, word_tasks, words):
    """A task with one example is represented by that example."""
    router = task_representations(words, word_model, word_tasks, examples=1, top_k=1)
    for name in word_tasks:
        source = word_tasks[name].split("validation")[0].source
        rows = PromptRows.whole(encode_prompts(word_model.tokenizer, [source])[0][None])
        settled = settle(word_model.params, Bound(words.loras, router), rows).router
        assert words.names[int(dense(settled("", None, None), len(words))[0, 0].argmax())] == name


def test_with_several_centroids_a_task_is_as_near_as_its_nearest_one(
    word_model, word_tasks, words, texts, embeddings, text_weights
):
    """ARIADNE. As many centroids as examples are the examples themselves; more are no more."""
    options = {"examples": 3, "top_k": 1, "batch": 2}
    router = task_representations(words, word_model, word_tasks, centroids=3, **options)
    assert router.tasks.shape == (4, 3, 32)
    own = [embeddings([one.source for one in word_tasks[name].split("validation")[:3]]) for name in words.names]
    centre_D = np.mean([one.mean(0) for one in own], axis=0)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    nearest = [(unit(embeddings(texts) - centre_D) @ unit(one - centre_D).T).max(1) for one in own]
    assert (np.argmax(nearest, 0) == text_weights(router, words).argmax(-1)).all()
    more = task_representations(words, word_model, word_tasks, centroids=9, **options)
    np.testing.assert_allclose(np.sort(more.tasks, 1), np.sort(router.tasks, 1), atol=1e-6)
    two = task_representations(words, word_model, word_tasks, centroids=2, **options)
    assert two.tasks.shape == (4, 2, 32)


def test_what_cannot_be_is_named(word_model, word_tasks, words):
    with pytest.raises(InputError, match="no expert was trained on any of count"):
        task_representations(words["sort"], word_model, word_tasks.select(["count"]))
    with pytest.raises(InputError, match="task 'reverse' has no examples in split 'test'"):
        task_representations(words, word_model, word_tasks, split="test")
    with pytest.raises(InputError, match="temperature=0"):
        task_representations(words, word_model, word_tasks, temperature=0)
    router = task_representations(words, word_model, word_tasks, examples=1)
    with pytest.raises(InputError, match=r"TaskRepresentations router's experts has shape \(4, 4\); .* E = 3"):
        word_model.logits([[1, 2]], words[:3], router)
