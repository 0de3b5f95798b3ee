"""Examples as token ids: prompts, and where the loss begins."""

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


def test_token_ids_among_the_prompts_stay_as_they_are(chat_tokenizer):
    given = np.arange(4, 7)
    ids = prompts(chat_tokenizer, [given, "w7", given[:1]])
    for got, expected in zip(ids, ([4, 5, 6], [USER, word(7), 0], [4]), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.int32
    np.testing.assert_array_equal(prompts(None, [given])[0], given)


@pytest.mark.parametrize("given", [np.ones(3), np.ones((1, 3), int)])
def test_other_arrays_are_no_prompts(word_tokenizer, given):
    with pytest.raises(InputError, match=r"prompts\[0\] is an array of .*; expected token ids, int32\[n\]"):
        prompts(word_tokenizer, [given])


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
    with pytest.raises(InputError, match=r"task 'sums', train example 0 has 6 tokens; expected at most 5"):
        encode(word_tokenizer, TASK, TASK.examples, length=5)


def test_truncation_takes_the_prompts_left_end_and_keeps_the_target(word_tokenizer):
    encoded = encode(word_tokenizer, TASK, TASK.examples, length=4, too_long="truncate")
    np.testing.assert_array_equal(encoded[0].tokens, [word(2), word(3), word(4), END])
    assert encoded[0].n_prompt == 1
    np.testing.assert_array_equal(encoded[1].tokens, [word(5), word(6), END])


def test_truncation_never_leaves_a_target_without_prompt(word_tokenizer):
    with pytest.raises(InputError, match=r"example 0 has 6 tokens; expected at most 3"):
        encode(word_tokenizer, TASK, TASK.examples, length=3, too_long="truncate")


def test_truncation_of_all_cuts_targets_on_the_right_where_they_leave_no_room(word_tokenizer):
    for length in (3, 2):
        whole = encode(word_tokenizer, TASK, TASK.examples, length=1000)
        encoded = encode(word_tokenizer, TASK, TASK.examples, length=length, too_long="truncate_all")
        for one, cut in zip(whole, encoded, strict=True):
            head, tail = one.tokens[: one.n_prompt], one.tokens[one.n_prompt :][: length - 1]
            kept = length - len(tail)
            np.testing.assert_array_equal(cut.tokens, [*head[-kept:], *tail])
            assert cut.n_prompt == min(kept, len(head)) > 0
    fitting = [encode(word_tokenizer, TASK, TASK.examples, 4, too_long=how) for how in ("truncate", "truncate_all")]
    for one, other in zip(*fitting, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


BOS, EOS = 63, 1  # w59 stands for the beginning of a sequence


@pytest.fixture(params=[([BOS], []), ([BOS], [EOS]), ([], [EOS]), ([], [])], ids=str)
def wrapping(request, word_tokenizer):
    """A tokenizer that adds special tokens before and after every text, and the two lists of them."""
    import copy

    from tokenizers import processors

    before, behind = request.param
    pieces = [f"{word_tokenizer.convert_ids_to_tokens(one)}:0" for one in before + behind]
    wrapped = copy.deepcopy(word_tokenizer)
    wrapped.bos_token = "w59"
    if pieces:
        pieces.insert(len(before), "$A:0")
        wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=pieces, special_tokens=[("w59", BOS), ("<end>", EOS)]
        )
    return wrapped, before, behind


def test_plain_text_begins_as_the_tokenizer_begins_it(wrapping):
    tokenizer, before, behind = wrapping
    assert tokenizer("w5")["input_ids"] == [*before, word(5), *behind]
    first, second = prompts(tokenizer, ["w5 w6", "w7 <end>"])
    np.testing.assert_array_equal(first, [*before, word(5), word(6)])
    np.testing.assert_array_equal(second, [*before, word(7), EOS])  # its own end token stays
    np.testing.assert_array_equal(prompts(tokenizer, [""])[0], before)


def test_training_reads_the_beginning_that_generation_reads(wrapping):
    tokenizer, before, _ = wrapping
    (one, _) = encode(tokenizer, TASK, [TASK.examples[1], TASK.examples[1]], length=16)
    np.testing.assert_array_equal(one.tokens, [*before, word(5), word(6), END])
    assert one.n_prompt == len(before) + 1


def test_truncation_keeps_the_beginning(wrapping):
    tokenizer, before, _ = wrapping
    (one,) = encode(tokenizer, TASK, TASK.examples[:1], length=len(before) + 4, too_long="truncate")
    np.testing.assert_array_equal(one.tokens, [*before, word(2), word(3), word(4), END])
    with pytest.raises(InputError, match="example 0"):
        encode(tokenizer, TASK, TASK.examples[:1], length=len(before) + 3, too_long="truncate")


def test_a_template_alone_says_what_begins_a_chat(wrapping):
    tokenizer, _, _ = wrapping
    tokenizer.chat_template = TEMPLATE
    np.testing.assert_array_equal(prompts(tokenizer, ["w7"])[0], [USER, word(7), 0])


def test_a_conversation_is_rendered_whole(chat_tokenizer):
    said = [("user", "w1"), ("assistant", "w2"), ("user", "w3")]
    chat = [{"role": role, "content": content} for role, content in said]
    (ids,) = prompts(chat_tokenizer, [chat])
    np.testing.assert_array_equal(ids, [USER, word(1), USER, word(2), USER, word(3), 0])
    own = [{"role": "system", "content": "w8"}, *chat[:1]]
    (ids,) = prompts(chat_tokenizer, [own], system="w9")  # the conversation's own goes before
    np.testing.assert_array_equal(ids, [2, word(8), USER, word(1), 0])


def test_without_a_template_a_conversation_is_its_lines(word_tokenizer):
    (ids,) = prompts(word_tokenizer, [[{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]])
    np.testing.assert_array_equal(ids, [word(1), word(2)])


def test_messages_that_cannot_be_rendered_are_named(word_tokenizer, monkeypatch):
    with pytest.raises(InputError, match="'text': 'w1'.*'role' and 'content'"):
        prompts(word_tokenizer, [[{"text": "w1"}]])
    monkeypatch.setattr(word_tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
    with pytest.raises(InputError, match=r"refuses messages of roles system, user \(no system role\)"):
        prompts(word_tokenizer, ["w1"], system="w2")
