import dataclasses

import jax
import numpy as np
import pytest

import modjax
from modjax.experts.axis import pad_rank
from modjax.ops.top_k import dense
from modjax.routing import Bound, Context, PromptRows, hook, load_router, settle
from modjax.routing.editing import n_experts


@pytest.fixture(scope="session")
def base(torch_model, tmp_path_factory):
    """(directory, model) of a tiny random llama."""
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    return path, modjax.load(path)


@pytest.fixture(scope="session")
def model(base):
    return base[1]


@pytest.fixture(scope="session")
def library(model, random_library):
    """Four experts on two sites, with different scales."""
    sites = {site: model.config.sites[site] for site in ("attn.q", "mlp.down")}
    return random_library(sites, experts=4, rank=3, layers=3, names=list("abcd"), scale=[1.0, 2.0, 0.5, 3.0])


@pytest.fixture(scope="session")
def tokens_BT():
    return np.random.default_rng(5).integers(0, 61, (2, 9))


@pytest.fixture(scope="session")
def mixed(library, model, random_library):
    """The four experts of rank 3 and one of rank 2."""
    sites = {site: model.config.sites[site] for site in library.loras}
    return library + random_library(sites, experts=1, rank=2, layers=3, seed=8, names=["e"], scale=0.25)


@pytest.fixture(scope="session")
def of_rank():
    """A function that pads the factors of a library with rows of zeros up to a rank."""

    def make(library, rank):
        loras = {
            site: lora._replace(a=pad_rank(lora.a, rank), b=pad_rank(lora.b, rank))
            for site, lora in library.loras.items()
        }
        return dataclasses.replace(library, loras=loras)

    return make


@pytest.fixture(scope="session")
def padded(mixed, of_rank):
    """The same experts with rows of zeros after their own."""
    return of_rank(mixed, 5)


@pytest.fixture(scope="session")
def x_BTI():
    return np.float32(np.random.default_rng(1).normal(size=(2, 7, 32)))


@pytest.fixture(scope="session")
def token_weights():
    """A function that gives the weights of a router of tokens in one layer at a site."""

    def make(router, layer, x_BTI, site="attn.q"):
        one = jax.tree.map(lambda leaf: leaf[layer], router)
        weigh = jax.jit(lambda one, x_BTI: dense(one(site, x_BTI, Context()), n_experts(router)))
        return np.asarray(weigh(one, x_BTI))

    return make


@pytest.fixture(scope="session")
def site_delta():
    """A function that gives the update of a site by routed experts, float32[B,T,O]."""

    def make(library, router, layer, x_BTI, site="attn.q"):
        experts = hook(Bound(library.loras, router))
        one = jax.tree.map(lambda leaf: leaf[layer], experts["adapters"])
        return jax.jit(experts["adapt"], static_argnums=1)(one, (site,), x_BTI)[site]

    return make


@pytest.fixture(scope="session")
def prompts():
    """Token ids of six prompts, 3 to 12 tokens each."""
    rng = np.random.default_rng(6)
    return [rng.integers(3, 61, n).astype(np.int32) for n in (5, 3, 9, 12, 7, 4)]


@pytest.fixture(scope="session")
def site_inputs(model):
    """A function that gives the inputs of each site for one prompt in the base model, {site: float64[L,n,I]}."""

    @jax.jit
    def seen(tokens_BT):
        return model.params.observe(lambda _, sites, x_BTI: dict.fromkeys(sites, x_BTI), tokens_BT)

    def make(tokens):
        row = np.zeros((1, 32), np.int32)  # tokens after the prompt do not matter
        row[0, : len(tokens)] = tokens
        return {site: np.float64(x_LBTI)[:, 0, : len(tokens)] for site, x_LBTI in seen(row).items()}

    return make


@pytest.fixture(scope="session")
def prompt_weights(model):
    """A function that gives the weights of a router of prompts, float32[n, E], from one padded batch."""

    def make(router, library, prompts):
        rows = PromptRows.one_each(prompts, len(prompts) + 1, 16)
        settled = settle(model.params, Bound(library.loras, router), rows).router
        weights_LBE = np.asarray(dense(settled("", None, None), len(library)))
        assert np.isfinite(weights_LBE).all() and (weights_LBE == weights_LBE[:1]).all()
        return weights_LBE[0, : len(prompts)]

    return make


