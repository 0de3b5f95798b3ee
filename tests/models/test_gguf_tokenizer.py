"""Tokenizers in GGUF files of other kinds than the embedded one, which tests/models/test_tokenizer.py reads."""

import json

import pytest

from modjax.errors import InputError
from modjax.models import gguf_tokenizer

LINES = [
    "The cat sat on the mat, and the dog sat on the cat.",
    "It is 1990; call 12345678 now.",
    "hello HELLO world",
] * 3
TEXTS = [*LINES, "", "  two  spaces ", "a\n\tb", "Grüße, 東京 🤖", "<s>the</s> cat", "the<tool>cat"]
SPACE = "\u2581"


@pytest.fixture
def write(tmp_path):
    """Writes a GGUF file of a tokenizer alone: (tokens, their types), and other keys of tokenizer.ggml."""
    from gguf import GGUFWriter

    def run(model, tokens, types, **more):
        writer = GGUFWriter(tmp_path / "x.gguf", "llama")
        writer.add_tokenizer_model(model)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        for key, value in more.items():
            kind = {bool: "bool", int: "uint32", str: "string", list: "array"}[type(value)]
            getattr(writer, f"add_{kind}")(f"tokenizer.ggml.{key}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "x.gguf"

    return run


@pytest.fixture(scope="module")
def trained():
    """A BPE over text in which a sign stands for spaces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    found = Tokenizer(models.BPE())
    found.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    found.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    found.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    return found


@pytest.fixture(scope="module")
def sentencepiece(trained):
    """(tokens, types, scores) as SentencePiece orders them: control tokens, bytes, pieces by merge, single letters."""
    learned = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    pieces = [piece for piece in learned if len(piece) > 1] + [piece for piece in learned if len(piece) == 1]
    special = ["<unk>", "<s>", "</s>", "<tool>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3, 4] + [6] * 256 + [1] * len(pieces)
    return special + pieces, types, [0.0] * len(special) + [-float(i) for i in range(len(pieces))]


@pytest.fixture(scope="module")
def as_in_tokenizer_json(trained, sentencepiece):
    """The tokenizer with the merges that were learned, in the form of the tokenizer.json of Llama 2."""
    from tokenizers import AddedToken, Tokenizer, models, processors

    tokens, merges = sentencepiece[0], [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    found.normalizer = trained.normalizer
    found.add_tokens([AddedToken(token, normalized=False, special=True) for token in tokens[1:4]])
    found.post_processor = processors.TemplateProcessing(single=["<s>:0", "$A:0"], special_tokens=[("<s>", 1)])
    return found


ROLE_IDS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}


def test_sentencepiece_gives_the_ids_of_the_directory(write, sentencepiece, as_in_tokenizer_json):
    tokens, types, scores = sentencepiece
    ours = gguf_tokenizer.read(write("llama", tokens, types, scores=scores, **ROLE_IDS))
    for text in TEXTS:
        assert ours(text)["input_ids"] == as_in_tokenizer_json.encode(text).ids, text
    for text in (*LINES, "Grüße, 東京 🤖", "a\n\tb", "  two  spaces "):
        assert ours.decode(ours(text)["input_ids"], skip_special_tokens=True) == text
    assert max(len(ours(line)["input_ids"]) for line in LINES) < 30  # words, not letters


def test_sentencepiece_gives_the_ids_of_transformers(write, sentencepiece, tmp_path):
    """Of texts in which no space is next to the start or to a special token, where transformers adds none."""
    from transformers import AutoTokenizer

    tokens, types, scores = sentencepiece
    path = write("llama", tokens, types, scores=scores, add_bos_token=True, **ROLE_IDS)
    ours, theirs = gguf_tokenizer.read(path), AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    for text in (*LINES, "Grüße, 東京 🤖", "a\n\tb"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


@pytest.mark.parametrize("begins", [None, True, False])
def test_sentencepiece_without_a_space_before_the_text(write, sentencepiece, begins):
    """Gemma's; a text begins with the beginning-of-sequence token unless the file says otherwise."""
    tokens, types, scores = sentencepiece
    asked = {} if begins is None else {"add_bos_token": begins}
    own = {"scores": scores, "add_space_prefix": False, "bos_token_id": 1, "eos_token_id": 2, "add_eos_token": True}
    words = gguf_tokenizer.read(write("llama", tokens, types, **own, **asked))
    found = [tokens[i] for i in words("cat the")["input_ids"]]
    assert found == ["<s>"] * (begins is not False) + ["c", "at", f"{SPACE}the", "</s>"]


BYTES = [
    "<s>",
    "</s>",
    *"abcdefABCD0123456789",
    "Ġ",
    "Ċ",
    "'",
    "ĠA",
    "ab",
    "abc",
    "12",
    "123",
    "34",
    "45",
    "AB",
    "aB",
    "'A",
]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "12345", ["123", "45"]),
        ("gpt-2", "2345", ["2", "34", "5"]),
        ("llama-bpe", "12345", ["<s>", "123", "45"]),
        ("llama-bpe", "abd", ["<s>", "ab", "d"]),
        ("dbrx", "4512", ["45", "1", "2"]),
        ("qwen2", "12345", ["1", "2", "3", "4", "5"]),
        ("starcoder", "a12", ["a", "1", "2"]),
        ("gpt-2", "aB", ["aB"]),
        ("gpt-4o", "aB", ["a", "B"]),
        ("tekken", "aB12", ["<s>", "a", "B", "1", "2"]),
    ],
)
def test_text_is_split_as_the_file_names(write, pre, text, expected):
    merges = ["Ġ A", "a b", "ab c", "1 2", "12 3", "3 4", "4 5", "A B", "a B", "' A"]
    words = gguf_tokenizer.read(write("gpt2", BYTES, [3, 3] + [1] * 34, merges=merges, pre=pre, bos_token_id=0))
    assert [BYTES[i] for i in words(text)["input_ids"]] == expected
    assert words.decode(words(f"{text} A\n")["input_ids"], skip_special_tokens=True) == f"{text} A\n"


