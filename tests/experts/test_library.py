import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts.library import Library, concatenate

SITES = {"attn.q": (16, 12), "mlp.down": (20, 16)}


@pytest.fixture
def library(random_library):
    tasks = [("add", "subtract"), ("reverse",), ("subtract", "sort")]
    return random_library(SITES, names=["sums", "words", "mixed"], tasks=tasks, scale=[4.0, 0.1, 1 / 3], base="tiny")


def equal(left, right):
    assert left.infos == right.infos
    jax.tree.map(np.testing.assert_array_equal, (left.loras, left.scale), (right.loras, right.scale))


def test_from_arrays_knows_its_experts(library):
    assert library.names == ("sums", "words", "mixed") and library.sites == tuple(SITES)
    assert len(library) == 3 and library.rank == 2
    np.testing.assert_array_equal(library.scale, np.float32([4.0, 0.1, 1 / 3]))
    assert [info.alpha for info in library.infos] == [8.0, 0.2, 2 / 3]
    assert {info.base for info in library.infos} == {"tiny"}
    assert repr(library) == "Library(3 experts of rank 2 on attn.q, mlp.down)"


def test_names_and_tasks_by_default(random_library):
    library = random_library(SITES)
    assert library.names == ("expert0", "expert1", "expert2")
    assert library.tasks == (("expert0",), ("expert1",), ("expert2",))
    np.testing.assert_array_equal(library.scale, [1, 1, 1])


def test_arrays_are_float32_whatever_was_given():
    a, b = np.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3, 5), jnp.bfloat16)
    library = Library.from_arrays({"attn.q": (a, b)})
    assert {leaf.dtype for leaf in jax.tree.leaves(library)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "chosen, ids",
    [("words", [1]), (2, [2]), (-1, [2]), (["mixed", 0], [2, 0]), (slice(1, None), [1, 2]), (np.int64(1), [1])],
)
def test_choosing_experts_keeps_the_order_asked_for(library, chosen, ids):
    part = library[chosen]
    assert part.names == tuple(library.names[i] for i in ids)
    np.testing.assert_array_equal(part.scale, library.scale[np.array(ids)])
    for site in SITES:
        for got, whole in zip(part.loras[site], library.loras[site], strict=True):
            np.testing.assert_array_equal(got, whole[:, np.array(ids)])


def test_parts_add_up_to_the_whole(library):
    equal(library[:1] + library[1:], library)
    equal(concatenate([library[i] for i in range(3)]), library)
    equal((library["mixed"] + library["sums"])[["sums", "mixed"]], library[["sums", "mixed"]])


def test_adding_pads_ranks_and_missing_sites_with_zeros(library, random_library):
    other = random_library({"attn.q": (16, 12), "attn.o": (12, 16)}, experts=2, rank=5, names=["x", "y"], scale=2.0)
    both = library + other
    assert both.names == (*library.names, "x", "y") and both.rank == 5
    assert [info.rank for info in both.infos] == [2, 2, 2, 5, 5]
    np.testing.assert_array_equal(both.scale, [*library.scale, 2, 2])
    q = both.loras["attn.q"]
    np.testing.assert_array_equal(q.a[:, :3, :2], library.loras["attn.q"].a)
    np.testing.assert_array_equal(q.b[:, 3:], other.loras["attn.q"].b)
    assert not q.a[:, :3, 2:].any() and not q.b[:, :3, 2:].any()
    assert not both.loras["mlp.down"].b[:, 3:].any() and not both.loras["attn.o"].a[:, :3].any()
    assert both.loras["attn.o"].a.shape == (2, 5, 5, 12)