@pytest.fixture
def loaded(tmp_path):
    """A function that saves a router, loads it and asserts that it is equal."""

    def make(router):
        router.save(tmp_path / "router")
        again = load_router(tmp_path / "router")
        assert jax.tree.structure(again) == jax.tree.structure(router)
        jax.tree.map(np.testing.assert_array_equal, again, router)
        return again

    return make


@pytest.fixture(scope="session")
def words(word_model, random_library):
    """Experts for the word model, each trained on the task it is named after; ranks and scales differ, and attn.k and
    attn.v share one A."""
    import dataclasses

    def experts(**options):
        sites = {site: word_model.config.sites[site] for site in ("attn.k", "attn.v", "mlp.down")}
        return random_library(sites, layers=2, experts=2, **options)

    found = experts(rank=3, names=["copy", "count"], scale=[2.0, 1.0])
    found = found + experts(rank=2, seed=8, names=["reverse", "sort"], scale=[1.5, 3.0])
    tied = found.loras["attn.v"]._replace(a=found.loras["attn.k"].a)
    return dataclasses.replace(found, loras=found.loras | {"attn.v": tied})


@pytest.fixture(scope="session")
def clustered(words):
    """Experts of two tasks, of one task, of a task that is in no collection, and of a task of another expert too."""
    import dataclasses

    owned = [("copy", "reverse"), ("sort",), ("elsewhere",), ("sort",)]
    infos = tuple(dataclasses.replace(info, tasks=own) for info, own in zip(words.infos, owned, strict=True))
    return dataclasses.replace(words, infos=infos)


@pytest.fixture(scope="session")
def texts():
    return ["w1 w2 w3 w40", "w7", "w30 w31 w32 w33 w34 w35 w36"]


@pytest.fixture(scope="session")
def hidden_states(word_model):
    """A function that gives the last hidden states of prompts, each alone, a list of float64[tokens, D]."""
    from modjax.data.tokenize import prompts as encode_prompts

    @jax.jit
    def hidden(tokens_BT):
        return word_model.params(tokens_BT)

    def one(tokens):
        row = np.zeros((1, 32), np.int32)
        row[0, : len(tokens)] = tokens
        return np.float64(hidden(row))[0, : len(tokens)]

    return lambda texts: [one(tokens) for tokens in encode_prompts(word_model.tokenizer, texts)]


@pytest.fixture(scope="session")
def embeddings(hidden_states):
    """A function that gives the mean of the last hidden states of prompts, float64[n, D]."""
    return lambda texts: np.stack([own_nD.mean(0) for own_nD in hidden_states(texts)])


@pytest.fixture(scope="session")
def text_weights(word_model, texts):
    """A function that gives the weights of a router of prompts for the texts, float32[3, E]."""
    from modjax.data.tokenize import prompts as encode_prompts

    def make(router, library):
        rows = PromptRows.one_each(encode_prompts(word_model.tokenizer, texts), 4, 16)
        settled = settle(word_model.params, Bound(library.loras, router), rows).router
        weights_LBE = dense(settled("", None, None), len(library))
        assert np.isfinite(weights_LBE).all()
        return np.asarray(weights_LBE[0, :3])

    return make


@pytest.fixture(scope="session")
def decodes_as_recomputed(word_model, words, texts):
    """A function that asserts that greedy generation with a cache equals recomputing everything for each token.

    It takes a router for the word model, its library and, for the oracle, the expert of all prompts.
    """
    from modjax.data.tokenize import prompts as encode_prompts

    def recomputed(router, library, context, head):
        row = np.zeros((1, 16), np.int32)
        row[0, : len(head)] = head
        bound = Bound(library.loras, router)
        settled = settle(word_model.params, bound, PromptRows.right_padded(row, np.array([len(head)]))).router
        for end in range(len(head), len(head) + 5):
            row[0, end] = np.argmax(word_model.logits(row, library, settled, context)[0, end - 1])
        return word_model.tokenizer.decode(row[0, len(head) : len(head) + 5]).split("<end>")[0].strip()

    def make(router, library=words, expert=None):
        ids = None if expert is None else [expert] * len(texts)
        context = Context(None if expert is None else np.array([expert], np.int32))
        got = word_model.generate(texts, library, router, max_new_tokens=5, batch=2, choices=ids)
        heads = encode_prompts(word_model.tokenizer, texts)
        assert [text.strip() for text in got] == [recomputed(router, library, context, head) for head in heads]
        assert any(got)

    return make
