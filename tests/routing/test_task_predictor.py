import numpy as np
import pytest
from references.routing import predictor_weights

from modjax.errors import InputError
from modjax.routing import task_predictor


def sources(tasks, name, examples):
    return [one.source for one in tasks[name].split("train")[:examples]]


@pytest.mark.parametrize("names", [("reverse", "copy", "sort"), ("copy", "sort")])
@pytest.mark.parametrize(("top_k", "inverse_penalty"), [(-1, 1.0), (2, 0.05), (1, 1.0)])
def test_weights_equal_the_definition(
    word_model, word_tasks, clustered, texts, embeddings, text_weights, agrees, names, top_k, inverse_penalty
):
    """The probabilities of an expert's tasks are added; that of a task with two experts is divided."""
    options = {"examples": 12, "top_k": top_k, "inverse_penalty": inverse_penalty}
    router = task_predictor(clustered, word_model, word_tasks.select(names), **options)
    train_mD = embeddings([source for name in names for source in sources(word_tasks, name, 12)])
    owned = {"reverse": [1, 0, 0, 0], "copy": [1, 0, 0, 0], "sort": [0, 0.5, 0, 0.5]}
    experts_KE, label_m = np.array([owned[name] for name in names]), np.repeat(np.arange(len(names)), 12)
    expected = predictor_weights(embeddings(texts), train_mD, label_m, experts_KE, inverse_penalty, top_k)
    agrees("task predictor", text_weights(router, clustered), expected)


def test_training_prompts_go_to_their_task(word_model, word_tasks, words, embeddings):
    """With almost no penalty the classifier separates them: there are fewer than an embedding has numbers."""
    router = task_predictor(words, word_model, word_tasks, examples=5, inverse_penalty=1e4)
    query_nD = embeddings([source for name in word_tasks for source in sources(word_tasks, name, 5)])
    score_nK = query_nD @ np.asarray(router.directions).T + np.asarray(router.offsets)
    np.testing.assert_array_equal(score_nK.argmax(1), np.repeat(np.arange(4), 5))


def test_what_cannot_be_is_named(word_model, word_tasks, words):
    for settings, message in (({"top_k": 0}, "top_k=0"), ({"inverse_penalty": 0}, "inverse_penalty=0")):
        with pytest.raises(InputError, match=message):
            task_predictor(words, word_model, word_tasks, **settings)
    with pytest.raises(InputError, match="no expert was trained on any of count"):
        task_predictor(words["sort"], word_model, word_tasks.select(["count"]))
    with pytest.raises(InputError, match="task 'reverse' has no examples in split 'test'"):
        task_predictor(words, word_model, word_tasks, split="test")