def test_sites_are_in_the_models_order(random_library):
    sites = ["mlp.down", "attn.v", "attn.o", "mlp.up", "attn.q", "attn.k", "mlp.gate", "other.b", "other.a"]
    library = random_library({site: (4, 4) for site in sites}, experts=1, rank=1, layers=1)
    ordered = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down", "other.a", "other.b")
    assert library.sites == jax.tree.map(jnp.copy, library).sites == ordered
    fused = random_library({site: (4, 4) for site in ("mlp.fc2", "mlp.fc1", "attn.o", "attn.qkv")}, rank=1)
    assert fused.sites == ("attn.qkv", "attn.o", "mlp.fc1", "mlp.fc2")


def test_ranks_are_zero_where_there_are_no_factors(library, random_library):
    both = library + random_library({"attn.o": (12, 16)}, experts=1, rank=5, names=["x"])
    assert {site: own.tolist() for site, own in both.ranks.items()} == {
        "attn.q": [[2, 2, 2, 0]] * 2,
        "attn.o": [[0, 0, 0, 5]] * 2,
        "mlp.down": [[2, 2, 2, 0]] * 2,
    }
    untrained = jax.tree.map(jnp.zeros_like, library)
    assert untrained.ranks["attn.q"].tolist() == [[2, 2, 2]] * 2


def test_expert_of_a_task(library):
    assert [library.expert_of(task) for task in ("add", "subtract", "sort", "other")] == [0, 0, 2, None]


def test_library_is_a_pytree(library):
    doubled = jax.jit(lambda library: jax.tree.map(lambda leaf: 2 * leaf, library))(library)
    assert doubled.infos == library.infos
    np.testing.assert_array_equal(doubled.loras["attn.q"].scale, 2 * library.loras["attn.q"].scale)

    def norm(loras):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(loras))

    norm_E = jax.vmap(norm, in_axes=1)(library.loras)
    np.testing.assert_allclose(norm_E, [norm(library[i].loras) for i in range(3)], rtol=1e-5)
    assert jax.tree.structure(library) == jax.tree.structure(doubled) != jax.tree.structure(library[:2])


FACTORS = (np.ones((2, 3, 4, 5)), np.ones((2, 3, 4, 6)))


@pytest.mark.parametrize(
    "sites, fields, words",
    [
        ({}, {}, "at least one site"),
        ({"attn.q": FACTORS}, {"names": ["a", "b"]}, "3 different names"),
        ({"attn.q": FACTORS}, {"names": ["a", "b", "a"]}, "3 different names"),
        ({"attn.q": FACTORS}, {"scale": [1.0, 2.0]}, "2 scales"),
        ({"attn.q": FACTORS}, {"tasks": [("a",)]}, "1 lists of tasks"),
        ({"attn.q": (FACTORS[0], np.ones((2, 3, 5, 6)))}, {}, r"attn.q: a \(2, 3, 4, 5\) and b \(2, 3, 5, 6\)"),
        ({"attn.q": (FACTORS[0][0], FACTORS[1][0])}, {}, "attn.q"),
        ({"attn.q": FACTORS, "attn.k": (np.ones((3, 3, 4, 5)), np.ones((3, 3, 4, 6)))}, {}, "attn.k"),
    ],
)
def test_arrays_that_make_no_library(sites, fields, words):
    with pytest.raises(InputError, match=words):
        Library.from_arrays(sites, **fields)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"names": ["a", "b", 3]}, "an item of names=3"),
        ({"tasks": ["one", ("b",), ("c",)]}, "tasks='one': expected a list of strings"),
        ({"tasks": [(1,), ("b",), ("c",)]}, "an item of tasks=1"),
        ({"scale": [1.0, np.nan, 1.0]}, "scale=nan: expected a finite number"),
        ({"training": {"steps": object()}}, "training.steps="),
        ({"training": "steps"}, "training='steps'"),
        ({"training": {"learning_rate": np.inf}}, "training.learning_rate=inf"),
        ({"scores": {"loss": "low"}}, "scores.loss='low'"),
        ({"scores": [("loss",)]}, "scores=.*pairs"),
        ({"base": 3}, "base=3"),
        ({"dtype": "float8"}, "dtype='float8': expected one of float32"),
        ({"family": "alpaca"}, "family='alpaca': expected one of"),
        ({"failed": 0}, "failed=0"),
        ({"fingerprint": None}, "fingerprint=None"),
        ({"fingerprnt": "f"}, "fingerprnt: no such setting of ExpertInfo; did you mean 'fingerprint'"),
    ],
)
def test_facts_that_no_file_can_hold_are_refused_at_once(fields, words):
    with pytest.raises(InputError, match=words):
        Library.from_arrays({"attn.q": FACTORS}, **fields)


