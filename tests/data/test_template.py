"""The end of a turn in the chat formats of published models: targets, prompts and stopping go by the template."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from modjax.data import tokenize
from modjax.data.tasks import Example, Task
from modjax.data.template import Turn, turn
from modjax.model import Model
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

V = 272  # of the tiny model: bytes and up to sixteen special tokens
ASKED, SAID, AGAIN = "hi", "yo", "so"


class Format(NamedTuple):
    """A chat format: its tokens, a template in our own words, and what it makes of one question and its answer."""

    special: tuple[str, ...]
    eos: str
    template: str
    whole: str  # up to the end of the turn
    end: str


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # an answer that is last gets an empty block of thoughts, as the generation prompt does not
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TULU = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '' if loop.last and m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GRANITE = (
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}</s>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ROLES = (  # nothing ends a turn but the role of the next one
    "[gMASK]{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LINES = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}### assistant:\n"
HARMONY = (  # the last answer ends as no earlier one does
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|message|>{% endif %}"
)
ALWAYS = CHATML.replace("{% if add_generation_prompt %}", "").removesuffix("{% endif %}") + "<|bell|>"

TURNS = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>"
PHI_ROLES = ("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
FORMATS = {
    "llama 2": Format(("<s>", "</s>"), "</s>", LLAMA2, "<s>[INST] hi [/INST] yo </s>", "</s>"),
    "llama 3": Format(
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        LLAMA3,
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>",
        "<|eot_id|>",
    ),
    "mistral": Format(("<s>", "</s>", "[INST]", "[/INST]"), "</s>", MISTRAL, "<s>[INST] hi[/INST] yo</s>", "</s>"),
    "gemma": Format(
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        GEMMA,
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>",
        "<end_of_turn>",
    ),
    "phi 3": Format(PHI_ROLES, "<|endoftext|>", PHI3, "<|user|>\nhi<|end|>\n<|assistant|>\nyo<|end|>", "<|end|>"),
    "qwen 2 base": Format(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|endoftext|>", CHATML, TURNS, "<|im_end|>"
    ),
    "smollm 2": Format(("<|im_start|>", "<|im_end|>"), "<|im_end|>", CHATML, TURNS, "<|im_end|>"),
    "qwen 3": Format(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", THINKING, TURNS, "<|im_end|>"),
    "zephyr": Format(("<s>", "</s>"), "</s>", ZEPHYR, "<|user|>\nhi</s>\n<|assistant|>\nyo</s>", "</s>"),
    "tulu, olmo 2": Format(
        ("<|endoftext|>",), "<|endoftext|>", TULU, "<|user|>\nhi\n<|assistant|>\nyo<|endoftext|>", "<|endoftext|>"
    ),
    "granite": Format(
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        GRANITE,
        "<|start_of_role|>user<|end_of_role|>hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
        "yo<|end_of_text|>",
        "<|end_of_text|>",
    ),
    "vicuna": Format(("<s>", "</s>"), "</s>", VICUNA, "USER: hi ASSISTANT: yo</s>", "</s>"),
    "role tokens alone": Format(
        ("[gMASK]", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        "<|endoftext|>",
        ROLES,
        "[gMASK]<|user|>\nhi<|assistant|>\nyo<|endoftext|>",
        "<|endoftext|>",
    ),
    "headings of lines": Format(("</s>",), "</s>", LINES, "### user:\nhi\n\n### assistant:\nyo</s>", "</s>"),
    "another last end": Format(
        ("<|start|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
        HARMONY,
        "<|start|>user<|message|>hi<|end|><|start|>assistant<|message|>yo<|return|>",
        "<|return|>",
    ),
    "always a prompt": Format(
        ("<|im_start|>", "<|im_end|>", "<|bell|>", "<|eos|>"),
        "<|eos|>",
        ALWAYS,
        TURNS.removesuffix("yo<|im_end|>") + "<|bell|>yo<|im_end|>",
        "<|im_end|>",
    ),
    "no template": Format(("</s>",), "</s>", "", "hi\nyo</s>", "</s>"),
    "a template that refuses": Format(
        ("</s>", "<|end|>"),
        "</s>",
        "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}{{ messages[0].content }}<|end|>",
        "hi<|end|>yo</s>",
        "</s>",
    ),
}


# Formats whose templates write no conversations, and those that write something else between prompt and answer or
# nothing after it.
ONE_MESSAGE = {"no template", "a template that refuses"}
OTHERWISE = {"qwen 3", "role tokens alone", "headings of lines", "always a prompt"}


def of_format(names=FORMATS):
    return pytest.mark.parametrize("name", names, ids=lambda name: name.replace(" ", "-"))


@pytest.fixture(scope="module")
def tokenizer_of(byte_tokenizer):
    """A function that gives the tokenizer of a format."""

    def make(name):
        form = FORMATS[name]
        return byte_tokenizer(form.special, form.template or None, eos_token=form.eos)

    return make


@pytest.fixture(scope="module")
def answering():
    """A function that gives a model which says one token for ever."""
    config = ModelConfig("llama", V=V, D=8, N=1, K=1, H=8, F=8, L=1, context=128, rope_dim=8, tied=True, head_bias=True)
    params = Decoder.init(config, jax.random.key(0))

    def make(token, words):
        params.tied_bias[...] = jnp.zeros(V).at[token].set(1e4)
        return Model("tiny", params, words)

    return make


@of_format()
def test_a_target_ends_as_the_template_ends_it(name, tokenizer_of):
    form, words = FORMATS[name], tokenizer_of(name)
    task = Task("t", (Example(ASKED, SAID, "train"),))
    (one,) = tokenize.encode(words, task, task.examples, 200)
    assert words.decode(one.tokens) == form.whole
    (prompt,) = tokenize.prompts(words, [ASKED])
    assert one.tokens[: one.n_prompt].tolist() == prompt.tolist()
    assert turn(words).end == words.convert_tokens_to_ids(form.end)


@of_format([name for name in FORMATS if name not in ONE_MESSAGE | OTHERWISE])
def test_what_is_learned_is_what_the_template_says(name, tokenizer_of):
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    assert tokenizer_of(name).apply_chat_template(turns, tokenize=False).startswith(FORMATS[name].whole)


@of_format([name for name in FORMATS if name not in ONE_MESSAGE])
def test_earlier_turns_are_encoded_as_the_template_does(name, tokenizer_of):
    words = tokenizer_of(name)
    turns = [("user", ASKED), ("assistant", SAID), ("user", AGAIN)]
    chat = [{"role": role, "content": content} for role, content in turns]
    (prompt,) = tokenize.prompts(words, [chat])
    rendered = words.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert words.decode(prompt) == rendered
    assert prompt.tolist() == words(rendered, add_special_tokens=False)["input_ids"]


@of_format()
def test_an_answer_stops_there(name, tokenizer_of, answering):
    form, words, new = FORMATS[name], tokenizer_of(name), {"max_new_tokens": 2, "batch": 1}
    for end in (form.end, form.eos):
        assert answering(words.convert_tokens_to_ids(end), words).generate([ASKED], **new) == [""]
    assert answering(words("x")["input_ids"][0], words).generate([ASKED], **new) == ["xx"]


@pytest.mark.parametrize(
    "name, lead, trail", [("llama 2", " ", " "), ("vicuna", " ", ""), ("qwen 3", "", ""), ("gemma", "", "")]
)
def test_white_space_around_an_answer_is_the_templates(name, lead, trail, tokenizer_of):
    """Thoughts are no white space: they are left to the model."""
    assert turn(tokenizer_of(name))[:2] == (lead, trail)


def test_without_any_end_there_is_none(byte_tokenizer):
    assert turn(byte_tokenizer((), None)).end is None
    assert turn(byte_tokenizer((), LINES)).end is None
    words = byte_tokenizer(("<|im_start|>", "<|im_end|>"), CHATML)  # no eos_token, but a template
    assert turn(words).end == words.convert_tokens_to_ids("<|im_end|>")


def test_without_any_end_an_answer_has_all_its_tokens(byte_tokenizer, answering):
    words = byte_tokenizer((), LINES)
    assert answering(words("x")["input_ids"][0], words).generate([ASKED], max_new_tokens=2, batch=1) == ["xx"]


def test_a_template_may_refuse_an_answer_as_the_last_message(byte_tokenizer):
    refuses = "{% if messages[-1].role != 'user' %}{{ raise_exception('no question') }}{% endif %}"
    words = byte_tokenizer(("<|im_start|>", "<|im_end|>", "</s>"), refuses + CHATML, eos_token="</s>")
    assert turn(words) == Turn("", "", words.convert_tokens_to_ids("<|im_end|>"))


def test_the_reply_of_a_template_may_be_hidden(byte_tokenizer):
    """A template that does not write the answer, or writes it otherwise, says nothing about its end."""
    words = byte_tokenizer(("<|im_start|>", "</s>"), "{{ messages[0].content | upper }}<|im_start|>", eos_token="</s>")
    assert turn(words) == Turn("", "", words.eos_token_id)


def test_an_answer_is_read_as_the_words_that_follow_the_prompt():
    """A tokenizer that marks the beginnings of words, as SentencePiece does, marks none that are in the middle."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<s>", "</s>", "[INST]", "▁hi", "▁[/INST]", "▁yo", "▁"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.add_special_tokens([AddedToken(one, special=True) for one in known[:2]])
    words = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=LLAMA2, eos_token="</s>")
    task = Task("t", (Example(ASKED, SAID, "train"),))
    (one,) = tokenize.encode(words, task, task.examples, 20)
    assert words.convert_ids_to_tokens(one.tokens) == ["<s>", "[INST]", "▁hi", "▁[/INST]", "▁yo", "▁", "</s>"]
    assert one.n_prompt == 4


def test_a_token_never_joins_prompt_and_answer():
    """The prompt's tokens are those that generation reads, also where the tokenizer would merge two line ends."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    backend = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([AddedToken(one, special=True) for one in ("<|im_start|>", "<|im_end|>")])
    words = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHATML, eos_token="<|im_end|>")
    task = Task("t", (Example(ASKED, "\n" + SAID, "train"),))
    (one,) = tokenize.encode(words, task, task.examples, 200)
    (prompt,) = tokenize.prompts(words, [ASKED])
    assert one.tokens[: one.n_prompt].tolist() == prompt.tolist()
    assert words.convert_ids_to_tokens(one.tokens[one.n_prompt - 1 :]) == ["Ċ", "Ċ", "y", "o", "<|im_end|>"]
