"""Inference on a mesh of eight devices: the same numbers, and each device computes its own rows alone."""

import numpy as np
import pytest

import modjax
from modjax import model as model_file
from modjax.data.tokenize import Encoded
from modjax.eval.likelihood import target_loss
from modjax.parallel.mesh import make_mesh
from modjax.routing.base import Context
from tests.meshes import on
from tests.tiny import library, model  # noqa: F401, fixtures

MESHES = [{"expert": 8}, {"expert": 4, "fsdp": 2}, {"expert": 2, "fsdp": 2, "tensor": 2}]


@pytest.fixture(params=MESHES, ids=str, scope="module")
def split(request, model):  # noqa: F811
    return on(make_mesh(**request.param), model)


@pytest.fixture(scope="module")
def router(library):  # noqa: F811
    return modjax.routing.arrow(library, top_k=2)


def test_logits(split, model, library, router):  # noqa: F811
    """Three rows on eight devices."""
    tokens_BT = np.arange(3 * 9).reshape(3, 9) % model.config.V
    found, expected = (one.logits(tokens_BT, library, router) for one in (split, model))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_logits_with_a_choice_per_row(split, model, library):  # noqa: F811
    tokens_BT = np.arange(3 * 9).reshape(3, 9) % model.config.V
    given = (tokens_BT, library, modjax.routing.oracle(library), Context(np.int32([2, -1, 0])))
    np.testing.assert_allclose(split.logits(*given), model.logits(*given), atol=2e-5)


def test_answers(split, model, library, router):  # noqa: F811
    prompts = ["what is red", "what is one two three", "the cat is"]
    for own in ((None, None), (library, router)):
        found, expected = (one.generate(prompts, *own, max_new_tokens=6) for one in (split, model))
        assert found == expected


def test_losses(split, model, library, router):  # noqa: F811
    rng = np.random.default_rng(0)
    examples = [Encoded(np.int32(rng.integers(2, model.config.V, 12)), 5) for _ in range(5)]
    found, expected = (target_loss(one, examples, one.bind(library, router))[0] for one in (split, model))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_paged_library(split, model, library, tmp_path):  # noqa: F811
    library.save(tmp_path / "library")
    tokens_BT = np.arange(3 * 9).reshape(3, 9) % model.config.V

    def logits(model):
        paged = modjax.PagedLibrary.open(tmp_path / "library")
        return model.logits(tokens_BT, paged, modjax.routing.two_stage(paged, candidates=2, top_k=2))

    np.testing.assert_allclose(logits(split), logits(model), atol=2e-5)


def test_each_device_computes_its_own_rows(model, library, router):  # noqa: F811
    """Eight rows on eight devices are an eighth of the arithmetic for each."""
    tokens_BT = np.arange(8 * 16).reshape(8, 16) % model.config.V

    def flops(one):
        inputs = (one.params, one.bind(library, router), Context(), tokens_BT)
        return model_file._logits.lower(*inputs).compile().cost_analysis()["flops"]

    assert flops(on(make_mesh(expert=4, fsdp=2), model)) < 0.2 * flops(model)
