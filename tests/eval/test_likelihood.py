"""Losses of examples that share rows: equal to those of each example alone, for every kind of router; few programs."""

import dataclasses

import jax
import numpy as np
import pytest
from alone import MAKERS, choices_of, loss_alone, questions

from modjax.eval import likelihood
from modjax.eval.likelihood import target_loss
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.ops.rope import Scaling
from modjax.routing import arrow, oracle, pooled
from modjax.routing.batches import packed


@pytest.mark.parametrize("name", MAKERS)
def test_losses_equal_those_of_each_example_alone(model, library, name):
    router = MAKERS[name](library)
    bound, examples = model.bind(router and library, router), questions()
    choices = choices_of(name, len(examples))
    expected = [loss_alone(model, bound, one, choices and choices[i]) for i, one in enumerate(examples)]
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