def test_facts_of_any_kind_of_list_and_scalar_are_kept_as_plain_values(tmp_path):
    library = Library.from_arrays(
        {"attn.q": FACTORS},
        names=np.array(["a", "b", "c"]),
        tasks=[np.array(["x", "y"]), ["z"], iter("q")],
        scale=jnp.float32(2),
        base=pathlib.Path("models/base"),
        training={"steps": np.int64(3), "rate": np.float32(0.5), "elect": np.True_, "data": pathlib.Path("d")},
        scores=[["loss", jnp.float32(0.25)]],
        failed=np.int64(2),
    )
    info = library.infos[0]
    assert (info.name, info.tasks, info.alpha, info.base) == ("a", ("x", "y"), 8.0, "models/base")
    assert info.training == (("steps", 3), ("rate", 0.5), ("elect", True), ("data", "d"))
    assert library.infos[2].tasks == ("q",) and info.scores == (("loss", 0.25),)
    library.save(tmp_path / "library")
    assert Library.load(tmp_path / "library").infos == library.infos


@pytest.mark.parametrize(
    "chosen, words",
    [("nobody", "no expert 'nobody'; the library has sums"), ([0, "sums"], "each at most once"), ([], "at least one")],
)
def test_choices_that_make_no_library(library, chosen, words):
    with pytest.raises(InputError, match=words):
        library[chosen]


def test_libraries_that_cannot_be_added(library, random_library):
    def marked(library, fingerprint, prefix):
        infos = (dataclasses.replace(i, fingerprint=fingerprint, name=prefix + i.name) for i in library.infos)
        return dataclasses.replace(library, infos=tuple(infos))

    with pytest.raises(InputError, match="named twice: mixed, sums"):
        library + library[["sums", "mixed"]]
    with pytest.raises(InputError, match="different base models"):
        marked(library, "a1", "") + marked(library, "b2", "other ")
    for sites, layers in (({"attn.q": (8, 12)}, 2), ({"attn.q": (16, 9)}, 2), (SITES, 3)):
        with pytest.raises(InputError, match="do not fit one model"):
            library + random_library(sites, layers=layers)
    assert len(marked(library, "a1", "") + marked(library, "", "other ")) == 6


def test_a_fingerprint_is_kept_on_disk_and_tells_other_experts_apart(library, tmp_path):
    library.save(tmp_path / "library")
    assert Library.load(tmp_path / "library").fingerprint == library.fingerprint
    told = [dataclasses.replace(info, training=(("steps", 9),), scores=(("loss", 1.0),)) for info in library.infos]
    assert dataclasses.replace(library, infos=tuple(told)).fingerprint == library.fingerprint
    lora = library.loras["attn.q"]
    arrays = (lora._replace(b=lora.b.at[0, 1, 0, 0].add(1e-6)), lora._replace(scale=2 * lora.scale))
    renamed, moved = (
        [dataclasses.replace(info, **{field: value}) for info in library.infos[:1]] + list(library.infos[1:])
        for field, value in (("name", "other"), ("tasks", ("other",)))
    )
    other = [dataclasses.replace(library, loras=library.loras | {"attn.q": one}) for one in arrays]
    other += [dataclasses.replace(library, infos=tuple(infos)) for infos in (renamed, moved)]
    other += [library[["words", "sums", "mixed"]], library[["sums"]]]
    assert len({one.fingerprint for one in (library, *other)}) == 1 + len(other)
