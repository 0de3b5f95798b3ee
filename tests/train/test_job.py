"""A job known by its sizes: its step has the arguments of a real run's, in shape, dtype and place."""

import dataclasses

import jax
import pytest

from modjax.models import local
from modjax.parallel.collectives import collectives
from modjax.parallel.mesh import make_mesh
from modjax.parallel.program import Program
from modjax.train import memory, run
from modjax.train.job import Job
from modjax.train.lora import LoRATraining
from modjax.train.settings import Settings
from tests.meshes import on

THREE = {name: (name,) for name in ("sort", "copy", "count")}


class Stop(Exception):
    """Raised in place of the first step."""


@pytest.fixture
def inputs(monkeypatch, train):
    """inputs(...): the arguments of the first step of a run, which is not done."""

    def call(**settings):
        seen = []

        def watched(*arguments):
            def step(*given):
                seen.extend(given)
                raise Stop

            return programs(*arguments)._replace(step=step)

        programs = run.programs
        monkeypatch.setattr(run, "programs", watched)
        with pytest.raises(Stop):
            train(**settings)
        return seen

    return call


@pytest.mark.parametrize(
    ("sizes", "groups", "settings"),
    [
        ({"expert": 4, "fsdp": 2}, THREE, {}),  # one expert is idle
        ({"expert": 2, "fsdp": 2, "tensor": 2}, THREE, {"shared_a": True}),
        ({"expert": 4, "fsdp": 2}, {"all": ("sort", "copy")}, {"batch": 8}),
        (None, THREE, {"tie": (("attn.q", "attn.k"),), "sites": ("attn.q", "attn.k"), "patience": 2}),
    ],
    ids=["idle", "shared_a", "one expert", "one device"],
)
def test_the_arguments_are_those_of_a_run(inputs, word_model, small, sizes, groups, settings):
    settings = small | settings | {"micro": 1}
    if settings.get("patience"):
        settings["evaluate_every"] = 3
    mesh = make_mesh(**sizes) if sizes else None
    model = on(mesh, word_model) if sizes else word_model
    found = inputs(model=model, groups=groups, **settings)
    job = Job(word_model.config, Settings(**settings), len(groups), found[2].labels.shape[-1], mesh, "float32")
    assert jax.tree.structure(tuple(found)) == jax.tree.structure(tuple(job.arguments))
    for leaf, like in zip(*map(jax.tree.leaves, (found, job.arguments)), strict=True):
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
        assert mesh is None or leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim), (leaf.sharding, like.sharding)


def test_the_rows_at_a_time_are_those_that_training_chooses(word_model, small):
    settings = Settings(**small)
    job, recipe = Job(word_model.config, settings, 4, 16, None, "float32"), LoRATraining(word_model.config, settings, 4)
    given = job.arguments.decoder, recipe, job.arguments.state.trained, recipe.frozen, job.arguments.batch
    one, two = (memory.held_bytes(*given, rows, settings) for rows in (1, 2))
    assert job.settled(int(3.5 * (two - one) / memory.SHARE)).settings.micro == 3
    assert job.settled(10**12).settings.micro == 8
    assert Job(word_model.config, Settings(**small, micro=5), 4, 16).settled(1).settings.micro == 5


@pytest.mark.parametrize("sizes", [(4, 2, 1), (2, 2, 2)], ids=str)
def test_with_a_large_vocabulary_too_no_expert_hears_of_another(sizes):
    """Two layers of SmolLM2's width, whose embedding is looked up while it is split as the rows are."""
    config, mesh = dataclasses.replace(local.config("smollm2-135m"), L=2), make_mesh(*sizes)
    settings = Settings(batch=4, length=256, micro=16)
    program = Job(config, settings, 8, 64, mesh, "float32").traced().lower().compile()
    assert not [one for one in collectives(program.as_text(), mesh) if "expert" in one.axes]


def test_what_does_not_divide_a_mesh_sends_no_more_than_what_does(word_model, small):
    """Idle members and rows fill it: nothing is replicated, and no weight is split in another way."""
    mesh = make_mesh(expert=4, fsdp=2)

    def sent(experts, batch):
        job = Job(word_model.config, Settings(**small | {"batch": batch, "micro": 1}), experts, 16, mesh, "float32")
        return Program(job.traced().lower().compile().as_text()).wire(mesh)

    found = sent(7, 3)
    assert found == sent(8, 4) and set(found) == {"fsdp"}
