"""Losses of examples that share rows: equal to those of each example alone, for every kind of router; few programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.tokenize import Encoded
from modjax.eval import likelihood
from modjax.eval.likelihood import target_loss
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.ops.rope import Scaling
from modjax.routing import Context, PromptRows, arrow, logo, oracle, pooled, routed, uniform
from modjax.routing.batches import packed
from modjax.routing.poly import Poly


def _poly(library):
    weights_KHE = np.random.default_rng(3).random((2, 2, 3))
    return Poly(jnp.broadcast_to(jnp.float32(weights_KHE), (2, 2, 2, 3)), ("b", "d"))


MAKERS = {
    "base": lambda library: None,
    "arrow": lambda library: arrow(library, top_k=2),
    "uniform": uniform,
    "oracle": oracle,
    "poly": _poly,
    "pooled": lambda library: pooled(library, top_k=2),
    "logo": lambda library: logo(library, top_k=2),
}


def questions(n=4, answers=3, seed=0, words=16):
    """Each question has several answers, and all begin with one instruction; two examples are equal."""
    rng = np.random.default_rng(seed)
    instruction, found = rng.integers(2, words, 9), []
    for _ in range(n):
        prompt = np.concatenate([instruction, rng.integers(2, words, rng.integers(1, 7))])
        for _ in range(answers):
            answer = rng.integers(1, words, rng.integers(1, 6))
            found.append(Encoded(np.int32([*prompt, *answer]), len(prompt)))
    return [*found, found[0]]


@jax.jit
def _log_probabilities(decoder, bound, context, prompts, tokens_BT):
    logits_BTV = decoder.logits(decoder(tokens_BT, **routed(decoder, bound, prompts, context)))
    return jax.nn.log_softmax(logits_BTV)


def alone(model, bound, one, choice, length=32):
    """The loss of one example, read alone; attention is causal, so the padding after it is not read."""
    context = Context(None if choice is None else np.int32([choice]))
    prompts = PromptRows.one_each([one.tokens[: one.n_prompt]], 1, length)
    row = np.pad(one.tokens, (0, length - len(one.tokens)))[None]
    log_TV = np.float64(_log_probabilities(model.params, bound, context, prompts, row)[0])
    at = np.arange(one.n_prompt, len(one.tokens))
    return -log_TV[at - 1, one.tokens[at]].sum()


@pytest.mark.parametrize("name", MAKERS)
def test_losses_equal_those_of_each_example_alone(model, library, name):
    router = MAKERS[name](library)
    bound, examples = model.bind(router and library, router), questions()
    choices = [i % 3 - (name == "poly") for i in range(len(examples))] if name in ("oracle", "poly") else None
    expected = [alone(model, bound, one, choices and choices[i]) for i, one in enumerate(examples)]
    for batch in (1, 3, 32):
        totals, counts = target_loss(model, examples, bound, choices, batch)
        np.testing.assert_allclose(totals, expected, rtol=1e-5, atol=1e-5)
        assert counts.tolist() == [len(one.tokens) - one.n_prompt for one in examples]


def test_longrope_chooses_its_factors_by_the_length_of_each_example(model):
    factors = {"short": (1.0,) * 4, "long": (1.0, 2.0, 3.0, 5.0), "original": 14, "factor": 4.0}
    config = dataclasses.replace(model.config, rope_scaling=Scaling("longrope", **factors))
    longer = Model("longrope", Decoder.init(config, jax.random.key(1)), model.tokenizer)
    examples = questions()
    lengths = [len(one.tokens) - 1 for one in examples]
    assert min(lengths) <= 14 < max(lengths)
    row = [np.asarray(longer.logits(one.tokens[None, :-1]), np.float64)[0, one.n_prompt - 1 :] for one in examples]
    expected = [
        np.sum(np.log(np.exp(logits_MV).sum(-1)) - logits_MV[np.arange(len(logits_MV)), one.tokens[one.n_prompt :]])
        for logits_MV, one in zip(row, examples, strict=True)
    ]
    np.testing.assert_allclose(target_loss(longer, examples)[0], expected, rtol=1e-5)


def test_what_examples_share_is_in_a_row_once(model, library):
    examples = questions()
    together = {
        name: sum(np.count_nonzero(own.rows.ends) for own in packed(examples, model.bind(library, router), choices))
        for name, router, choices in [
            ("arrow", arrow(library), None),
            ("pooled", pooled(library), None),
            ("oracle", oracle(library), [0] * 13),
        ]
    }
    prompts = {one.tokens[: one.n_prompt].tobytes(): one.n_prompt for one in examples}
    assert together["arrow"] == together["oracle"] < together["pooled"] - 3 * 9 + 1
    assert together["pooled"] < sum(prompts.values()) + sum(len(one.tokens) - one.n_prompt for one in examples)


def test_each_example_has_its_own_targets(model, library):
    examples = questions()
    for choices in (None, [i % 3 for i in range(len(examples))]):
        seen = []
        for own in packed(examples, model.bind(library, oracle(library)), choices, batch=2):
            for i, row, targets in own.members:
                seen.append(i)
                np.testing.assert_array_equal(own.rows.labels[row, targets], examples[i].tokens[examples[i].n_prompt :])
                assert choices is None or own.context.choice_B[row] == choices[i]
        assert sorted(seen) == list(range(len(examples)))


def test_collections_of_like_sizes_share_their_programs(model, library):
    likelihood._losses.clear_cache()
    bound = model.bind(library, arrow(library))
    for seed, n in enumerate((40, 37, 45, 41)):
        target_loss(model, questions(n, seed=seed), bound)
    assert likelihood._losses._cache_size() <= 2
