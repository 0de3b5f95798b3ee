"""Sites with one A: how many numbers that is, what is learned, and what becomes of it."""

import dataclasses

import jax
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.experts.tie import everywhere, once
from modjax.models.config import ModelConfig
from modjax.routing import arrow
from modjax.train.lora import LoRATraining, init_factors
from modjax.train.poly import train_poly
from modjax.train.settings import Settings

TIE = (("attn.q", "attn.k", "attn.v"),)
SITES = (*TIE[0], "mlp.down")


def config(family, **sizes):
    return ModelConfig(family, V=64, context=64, rope_dim=8, **sizes)


@pytest.mark.parametrize(
    ("sizes", "tie", "numbers"),
    [
        (dict(family="phi", D=2560, N=32, K=32, H=80, F=10240, L=32), TIE, 1_966_080),  # Phi-2
        (dict(family="mistral", D=4096, N=32, K=8, H=128, F=14336, L=32), (), 3_407_872),  # Mistral-7B
    ],
)
def test_experts_have_as_many_numbers_as_the_papers(sizes, tie, numbers):
    recipe = LoRATraining(config(**sizes), Settings(tie=tie), 1)
    trained = jax.eval_shape(lambda: recipe.start(jax.random.key(0), None, 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == numbers


@pytest.fixture(scope="module")
def tied(train):
    return train(sites=SITES, tie=TIE)


def assert_equal(one, other):
    for got, expected in zip(jax.tree.leaves(one.loras), jax.tree.leaves(other.loras), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_one_a_is_learned_for_all(tied, word_model):
    start = init_factors(jax.random.key(0), 4, word_model.config, Settings(rank=2, sites=SITES, tie=TIE))
    a = {site: lora.a for site, lora in tied.loras.items()}
    for site in TIE[0]:
        np.testing.assert_array_equal(a[site], a["attn.q"])
        np.testing.assert_array_equal(start[site].a, start["attn.q"].a)
    assert np.abs(a["attn.q"] - start["attn.q"].a).max() > 1e-4
    assert len({np.asarray(tied.loras[site].b).tobytes() for site in TIE[0]}) == 3
    arrow(tied, tie=TIE)  # which needs one A


def test_its_gradient_is_the_sum_of_the_sites(word_model):
    """One A read by three sites moves as the A of all three together."""
    settings = Settings(rank=2, sites=SITES, tie=TIE, dropout=0.0)
    recipe, plain = (LoRATraining(word_model.config, dataclasses.replace(settings, tie=tie), 1) for tie in (TIE, ()))
    start = jax.tree.map(lambda x: x[:, 0], init_factors(jax.random.key(0), 1, word_model.config, settings))
    start = {site: lora._replace(b=0.3 + lora.b) for site, lora in start.items()}
    scales = dict.fromkeys(SITES, np.full(word_model.config.L, 2.0, np.float32))
    tokens_BT = np.random.default_rng(0).integers(4, 60, (2, 9))

    def loss(recipe, trained):
        decoder, adapters = recipe.attach(word_model.params, trained, scales, None, None)
        return (decoder.logits(decoder(tokens_BT, **adapters))[..., 5]).mean()

    got = jax.grad(lambda trained: loss(recipe, trained))(once(start, TIE))
    expected = jax.grad(lambda trained: loss(plain, trained))(start)
    assert got["attn.k"].a is None
    np.testing.assert_allclose(got["attn.q"].a, sum(expected[site].a for site in TIE[0]), rtol=1e-4, atol=1e-7)
    for site in SITES:
        np.testing.assert_allclose(got[site].b, expected[site].b, rtol=1e-4, atol=1e-7)


def test_killed_and_resumed_equals_uninterrupted(train, tied, tmp_path):
    settings = {"sites": SITES, "tie": TIE, "save_every": 3, "workdir": tmp_path}
    train(**settings)
    (tmp_path / "checkpoints" / "6").rename(tmp_path / "lost")
    assert_equal(train(**settings), tied)


def test_it_is_gone_on_from_saved_and_read_back(train, tied, tmp_path):
    tied.save(tmp_path / "library")
    again = train(sites=SITES, tie=TIE, init=Library.load(tmp_path / "library"), learning_rate=0.0)
    assert_equal(again, tied)


def test_it_may_stay_as_it_began(train):
    library = train(sites=SITES, tie=TIE, shared_a=True, steps=2)
    for site in TIE[0]:
        np.testing.assert_array_equal(library.loras[site].a, library.loras["attn.q"].a)
        assert library.loras[site].a.shape[1] == 1


def test_skills_may_be_tied(word_model, word_tasks, small):
    library, _ = train_poly(word_model, word_tasks, 2, progress=False, **(small | {"sites": SITES, "tie": TIE}))
    for site in TIE[0]:
        np.testing.assert_array_equal(library.loras[site].a, library.loras["attn.q"].a)


def test_once_and_everywhere_undo_each_other(tied):
    assert once(tied.loras, TIE)["attn.v"].a is None and once(tied.loras, TIE)["attn.q"].a is not None
    back = everywhere(once(tied.loras, TIE), TIE)
    assert all(back[site].a is tied.loras["attn.q"].a for site in TIE[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tie": (("attn.q", "attn.o"),)}, "tie: unknown site 'attn.o'; expected one of attn.q, attn.k"),
        ({"tie": (("attn.q", "attn.k"), ("attn.k", "attn.v"))}, "tie: 'attn.k' is tied 2 times"),
        ({"tie": (("attn.q", "mlp.down"),)}, r"tie: input widths differ \(attn.q 32, mlp.down 64\)"),
    ],
)
def test_sites_that_cannot_be_tied_are_named(train, settings, words):
    with pytest.raises(InputError, match=words):
        train(sites=SITES, **settings)


def test_a_start_that_is_not_tied_is_named(train, word_model, random_library):
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "attn.k")}
    start = random_library(sites, experts=4, scale=4.0)
    with pytest.raises(InputError, match="tie: attn.k and attn.q have different A"):
        train(init=start, sites=tuple(sites), tie=(tuple(sites),))
