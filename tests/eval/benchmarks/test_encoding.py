"""Tokens of contexts and continuations: those of lm-evaluation-harness, also where a token would join the two."""

import dataclasses

import jax
import pytest
import tokenizers
import transformers
from tiny import model as tiny_model  # noqa: F401, a fixture

from modjax.errors import InputError
from modjax.eval.benchmarks import encoding
from modjax.model import Model
from modjax.models.decoder import Decoder

TEXTS = [
    "Question: what is 12?\nAnswer:",
    "the cat sat on the mat",
    "def f(x):\n    return x",
    "caf\u00e9 na\u00efve",
    "a  b ",
]
CHAT = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"


def _bpe(first=False):
    """A byte-level BPE tokenizer, also one that begins each text with a special token."""
    bare = tokenizers.Tokenizer(tokenizers.models.BPE())
    bare.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<user>", "<model>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bare.train_from_iterator(TEXTS * 3, trainer)
    if first:
        bare.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="<s>", chat_template=CHAT
    )


@pytest.fixture(params=[False, True], ids=["plain", "with a first token"])
def model(request, tiny_model):  # noqa: F811
    return Model("bpe", tiny_model.params, _bpe(request.param))


@pytest.fixture
def harness(model):
    from lm_eval.models.huggingface import HFLM

    class Own(HFLM):
        def __init__(self):  # the tokenizer alone, without a model
            self.tokenizer, self.backend, self.add_bos_token = model.tokenizer, "causal", None

        prefix_token_id = property(lambda self: self.tokenizer.bos_token_id)

    return Own()


PAIRS = [
    ("Question: what?\nAnswer:", " the cat"),
    ("Question: what?\nAnswer: ", "the cat"),  # the space goes to the continuation
    ("a  ", " b"),
    ("the c", "at sat on"),  # a token of the whole text joins the two
    ("the mat\n", "def f(x):"),
    ("caf", "\u00e9 na\u00efve"),
    ("x", " caf\u00e9 na\u00efve"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_are_those_of_the_harness(model, harness, pair):
    found = encoding.pair(model, *pair)
    head, tail = harness._encode_pair(*pair)
    assert found.tokens.tolist() == head + tail and found.n_prompt == len(head)


def test_the_first_tokens_of_what_is_too_long_are_dropped(model):
    context, reach = "the cat sat " * 40, model.config.reach
    whole = encoding.pair(Model("long", _with_context(model, 4096), model.tokenizer), context, " the mat")
    cut = encoding.pair(model, context, " the mat")
    assert len(whole.tokens) > reach == len(cut.tokens)
    assert cut.tokens.tolist() == whole.tokens[-reach:].tolist()
    assert cut.tokens[cut.n_prompt :].tolist() == whole.tokens[whole.n_prompt :].tolist()
    prompt = encoding.prompt(model, context.rstrip(), 10)
    assert len(prompt) == reach - 10 and prompt.tolist() == whole.tokens[: whole.n_prompt][-len(prompt) :].tolist()


def _with_context(model, context):
    return jax.eval_shape(lambda: Decoder.init(dataclasses.replace(model.config, context=context), jax.random.key(0)))


def test_what_has_no_tokens_or_no_room_is_refused(model):
    with pytest.raises(InputError, match="the continuation '' has 0 tokens after its context of"):
        encoding.pair(model, "the cat", "")
    with pytest.raises(InputError, match="expected at least one of each within the context of bpe, 64"):
        encoding.pair(model, "the cat", " the" * 200)
    with pytest.raises(InputError, match="answers of 64 tokens: expected fewer than the context of bpe"):
        encoding.prompt(model, "the cat", 64)


def test_chat_asks_through_the_template_without_further_special_tokens(model):
    found = encoding.pair(model, "the cat", "sat", chat=True)
    assert model.tokenizer.decode(found.tokens[: found.n_prompt]) == "<user>the cat<model>"
    assert model.tokenizer.decode(found.tokens[found.n_prompt :]) == "sat"
    assert encoding.prompt(model, "the cat", 3, chat=True).tolist() == found.tokens[: found.n_prompt].tolist()
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=model.tokenizer.backend_tokenizer)
    with pytest.raises(InputError, match="chat=True: the tokenizer of x has no chat template"):
        encoding.pair(Model("x", model.params, plain), "the cat", "sat", chat=True)
    with pytest.raises(InputError, match="x: the checkpoint has no tokenizer"):
        encoding.pair(Model("x", model.params), "the cat", " sat")
