import dataclasses

import jax
import numpy as np
import pytest
from references.routing import centroid_weights

from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.routing import Bound, Context, centroid, hook, uniform

SITE = "attn.v"


@pytest.fixture(scope="module")
def pairs(words):
    """The first expert was trained on two tasks."""
    infos = (dataclasses.replace(words.infos[0], tasks=("copy", "reverse")), *words.infos[1:])
    return dataclasses.replace(words, infos=infos)


@pytest.fixture(scope="module")
def last_input(word_model):
    """A function that gives the site's input at the last token of one text, float64[L, I]."""

    @jax.jit
    def seen(bound, row):
        def look(_, sites, x_BTI):
            return {site: x_BTI for site in sites if site == SITE}

        return word_model.params.observe(look, row, **hook(bound, Context()))[SITE]

    def make(bound, tokens):
        row = np.zeros((1, 32), np.int32)
        row[0, : len(tokens)] = tokens
        return np.float64(seen(bound, row))[:, 0, len(tokens) - 1]

    return make


@pytest.mark.parametrize("end", ["answer", "prompt"])
@pytest.mark.parametrize("through", ["expert", "base"])
def test_weights_equal_the_definition(
    word_model, word_tasks, pairs, x_BTI, last_input, token_weights, agrees, through, end
):
    options = {"top_k": 3, "temperature": 0.3} if end == "prompt" else {}
    router = centroid(pairs, word_model, word_tasks, examples=3, through=through, end=end, batch=4, **options)
    inputs = []
    for name, tasks in zip(pairs.names, pairs.tasks, strict=True):
        alone = pairs[name]
        bound = Bound(alone.loras, uniform(alone)) if through == "expert" else None
        encoded = [
            one
            for task in tasks
            for one in encode(word_model.tokenizer, word_tasks[task], word_tasks[task].split("train")[:3], 32)
        ]
        heads = [one.tokens if end == "answer" else one.tokens[: one.n_prompt] for one in encoded]
        inputs.append(np.stack([last_input(bound, tokens) for tokens in heads]))
    for layer in range(2):
        own = [x_mLI[:, layer] for x_mLI in inputs]
        expected = centroid_weights(own, x_BTI, options.get("top_k", -1), options.get("temperature", -1))
        agrees("centroid", token_weights(router, layer, x_BTI, SITE), expected)


def test_what_cannot_be_is_named(word_model, word_tasks, words):
    for settings, message in (
        ({"top_k": 0}, "top_k=0"),
        ({"through": "all"}, "through='all'.* one of expert, base"),
        ({"end": "middle"}, "end='middle'.* one of answer, prompt"),
        ({"split": "test"}, "has no examples in split 'test'"),
    ):
        with pytest.raises(InputError, match=message):
            centroid(words, word_model, word_tasks, **settings)
    with pytest.raises(InputError, match="expert 'count' was trained on count; found only sort, copy"):
        centroid(words, word_model, word_tasks.select(["sort", "copy"]))
