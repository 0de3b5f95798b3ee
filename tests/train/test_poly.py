"""Poly and MHR: the same step as plain LoRA, with skills that tasks share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.adapting import mixed_skills

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import LoRA
from modjax.routing import Context
from modjax.train import metrics
from modjax.train.fit import fit
from modjax.train.lora import LoRATraining
from modjax.train.poly import PolyTraining, train_poly
from modjax.train.settings import Settings

TASKS = ("reverse", "copy", "sort", "count")


@pytest.fixture(scope="module")
def poly(word_model, word_tasks, small):
    """poly(heads=1, ...): skills and router of the word tasks."""

    def run(tasks=word_tasks, skills=3, **settings):
        return train_poly(word_model, tasks, skills, progress=False, **(small | settings))

    return run


@pytest.fixture(scope="module", params=[1, 4], ids=["poly", "mhr"])
def trained(request, poly):
    return poly(heads=request.param)


def test_a_skill_is_an_expert_and_a_task_a_row_of_weights(trained):
    library, router = trained
    assert library.names == ("skill 0", "skill 1", "skill 2") and router.choices(library) == TASKS
    assert np.abs(library.loras["attn.q"].b).max(axis=(0, 2, 3)).min() > 1e-4
    assert not np.allclose(library.loras["attn.q"].a[:, 0], library.loras["attn.q"].a[:, 1])
    weights_KHS = router.weights[0]
    np.testing.assert_allclose(weights_KHS.sum(axis=-1), 1, rtol=1e-6)
    assert np.ptp(weights_KHS, axis=0).min() > 1e-3  # Z began within 1e-3 of 0; tasks have gone ways of their own


def test_one_skill_of_one_task_is_plain_lora(word_model, word_tasks, small):
    """With one skill there is nothing to weigh."""
    settings = Settings(**(small | {"dropout": 0.1}))
    plain = LoRATraining(word_model.config, settings, 1)
    start = jax.jit(plain.start, static_argnums=2)(jax.random.key(0), None, 1)
    skills = jax.tree.map(lambda leaf: leaf[:, :, None], start)
    given = {"skills": skills, "weights": np.zeros((1, 1, 1, 1), np.float32)}
    recipe = PolyTraining(given, dict.fromkeys(settings.sites, np.full((2, 1, 1), 4.0, np.float32)), 100.0, settings)
    groups = {"copy": ("copy",)}
    got, expected = (fit(word_model, word_tasks, groups, one, settings, progress=False) for one in (recipe, plain))
    for leaf, like in zip(jax.tree.leaves(got.trained["skills"]), jax.tree.leaves(expected.trained), strict=True):
        np.testing.assert_allclose(leaf[:, :, 0], like, rtol=0, atol=1e-6)


def test_the_routed_model_is_that_of_each_tasks_mixed_skills(word_model, trained, agrees):
    library, router = trained
    tokens_BT = np.random.default_rng(0).integers(4, 60, (3, 7))
    got = word_model.logits(tokens_BT, library, router, Context(np.asarray([2, 0, -1], np.int32)))
    rows_BHS = np.stack([router.weights[0, 2], router.weights[0, 0], router.weights[0].mean(axis=0)])
    for weights_HS, tokens_T, logits_TV in zip(rows_BHS, tokens_BT, got, strict=True):
        sites = {}
        for site, lora in library.loras.items():
            layers = [mixed_skills(*own, np.float64(weights_HS)) for own in zip(*map(np.float64, lora), strict=True)]
            sites[site] = tuple(np.stack(factors)[:, None] for factors in zip(*layers, strict=True))
        alone = Library.from_arrays(sites)
        method = "poly" if router.weights.shape[2] == 1 else "mhr"
        agrees(method, logits_TV, word_model.logits(tokens_T[None], alone)[0])


def test_a_task_moves_no_others_weights(poly):
    """The first step moves B alone, for B was zero; the second the one row whose task was drawn."""
    settings = {"steps": 2, "batch": 1, "dropout": 0.0}
    (_, before), (_, after) = (poly(learning_rate=rate, **settings) for rate in (0.0, 1e-3))
    moved_K = np.abs(after.weights[0] - before.weights[0]).max(axis=(1, 2)) > 1e-6
    assert moved_K.sum() == 1


def test_weights_and_skills_have_rates_of_their_own(poly):
    slow, fast = (poly(weights_rate=rate, steps=2, dropout=0.0) for rate in (0.0, 100.0))
    assert np.abs(slow[1].weights - 1 / 3).max() < 1e-3 < np.abs(fast[1].weights - 1 / 3).max()
    for got, like in zip(jax.tree.leaves(slow[0].loras), jax.tree.leaves(fast[0].loras), strict=True):
        np.testing.assert_array_equal(got, like)


def test_skills_learn_what_tasks_share(poly, tmp_path):
    poly(workdir=tmp_path, steps=25, learning_rate=1e-2, log_every=5)
    losses = [line["loss"]["poly"] for line in metrics.read(tmp_path / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_a_finished_run_is_read_back(poly, tmp_path):
    first, again = (poly(workdir=tmp_path, save_every=3) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (first, again)), strict=True))


@pytest.mark.parametrize(("change", "words"), [({"heads": 5}, "heads=5: does not divide"), ({"skills": 0}, "skills=0")])
def test_what_cannot_be_is_refused(poly, change, words):
    with pytest.raises(InputError, match=words):
        poly(**change)


def test_held_out_tasks_have_no_row(poly, word_tasks):
    tasks = type(word_tasks)(dataclasses.replace(task, held_out=task.name == "copy") for task in word_tasks.values())
    library, router = poly(tasks=tasks, steps=1)
    assert router.choice_of("copy", library) == -1 and router.choice_of("sort", library) == 1
    assert router.weights.shape[1] == 3


def test_frozen_skills_stay_and_only_weights_are_trained(word_model, word_tasks, small):
    rng = np.random.default_rng(0)
    widths = {site: word_model.config.sites[site] for site in small["sites"]}
    skills = {
        site: LoRA(
            *(jnp.float32(rng.normal(size=(2, 1, 3, 2, width)) / width**0.5) for width in pair), jnp.ones((2, 1, 3))
        )
        for site, pair in widths.items()
    }
    given = {"weights": np.zeros((1, 4, 1, 3), np.float32)}
    recipe = PolyTraining(given, skills, 100.0, Settings(dropout=0.0))
    groups = {name: (name,) for name in TASKS}
    together = fit(word_model, word_tasks, groups, recipe, Settings(**small), progress=False)
    assert set(together.trained) == {"weights"} and np.abs(together.trained["weights"]).min(axis=(0, 2, 3)).min() > 1e-3
    given = {"weights": given["weights"][:, :1]}
    alone = PolyTraining(given, skills, 100.0, Settings(dropout=0.0))
    sort = fit(word_model, word_tasks, {"sort": ("sort",)}, alone, Settings(**small), progress=False)
    np.testing.assert_allclose(together.trained["weights"][:, 2:3], sort.trained["weights"], rtol=0, atol=1e-6)
