import jax
import numpy as np
import pytest

import modjax
from modjax.routing import Context, PromptRows, load_router, settle


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
    """Four experts on two sites, every one with a scale of its own."""
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
def padded(mixed):
    """The same experts with rows of zeros behind their own."""
    import dataclasses

    from modjax.experts.library import pad_rank

    return dataclasses.replace(mixed, loras=jax.tree.map(lambda factor: pad_rank(factor, 5), mixed.loras))


@pytest.fixture(scope="session")
def x_BTI():
    return np.float32(np.random.default_rng(1).normal(size=(2, 7, 32)))


@pytest.fixture(scope="session")
def slow_lengths():
    """A function that gives ||B_e^T A_e x|| from the whole product, float64[..., E]."""

    def make(library, site, layer, x):
        pairs = zip(*(np.float64(factor[layer]) for factor in library.loras[site]), strict=True)
        return np.stack([np.linalg.norm(np.float64(x) @ (b_RO.T @ a_RI).T, axis=-1) for a_RI, b_RO in pairs], axis=-1)

    return make


@pytest.fixture(scope="session")
def slow_softmax():
    """A function that gives the softmax over the k largest of each row, in float64."""

    def make(score_nE, top_k, temperature=1.0):
        weights_nE = np.zeros_like(score_nE)
        for at in np.ndindex(score_nE.shape[:-1]):
            kept = np.argsort(-score_nE[at])[: top_k if top_k > 0 else None]
            weights = np.exp((score_nE[at][kept] - score_nE[at].max()) / temperature)
            weights_nE[at][kept] = weights / weights.sum()
        return weights_nE

    return make


@pytest.fixture(scope="session")
def token_weights():
    """A function that gives what a router of tokens weighs in one layer at attn.q."""

    def make(router, layer, x_BTI):
        one = jax.tree.map(lambda leaf: leaf[layer], router)
        return np.asarray(jax.jit(lambda one, x_BTI: one("attn.q", x_BTI, Context()))(one, x_BTI))

    return make


@pytest.fixture(scope="session")
def prompts():
    """Token ids of six prompts, 3 to 12 tokens each."""
    rng = np.random.default_rng(6)
    return [rng.integers(3, 61, n).astype(np.int32) for n in (5, 3, 9, 12, 7, 4)]


@pytest.fixture(scope="session")
def site_inputs(model):
    """A function that gives what each site reads of one prompt in the base model, {site: float64[L,n,I]}."""

    @jax.jit
    def seen(tokens_BT):
        return model.params.observe(lambda _, sites, x_BTI: dict.fromkeys(sites, x_BTI), tokens_BT)

    def make(tokens):
        row = np.zeros((1, 32), np.int32)  # what stands behind a prompt is not read
        row[0, : len(tokens)] = tokens
        return {site: np.float64(x_LBTI)[:, 0, : len(tokens)] for site, x_LBTI in seen(row).items()}

    return make


@pytest.fixture(scope="session")
def prompt_weights(model):
    """A function that gives what a router of prompts weighs, float32[n, E]; the prompts lie in one padded batch."""
    from modjax.models.padding import left_padded

    def make(router, library, prompts):
        rows = PromptRows.left_padded(*left_padded(prompts, len(prompts) + 1, 16))
        weights_LBE = np.asarray(settle(model.params, (library.loras, library.scale, router), rows)[2].weights)
        assert np.isfinite(weights_LBE).all() and (weights_LBE == weights_LBE[:1]).all()
        return weights_LBE[0, : len(prompts)]

    return make


@pytest.fixture
def loaded(tmp_path):
    """A function that saves a router, loads it and holds it equal."""

    def make(router):
        router.save(tmp_path / "router")
        again = load_router(tmp_path / "router")
        assert jax.tree.structure(again) == jax.tree.structure(router)
        jax.tree.map(np.testing.assert_array_equal, again, router)
        return again

    return make


@pytest.fixture(scope="session")
def words(word_model, random_library):
    """Experts for the word model, each trained on the task it is named after."""
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "mlp.down")}
    return random_library(sites, experts=4, rank=2, layers=2, names=["copy", "count", "reverse", "sort"], scale=2.0)


@pytest.fixture(scope="session")
def decodes_as_recomputed(word_model, words):
    """A function that holds greedy generation with a cache equal to reading everything anew for each token."""
    from modjax.data.tokenize import prompts as encode_prompts

    texts = ["w1 w2 w3 w40", "w7", "w30 w31 w32 w33 w34 w35 w36"]

    def recomputed(router, head):
        row = np.zeros((1, 16), np.int32)
        row[0, : len(head)] = head
        experts = (words.loras, words.scale, router)
        settled = settle(word_model.params, experts, PromptRows.right_padded(row, np.array([len(head)])))[2]
        for end in range(len(head), len(head) + 5):
            row[0, end] = np.argmax(word_model.logits(row, words, settled)[0, end - 1])
        return word_model.tokenizer.decode(row[0, len(head) : len(head) + 5]).split("<end>")[0].strip()

    def make(router):
        got = word_model.generate(texts, words, router, max_new_tokens=5, batch=2)
        expected = [recomputed(router, head) for head in encode_prompts(word_model.tokenizer, texts)]
        assert [text.strip() for text in got] == expected
        assert any(expected)

    return make
