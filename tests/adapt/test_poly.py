"""Poly, Poly-Z and MHR on the tiny word model: formulas, lockstep, early stopping, and resuming."""

import jax
import numpy as np
import pytest
from references import adapting

from modjax.adapt import poly
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval.likelihood import target_loss
from modjax.ops.lora import LoRA, mixture
from modjax.routing.poly import Poly, task_weights
from modjax.train import metrics

RUN = {"steps": 4, "batch": 2, "length": 32, "learning_rate": 3e-3, "dropout": 0.0, "progress": False}
KINDS = {"poly": {}, "poly_z": {"weights_only": True}, "mhr": {"heads": 4}}
RETRIEVED = {"copy": ("c", "a"), "sort": ("b", "c")}


@pytest.fixture(scope="module")
def adapt(word_model, library, new_tasks):
    """adapt(tasks, **settings): an expert of each new task."""

    def run(tasks=new_tasks, **settings):
        return poly(word_model, library, tasks, **(RUN | settings))

    return run


@pytest.fixture(scope="module")
def adapted(adapt):
    """{kind: both tasks in lockstep, each from two experts of its own}."""
    return {kind: adapt(retrieved=RETRIEVED, **own) for kind, own in KINDS.items()}


def assert_equal(first, second, atol=0.0):
    for got, expected in zip(jax.tree.leaves(first.loras), jax.tree.leaves(second.loras), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("heads", [1, 4])
def test_weights_and_update_of_a_site(heads, agrees):
    rng = np.random.default_rng(heads)
    z_HS, x_TI, scale_S = rng.normal(size=(heads, 3)), rng.normal(size=(5, 8)), rng.uniform(0.5, 2, 3)
    lora = LoRA(rng.normal(size=(3, 2, 8)) / 8**0.5, rng.normal(size=(3, 2, 12)) / 12**0.5, scale_S)
    weights_HS = adapting.task_weights(z_HS)
    agrees("Poly weights", task_weights(np.float32(z_HS)), weights_HS)
    x_BTI, weights_BHS = np.float32(x_TI)[None], np.float32(weights_HS)[None]
    delta_BTO = mixture(x_BTI, jax.tree.map(np.float32, lora), weights_BHS, "heads")
    name = "Poly update" if heads == 1 else "MHR update"
    agrees(name, delta_BTO[0], adapting.poly_delta(x_TI, *lora, weights_HS))


def test_weights_alone_leave_experts_untouched(adapted, library, agrees):
    """What Poly-Z gives is a weighted sum of the experts as they were."""
    for name, own in RETRIEVED.items():
        expert, chosen = adapted["poly_z"][name], library[own]
        weights_S = [float(weight) for weight in dict(expert.infos[0].training)["weights"].split(", ")]
        assert abs(weights_S[0] - weights_S[1]) > 1e-3 and abs(sum(weights_S) - 1) < 1e-5
        for site, lora in chosen.loras.items():
            for layer in range(lora.a.shape[0]):
                own_layer = (np.float64(leaf[layer]) for leaf in lora)
                expected = adapting.mixed_skills(*own_layer, np.float64([weights_S]))
                agrees("Poly mixture", expert.loras[site].a[layer, 0], expected[0])
                agrees("Poly mixture", expert.scale[0] * expert.loras[site].b[layer, 0], expected[1])


def test_fine_tuned_copies_leave_that_sum(adapted):
    for kind in ("poly", "mhr"):
        moved = adapted[kind].loras["attn.q"].a - adapted["poly_z"].loras["attn.q"].a
        assert np.abs(moved).max(axis=(0, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_in_lockstep_equals_it_alone(adapt, adapted, new_tasks, kind):
    alone = adapt(new_tasks.select(["sort"]), retrieved=RETRIEVED, **KINDS[kind])
    assert_equal(alone, adapted[kind]["sort"], atol=2e-6)


def test_before_the_first_step_it_is_the_mean(adapt, library, agrees):
    expert = adapt(learning_rate=0.0, heads=4)["copy"]
    for site, (a_LERI, b_LERO, scale_LE) in library.loras.items():
        agrees("Poly mixture", expert.loras[site].a[:, 0], np.float64(a_LERI).mean(axis=1))
        scaled_LERO = np.float64(scale_LE)[..., None, None] * b_LERO
        agrees("Poly mixture", expert.scale[0] * expert.loras[site].b[:, 0], scaled_LERO.mean(axis=1))


def test_a_trained_router_gives_the_start(adapt, library, new_tasks):
    mean_HE = np.float32([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
    router = Poly(np.broadcast_to(mean_HE, (2, 3, 2, 3)), ("x", "y", "z"))
    settings = {"heads": 2, "router": router, "learning_rate": 0.0}
    expert = adapt(**settings)["copy"]
    a_LERI = np.float64(library.loras["attn.q"].a)
    expected = np.concatenate(
        [np.einsum("e,leri->lri", row_E, part) for row_E, part in zip(mean_HE, np.split(a_LERI, 2, -1), strict=True)],
        -1,
    )
    np.testing.assert_allclose(expert.loras["attn.q"].a[:, 0], expected, atol=1e-6)
    with pytest.raises(InputError, match="router: weights of 2 heads over 3 skills; expected 1 heads"):
        adapt(**(settings | {"heads": 1}))


def test_early_stopping_keeps_the_best(adapt, word_model, new_tasks, tmp_path):
    settings = {"steps": 16, "learning_rate": 0.1, "evaluate_every": 2, "patience": 2}
    found = adapt(workdir=tmp_path, **settings)
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "validation"]
    for name, task in new_tasks.items():
        losses = [line["loss"][name] for line in lines if name in line["loss"]]
        ((_, best),) = found[name].infos[0].scores
        assert best == pytest.approx(min(losses), abs=1e-5) and losses[-1] > best
        encoded = encode(word_model.tokenizer, task, task.split("validation"), 32)
        totals, counts = target_loss(word_model, encoded, word_model.bind(found[name], None))
        assert totals.sum() / counts.sum() == pytest.approx(best, abs=1e-4)


def test_killed_and_resumed_equals_uninterrupted(adapt, adapted, killed_before, tmp_path):
    settings = {"save_every": 2, "retrieved": RETRIEVED, "workdir": tmp_path}
    killed_before(4, lambda: adapt(**settings))
    resumed = adapt(**settings)
    assert_equal(resumed, adapted["poly"])
    assert resumed.infos == adapted["poly"].infos


def test_heads_that_do_not_divide_are_named(adapt):
    with pytest.raises(InputError, match="heads=5"):
        adapt(heads=5)
