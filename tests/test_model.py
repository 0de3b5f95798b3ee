import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax import routing
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.parallel.mesh import make_mesh
from modjax.routing import Router, arrow, oracle, static, uniform

SITES = ("attn.q", "attn.v", "mlp.down")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
NEW = {"max_new_tokens": 8, "batch": 4}  # the same everywhere, so that little is compiled
PROMPTS = ["one two", "three", "four five six seven eight one two three four", "two two", "eight seven six", "five"]


class Fixed(Router):
    """The same weights for all tokens, per token or not."""

    weights_LE: jax.Array
    per_token: bool = static(False)
    mix: str = static("parameters")

    def __call__(self, site, x_BTI, context):
        if self.per_token:
            return jnp.broadcast_to(self.weights_LE, (*x_BTI.shape[:2], self.weights_LE.shape[-1]))
        return self.weights_LE


def tokenizer():
    """Every id of the tiny model's vocabulary is a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *WORDS, *(f"word{i}" for i in range(50))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tiny_library():
    return Library.from_arrays({"attn.q": (np.ones((1, 2, 1, 2)), np.ones((1, 2, 1, 2)))})


@pytest.fixture(scope="module")
def model(torch_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return modjax.load(path)


@pytest.fixture(scope="module")
def library(model, random_library):
    sites = {site: model.config.sites[site] for site in SITES}
    return random_library(sites, experts=4, layers=3, scale=[1.0, 2.0, 0.5, 3.0], fingerprint=model.fingerprint)


@pytest.fixture
def tokens_BT():
    return np.random.default_rng(0).integers(0, 61, (2, 10))


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("route", [arrow, uniform])
def test_experts_with_zero_b_are_the_base_model(model, library, tokens_BT, route):
    loras = {site: lora._replace(b=jnp.zeros_like(lora.b)) for site, lora in library.loras.items()}
    untrained = dataclasses.replace(library, loras=loras)
    got = model.logits(tokens_BT, untrained, route(untrained))
    assert got.dtype == jnp.float32 and got.shape == (2, 10, 61)
    np.testing.assert_array_equal(got, model.logits(tokens_BT))


def test_one_expert_needs_no_router_and_equals_merged_weights(model, library, tokens_BT):
    """Its product folded into the base model's own kernels by hand."""
    one = library["expert1"]
    merged = jax.tree.map(lambda leaf: leaf, model.params)
    for site, (a, b, _) in one.loras.items():
        half, name = site.split(".")
        linear = getattr(getattr(merged.blocks, half), name)
        linear.kernel[...] = linear.kernel[...] + 2.0 * jnp.einsum("leri,lero->lio", a, b, precision="highest")
    expected = dataclasses.replace(model, params=merged).logits(tokens_BT)
    close(model.logits(tokens_BT, one), expected)
    close(model.logits(tokens_BT, one, arrow(one)), expected)
    assert np.abs(expected - model.logits(tokens_BT)).max() > 0.1


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_merged_equals_routed_with_static_weights(model, library, tokens_BT, mix):
    weights_LE = jnp.tile(jnp.array([[0.1, 0.5, 0.0, 0.4]]), (3, 1))
    merged, routed = (model.logits(tokens_BT, library, Fixed(weights_LE, per, mix)) for per in (False, True))
    close(routed, merged)


@pytest.mark.parametrize("route", [arrow, uniform])
def test_the_order_of_experts_does_not_matter(model, library, tokens_BT, route):
    shuffled = library[[3, 1, 0, 2]]
    close(model.logits(tokens_BT, shuffled, route(shuffled)), model.logits(tokens_BT, library, route(library)))


def test_libraries_that_do_not_fit_are_refused(model, library, tokens_BT, random_library):
    misfits = {
        "has no site 'mlp.fc1', .*; expected some of attn.q": random_library({"mlp.fc1": (32, 48)}, layers=3),
        r"site attn.q: .* = \(3, 16, 32\); expected \(3, 32, 32\)": random_library({"attn.q": (16, 32)}, layers=3),
        r"site attn.q: .* = \(2, 32, 32\)": random_library({"attn.q": (32, 32)}, layers=2),
        "'expert0' was trained on other .*0123": random_library(
            {"attn.q": (32, 32)}, layers=3, base="other", fingerprint="0123"
        ),
    }
    for words, misfit in misfits.items():
        with pytest.raises(InputError, match=words):
            model.logits(tokens_BT, misfit, uniform(misfit))
    with pytest.raises(InputError, match="4 experts needs a router"):
        model.logits(tokens_BT, library)


