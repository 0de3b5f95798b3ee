"""Examples as token ids: what the model reads, and where the loss begins."""

import numpy as np
import pytest

from modjax.data.tasks import Example, Task
from modjax.data.tokenize import encode, prompts
from modjax.errors import InputError

END, USER = 1, 3
TASK = Task("sums", (Example("w0 w1 w2", "w3 w4", "train"), Example("w5", "w6", "train")))
TEMPLATE = (
    "{% for message in messages %}{{ '<unk> ' if message.role == 'system' else '<user> ' }}"
    "{{ message.content }} {% endfor %}<pad>"
)


@pytest.fixture
def chat_tokenizer(word_tokenizer, monkeypatch):
    monkeypatch.setattr(word_tokenizer, "chat_template", TEMPLATE)
    return word_tokenizer


def word(i):
    return i + 4


def test_without_a_template_the_prompt_is_the_source(word_tokenizer):
    first, second = prompts(word_tokenizer, ["w0 w1 w2", "w5"])
    np.testing.assert_array_equal(first, [word(0), word(1), word(2)])
    np.testing.assert_array_equal(second, [word(5)])
    assert first.dtype == np.int32


def test_a_template_surrounds_the_source(chat_tokenizer):
    (ids,) = prompts(chat_tokenizer, ["w7"])
    np.testing.assert_array_equal(ids, [USER, word(7), 0])


def test_a_system_message_comes_first(chat_tokenizer):
    (ids,) = prompts(chat_tokenizer, ["w7"], system="w9")
    np.testing.assert_array_equal(ids, [2, word(9), USER, word(7), 0])


def test_no_prompts_are_no_ids(word_tokenizer):
    assert prompts(word_tokenizer, []) == []


def test_target_and_end_follow_the_prompt(word_tokenizer):
    encoded = encode(word_tokenizer, TASK, TASK.examples, length=16)
    np.testing.assert_array_equal(encoded[0].tokens, [word(0), word(1), word(2), word(3), word(4), END])
    assert [one.n_prompt for one in encoded] == [3, 1]
    np.testing.assert_array_equal(encoded[1].tokens[encoded[1].n_prompt :], [word(6), END])


def test_the_loss_begins_behind_the_whole_chat_prompt(chat_tokenizer):
    encoded = encode(chat_tokenizer, TASK, TASK.examples, length=16)
    for one, example in zip(encoded, TASK.examples, strict=True):
        (prompt,) = prompts(chat_tokenizer, [example.source])
        np.testing.assert_array_equal(one.tokens[: one.n_prompt], prompt)
        assert one.tokens[-1] == END


def test_an_example_that_fits_exactly_is_kept(word_tokenizer):
    assert len(encode(word_tokenizer, TASK, TASK.examples, length=6)[0].tokens) == 6


def test_a_long_example_names_task_index_and_lengths(word_tokenizer):
    with pytest.raises(InputError, match=r"task 'sums', train example 0: 6 tokens; expected at most 5"):
        encode(word_tokenizer, TASK, TASK.examples, length=5)


def test_truncation_takes_the_prompts_left_end_and_keeps_the_target(word_tokenizer):
    encoded = encode(word_tokenizer, TASK, TASK.examples, length=4, too_long="truncate")
    np.testing.assert_array_equal(encoded[0].tokens, [word(2), word(3), word(4), END])
    assert encoded[0].n_prompt == 1
    np.testing.assert_array_equal(encoded[1].tokens, [word(5), word(6), END])


def test_truncation_never_leaves_a_target_without_prompt(word_tokenizer):
    with pytest.raises(InputError, match=r"example 0: 6 tokens; expected at most 3"):
        encode(word_tokenizer, TASK, TASK.examples, length=3, too_long="truncate")
