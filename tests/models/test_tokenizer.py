import copy
import json

import pytest

from modjax.errors import InputError
from modjax.models import gguf, gguf_tokenizer, tokenizer

TEXTS = [
    "",
    "The capital of France is Paris.",
    "It's 3.14159, isn't it? 12345 678 (1990s)",
    "def f(x):\n    return x  +   1\n\n\n# done\t\t!",
    "Grüße, déjà vu — 東京、Ωμέγα, Здравствуйте; مرحبا 🤖👩‍👩‍👧",
    "  leading and trailing  ",
    "a  12 b\n\n7",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|endoftext|> <repo_name>x",
    "e\u0301 \u00a0 \u200b \ufeff \x00",
]


@pytest.fixture(scope="module")
def ours():
    return gguf_tokenizer.read(gguf.embedded())


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    from transformers import AutoTokenizer

    path = tmp_path_factory.mktemp("smollm2")
    (path / gguf.EMBEDDED).symlink_to(gguf.embedded())
    return AutoTokenizer.from_pretrained(path, gguf_file=gguf.EMBEDDED)


def test_ids_equal_transformers(ours, theirs):
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text


def test_decoding_gives_the_text_back(ours):
    for text in TEXTS:
        assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.decode(ours("<|im_start|>a<|im_end|>")["input_ids"], skip_special_tokens=True) == "a"


def test_special_tokens_and_chat_template(ours, theirs):
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)


def test_directory_with_and_without_a_tokenizer(tmp_path, ours):
    assert tokenizer.from_directory(tmp_path) is None
    ours.save_pretrained(tmp_path)
    again = tokenizer.from_directory(tmp_path)
    assert [again(text)["input_ids"] for text in TEXTS] == [ours(text)["input_ids"] for text in TEXTS]


def test_broken_directory(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer.json: is not JSON"):
        tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_the_damaged_file_of_a_tokenizer_is_named(tmp_path, ours, name, content):
    ours.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: .*expected|{name}: is not JSON"):
        tokenizer.from_directory(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_tokenizer(tmp_path, ours):
    ours.save_pretrained(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    again = tokenizer.from_directory(tmp_path)
    assert again.chat_template == ours.chat_template and again("a b")["input_ids"] == ours("a b")["input_ids"]


def test_both_config_files_name_ends(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": [9, 2]}')
    assert tokenizer.ends(tmp_path) == (7, 9, 2)
    (tmp_path / "config.json").write_text('{"model_type": "x", "text_config": {"eos_token_id": 3}}')
    assert tokenizer.ends(tmp_path) == (7, 9, 3)
    (tmp_path / "config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(InputError, match=r"config.json: eos_token_id is '</s>'; expected a token id"):
        tokenizer.ends(tmp_path)


def test_a_tokenizer_fits_its_embedding(byte_tokenizer):
    words = byte_tokenizer(("<end>",), eos_token="<end>")
    tokenizer.check(words, (256,), 257, "here")  # as many rows as tokens
    tokenizer.check(words, (), 300, "here")
    tokenizer.check(None, (), 1, "here")


def test_added_tokens_without_a_row_are_named(byte_tokenizer):
    words = byte_tokenizer((), eos_token="a")
    words.add_tokens([f"<new{i}>" for i in range(7)])
    named = r"here: .* embedding of 257 rows: '<new1>' \(257\), .*'<new5>' \(261\), \.\.\.; text with one of them is"
    with pytest.warns(UserWarning, match=named):
        tokenizer.check(words, (), 257, "here")


def test_unused_tokens_without_a_row_are_named():
    words = _of_words(["a", "b", "<unused0>", "[PAD]", "<|reserved_3|>"])
    with pytest.warns(UserWarning, match=r"embedding of 2 rows: '<unused0>' \(2\), '\[PAD\]' \(3\), '<\|reserved_3"):
        tokenizer.check(words, (), 2, "here")


def test_the_tokenizer_of_another_model_is_refused():
    with pytest.raises(InputError, match=r"here: .*embedding of 2 rows: 'c' \(2\); expected the model's own tokenizer"):
        tokenizer.check(_of_words(["a", "b", "c"]), (), 2, "here")


@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_an_end_without_a_row_is_named(wrong):
    with pytest.warns(UserWarning, match=f"here: eos_token_id {wrong}: expected ids from 0 to 4"):
        tokenizer.check(None, (1, wrong), 5, "here")


def _of_words(words):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_ends_of_a_directory(tmp_path):
    file = tmp_path / "generation_config.json"
    assert tokenizer.ends(tmp_path) == ()
    for found, expected in [({}, ()), ({"eos_token_id": 7}, (7,)), ({"eos_token_id": [7, 9]}, (7, 9))]:
        file.write_text(json.dumps(found))
        assert tokenizer.ends(tmp_path) == expected
    for wrong in ('"</s>"', "[1, 2.5]", "true"):
        file.write_text(f'{{"eos_token_id": {wrong}}}')
        with pytest.raises(InputError, match=r"generation_config.json: eos_token_id is .* token id"):
            tokenizer.ends(tmp_path)


@pytest.mark.parametrize("begins", [True, False])
def test_metadata_of_a_gguf_file(tmp_path, begins):
    """End tokens, and whether texts start with a beginning-of-sequence token."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "<eot>", "a", "b", "ab"])
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(2)
    writer.add_add_bos_token(begins)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert tokenizer.ends(tmp_path / "x.gguf") == (1, 2)
    words = gguf_tokenizer.read(tmp_path / "x.gguf")
    assert words("ba")["input_ids"] == ([0, 4, 3] if begins else [4, 3])
    assert words("ba", add_special_tokens=False)["input_ids"] == [4, 3]


def test_a_fingerprint_does_not_depend_on_calls(ours):
    first = tokenizer.fingerprint(ours)
    ours(["a", "a longer text"], padding=True, truncation=True, max_length=2)
    assert tokenizer.fingerprint(ours) == first == tokenizer.fingerprint(gguf_tokenizer.read(gguf.embedded()))
    assert tokenizer.fingerprint(None) == ""


def test_a_fingerprint_tells_other_tokenizers_apart(word_tokenizer):
    words = copy.deepcopy(word_tokenizer)
    found = [tokenizer.fingerprint(words)]
    words.chat_template = "{{ messages }}"
    found.append(tokenizer.fingerprint(words))
    words.eos_token = "w5"
    found.append(tokenizer.fingerprint(words))
    words.add_tokens(["<new>"])
    found.append(tokenizer.fingerprint(words))
    assert len(set(found)) == 4
