import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax.errors import InputError
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
    for site, (a, b) in one.loras.items():
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
        "has no site 'mlp.fc1'; it has attn.q": random_library({"mlp.fc1": (32, 48)}, layers=3),
        r"site attn.q: .* = \(3, 16, 32\); .* has \(3, 32, 32\)": random_library({"attn.q": (16, 32)}, layers=3),
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
    n_prompt, length = len(tokens), 64  # the zeros behind the text are not read: attention is causal
    for _ in range(steps):
        row = np.pad(tokens, (0, length - len(tokens)))[None]
        token = int(np.argmax(model.logits(row, *experts)[0, len(tokens) - 1]))
        if token == model.tokenizer.eos_token_id:
            break
        tokens.append(token)
    return model.tokenizer.decode(tokens[n_prompt:])


@pytest.mark.parametrize("route", [None, arrow, uniform])
def test_cached_batched_decoding_equals_full_recompute(model, library, route):
    experts = () if route is None else (library, route(library))
    answers = model.generate(PROMPTS, *experts, **NEW)
    assert answers == [one_at_a_time(model, prompt, 8, *experts) for prompt in PROMPTS]
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
    answers = model.generate(PROMPTS[:3], library, oracle(library), experts=[2, -1, 0], **NEW)
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
    assert model.generate([]) == []


def test_quantised_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="quantize='int8'"):
        modjax.load(tmp_path, quantize="int8")
