"""Kept token ids: equal to new ones byte for byte, used only for exactly what they were made of, off when told so."""

import concurrent.futures
import copy
import dataclasses

import flax.nnx as nnx
import numpy as np
import pytest
from tiny import model, tasks  # noqa: F401, fixtures

from modjax.data import inputs, token_cache
from modjax.data.token_cache import TokenCache, folder
from modjax.eval.sample import Sample, prepared
from modjax.train.examples import member_rows
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The folder of the cache, which is on."""
    monkeypatch.setenv("MODJAX_TOKEN_CACHE", str(tmp_path / "tokens"))
    return tmp_path / "tokens"


@pytest.fixture
def tokenised(monkeypatch):
    """The names of the tasks that are tokenised."""
    made, real = [], inputs.examples

    def examples(model, task, *arguments, **named):  # noqa: F811
        made.append(task.name)
        return real(model, task, *arguments, **named)

    monkeypatch.setattr(inputs, "examples", examples)
    return made


def rows(model, tasks, split="train", **settings):  # noqa: F811
    made = Settings(**{"length": 32, "steps": 1} | settings)
    return member_rows(model, tasks, {name: (name,) for name in tasks}, Recipe, made, split)


def same(one, other):
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for name in one.own
        for a, b in zip(one.own[name], other.own[name], strict=True)
    )


def test_rows_from_the_cache_are_those_without_it(model, tasks, kept, tokenised, monkeypatch):  # noqa: F811
    first = rows(model, tasks)
    assert tokenised == list(tasks) and len(list(kept.glob("*.safetensors"))) == 4 == len(list(kept.iterdir()))
    again = rows(model, tasks)
    assert tokenised == list(tasks)
    monkeypatch.setenv("MODJAX_TOKEN_CACHE", "false")
    without = rows(model, tasks)
    assert tokenised == 2 * list(tasks)
    assert same(first, without) and same(again, without)


def test_samples_from_the_cache_are_those_without_it(model, tasks, kept, tokenised):  # noqa: F811
    sample = Sample(examples=3, length=32)
    first, again = (prepared(model, tasks, sample, max_new_tokens=2) for _ in range(2))
    assert tokenised == list(tasks)
    for one, other in zip(first, again, strict=True):
        assert one.example == other.example and one.encoded.n_prompt == other.encoded.n_prompt
        assert one.encoded.tokens.dtype == other.encoded.tokens.dtype == np.int32
        assert one.encoded.tokens.tobytes() == other.encoded.tokens.tobytes()
    for changed in ({"seed": 1}, {"examples": 4}, {"split": "train"}, {"length": 31}, {"system": "x"}):
        prepared(model, tasks, dataclasses.replace(sample, **changed), max_new_tokens=2)
    prepared(model, tasks, sample, max_new_tokens=3)
    assert tokenised == 7 * list(tasks)


def test_anything_else_that_tokens_are_made_of_has_another_file(model, tasks, kept, monkeypatch):  # noqa: F811
    one = tasks.select(["a"])
    task = dataclasses.replace(one["a"], examples=one["a"].examples[::-1])
    context = dataclasses.replace(model.config, context=48)
    calls = [
        lambda: rows(model, one),
        lambda: rows(model, one, "test"),
        lambda: rows(model, one, length=31),
        lambda: rows(model, one, system="x"),
        lambda: rows(model, one, too_long="truncate"),
        lambda: rows(model, type(one)([task])),
        lambda: rows(_other(model, template="{{ messages[0]['content'] }} is"), one),
        lambda: rows(_other(model, word="two"), one),
        lambda: rows(dataclasses.replace(model, params=_config(model.params, context)), one),
    ]
    for number, call in enumerate(calls, start=1):
        call()
        assert len(list(kept.iterdir())) == number
    monkeypatch.setattr(token_cache, "_versions", lambda: ["other"])
    calls[0]()
    assert len(list(kept.iterdir())) == len(calls) + 1


def _other(model, **changed):  # noqa: F811
    return dataclasses.replace(model, tokenizer=_copy(model.tokenizer, **changed))


def _copy(words, template=None, word=None):
    made = copy.deepcopy(words)
    made.chat_template = template
    if word:
        made.add_tokens([word + word])
    return made


def _config(params, config):
    made = nnx.clone(params)
    made.config = config
    return made


def test_a_template_that_writes_the_date(model, tasks, kept, tokenised, monkeypatch):  # noqa: F811
    from transformers.utils import chat_template_utils

    class Clock:
        day = "one"

        @classmethod
        def now(cls):
            return cls

        @classmethod
        def strftime(cls, form):
            return cls.day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    template = "{{ strftime_now('%d') }} {% for m in messages %}{{ m['content'] }} {% endfor %}"
    dated = _other(model, template=template)
    today = [rows(dated, tasks) for _ in range(2)]
    assert same(*today) and tokenised == list(tasks)
    Clock.day = "two"
    tomorrow = rows(dated, tasks)
    assert tokenised == 2 * list(tasks) and not same(today[0], tomorrow)


def test_a_damaged_file_is_made_again(model, tasks, kept, tokenised):  # noqa: F811
    first = rows(model, tasks)
    for path in kept.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert same(rows(model, tasks), first) and tokenised == 2 * list(tasks)
    assert same(rows(model, tasks), first) and tokenised == 2 * list(tasks)


def test_a_folder_that_cannot_be_written_keeps_nothing(model, tasks, kept, tokenised):  # noqa: F811
    kept.write_text("a file")
    assert same(rows(model, tasks), rows(model, tasks)) and tokenised == 2 * list(tasks)
    assert kept.read_text() == "a file"


def test_several_may_write_at_once(model, tasks, kept):  # noqa: F811
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rows(model, tasks), range(8)))
    assert all(same(found[0], other) for other in found)
    assert len(list(kept.iterdir())) == 4 and same(rows(model, tasks), found[0])


def test_errors_are_not_kept(model, tasks, kept):  # noqa: F811
    for _ in range(2):
        with pytest.raises(ValueError, match="task 'a', train example .* has .* tokens; expected at most 5"):
            rows(model, tasks, length=5)
    assert not kept.exists()


def test_what_does_not_tell_its_rules_is_not_kept(model, tasks, kept):  # noqa: F811
    refusing = _copy(model.tokenizer, template="{{ raise_exception('no') if 'asked' in messages[0]['content'] }}")
    for words in (None, object(), refusing):
        cache = TokenCache(dataclasses.replace(model, tokenizer=words))
        assert cache.folder is None and cache.get(tasks["a"], {}, lambda: "made") == "made"


def test_the_folder_is_the_one_named_or_in_the_users_cache(monkeypatch, tmp_path):
    assert folder({"MODJAX_TOKEN_CACHE": str(tmp_path)}) == tmp_path
    assert folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "modjax" / "tokens"
    assert folder({"MODJAX_TOKEN_CACHE": "False", "XDG_CACHE_HOME": str(tmp_path)}) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder({}) == tmp_path / ".cache" / "modjax" / "tokens"
