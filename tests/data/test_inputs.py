"""What a model cannot read is refused wherever it enters: ids without a row, lengths beyond the context, no tokens."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import adapt, evaluate, routing, train_library
from modjax.data import inputs
from modjax.data.tasks import Example, Task, Tasks
from modjax.data.token_cache import TokenCache
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval import Method, Sample, analyse, measure
from modjax.eval.likelihood import target_loss
from modjax.eval.sample import prepared
from modjax.eval.traces import routing_weights
from modjax.routing import Context, calibrate, oracle, seqr, uniform
from modjax.routing.embedding import embed, task_embeddings
from modjax.train import examples
from modjax.train.full import train_full
from modjax.train.poly import train_poly
from modjax.train.settings import Settings

NEW = 64  # the id of a token that was added to the tokenizer alone: the model has 64 rows
QUIET = {"progress": False}
TRAIN = {"steps": 1, "batch": 1, "length": 64, "rank": 2} | QUIET


@pytest.fixture(scope="module")
def model(word_model):
    """A context of 64 tokens, 64 rows, and a tokenizer of 65 tokens."""
    words = copy.deepcopy(word_model.tokenizer)
    words.add_tokens(["<new>"])
    return dataclasses.replace(word_model, tokenizer=words)


@pytest.fixture(scope="module")
def library(model, random_library):
    return random_library({"attn.q": model.config.sites["attn.q"]}, experts=2, names=["one", "two"])


def collection(source, target="w3"):
    """Two tasks; the last example of each has this source."""

    def task(name):
        examples = [
            Example(text, target, split) for split in ("train", "validation", "test") for text in ("w1", source)
        ]
        return Task(name, tuple(examples))

    return Tasks([task("one"), task("two")])


def encoded(source):
    """The ids of such a source, as a caller of inner functions may have them."""
    return np.asarray([NEW if word == "<new>" else int(word[1:]) + 4 for word in source.split()], np.int32)


# Every function that takes text or token ids: entry(model, library, source).
OF_IDS = {
    "logits": lambda m, lib, source: m.logits(encoded(source)[None]),
    "logits of lists": lambda m, lib, source: m.logits([encoded(source).tolist()]),
    "logits of a device": lambda m, lib, source: m.logits(jnp.asarray(encoded(source))[None], lib, uniform(lib)),
    "generate": lambda m, lib, source: m.generate([encoded(source)], max_new_tokens=1),
    "generate from a list": lambda m, lib, source: m.generate([encoded(source).tolist()], max_new_tokens=1),
    "embed ids": lambda m, lib, source: embed(m, [encoded(source)]),
    "likelihood": lambda m, lib, source: target_loss(m, [Encoded(encoded(source), 1)]),
    "traces": lambda m, lib, source: routing_weights(m, Method("m", lib, uniform(lib)), [Encoded(encoded(source), 1)]),
}
OF_TEXT = {
    "generate from text": lambda m, lib, source: m.generate([source], max_new_tokens=1),
    "generate from a chat": lambda m, lib, source: m.generate(
        [[{"role": "user", "content": source}]], max_new_tokens=1
    ),
    "stream": lambda m, lib, source: m.stream(source, max_new_tokens=1),
    "embed": lambda m, lib, source: embed(m, [source]),
    "calibrate": lambda m, lib, source: calibrate(seqr(lib), m, [source]),
    "task embeddings": lambda m, lib, source: task_embeddings(m, collection(source)),
    "task predictor": lambda m, lib, source: routing.task_predictor(lib, m, collection(source)),
    "task representations": lambda m, lib, source: routing.task_representations(lib, m, collection(source)),
}
OF_TASKS = {
    "train": lambda m, lib, source: train_library(m, collection(source), **TRAIN),
    "train all weights": lambda m, lib, source: train_full(m, collection(source), **TRAIN),
    "train poly": lambda m, lib, source: train_poly(m, collection(source), **TRAIN),
    "phatgoose": lambda m, lib, source: routing.phatgoose(
        lib, m, collection(source), steps=1, too_long="error", **QUIET
    ),
    "evaluate": lambda m, lib, source: evaluate(m, collection(source), max_new_tokens=1, **QUIET),
    "analyse": lambda m, lib, source: analyse(m, Method("m", lib, uniform(lib)), collection(source)),
    "cost": lambda m, lib, source: measure(m, Method("m"), collection(source)),
    "lorahub": lambda m, lib, source: adapt.lorahub(m, lib, collection(source), **QUIET),
    "cat": lambda m, lib, source: adapt.cat(m, lib, collection(source), length=64, **QUIET),
    "lora": lambda m, lib, source: adapt.lora(m, collection(source), **TRAIN),
    "poly": lambda m, lib, source: adapt.poly(m, lib, collection(source), steps=1, length=64, **QUIET),
}
TRUNCATED = {"centroid": lambda m, lib, source: routing.centroid(lib, m, collection(source))}


def entries(*groups):
    found = {name: entry for group in groups for name, entry in group.items()}
    return pytest.mark.parametrize("entry", found.values(), ids=[name.replace(" ", "-") for name in found])


@entries(OF_IDS, OF_TEXT, OF_TASKS, TRUNCATED)
def test_a_token_without_a_row_is_refused(model, library, entry):
    with pytest.raises(InputError, match=r"token \d has the id 64 \('<new>'\); expected ids from 0 to 63, .* of tiny"):
        entry(model, library, "w1 <new> w2")


@entries(OF_IDS, OF_TEXT, OF_TASKS)
def test_more_tokens_than_the_context_are_refused(model, library, entry):
    with pytest.raises(
        InputError, match="has 7. tokens.* expected at most 64, (the context of tiny|the setting length)"
    ):
        entry(model, library, " ".join(["w1"] * 70))


@entries(OF_TASKS)
def test_examples_are_named(model, library, entry):
    with pytest.raises(InputError, match=r"task 'one', (train|test) example 1"):
        entry(model, library, "<new>")
    with pytest.raises(InputError, match=r"task 'one', (train|test) example 1"):
        entry(model, library, " ".join(["w1"] * 70))


@entries(OF_IDS, OF_TEXT, OF_TASKS, TRUNCATED)
def test_a_prompt_without_tokens_is_refused(model, library, entry):
    with pytest.raises(InputError, match="no tokens|expected at least one message|tokens_BT"):
        entry(model, library, "")


@entries(OF_TEXT, OF_TASKS, TRUNCATED)
def test_text_needs_a_tokenizer(model, library, entry):
    with pytest.raises(InputError, match="tiny: the checkpoint has no tokenizer"):
        entry(dataclasses.replace(model, tokenizer=None), library, "w1 w2")


@pytest.mark.parametrize("wrong", [-1, 64, 2**31, 2**32 + 5, -(2**40)])
def test_ids_of_any_size_are_refused(model, wrong):
    for read in (lambda ids: model.logits(ids[None]), lambda ids: model.generate([ids], max_new_tokens=1)):
        with pytest.raises(InputError, match=r"expected (ids from 0 to 63|token ids, int32)"):
            read(np.array([5, wrong, 6]))


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((2, 3)),
        np.ones((2, 3), bool),
        np.ones(3, int),
        np.ones((1, 2, 3), int),
        np.int64(3),
        jnp.ones((2, 3)),
        [[1, 2], [3]],
        [[1.0, 2.0]],
        [["a"]],
        "text",
        None,
        {"input_ids": [[1]]},
    ],
    ids=str,
)
def test_arrays_of_another_kind_are_no_tokens(model, wrong):
    with pytest.raises(InputError, match=r"tokens_BT.* expected token ids, int32\[B,T\]"):
        model.logits(wrong)


def test_arrays_of_all_whole_numbers_are_tokens(model):
    expected = model.logits([[4, 5]])
    for kind in (np.int8, np.uint64, np.int64):
        np.testing.assert_array_equal(model.logits(np.array([[4, 5]], kind)), expected)


def test_under_jit_values_are_not_known(model):
    """Shapes and dtypes are, so these are checked."""
    assert jax.eval_shape(model.logits, jnp.zeros((2, 5), jnp.int32)).shape == (2, 5, 64)
    with pytest.raises(InputError, match="has 65 tokens"):
        jax.eval_shape(model.logits, jnp.zeros((2, 65), jnp.int32))
    with pytest.raises(InputError, match=r"float32\[2, 5\]"):
        jax.eval_shape(model.logits, jnp.zeros((2, 5)))


@pytest.mark.parametrize("wrong", [[2, 0], [0, -2], [0], [[0, 1]], [0.0, 1.0], [True, False]], ids=str)
def test_choices_of_a_context_are_checked(model, library, wrong):
    with pytest.raises(InputError, match=r"choice_B=.*: expected int32\[2\], from -1 to 1"):
        model.logits([[4, 5], [6, 7]], library, oracle(library), Context(np.array(wrong)))


def test_answers_need_room_in_the_context(model):
    tasks = collection(" ".join(["w1"] * 60))
    with pytest.raises(InputError, match="prompt of task 'one', test example 1 has 60 tokens and max_new_tokens=5, to"):
        evaluate(model, tasks, max_new_tokens=5, progress=False)
    with pytest.raises(InputError, match="prompt 0 has 60 tokens and max_new_tokens=5, together 65; expected at most"):
        model.generate([tasks["one"][1].source], max_new_tokens=5)
    cut = prepared(model, tasks, Sample(too_long="truncate", length=40), max_new_tokens=5)
    assert max(len(one.encoded.tokens) for one in cut) == 40


def test_training_and_evaluation_read_the_same_tokens(model):
    """Also with lengths that exceed the context, where prompts are truncated to it."""
    tasks = collection(" ".join(f"w{i % 50}" for i in range(90)))
    sample = Sample(split="train", length=2048, too_long="truncate")
    evaluated = [one.encoded for one in prepared(model, tasks.select(["one"]), sample)]
    trained = examples._encoded(
        model, TokenCache(model), tasks["one"], "train", Settings(length=64, too_long="truncate")
    )
    own = inputs.examples(model, tasks["one"], tasks["one"].split("train"), 64, too_long="truncate")
    for one, two, three in zip(evaluated, trained, own, strict=True):
        assert one.tokens.tolist() == two.tokens.tolist() == three.tokens.tolist()
        assert one.n_prompt == two.n_prompt == three.n_prompt
    assert len(evaluated[1].tokens) == 64
    assert evaluated[0].tokens.tolist() == [5, 7, 1]  # w1, w3, <end>


def test_learned_positions_have_the_same_limit(model):
    """Beyond them logits would be NaN."""
    from modjax.models.config import ModelConfig
    from modjax.models.decoder import Decoder

    config = ModelConfig("gpt2", V=64, D=8, N=1, K=1, H=8, F=8, L=1, context=8, learned_positions=True)
    short = dataclasses.replace(model, params=Decoder.init(config, jax.random.key(0)))
    assert np.isfinite(short.logits([[4] * 8])).all()
    with pytest.raises(InputError, match="row 0 has 9 tokens; expected at most 8"):
        short.logits([[4] * 9])
