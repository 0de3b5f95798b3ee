"""CAT on the tiny word model: what is learned, and what becomes of it."""

import dataclasses

import jax
import numpy as np
import pytest
from references import adapting

from modjax import merge
from modjax.adapt.cat import cat
from modjax.data.tasks import Tasks
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval.likelihood import target_loss

RUN = {"steps": 12, "batch": 2, "length": 64, "learning_rate": 0.05, "progress": False}


@pytest.fixture(scope="module")
def learned(word_model, library, word_tasks):
    return {per: cat(word_model, library, word_tasks, per, **RUN) for per in ("layer", "site")}


def coefficients(merged, library):
    """{site: float64[L,E]}, read off the merged expert; each number of B must tell the same."""
    found = {}
    for site, (a_LERI, b_LERO, scale_LE) in library.loras.items():
        n_layers, n_experts, rank, _ = a_LERI.shape
        a_LSI, b_LSO, scale_L = (np.float64(leaf[:, 0]) for leaf in merged.loras[site])
        np.testing.assert_array_equal(a_LSI, np.reshape(a_LERI, a_LSI.shape))
        shares_LE = np.float64(scale_LE) / scale_L[:, None]
        ratio_LERO = b_LSO.reshape(n_layers, n_experts, rank, -1) / (shares_LE[..., None, None] * b_LERO)
        found[site] = ratio_LERO.mean((2, 3))
        np.testing.assert_allclose(
            ratio_LERO, np.broadcast_to(found[site][:, :, None, None], ratio_LERO.shape), rtol=1e-5
        )
    return found


def mean_loss(model, tasks, merged):
    encoded = [one for task in tasks.values() for one in encode(model.tokenizer, task, task.split("train"), 64)]
    total, count = target_loss(model, encoded, model.bind(merged, None))
    return total.sum() / count.sum()


def test_experts_stay_and_their_weights_fit_the_data(word_model, library, word_tasks, learned):
    start = mean_loss(word_model, word_tasks, merge.uniform(library, "products"))
    for merged in learned.values():
        assert mean_loss(word_model, word_tasks, merged) < start
        assert merged.rank == 6


def test_the_update_is_the_weighted_sum_of_the_experts(word_model, library, word_tasks, agrees):
    """At a rate of 0 the coefficients stay 1 / E."""
    merged = cat(word_model, library, word_tasks, **(RUN | {"steps": 1, "learning_rate": 0.0}))
    for site, lora in library.loras.items():
        for layer in range(lora.a.shape[0]):
            expected = adapting.cat_update(*(np.float64(leaf[layer]) for leaf in lora), np.full(3, 1 / 3))
            a_SI, b_SO, scale = (np.float64(leaf[layer, 0]) for leaf in merged.loras[site])
            agrees("CAT", scale * b_SO.T @ a_SI, expected)


def test_layers_have_their_own_weights_and_sites_where_asked(library, learned):
    whole, each = (coefficients(learned[per], library) for per in ("layer", "site"))
    np.testing.assert_allclose(whole["attn.q"], whole["mlp.down"], rtol=1e-5)
    assert np.abs(whole["attn.q"][0] - whole["attn.q"][1]).max() > 0.01
    assert np.abs(each["attn.q"] - each["mlp.down"]).max() > 0.01


def test_the_first_step_goes_down_the_slope(word_model, library, word_tasks):
    """Adam's first step has the rate's length and the gradient's sign, which finite differences tell."""
    one_row = Tasks([dataclasses.replace(word_tasks["copy"], examples=word_tasks["copy"].examples[:3])])
    merged = cat(word_model, library, one_row, **(RUN | {"steps": 1}))
    moved_LE = coefficients(merged, library)["attn.q"] - 1 / 3
    np.testing.assert_allclose(np.abs(moved_LE), 0.05, rtol=1e-3)

    def loss_at(layer, e, shift):
        def changed(leaf):
            return leaf.at[layer, e].multiply(1 + 3 * shift)

        loras = {site: lora._replace(b=changed(lora.b)) for site, lora in library.loras.items()}
        return mean_loss(word_model, one_row, merge.uniform(dataclasses.replace(library, loras=loras), "products"))

    for layer, e in np.ndindex(*moved_LE.shape):
        slope = loss_at(layer, e, 0.01) - loss_at(layer, e, -0.01)
        assert np.sign(moved_LE[layer, e]) == -np.sign(slope)


def test_coefficients_that_diverge_are_those_of_the_last_finite_loss(word_model, library, word_tasks):
    merged = cat(word_model, library, word_tasks, **RUN | {"steps": 1, "learning_rate": 3e38})
    assert merged.infos[0].failed == 1
    np.testing.assert_allclose(coefficients(merged, library)["attn.q"], 1 / 3, rtol=1e-5)


def test_what_was_done_is_told(library, learned):
    info = learned["layer"].infos[0]
    means_E = np.mean(list(coefficients(learned["layer"], library).values()), axis=(0, 1))
    told = dict(info.training)
    assert {"merged": "cat", "per": "layer", "steps": 12, "experts": "a, b, c"}.items() <= told.items()
    np.testing.assert_allclose([float(mean) for mean in told["weights"].split(", ")], means_E, rtol=1e-5)
    assert info.name == "cat" and info.tasks == ("reverse", "copy", "sort", "count")


def test_a_rank_cuts_the_same_merge(word_model, library, word_tasks, learned):
    cut = cat(word_model, library, word_tasks, rank=6, **RUN)
    tokens_BT = np.arange(24).reshape(2, 12) + 4
    expected = word_model.logits(tokens_BT, learned["layer"])
    np.testing.assert_allclose(word_model.logits(tokens_BT, cut), expected, atol=1e-4)
    assert jax.tree.leaves(cut.loras)[0].shape[2] == 6 and "kept_energy" in dict(cut.infos[0].scores)


def test_groups_in_lockstep_equal_each_alone(word_model, library, word_tasks):
    groups = {"mine": ("copy",), "yours": ("sort", "count")}
    found = cat(word_model, library, word_tasks, groups=groups, **RUN)
    assert found.names == ("mine", "yours") and found.tasks == (("copy",), ("sort", "count"))
    alone = cat(word_model, library, word_tasks, groups={"yours": groups["yours"]}, **RUN)
    for got, expected in zip(jax.tree.leaves(found["yours"].loras), jax.tree.leaves(alone.loras), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per": "expert"}, "per='expert': expected one of layer, site"),
        ({"steps": 0}, "steps=0: expected a whole number, at least 1"),
        ({"rank": 7}, "rank=7: expected 1 to 6, the sum of the experts' ranks"),
        ({"length": 65}, "length=65: expected at most 64, the context of tiny"),
        ({"tasks": Tasks([])}, "no new tasks"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: expected a finite number"),
    ],
)
def test_what_cannot_be_is_named(word_model, library, word_tasks, change, words):
    with pytest.raises(InputError, match=words):
        cat(**({"model": word_model, "library": library, "tasks": word_tasks} | RUN | change))


def test_experts_of_another_model_are_refused(word_model, word_tasks, random_library):
    with pytest.raises(InputError, match="has no site 'mlp.fc1'"):
        cat(word_model, random_library({"mlp.fc1": (32, 64)}), word_tasks, **RUN)
