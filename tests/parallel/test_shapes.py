"""Programs that a pod runs, compiled from sizes alone: weights, experts and rows are shapes with a sharding."""

import jax
import jax.numpy as jnp
import pytest

from modjax import model as model_file
from modjax.cluster.similarity import _similarity
from modjax.experts.library import ExpertInfo, Library
from modjax.ops.lora import LoRA
from modjax.parallel import rules
from modjax.parallel.collectives import collectives
from modjax.parallel.mesh import make_mesh
from modjax.routing.arrow import Arrow, arrow
from modjax.routing.base import Bound, Context
from modjax.train.gates import GateTraining
from modjax.train.job import Job
from modjax.train.settings import Settings

EXPERTS, RANK, SITES = 8, 2, ("attn.q", "mlp.down")
LENGTH = 32


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(expert=4, fsdp=2)


@pytest.fixture(scope="module")
def job(word_model, mesh):
    return Job(word_model.config, Settings(batch=2, length=LENGTH, rank=RANK, sites=SITES), EXPERTS, 16, mesh)


@pytest.fixture(scope="module")
def library(word_model, mesh):
    """Experts that are shapes, whole on every device."""

    def like(*shape):
        return jax.ShapeDtypeStruct((word_model.config.L, EXPERTS, *shape), jnp.float32, sharding=place)

    place = rules.sharding(jax.ShapeDtypeStruct((), jnp.float32), jax.P(), mesh)
    widths = {site: word_model.config.sites[site] for site in SITES}
    loras = {site: LoRA(like(RANK, inputs), like(RANK, outputs), like()) for site, (inputs, outputs) in widths.items()}
    return Library(loras, tuple(ExpertInfo(f"e{number}", (), RANK, 16.0) for number in range(EXPERTS)))


def test_the_training_of_gates(job, library):
    settings = Settings(batch=2, length=LENGTH, sites=SITES, micro=2)
    gates = Job(job.config, settings, EXPERTS, 16, job.mesh, recipe=GateTraining(library))
    program = gates.traced().lower().compile().as_text()
    assert not [one for one in collectives(program, job.mesh) if "expert" in one.axes]


def test_prototypes(library):
    found = jax.jit(lambda loras: arrow(Library(loras, library.infos)).prototypes).lower(library.loras)
    found.compile()
    assert found.out_info["attn.q"].shape == (*library.loras["attn.q"].scale.shape, library.widths["attn.q"][0])


def test_the_similarity_of_experts(library):
    blocks = [factor for lora in library.loras.values() for factor in (lora.a, lora.b)]
    k_E = jax.ShapeDtypeStruct((EXPERTS,), jnp.int32)
    found = _similarity.lower(blocks, k_E, components=4)
    found.compile()
    assert found.out_info.shape == (EXPERTS, EXPERTS)


def test_logits_of_a_routed_model(job, library):
    prototypes = {
        site: jax.ShapeDtypeStruct((*lora.scale.shape, lora.a.shape[-1]), jnp.float32, sharding=lora.a.sharding)
        for site, lora in library.loras.items()
    }
    tokens_BT = jax.ShapeDtypeStruct((EXPERTS, LENGTH), jnp.int32)
    bound = Bound(library.loras, Arrow(prototypes, top_k=2))
    found = model_file._logits.lower(job.arguments.decoder, bound, Context(), tokens_BT)
    found.compile()
    assert found.out_info.shape == (EXPERTS, LENGTH, job.config.V)