def one_at_a_time(model, prompt, steps, *experts):
    """Greedy decoding with no cache, no padding and no batch: the whole text through the model for each token."""
    tokens = model.tokenizer(prompt)["input_ids"]
    n_prompt, length = len(tokens), 64  # the zeros after the text are not read: attention is causal
    for _ in range(steps):
        row = np.pad(tokens, (0, length - len(tokens)))[None]
        token = int(np.argmax(model.logits(row, *experts)[0, len(tokens) - 1]))
        if token == model.tokenizer.eos_token_id:
            break
        tokens.append(token)
    return model.tokenizer.decode(tokens[n_prompt:])


def routers(library):
    """{name: router} of every router that a library in memory alone gives."""
    made = {name: getattr(routing, name) for name in routing.__all__ if name.islower() and name != "two_stage"}
    signatures = {name: inspect.signature(make) for name, make in made.items() if inspect.isfunction(make)}
    return {
        name: made[name](library)
        for name, signature in signatures.items()
        if next(iter(signature.parameters), None) == "library"
        and all(one.default is not one.empty for one in list(signature.parameters.values())[1:])
    }


@pytest.mark.parametrize("name", [None, *routers(tiny_library())])
def test_cached_batched_decoding_equals_full_recompute(model, library, name):
    ids = [3, 0, -1, 2, 1, 3]
    if name is None:
        answers = model.generate(PROMPTS, **NEW)
        assert answers == [one_at_a_time(model, prompt, 8) for prompt in PROMPTS]
        return
    router = routers(library)[name]
    answers = model.generate(PROMPTS, library, router, choices=ids, **NEW)
    for prompt, expert, answer in zip(PROMPTS, ids, answers, strict=True):
        context = routing.Context(np.array([expert], np.int32))
        rows = routing.PromptRows.whole(np.array([model.tokenizer(prompt)["input_ids"]]))
        settled = routing.settle(model.params, model.bind(library, router), rows).router  # others are as they were
        assert answer == one_at_a_time(model, prompt, 8, library, settled, context)
    assert len(set(answers)) > 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_do_not_depend_on_the_batch(model, library, temperature):
    def answers(prompts, batch, seed=3):
        return model.generate(
            prompts, library, arrow(library), max_new_tokens=8, temperature=temperature, seed=seed, batch=batch
        )

    together = answers(PROMPTS, 32)
    assert answers(PROMPTS, 1) == answers(PROMPTS, 4) == together
    assert answers(PROMPTS[:3], 4) == together[:3]
    assert (answers(PROMPTS, 32, seed=4) == together) == (temperature == 0)


def test_equal_prompts_are_drawn_apart(model):
    assert len(set(model.generate(["one two"] * 4, temperature=1.0, **NEW))) > 1


def test_each_prompt_may_have_its_expert(model, library):
    answers = model.generate(PROMPTS[:3], library, oracle(library), choices=[2, -1, 0], **NEW)
    for i, experts in enumerate([(library[2],), (), (library[0],)]):
        assert answers[i] == model.generate(PROMPTS[:3], *experts, **NEW)[i]


def test_answers_stop_at_the_end_of_turn(model):
    """With one of the first answer's words as the end of turn, the answer is the words before it."""
    words = model.generate(PROMPTS, **NEW)[0].split()
    position = next(i for i in range(1, 8) if words[i] not in words[:i])
    ending = tokenizer()
    ending.eos_token = words[position]
    after = dataclasses.replace(model, tokenizer=ending).generate(PROMPTS, **NEW)
    assert after[0].split() == words[:position]


def test_without_a_tokenizer_there_is_no_text(model, tokens_BT):
    silent = dataclasses.replace(model, tokenizer=None)
    assert silent.logits(tokens_BT).shape == (2, 10, 61)
    with pytest.raises(InputError, match="has no tokenizer"):
        silent.generate(["one"])


def test_no_prompts_no_answers(model):
    assert model.generate([]) == [] == list(model.stream([]))


