"""Prompts that are texts, conversations or token ids; everything else is refused in one sentence."""

import numpy as np
import pytest

from modjax.data import inputs, tokenize
from modjax.data.messages import conversation
from modjax.errors import InputError

LONE = "\ud800"  # half of a character, as the JSON text "\ud800" gives it


def said(content, role="user", **more):
    return [{"role": role, "content": content, **more}]


def test_a_text_is_a_message_of_the_user():
    assert conversation("prompt", "hi") == said("hi")
    assert conversation("prompt", np.str_("hi")) == said("hi")


def test_parts_are_read_as_their_texts():
    parts = [{"type": "text", "text": "one"}, {"text": "two"}]
    assert conversation("prompt", said(parts, name="me")) == said("one\ntwo", name="me")
    assert conversation("prompt", tuple(said(tuple(parts[:1])))) == said("one")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, r"prompts\[0\]=None: expected a text, a list of messages, or token ids"),
        (5, r"prompts\[0\]=5"),
        (b"hi", r"prompts\[0\]=b'hi'"),
        ({"role": "user", "content": "hi"}, r"prompts\[0\]=.*expected a text, a list of messages"),
        (LONE, r"prompts\[0\]='\\ud800': expected text without lone surrogates"),
        ([], r"prompts\[0\]=\[\]: expected at least one message"),
        (["hi"], r"prompts\[0\]\[0\]='hi': expected a message, an object with 'role' and 'content'"),
        ([{"role": "user"}], r"prompts\[0\]\[0\]=.*'role' and 'content'"),
        (said(None), r"\['content'\]=None: expected a text, or a list of parts"),
        (said(None, "assistant", tool_calls=[{}]), r"\['content'\]=None: .*calls of tools are not read"),
        (said(5), r"prompts\[0\]\[0\]\['content'\]=5"),
        (said([]), r"\['content'\]=\[\]: expected a text"),
        (said(LONE), r"\['content'\]=.*lone surrogates"),
        (said([{"type": "text", "text": LONE}]), r"\['content'\]\[0\]\['text'\]=.*lone surrogates"),
        (said([{"type": "text", "text": 1}]), r"\['content'\]\[0\]\['text'\]=1: expected a string"),
        (said([{"type": "text"}]), r"\['content'\]\[0\]=.* expected a part with a text"),
        (said([{"type": "image", "url": "a.png"}]), r"\['content'\]\[0\]=.*a.png.* no other parts are read"),
        (said(["hi"]), r"\['content'\]\[0\]='hi': expected a part"),
        (said("hi", None), r"\['role'\]=None: expected a string"),
        (said("hi", 3), r"\['role'\]=3: expected a string"),
        (np.ones(3), r"prompts\[0\] is an array of float64\[3\]; expected token ids, int32\[n\]"),
        (np.ones(3, bool), r"array of bool\[3\]"),
        (np.ones((1, 3), int), r"array of int64\[1, 3\]"),
        ([1, "a"], r"prompts\[0\] is an array of .*expected token ids"),
        ([1, [2]], r"prompts\[0\]=\[1, \[2\]\]: expected token ids"),
        ([True, False], r"array of bool\[2\]"),
    ],
)
def test_what_is_no_prompt_is_named(word_model, prompt, words):
    for read in (
        lambda: tokenize.prompts(word_model.tokenizer, [prompt]),
        lambda: word_model.generate([prompt], max_new_tokens=1),
        lambda: word_model.stream([prompt], max_new_tokens=1),
    ):
        with pytest.raises(InputError, match=words):
            read()


@pytest.mark.parametrize("prompts", ["hi", b"hi", None, 5, {"a": "b"}, {"hi"}, np.array(3)], ids=repr)
def test_what_is_no_list_of_prompts_is_named(word_model, prompts):
    with pytest.raises(InputError, match="prompts=.*: expected a list of prompts"):
        inputs.prompts(word_model, prompts)
    with pytest.raises(InputError, match="prompts=.*: expected a list of prompts"):
        word_model.generate(prompts)


def test_any_sequence_of_prompts_is_read(word_model):
    rows = inputs.prompts(word_model, np.array([[4, 5], [6, 7]]))
    lists = inputs.prompts(word_model, ([4, 5], (6, 7)))
    texts = inputs.prompts(word_model, (text for text in ("w0 w1", "w2 w3")))
    for found in (rows, lists, texts):
        assert [ids.tolist() for ids in found] == [[4, 5], [6, 7]]
        assert {ids.dtype for ids in found} == {np.dtype(np.int32)}


@pytest.mark.parametrize("system", [5, b"be brief", LONE, ["be brief"]], ids=repr)
def test_a_system_message_is_text(word_model, system):
    with pytest.raises(InputError, match="system=.*: expected"):
        inputs.prompts(word_model, ["w1"], system)


@pytest.mark.parametrize("stop", [5, [5], b"a", {"a": 1}, [None], LONE, ["a", ""]], ids=repr)
def test_stop_strings_are_text(word_model, stop):
    with pytest.raises(InputError, match="stop=.*: expected"):
        word_model.generate(["w1"], stop=stop)


def test_no_stop_strings_may_be_none(word_model):
    new = {"max_new_tokens": 3}
    assert word_model.generate(["w1"], stop=None, **new) == word_model.generate(["w1"], **new)


@pytest.mark.parametrize("choices", [[0.5], [None], [True], [[1]], 3, {0: 1}, [2], [-2], ["three"]], ids=repr)
def test_choices_are_names_or_indices(word_model, random_library, choices):
    from modjax.routing import oracle

    library = random_library({"attn.q": word_model.config.sites["attn.q"]}, experts=2)
    with pytest.raises(InputError, match="choices.*: expected|choices: no 'three'"):
        word_model.generate(["w1"], library, oracle(library), choices=choices, max_new_tokens=1)
