"""Training on a mesh of eight devices: the same numbers, and nothing crosses from expert to expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from modjax.parallel import rules
from modjax.parallel.collectives import collectives
from modjax.parallel.mesh import make_mesh
from modjax.train import run
from modjax.train.poly import train_poly
from tests.meshes import on

MESHES = [{"expert": 4, "fsdp": 2}, {"expert": 2, "fsdp": 2, "tensor": 2}, {"expert": 8}]


@pytest.fixture(params=MESHES, ids=str)
def mesh(request):
    return make_mesh(**request.param)


@pytest.fixture
def steps(monkeypatch):
    """Of each training step that is made: the program, compiled, and what it returned."""
    seen = []

    def watched(*arguments):
        made = programs(*arguments)

        def step(*inputs):
            compiled = made.step.lower(*inputs).compile() if not seen else seen[0][0]
            seen.append((compiled, compiled(*inputs)))
            return seen[-1][1]

        return made._replace(step=step)

    programs = run.programs
    monkeypatch.setattr(run, "programs", watched)
    return seen


def test_on_a_mesh_training_gives_the_same_and_no_expert_hears_of_another(mesh, train, together, word_model, steps):
    """Library training, one row of each device at a time: gradients, metrics and weights of the base move within an
    expert's shard, if at all."""
    library = train(model=on(mesh, word_model), micro=1)
    for leaf, expected in zip(jax.tree.leaves(library), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
    compiled, (state, metrics) = steps[-1]
    found = collectives(compiled.as_text(), mesh)
    assert not [one for one in found if "expert" in one.axes]
    assert any("fsdp" in one.axes for one in found) == (mesh.shape["fsdp"] > 1)
    for leaf in jax.tree.leaves((state.trained, state.opt_state, metrics)):
        assert "expert" in leaf.sharding.spec


def test_the_check_for_collectives_can_fail():
    """A loss averaged over experts, and experts that are all-gathered."""
    mesh = make_mesh(expert=4, fsdp=2)
    split = NamedSharding(mesh, rules.LORA)
    leaf = jax.ShapeDtypeStruct((2, 4, 2, 8), jnp.float32, sharding=split)
    everywhere = NamedSharding(mesh, jax.P())
    for bad in (jax.jit(lambda x: x - x.mean()), jax.jit(lambda x: x * 2, out_shardings=everywhere)):
        found = collectives(bad.lower(leaf).compile().as_text(), mesh)
        assert [one for one in found if "expert" in one.axes]


@pytest.mark.parametrize("stop_by", ["loss", "rouge_l"])
def test_validation_and_its_verdicts_are_the_same_on_a_mesh(train, word_model, stop_by):
    settings = {"evaluate_every": 3, "patience": 1, "stop_by": stop_by, "max_new_tokens": 5}
    alone = train(**settings)
    library = train(model=on(make_mesh(expert=4, fsdp=2), word_model), **settings)
    for leaf, expected in zip(jax.tree.leaves(library), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
    scores, expected = ([info.scores[0][1] for info in one.infos] for one in (library, alone))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_a_sharded_run_resumes_onto_its_mesh(train, word_model, tmp_path):
    model = on(make_mesh(expert=4, fsdp=2), word_model)
    first = train(model=model, workdir=tmp_path, save_every=2)
    again = train(model=model, workdir=tmp_path, save_every=2)
    assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))


def test_skills_on_a_mesh_are_those_of_one_device(word_model, word_tasks, small):
    """One member: its rows lie along fsdp."""
    settings = small | {"batch": 4, "steps": 3, "dropout": 0.0}
    model = on(make_mesh(expert=1, fsdp=4, tensor=2), word_model)
    runs = [train_poly(one, word_tasks, 3, heads=2, progress=False, **settings) for one in (model, word_model)]
    for leaf, expected in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


def test_the_rows_of_one_expert_lie_on_all_devices(train, word_model):
    """The mesh has an axis for experts, and there is one expert: its rows are split along that axis too."""
    settings = {"groups": {"all": ("sort", "copy")}, "batch": 8}
    alone, library = train(**settings), train(model=on(make_mesh(expert=4, fsdp=2), word_model), **settings)
    for leaf, expected in zip(jax.tree.leaves(library), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


@pytest.mark.parametrize("groups", [None, {"all": ("sort", "copy")}], ids=["four experts", "one expert"])
def test_idle_rows_fill_a_mesh_that_does_not_divide_them(train, word_model, groups):
    """Three rows per expert on a mesh that splits them in two, or in eight."""
    settings = {"groups": groups, "batch": 3, "evaluate_every": 2, "steps": 2}
    alone, library = train(**settings), train(model=on(make_mesh(expert=4, fsdp=2), word_model), **settings)
    for leaf, expected in zip(jax.tree.leaves(library), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
    scores, expected = (dict(info.scores) for info in (library.infos[0], alone.infos[0]))
    assert scores == pytest.approx(expected, rel=1e-5)