def test_experts_go_by_name_too(model, library):
    router = oracle(library)
    by_name = model.generate(PROMPTS[:3], library, router, choices=["expert2", -1, "expert0"], **NEW)
    assert by_name == model.generate(PROMPTS[:3], library, router, choices=[2, -1, 0], **NEW)
    for experts, words in [
        (["expert9"], "choices: no 'expert9'; expected .*expert0, expert1"),
        ([4], "choices=4: expected a whole number, at least -1 and at most 3"),
        ([0, 1], "one choice for each of 1 prompts"),
        ("expert0", "expected a list"),
        (None, "oracle router needs choices="),
    ]:
        with pytest.raises(InputError, match=words):
            model.generate(PROMPTS[:1], library, router, choices=experts, **NEW)


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0, "top_k": 20, "top_p": 0.9}, {"stop": ["word1", "r word"]}]
)
def test_streamed_pieces_join_to_the_answers(model, settings):
    answers = model.generate(PROMPTS, **NEW, **settings)
    for every in (1, 3, 16):
        said = [""] * len(PROMPTS)
        for i, piece in model.stream(PROMPTS, **NEW, **settings, every=every):
            assert piece
            said[i] += piece
        assert said == answers
    pieces = list(model.stream(PROMPTS[0], **NEW, **settings, every=1))
    assert "".join(pieces) == answers[0]
    if not settings:
        assert len(pieces) == 8


def test_answers_end_before_a_stop_string(model):
    (whole,) = model.generate(PROMPTS[:1], **NEW)
    words = whole.split()
    stop = f"{words[3][-2:]} {words[4][:3]}"  # across two tokens
    expected = whole[: whole.index(stop)]
    assert model.generate(PROMPTS[:1], stop=stop, **NEW) == [expected]
    assert model.generate(PROMPTS[:1], stop=["nowhere", stop], **NEW) == [expected]


def test_sampling_settings_matter(model):
    drawn = model.generate(PROMPTS, temperature=5.0, **NEW)
    assert model.generate(PROMPTS, temperature=5.0, top_k=3, **NEW) != drawn
    assert model.generate(PROMPTS, temperature=5.0, top_p=0.2, **NEW) != drawn
    greedy = model.generate(PROMPTS, **NEW)
    assert model.generate(PROMPTS, temperature=5.0, top_k=1, **NEW) == greedy
    assert model.generate(PROMPTS, temperature=5.0, top_p=1e-9, **NEW) == greedy


@pytest.mark.parametrize("as_list", [True, False])
def test_generation_config_names_more_ends(model, tmp_path, torch_model, as_list):
    words = model.generate(PROMPTS[:1], **NEW)[0].split()
    position = next(i for i in range(1, 8) if words[i] not in words[:i])
    end = model.tokenizer.convert_tokens_to_ids(words[position])
    torch_model("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = {"eos_token_id": [2, end] if as_list else end}
    (tmp_path / "generation_config.json").write_text(json.dumps(found))
    again = modjax.load(tmp_path)
    assert again.ends == ((2, end) if as_list else (end, 2))  # config.json names 2
    assert again.generate(PROMPTS[:1], **NEW)[0].split() == words[:position]


def test_answers_are_the_same_on_a_mesh(model, library):
    sharded = modjax.load(model.name, mesh=make_mesh(expert=1, fsdp=4, tensor=2))
    settings = NEW | {"temperature": 1.0, "top_p": 0.9}
    expected = model.generate(PROMPTS, library, arrow(library), **settings)
    assert sharded.generate(PROMPTS, library, arrow(library), **settings) == expected


def test_prompts_that_cannot_be_answered_are_named(model):
    with pytest.raises(
        InputError, match="prompt 1 has 60 tokens and max_new_tokens=5, together 65; expected at most 64"
    ):
        model.generate(["one", "two " * 60], max_new_tokens=5)
    assert len(model.generate(["two " * 56], **NEW)) == 1
    with pytest.raises(InputError, match="prompt 0 has no tokens"):
        model.generate([""])
    with pytest.raises(InputError, match="'one two': expected a list of prompts"):
        model.generate("one two")


def test_a_token_that_the_model_has_no_row_for(torch_model, tmp_path):
    """As after add_tokens without resize_token_embeddings: a warning at loading, and an error where it is used."""
    torch_model("llama").save_pretrained(tmp_path)
    words = tokenizer()
    words.add_tokens(["<new>"])
    words.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"embedding of 61 rows: '<new>' \(61\); text with one of them is refused"):
        model = modjax.load(tmp_path)
    assert len(model.generate(["one"], max_new_tokens=1)) == 1
    with pytest.raises(InputError, match=r"prompt 0: token 1 has the id 61 \('<new>'\); expected ids from 0 to 60"):
        model.generate(["one <new>"], max_new_tokens=1)


def test_ends_that_do_not_exist_end_nothing(model):
    odd = dataclasses.replace(model, ends=(-1, 61, 2**40))
    assert odd.generate(PROMPTS, **NEW) == model.generate(PROMPTS, **NEW)
