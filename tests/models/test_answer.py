"""The text of an answer does not depend on how its tokens are grouped, and returned text is never changed."""

import itertools

import numpy as np
import pytest

from modjax.models.answer import Answer

END = 256
TEXTS = [
    "plain words, and more of them",
    "Grüße — 東京 🤖👩‍👩‍👧 é",
    "ends inside 🤖",
    "\ufffd a replacement character of its own \ufffd",
]
STOPS = ["words", ", and", "\n\n", "京 🤖", "e of th"]


@pytest.fixture(scope="module")
def byte_level():
    """A tokenizer with one token per byte, as in the byte-level BPE of GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)} | {"<end>": END}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


@pytest.fixture(scope="module")
def byte_fallback():
    """A tokenizer with words after a space mark and bytes for the rest: SentencePiece, as in Llama 2 and Mistral."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocab = {f"<0x{i:02X}>": i for i in range(256)} | {"<end>": END, "▁": 257, "▁words": 258, "<unk>": 259}
    vocab |= {letter: 260 + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz,")}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", unk_token="<unk>")


@pytest.fixture(params=["byte_level", "byte_fallback"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def portions(tokens, seed):
    """The tokens in groups of random length; with seed 0, one by one."""
    cuts = np.random.default_rng(seed).integers(1, 9, len(tokens)) if seed else np.ones(len(tokens), int)
    tokens = iter(tokens)
    return [part for n in cuts if (part := list(itertools.islice(tokens, n)))]


def pieces(answer, parts):
    return [*(answer.push(part) for part in parts), answer.finish()]


def before_first(text, stops):
    """The text before the stop string that is complete first, found character by character."""
    for n in range(len(text) + 1):
        if complete := [stop for stop in stops if text[:n].endswith(stop)]:
            return text[: n - len(max(complete, key=len))]
    return text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_whole_text(tokenizer, text):
    tokens = tokenizer(text)["input_ids"]
    for cut in (len(tokens), len(tokens) - 1, len(tokens) - 2):  # also within a character
        whole = tokenizer.decode(tokens[:cut])
        for seed in range(6):
            assert "".join(pieces(Answer(tokenizer), portions(tokens[:cut], seed))) == whole


def test_pieces_come_as_soon_as_they_are_certain(byte_level):
    answer = Answer(byte_level)
    assert [answer.push([token]) for token in byte_level("a€b")["input_ids"]] == ["a", "", "", "€", "b"]
    assert answer.finish() == ""


@pytest.mark.parametrize("stops", [[one] for one in STOPS] + [STOPS, ["a", "an"], ["and", "d", "nd mo"]])
def test_the_text_ends_before_the_first_complete_stop(tokenizer, stops):
    for text in TEXTS[:2]:
        tokens = tokenizer(text)["input_ids"]
        expected = before_first(tokenizer.decode(tokens), stops)
        for seed in range(6):
            answer = Answer(tokenizer, stops=stops)
            assert "".join(pieces(answer, portions(tokens, seed))) == expected
            assert answer.over


def test_what_may_become_a_stop_is_held_back(byte_level):
    answer = Answer(byte_level, stops=["###"])
    tokens = byte_level("a##b###c")["input_ids"]
    assert [answer.push([token]) for token in tokens] == ["a", "", "", "##b", "", "", "", ""]
    assert answer.over and answer.text == "a##b" and answer.finish() == ""


def test_tokens_behind_an_end_are_not_read(tokenizer):
    answer = Answer(tokenizer, ends={END, 300})
    before, behind = tokenizer("words")["input_ids"], tokenizer("b")["input_ids"]
    assert answer.push([*before, END, *behind]) == tokenizer.decode(before)
    assert answer.over and answer.push(behind) == answer.finish() == ""


def test_a_begun_stop_at_the_end_is_text(byte_level):
    assert "".join(pieces(Answer(byte_level, {END}, ["###"]), [[*byte_level("a##")["input_ids"], END]])) == "a##"


def test_text_is_left_as_it_was_written(word_tokenizer, monkeypatch):
    """clean_up_tokenization_spaces would remove a space that was already returned before a full stop."""
    monkeypatch.setattr(word_tokenizer, "clean_up_tokenization_spaces", True)
    assert "".join(pieces(Answer(word_tokenizer), [[4, 5], [6]])) == "w0 w1 w2"
