"""Which experts a new task is given: formulas, a planted expert, and independence of other tasks."""

import dataclasses

import numpy as np
import pytest
from references import adapting

from modjax.adapt import nearness, retrieve
from modjax.adapt.retrieval import retrieved_from
from modjax.errors import InputError
from modjax.ops.lora import LoRA

SITES = {"attn.q": (16, 24), "mlp.down": (24, 16)}
TASKS = ("new", "newer")


@pytest.fixture(scope="module")
def library(random_library):
    return random_library(SITES, experts=9)


@pytest.fixture(scope="module")
def own(random_library, library):
    """Experts of the two tasks: near expert 4 and near expert 7."""
    noise = random_library(SITES, experts=2, seed=1, names=TASKS)
    loras = {
        site: LoRA(*(near[:, [4, 7]] + 0.5 * far for near, far in zip(lora[:2], own[:2], strict=True)), own.scale)
        for (site, lora), own in zip(library.loras.items(), noise.loras.values(), strict=True)
    }
    return dataclasses.replace(noise, loras=loras)


def flat(library):
    """float64[E,P], all A and B of an expert in one row."""
    leaves = [np.float64(leaf) for lora in library.loras.values() for leaf in lora.factors]
    return np.concatenate([leaf.swapaxes(0, 1).reshape(len(library), -1) for leaf in leaves], axis=1)


def test_cosine_of_the_factors(library, own, agrees):
    expected = adapting.cosines(flat(library), flat(own)[0])
    agrees("retrieval by LoRA cosine", nearness(library, own["new"], "lora"), expected)


@pytest.mark.parametrize("components", [4, 64])
def test_cosine_of_the_svd_coordinates(library, own, components, agrees):
    expected = adapting.svd_cosines(flat(library), flat(own)[1], 0.5, components)
    agrees("retrieval by SVD embedding", nearness(library, own["newer"], "svd", components=components), expected)


@pytest.mark.parametrize("by", ["lora", "svd"])
def test_the_planted_expert_comes_first(library, own, by):
    found = retrieve(library, TASKS, 3, by, own)
    assert [names[0] for names in found.values()] == ["expert4", "expert7"]
    assert all(len(set(names)) == 3 for names in found.values())
    assert retrieve(library, ["newer"], 3, by, own)["newer"] == found["newer"]


def test_random_belongs_to_the_task_and_the_seed(library):
    found = retrieve(library, TASKS, 5, "random")
    assert found["new"] != found["newer"]
    assert retrieve(library, ["newer"], 5, "random")["newer"] == found["newer"]
    assert retrieve(library, TASKS, 5, "random", seed=1) != found
    assert all(len(set(names)) == 5 for names in found.values())


def test_a_new_task_may_bear_an_experts_name(library, own):
    renamed = dataclasses.replace(own.infos[0], name="expert4")
    assert nearness(library, dataclasses.replace(own["new"], infos=(renamed,))).argmax() == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"by": "luck"}, "by='luck': expected one of random, lora, svd"),
        ({"n": 10}, "n=10: expected a whole number, at least 1 and at most 9"),
        ({"n": 0}, "n=0: expected a whole number, at least 1"),
        ({"own": None}, "task 'new' has no expert in own="),
        ({"tasks": ["newest"]}, "task 'newest' has no expert in own="),
    ],
)
def test_what_cannot_be_is_named(library, own, change, words):
    with pytest.raises(InputError, match=words):
        retrieve(**({"library": library, "tasks": TASKS, "own": own, "by": "svd"} | change))


def test_without_retrieval_every_expert_is_taken(library):
    assert retrieved_from(library, TASKS, None) == dict.fromkeys(TASKS, library.names)
