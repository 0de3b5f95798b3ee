import dataclasses

import jax
import numpy as np
import pytest

from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.models.padding import left_padded
from modjax.routing import PromptRows, settle, task_representations

TEXTS = ["w1 w2 w3 w40", "w7", "w30 w31 w32 w33 w34 w35 w36"]


@pytest.fixture(scope="module")
def clustered(words):
    """Experts of two tasks, of one, of a task that is not asked for, and of one that another knows too."""
    owned = [("copy", "reverse"), ("sort",), ("elsewhere",), ("sort",)]
    infos = tuple(dataclasses.replace(info, tasks=own) for info, own in zip(words.infos, owned, strict=True))
    return dataclasses.replace(words, infos=infos)


@jax.jit
def hidden(decoder, tokens_BT):
    return decoder(tokens_BT)[0]


def slow_embedding(model, text):
    """The mean of the last hidden states, one prompt alone."""
    row = np.zeros((1, 32), np.int32)
    (tokens,) = encode_prompts(model.tokenizer, [text])
    row[0, : len(tokens)] = tokens
    return np.float64(hidden(model.params, row))[0, : len(tokens)].mean(0)


def slow_weights(model, library, tasks, examples, top_k, temperature):
    names = [name for name in tasks if any(name in own for own in library.tasks)]
    sources = [[one.source for one in tasks[name].split("validation")[:examples]] for name in names]
    task_KD = np.stack([np.mean([slow_embedding(model, source) for source in own], axis=0) for own in sources])
    centre_D = task_KD.mean(0)
    found = np.zeros((len(TEXTS), len(library)))
    for i, text in enumerate(TEXTS):
        q_D = slow_embedding(model, text) - centre_D
        cosine_K = [q_D @ (t - centre_D) / np.linalg.norm(q_D) / np.linalg.norm(t - centre_D) for t in task_KD]
        kept = np.argsort(cosine_K)[::-1][:top_k]
        share = np.exp(np.array(cosine_K)[kept] / temperature)
        for k, weight in zip(kept, share / share.sum(), strict=True):
            owners = [e for e, own in enumerate(library.tasks) if names[k] in own]
            found[i, owners] += weight / len(owners)
    return found


def weigh(model, router, library):
    rows = PromptRows.left_padded(*left_padded(encode_prompts(model.tokenizer, TEXTS), 4, 16))
    weights_LBE = settle(model.params, (library.loras, library.scale, router), rows)[2].weights
    assert np.isfinite(weights_LBE).all()
    return np.asarray(weights_LBE[0, :3])


@pytest.mark.parametrize(("top_k", "temperature"), [(2, 0.3), (3, 0.1)])
def test_weights_equal_the_definition(word_model, word_tasks, clustered, top_k, temperature):
    router = task_representations(
        clustered, word_model, word_tasks, examples=3, top_k=top_k, temperature=temperature, batch=2
    )
    expected = slow_weights(word_model, clustered, word_tasks, 3, top_k, temperature)
    np.testing.assert_allclose(weigh(word_model, router, clustered), expected, atol=1e-5)


def test_tasks_without_an_expert_are_left_out(word_model, word_tasks, clustered):
    router = task_representations(clustered, word_model, word_tasks, examples=2)
    assert router.tasks.shape == (3, 32)  # reverse, copy, sort; not count
    np.testing.assert_allclose(router.experts, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0.5, 0, 0.5]])
    one = task_representations(clustered[[1, 2]], word_model, word_tasks, examples=2)
    np.testing.assert_allclose(weigh(word_model, one, clustered[[1, 2]]), [[1, 0]] * 3)


def test_permuting_the_library_permutes_the_weights(word_model, word_tasks, words):
    order = [3, 1, 0, 2]
    got, expected = (
        weigh(word_model, task_representations(library, word_model, word_tasks, examples=2), library)
        for library in (words[order], words)
    )
    np.testing.assert_allclose(got, expected[:, order], atol=1e-6)


def test_a_tasks_own_examples_go_to_its_expert(word_model, word_tasks, words):
    """Where each task has but one example, that example is the task."""
    router = task_representations(words, word_model, word_tasks, examples=1, top_k=1)
    for name in word_tasks:
        source = word_tasks[name].split("validation")[0].source
        rows = PromptRows.whole(encode_prompts(word_model.tokenizer, [source])[0][None])
        _, _, settled = settle(word_model.params, (words.loras, words.scale, router), rows)
        assert words.names[int(settled.weights[0, 0].argmax())] == name


def test_it_is_saved_and_loaded(word_model, word_tasks, words, loaded):
    loaded(task_representations(words, word_model, word_tasks, examples=2))


def test_decoding_equals_recomputing(word_model, word_tasks, words, decodes_as_recomputed):
    decodes_as_recomputed(task_representations(words, word_model, word_tasks, examples=2))


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
