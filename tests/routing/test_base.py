import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from modjax.errors import InputError
from modjax.routing import Router, arrow, check, load_router, oracle, per_site, static, top_k_softmax, uniform


class Gates(Router):
    """A router as a user would write one: a gate vector for each expert at each site, PhatGoose's form."""

    gates: dict[str, jax.Array] = per_site("LEI")
    top_k: int = static(2)
    mix: str = static("outputs")

    def __call__(self, site, x_BTI, context):
        gate_EI = self.gates[site]
        score_BTE = jnp.einsum("bti,ei->bte", x_BTI, gate_EI) / gate_EI.shape[-1] ** 0.5
        return top_k_softmax(score_BTE, self.top_k)


def random_gates(library, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {site: lora.a.shape for site, lora in library.loras.items()}
    return Gates({site: jnp.float32(rng.normal(size=(L, E, width))) for site, (L, E, _, width) in shapes.items()})


class Nested(Router):
    """A router with nested dicts of arrays, only for tests of saving."""

    parts: dict[str, dict[str, jax.Array]]
    bias: jax.Array


def test_a_new_router_is_one_class(model, library, tokens_BT, tmp_path):
    router = random_gates(library)
    got = model.logits(tokens_BT, library, router)
    assert np.abs(got - model.logits(tokens_BT, library, random_gates(library, 1))).max() > 0.01
    router.save(tmp_path / "gates.safetensors")
    again = load_router(tmp_path / "gates.safetensors")
    np.testing.assert_array_equal(model.logits(tokens_BT, library, again), got)


@pytest.mark.parametrize(
    "make",
    [
        lambda library: arrow(library, top_k=2, temperature=0.5, mix="outputs"),
        lambda library: uniform(library, "outputs"),
        oracle,
        random_gates,
        lambda library: Nested({"a": {"x": jnp.ones((3, 2)), "y": jnp.zeros(3)}, "b": {"x": jnp.ones(3)}}, jnp.ones(3)),
    ],
    ids=["arrow", "uniform", "oracle", "gates", "nested"],
)
def test_routers_are_saved_and_loaded(library, tmp_path, make):
    router = make(library)
    router.save(tmp_path / "router")
    again = load_router(tmp_path / "router")
    assert type(again) is type(router)
    assert jax.tree.structure(again) == jax.tree.structure(router)  # the settings are part of it
    jax.tree.map(np.testing.assert_array_equal, again, router)


def test_settings_may_be_numpy_numbers(library, tmp_path):
    arrow(library, top_k=np.int64(2), temperature=np.float32(0.5)).save(tmp_path / "router")
    assert load_router(tmp_path / "router").top_k == 2


def test_classes_of_one_name_are_told_apart_by_their_module(library, tmp_path):
    namesake = type("Gates", (Gates,), {"__module__": "elsewhere"})
    for router in (namesake(random_gates(library).gates), random_gates(library)):
        router.save(tmp_path / "router")
        assert type(load_router(tmp_path / "router")) is type(router)


def test_settings_are_static_and_arrays_are_leaves(library):
    router = arrow(library, top_k=2)
    assert [leaf.shape for leaf in jax.tree.leaves(router)] == [(3, 4, 32), (3, 4, 48)]
    assert jax.tree.structure(router) != jax.tree.structure(arrow(library, top_k=3))


def broken(path, router, settings, **arrays):
    save_file(arrays or {"x": np.ones(1)}, path, {"router": router, "settings": settings})


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda path: None, "not a readable router file"),
        (lambda path: path.write_text("{}"), "not a readable router file"),
        (lambda path: save_file({"x": np.ones(1)}, path), "router None; expected one of Arrow"),
        (lambda path: broken(path, "Compass", "{}"), "router 'Compass'; expected one of Arrow"),
        (lambda path: broken(path, "my.place.Compass", "{}"), "router 'my.place.Compass'; .* Import my.place first"),
        (lambda path: broken(path, "Uniform", "{"), "do not make a router 'Uniform'"),
        (lambda path: broken(path, "Oracle", json.dumps({"n_experts": 3})), "do not make a router 'Oracle'"),
        (lambda path: broken(path, "Arrow", json.dumps({"top_k": 3})), "do not make a router 'Arrow'"),
    ],
)
def test_broken_files_are_named(tmp_path, write, words):
    path = tmp_path / "router.safetensors"
    write(path)
    with pytest.raises(InputError, match=words) as error:
        load_router(path)
    assert str(path) in str(error.value)


@pytest.fixture
def make_library(model, random_library):
    """A function that gives experts of the model's sizes, except for those in its arguments."""

    def make(sites=("attn.q", "mlp.down"), experts=4, layers=3, **widths):
        return random_library(
            {site: widths.get(site[-1], model.config.sites[site]) for site in sites}, experts, 3, layers
        )

    return make


@pytest.mark.parametrize("make", [arrow, random_gates, uniform, oracle])
def test_a_routers_own_library_fits(make_library, make):
    check(make(make_library()), make_library())
    check(make(make_library()), make_library(sites=["mlp.down"]))


@pytest.mark.parametrize(
    ("make", "other", "words"),
    [
        (arrow, {"experts": 5}, r"prototypes, site attn.q has shape \(3, 5, 32\); the library has L = 3, E = 4"),
        (arrow, {"layers": 2}, r"has shape \(2, 4, 32\); the library has L = 3, E = 4, I = 32"),
        (arrow, {"sites": ["attn.q"]}, "the Arrow router has no prototypes, site mlp.down"),
        (random_gates, {"q": (16, 32)}, r"Gates router's gates, site attn.q has shape \(3, 4, 16\).*I = 32"),
        (uniform, {"experts": 3}, "the Uniform router is for 3 experts; the library has 4"),
        (oracle, {"experts": 9}, "the Oracle router is for 9 experts; the library has 4"),
        (lambda library: Nested({}, jnp.ones(2)), {}, r"Nested router's bias has shape \(2,\); the library has L = 3"),
        (lambda library: Nested({"a": {"x": jnp.ones(())}}, jnp.ones(3)), {}, r"Nested router's parts has shape \(\)"),
    ],
)  # fmt: skip
def test_a_router_for_another_library_is_refused(model, make_library, tokens_BT, make, other, words):
    with pytest.raises(InputError, match=words):
        model.logits(tokens_BT, make_library(), make(make_library(**other)))
