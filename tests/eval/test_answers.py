"""Greedy answers from the pass that gives the losses: token for token those of decoding the prompt alone."""

import dataclasses

import jax
import numpy as np
import pytest
from alone import MAKERS, choices_of, greedy_alone, loss_alone, questions

from modjax import generation
from modjax.data.tokenize import Encoded
from modjax.eval import answers
from modjax.eval.answers import losses_and_answers
from modjax.eval.likelihood import target_loss
from modjax.generation import Request
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.ops.rope import Scaling

NEW = 5
END = 1


def text(model, tokens, ends):
    """The words of an answer up to its end."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return model.tokenizer.decode(tokens[:stop]) if stop else ""


def cases(model, bound, choices):
    """Targets that agree with the greedy answer not at all, in part and throughout, short and long, and their answers.

    Also targets that begin with an end token, that have none, and that are longer than answers may be.
    """
    found, expected = [], []
    for i, one in enumerate(questions()):
        prompt = one.tokens[: one.n_prompt]
        said = greedy_alone(model, bound, prompt, NEW + 2, choices and choices[i])
        other = (said[2] - 2 + 1) % 14 + 2
        targets = [
            said[:3],
            [*said[:2], other, END],
            [END, *said[:2]],
            [*said[:1], END],
            said,
            [*said[: NEW - 1], END],
            said[:NEW],
        ]
        found.append(Encoded(np.int32([*prompt, *targets[i % 7]]), len(prompt)))
        expected.append(text(model, said[:NEW], (END, *model.ends)))
    return found, expected


@pytest.fixture(scope="module")
def ending(model):
    """The model, of which a token that it often says ends answers too."""
    said = [greedy_alone(model, None, one.tokens[: one.n_prompt], NEW) for one in questions()]
    return dataclasses.replace(model, ends=(int(np.bincount(np.ravel(said)[len(said) :]).argmax()),))


@pytest.mark.parametrize("name", MAKERS)
def test_answers_are_those_of_each_prompt_alone(ending, library, name):
    router = MAKERS[name](library)
    given = (router and library, router)
    bound, choices = ending.bind(*given), choices_of(name, 13)
    examples, expected = cases(ending, bound, choices)
    losses = [loss_alone(ending, bound, one, choices and choices[i]) for i, one in enumerate(examples)]
    assert "" in expected or name != "base"
    for batch in (2, 32):
        nats_n, found = losses_and_answers(ending, examples, *given, choices, Request(NEW, batch=batch))
        assert found == expected
        np.testing.assert_allclose(nats_n, losses, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_prompts_that_share_rows_get_the_answers_of_each_alone(ending, library, name):
    router = MAKERS[name](library)
    given = (router and library, router)
    bound, choices = ending.bind(*given), choices_of(name, 13)
    prompts = [one.tokens[: one.n_prompt] for one in questions()]
    expected = [
        text(ending, greedy_alone(ending, bound, prompt, NEW, choices and choices[i]), (END, *ending.ends))
        for i, prompt in enumerate(prompts)
    ]
    for batch in (2, 32):
        assert ending.generate(prompts, *given, choices, max_new_tokens=NEW, batch=batch) == expected


def test_answers_that_equal_their_targets_are_not_decoded(model, monkeypatch):
    monkeypatch.setattr(generation, "_advance", None)
    examples = []
    for one in questions():
        prompt = one.tokens[: one.n_prompt]
        examples.append(Encoded(np.int32([*prompt, *greedy_alone(model, None, prompt, 3)]), len(prompt)))
    _, found = losses_and_answers(model, examples, None, None, None, Request(3))
    assert found == [model.tokenizer.decode(one.tokens[one.n_prompt :]) for one in examples]


def test_sampled_answers_do_not_depend_on_shared_rows(model):
    prompts = [one.tokens[: one.n_prompt] for one in questions()]
    settings = {"max_new_tokens": NEW, "temperature": 1.5, "seed": 3}
    together = model.generate(prompts, **settings)
    assert together[0] != together[-1]  # equal prompts with other keys
    for i in (0, 5, 12):
        padded = [prompts[i][:1]] * i + [prompts[i]]
        assert model.generate(padded, **settings)[i] == together[i]


@pytest.mark.parametrize("original", [14, 24])
def test_longrope_has_the_factors_of_prompt_and_answer(model, original):
    """Whether all are short enough for one set of factors or not."""
    factors = {"short": (1.0,) * 4, "long": (1.0, 2.0, 3.0, 5.0), "original": original, "factor": 4.0}
    config = dataclasses.replace(model.config, rope_scaling=Scaling("longrope", **factors))
    longer = Model("longrope", Decoder.init(config, jax.random.key(1)), model.tokenizer)
    examples = questions()
    assert answers._other_factors(longer, examples, Request(NEW)) == (original == 14)
    nats_n, found = losses_and_answers(longer, examples, None, None, None, Request(NEW))
    np.testing.assert_allclose(nats_n, target_loss(longer, examples)[0], rtol=1e-5)
    alone = [longer.generate([one.tokens[: one.n_prompt]], max_new_tokens=NEW)[0] for one in examples]
    assert found == alone
