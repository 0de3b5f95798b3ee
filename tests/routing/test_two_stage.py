"""Arrow in two stages: with all experts as candidates it is Arrow; with a few, each prompt has its own."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from modjax import Library, PagedLibrary, evaluate
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval import Method, Sample, analyse
from modjax.eval.likelihood import target_loss
from modjax.ops.top_k import dense
from modjax.routing import PromptRows, arrow, load_router, two_stage

E = 7
PROMPTS = ["w1 w2 w3 w40", "w7", "w30 w31 w32 w33 w34 w35 w36", "w7 w8"]


@pytest.fixture(scope="module")
def folder(word_model, random_library, tmp_path_factory):
    """Seven experts of two ranks."""
    sites = {site: word_model.config.sites[site] for site in ("attn.k", "attn.v", "mlp.down")}
    many = random_library(sites, experts=E - 1, rank=3, names=[f"e{i}" for i in range(E - 1)], scale=2.0)
    path = tmp_path_factory.mktemp("paged") / "library"
    (many + random_library(sites, experts=1, rank=2, seed=4, names=["other"])).save(path)
    return path


@pytest.fixture(scope="module")
def library(folder):
    return Library.load(folder)


@pytest.fixture
def paged(folder):
    """A function that opens the library with a cache of some experts."""
    return lambda cache=E: PagedLibrary.open(folder, cache=cache)


@pytest.fixture(scope="module")
def tokens_BT():
    return np.random.default_rng(5).integers(0, 60, (3, 9))


def shares(model, library, top_k, tokens):
    """float64[E], the weight that Arrow over all experts gives each one in the base model, by its definition."""
    router = arrow(library, top_k=top_k)

    def look(layer, sites, x_BTI):
        return {site: dense(layer(site, x_BTI, None), len(library)) for site in sites if site in library.loras}

    seen = jax.jit(lambda row_BT: model.params.observe(look, row_BT, adapters=router))(tokens[None])
    return sum(np.float64(weights_LBTE).sum((0, 1, 2)) for weights_LBTE in seen.values())


@pytest.mark.parametrize(
    "candidates, options", [(E, {}), (99, {"top_k": 2, "mix": "outputs"}), (E, {"top_k": -1, "temperature": 0.5})]
)
def test_all_experts_as_candidates_are_arrow_bit_for_bit(word_model, library, paged, tokens_BT, candidates, options):
    opened = paged()
    found = word_model.logits(tokens_BT, opened, two_stage(opened, candidates=candidates, **options))
    np.testing.assert_array_equal(found, word_model.logits(tokens_BT, library, arrow(library, **options)))


def test_scores_are_the_weights_of_arrow_over_all_experts(word_model, library, paged, tokens_BT):
    opened = paged()
    prototypes = opened.resident(np.dtype("float32"), None).prototypes
    rows = PromptRows.one_each([tokens_BT[0], tokens_BT[1, :4]], 3, 12)
    for top_k in (2, -1):
        found_BE = two_stage(opened, top_k=top_k).scores(word_model.params, prototypes, rows)
        for row, tokens in enumerate((tokens_BT[0], tokens_BT[1, :4])):
            np.testing.assert_allclose(found_BE[row], shares(word_model, library, top_k, tokens), rtol=1e-4, atol=1e-5)
        assert not np.asarray(found_BE[2]).any()


def test_each_prompt_is_routed_among_its_own_candidates(word_model, library, paged, tokens_BT):
    """Equal to a library of the candidates alone, for each row."""
    opened = paged(cache=6)
    found = word_model.logits(tokens_BT, opened, two_stage(opened, candidates=2, top_k=2))
    chosen = [np.sort(np.argsort(-shares(word_model, library, 2, tokens))[:2]) for tokens in tokens_BT]
    assert len({tuple(own) for own in chosen}) > 1
    for row, own in enumerate(chosen):
        few = library[own.tolist()]
        expected = word_model.logits(tokens_BT[row : row + 1], few, arrow(few, top_k=2))
        np.testing.assert_allclose(found[row], expected[0], rtol=1e-4, atol=1e-4)


def test_answers_depend_neither_on_the_cache_nor_on_the_batch(word_model, paged):
    request = {"max_new_tokens": 5, "temperature": 0.8, "seed": 3}
    opened = paged(cache=3)
    router = two_stage(opened, candidates=3, top_k=2)
    found = word_model.generate(PROMPTS, opened, router, **request)
    assert found == [
        text
        for i, prompt in enumerate(PROMPTS)
        for text in word_model.generate(PROMPTS[:i] + [prompt], paged(), router, batch=1, **request)[i:]
    ]
    assert len(opened.resident(np.dtype("float32"), None).pages) == 3
    assert len(set(found)) > 1


def test_streams_that_take_turns_keep_their_experts(word_model, paged):
    opened = paged(cache=2)
    router = two_stage(opened, candidates=2, top_k=2)
    alone = ["".join(word_model.stream(prompt, opened, router, max_new_tokens=12)) for prompt in PROMPTS[:2]]
    one, other = (word_model.stream(prompt, opened, router, max_new_tokens=12, every=1) for prompt in PROMPTS[:2])
    first = next(one)
    assert "".join(other) == alone[1]
    assert first + "".join(one) == alone[0]


def test_likelihoods_and_scores(word_model, word_tasks, library, paged):
    """Of all experts, those of Arrow; of a few, those of the candidates of each prompt, not of its target."""
    opened, tasks = paged(), word_tasks.select(["sort", "copy"])
    sample = Sample(examples=3, split="validation", length=32, system="")
    both = {
        "loaded": evaluate(word_model, tasks, library, arrow(library), sample, 3, progress=False),
        "paged": evaluate(word_model, tasks, opened, two_stage(opened), sample, 3, progress=False),
    }
    for task, score in both["loaded"].items():
        for metric, values_n in score.values.items():
            np.testing.assert_allclose(both["paged"][task].values[metric], values_n, rtol=1e-5)
    examples = [Encoded(np.arange(3, 12, dtype=np.int32) * k % 60, 4) for k in (1, 3, 5)]
    router = two_stage(opened, candidates=2, top_k=2)
    nats_n, _ = target_loss(word_model, examples, word_model.bind(opened, router))
    for one, nats in zip(examples, nats_n, strict=True):
        chosen = np.argsort(-shares(word_model, library, 2, one.tokens[:4]))[:2]
        few = library[np.sort(chosen).tolist()]
        (expected,), _ = target_loss(word_model, [one], word_model.bind(few, arrow(few, top_k=2)))
        np.testing.assert_allclose(nats, expected, rtol=1e-4)


def test_experts_are_read_once_while_the_cache_has_room(word_model, paged, tokens_BT):
    opened = paged(cache=6)
    router = two_stage(opened, candidates=2)
    pages = opened.resident(np.dtype("float32"), None).pages
    word_model.logits(tokens_BT, opened, router)
    reads = pages.reads
    assert 2 <= reads <= 6
    word_model.logits(tokens_BT, opened, router)
    assert pages.reads == reads


def test_failed_experts_are_no_candidates(word_model, folder, library, tokens_BT, tmp_path):
    infos = tuple(dataclasses.replace(one, failed=3) if one.name in ("e1", "e4") else one for one in library.infos)
    dataclasses.replace(library, infos=infos).save(tmp_path / "failed")
    opened = PagedLibrary.open(tmp_path / "failed")
    with pytest.warns(UserWarning, match="left out: e1 .*, e4"):
        router = two_stage(opened, candidates=5, top_k=2)
    rows = PromptRows.whole(tokens_BT)
    prototypes = opened.resident(np.dtype("float32"), None).prototypes
    assert not np.asarray(router.scores(word_model.params, prototypes, rows))[:, [1, 4]].any()
    assert not {1, 4} & set(router.chosen(word_model.params, prototypes, rows).ravel().tolist())
    few = library[[0, 2, 3, 5, 6]]
    found = word_model.logits(tokens_BT, opened, router)
    np.testing.assert_allclose(found, word_model.logits(tokens_BT, few, arrow(few, top_k=2)), rtol=1e-4, atol=1e-4)
    assert two_stage(opened, failed=True).left_out == ()


def test_the_router_is_saved_and_loaded(paged, tmp_path):
    router = two_stage(paged(), candidates=3, top_k=2, temperature=0.5, mix="outputs", input_norm="unit")
    router.save(tmp_path / "router")
    again = load_router(tmp_path / "router")
    assert dataclasses.asdict(again) == dataclasses.asdict(router)
    assert jax.tree.structure(again) == jax.tree.structure(router)


def test_what_does_not_fit_is_named(word_model, word_tasks, library, paged, tokens_BT):
    opened = paged(cache=3)
    router = two_stage(opened, candidates=2)
    with pytest.raises(InputError, match="candidates=4: expected at most 3"):
        two_stage(opened, candidates=4)
    with pytest.raises(InputError, match="candidates=5: expected at most 3"):
        word_model.generate(PROMPTS, opened, two_stage(paged(), candidates=5))
    with pytest.raises(InputError, match="PagedLibrary with Arrow router; expected a PagedLibrary with a router"):
        word_model.logits(tokens_BT, opened, arrow(library))
    with pytest.raises(InputError, match="PagedLibrary with no router"):
        word_model.generate(PROMPTS, opened)
    with pytest.raises(InputError, match="Library with TwoStage router"):
        word_model.generate(PROMPTS, library, router)
    with pytest.raises(InputError, match="the router is for 7 experts; the library has 3"):
        library[:3].save(pathlib.Path(opened.path).parent / "three")
        word_model.bind(PagedLibrary.open(pathlib.Path(opened.path).parent / "three"), router)
    with pytest.raises(InputError, match="not a JAX transformation"):
        jax.jit(lambda tokens_BT: word_model.logits(tokens_BT, opened, router))(tokens_BT)
    with pytest.raises(InputError, match="experts are needed at once, but the cache has room for 3"):
        word_model.logits(np.random.default_rng(0).integers(0, 60, (20, 9)), opened, router)
    with pytest.raises(InputError, match="method 'x' has a paged library; expected one in memory"):
        analyse(word_model, Method("x", opened, router), word_tasks, Sample(split="validation", length=32))
