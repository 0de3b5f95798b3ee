import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modjax
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.fold import fold
from modjax.models import weights
from modjax.models.weights import leaves
from modjax.routing import uniform
from modjax.routing.fixed import Fixed

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 11))
NAMES, SCALE = list("abc"), [1.0, 0.5, 0.25]


@pytest.fixture(scope="module")
def load(torch_model, tmp_path_factory):
    """A function that gives modjax's model of a tiny torch one."""

    def make(family):
        path = tmp_path_factory.mktemp(family)
        torch_model(family).save_pretrained(path)
        return modjax.load(path)

    return make


@pytest.fixture(scope="module")
def model(load):
    return load("llama")


@pytest.fixture(scope="module")
def library(model, random_library):
    return random_library(model.config.sites, layers=3, names=NAMES, scale=SCALE)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox", "gpt2"])
def test_one_expert_in_separate_fused_and_interleaved_maps(load, random_library, family):
    model = load(family)
    expert = random_library(model.config.sites, experts=1, layers=model.config.L, scale=0.5)
    expected = model.logits(TOKENS_BT, expert)
    assert np.abs(expected - model.logits(TOKENS_BT)).max() > 0.01
    np.testing.assert_allclose(model.fold(expert).logits(TOKENS_BT), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_weights_fold_as_a_static_router_routes(model, library, mix):
    weights = [0.5, -0.2, 0.9]
    router = Fixed(dict.fromkeys(library.sites, jnp.tile(jnp.array(weights), (3, 1))), mix)
    got = model.fold(library, weights, mix).logits(TOKENS_BT)
    np.testing.assert_allclose(got, model.logits(TOKENS_BT, library, router), atol=1e-5, rtol=0)


def test_equal_weights_are_mu(model, library):
    got = model.fold(library, [1 / 3] * 3).logits(TOKENS_BT)
    np.testing.assert_allclose(got, model.logits(TOKENS_BT, library, uniform(library)), atol=1e-5, rtol=0)


def test_kernels_are_summed_in_float32_then_cast(model, library):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    kernel = fold(low, library["b"]).blocks.attn.q.kernel[...]
    a, b, _ = library["b"].loras["attn.q"]
    delta = 0.5 * np.einsum("leri,lero->lio", np.float32(a), np.float32(b))
    expected = jnp.float32(low.blocks.attn.q.kernel[...]) + delta
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_allclose(jnp.float32(kernel), expected, rtol=2**-8, atol=1e-6)


def test_other_leaves_and_the_given_decoder_stay(model, library):
    before = {path: np.array(leaf) for path, leaf in leaves(model.params).items()}
    part = Library({"mlp.up": library.loras["mlp.up"]}, library.infos)
    folded = model.fold(part, [1, 0, 0])
    for path, leaf in leaves(folded.params).items():
        np.testing.assert_array_equal(before[path], leaves(model.params)[path])
        assert np.array_equal(before[path], leaf) == (path != "blocks.mlp.up.kernel"), path
    assert folded.fingerprint != model.fingerprint


def test_a_sharded_base_stays_where_it_lies(model, library, tmp_path):
    from modjax.parallel.mesh import make_mesh

    model.save(tmp_path / "model")
    spread = modjax.load(tmp_path / "model", mesh=make_mesh(expert=1, fsdp=4, tensor=2))
    folded = spread.fold(library["c"])
    for old, new in zip(jax.tree.leaves(spread.params), jax.tree.leaves(folded.params), strict=True):
        assert new.sharding == old.sharding
    one_device = fold(model.params, library["c"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), folded.params, one_device)


def test_saved_and_loaded_it_is_the_routed_model(model, library, tmp_path):
    folded = model.fold(library["a"])
    folded.save(tmp_path / "folded")
    again = modjax.load(tmp_path / "folded")
    assert again.fingerprint == folded.fingerprint
    np.testing.assert_allclose(again.logits(TOKENS_BT), model.logits(TOKENS_BT, library["a"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("weights", "mix", "words"),
    [
        (None, "parameters", "no weights for a library of 3 experts; expected weights, one per expert"),
        ([1.0, 2.0], "parameters", r"weights=\[1.0, 2.0\]: expected 3 finite numbers"),
        ([1.0, 2.0, float("nan")], "parameters", "expected 3 finite numbers"),
        ([1.0, 2.0, 3.0], "output", "mix='output': expected one of parameters, outputs"),
    ],
)
def test_what_cannot_be_folded_is_named(model, library, weights, mix, words):
    with pytest.raises(InputError, match=words):
        model.fold(library, weights, mix)


def test_quantised_weights_are_left_alone(model, library):
    with pytest.raises(InputError, match="cannot be folded into quantised weights"):
        fold(weights.quantised(model.params, "int8"), library["a"])


def test_another_models_experts_are_refused(model, random_library):
    with pytest.raises(InputError, match=r"site attn.q: the library has \(layers, input, output\)"):
        model.fold(random_library({"attn.q": (16, 32)}, experts=1, layers=3))
