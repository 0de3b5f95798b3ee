"""Requests, shapes and programs of generation; what it says is tested in test_model.py."""

import dataclasses
import typing

import pytest

from modjax import generation
from modjax.errors import InputError
from modjax.generation import Request, RequestFields, room
from modjax.ops.rope import Scaling


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": -3}, "max_new_tokens=-3"),
        ({"max_new_tokens": 2.0}, "max_new_tokens=2.0"),
        ({"batch": 0}, "batch=0"),
        ({"every": 17}, "every=17: expected a whole number, at least 1 and at most 16"),
        ({"stop": ("a", "")}, "stop=.*at least one character"),
        ({"stop": ""}, "stop=''"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_impossible_settings_are_named(word_model, settings, words):
    with pytest.raises(InputError, match=words):
        Request(**settings)
    for answer in (word_model.generate, word_model.stream):
        with pytest.raises(InputError, match=words):
            answer(["w1"], **settings)


def test_the_keywords_are_the_fields():
    assert typing.get_type_hints(RequestFields) == typing.get_type_hints(Request)


def test_an_unknown_setting_is_named(word_model):
    for answer in (word_model.generate, word_model.stream):
        with pytest.raises(InputError, match="temprature: no such setting of Request; did you mean 'temperature'"):
            answer(["w1"], temprature=1.0)


def test_shapes_are_few(word_model):
    assert room(3, word_model.config) == room(64, word_model.config) == 64
    assert room(65, word_model.config) == 128


def test_room_does_not_turn_longrope_long(word_model):
    config = dataclasses.replace(word_model.config, rope_scaling=Scaling("longrope", original=128))
    assert room(64, config) == 64
    assert room(20, config) == 20


def test_one_program_a_bucket(word_model, random_library):
    """Other prompts, numbers of tokens, seeds and sampling settings of the same buckets compile nothing."""
    from modjax.routing import arrow

    library = random_library({"attn.q": (32, 32)}, experts=5, layers=2)
    experts = (library, arrow(library))
    programs = (generation._prefill, generation._advance)

    def compiled(prompts, **settings):
        before = [program._cache_size() for program in programs]
        word_model.generate(prompts, *experts, **settings)
        return [program._cache_size() - n for program, n in zip(programs, before, strict=True)]

    assert compiled(["w1 w2", "w3", "w4 w5 w6"], max_new_tokens=20, temperature=1.0) == [1, 1]
    assert compiled(["w7", "w8", "w9", "w10 w7"], max_new_tokens=5, temperature=0.5, top_k=3, seed=2) == [0, 0]
    assert compiled(
        [f"w{i} " * 30 for i in range(7)], max_new_tokens=33, temperature=2.0, top_p=0.5, stop="w9", batch=4
    ) == [0, 0]


def test_what_prompts_begin_with_is_read_once(word_model, monkeypatch):
    """Five prompts of one instruction, and four times the same prompt, are one row each; of three others each has its
    own."""
    read = []
    real = generation._prefill
    monkeypatch.setattr(generation, "_prefill", lambda *given: read.append(given[3]) or real(*given))
    for prompts in (["w1 w2 w3 w4 w5 w6 w7 w8 " + f"w{i}" for i in range(5)], ["w5 w6 w7"] * 4, ["w1", "w2 w3", "w4"]):
        word_model.generate(prompts, max_new_tokens=2)
    assert [len(one.tokens_BT) for one in read] == [1, 1, 4]
    assert [(one.ends_BT > 0).sum() for one in read] == [8 + 5, 3, 1 + 2 + 1]


def test_a_row_has_any_number_of_prompts(word_model):
    """Forty prompts of one instruction: more than 32, and fewer than the next power of two has room for."""
    prompts = ["w1 w2 w3 w4 w5 w6 w7 w8 " + f"w{i} w{59 - i}" for i in range(40)]
    together = word_model.generate(prompts, max_new_tokens=3)
    assert together == [word_model.generate([prompt], max_new_tokens=3)[0] for prompt in prompts]


def test_prompts_of_other_lengths_get_other_programs(word_model):
    model = dataclasses.replace(word_model, params=_with_context(word_model.params, 512))
    before = generation._prefill._cache_size()
    for length in (3, 60, 100, 65, 128):
        model.generate(["w1 " * length], max_new_tokens=2, top_k=1, temperature=1.0)
    assert generation._prefill._cache_size() - before == 2  # 64 and 128 columns


def _with_context(params, context):
    import copy

    longer = copy.copy(params)
    longer.config = dataclasses.replace(params.config, context=context)
    return longer