def test_words_of_the_vocabulary_are_whole_where_merges_do_not_reach_them(write):
    """Llama 3's."""
    for pre, expected in (("llama-bpe", ["<s>", "abc"]), ("dbrx", ["ab", "c"])):
        words = gguf_tokenizer.read(write("gpt2", BYTES, [3, 3] + [1] * 34, merges=["a b"], pre=pre, bos_token_id=0))
        assert [BYTES[i] for i in words("abc")["input_ids"]] == expected


def test_an_unknown_way_to_split_is_named(write):
    with pytest.warns(
        UserWarning, match="x.gguf: tokenizer.ggml.pre is 'mine', which modjax does not know; text is split"
    ):
        words = gguf_tokenizer.read(write("gpt2", ["a", "b", "ab"], [1, 1, 1], merges=["a b"], pre="mine"))
    assert words("aab")["input_ids"] == [0, 2]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("bert", "x.gguf: tokenizer.ggml.model is 'bert'; modjax reads the tokenizers 'gpt2' and 'llama'."),
        ("gpt2", "x.gguf: the metadata has no 'tokenizer.ggml.merges'"),
        ("llama", "x.gguf: the metadata has no 'tokenizer.ggml.scores'"),
    ],
)
def test_other_tokenizers_leave_the_model_without_one(write, model, says):
    with pytest.warns(UserWarning, match=says):
        assert gguf_tokenizer.read(write(model, ["a", "b"], [1, 1])) is None


@pytest.mark.parametrize("wrong", [3, "a"])
def test_ids_of_no_token_are_named(write, wrong):
    with pytest.raises(InputError, match=f"eos_token_id is {wrong!r}; expected an id from 0 to 2, that of a token"):
        gguf_tokenizer.read(write("gpt2", ["a", "b", "ab"], [1, 1, 1], merges=["a b"], eos_token_id=wrong))
