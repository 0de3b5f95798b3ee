import numpy as np
import pytest
from references import clustering as reference
from scipy.stats import spearmanr

from modjax.data.tasks import Example, Task
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval import Sample
from modjax.eval.likelihood import target_loss
from modjax.routing import oracle
from modjax.studies.transfer import binned, choose_pairs, levelled, losses, spearman, transfer


def symmetric(n_experts, seed=0):
    x_EE = np.random.default_rng(seed).uniform(size=(n_experts, n_experts))
    return (x_EE + x_EE.T) / 2


def test_pairs_are_spread_over_all_similarities():
    s_EE = symmetric(12)
    chosen = choose_pairs(s_EE, 11)
    ranks = np.argsort(np.argsort(s_EE[np.triu_indices(12, 1)]))
    at = dict(zip(zip(*np.triu_indices(12, 1), strict=True), ranks, strict=True))
    assert [at[pair] // 6 for pair in chosen] == list(range(11))  # 66 pairs in 11 parts of 6
    assert all(i < j for i, j in chosen) and len(set(chosen)) == 11


def test_no_expert_is_in_many_pairs():
    counts = np.bincount(np.ravel(choose_pairs(symmetric(12), 18)), minlength=12)
    assert counts.sum() == 36 and counts.max() <= 5
    unmindful = np.bincount(np.ravel([list(pair) for pair in zip(*np.triu_indices(12, 1), strict=True)][:18]))
    assert unmindful.max() > 5


def test_all_pairs_are_chosen_where_all_are_asked_for():
    assert sorted(choose_pairs(symmetric(5), 10)) == list(zip(*np.triu_indices(5, 1), strict=True))


def test_the_choice_is_its_seed():
    s_EE = symmetric(10)
    assert choose_pairs(s_EE, 9, seed=1) == choose_pairs(s_EE, 9, seed=1) != choose_pairs(s_EE, 9, seed=2)


@pytest.mark.parametrize("count", [2, 7])
def test_numbers_of_pairs_that_cannot_be_are_named(count):
    with pytest.raises(InputError, match=f"{count} pairs of 4 experts; expected 3 to 6"):
        choose_pairs(symmetric(4), count)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_spearman_equals_its_definition(seed, ties, agrees):
    x_P, y_P = np.random.default_rng(seed).normal(size=(2, 25))
    if ties:
        x_P, y_P = np.round(x_P), np.round(y_P)
    found = spearman(x_P, y_P)
    agrees("Spearman's rank correlation", found.value, reference.spearman(x_P, y_P))
    assert found.value == pytest.approx(spearmanr(x_P, y_P).statistic)
    assert found.low < found.value < found.high


def test_what_rises_together_correlates_whatever_its_form():
    x_P = np.random.default_rng(0).normal(size=30)
    assert spearman(x_P, np.exp(3 * x_P)) == pytest.approx((1, 1, 1))
    assert spearman(x_P, -(x_P**3)) == pytest.approx((-1, -1, -1))


def test_the_interval_narrows_with_more_pairs_and_holds_the_truth():
    def study(n_pairs):
        x_P, noise_P = np.random.default_rng(7).normal(size=(2, n_pairs))
        return spearman(x_P, x_P + noise_P)  # rank correlation 0.69 of a bivariate normal of correlation 0.71

    few, many = study(20), study(500)
    assert many.high - many.low < 0.4 * (few.high - few.low)
    assert few.low < 0.69 < few.high and many.low < 0.69 < many.high


def test_one_value_alone_has_no_correlation():
    found = spearman(np.ones(5), np.arange(5))
    assert np.isnan(found).all()


def test_bins_are_cut_at_quantiles_and_give_means():
    similarity_P = np.random.default_rng(0).permutation(np.arange(10) / 10)
    found = binned(similarity_P, 2 * similarity_P, 3)
    assert [(one.low, one.high, one.pairs) for one in found] == [(0, 0.3, 4), (0.4, 0.6, 3), (0.7, 0.9, 3)]
    np.testing.assert_allclose([one.gain.value for one in found], [0.3, 1.0, 1.6])
    for one in found:
        assert 2 * one.low - 1e-9 <= one.gain.low < one.gain.value < one.gain.high <= 2 * one.high + 1e-9


@pytest.mark.parametrize("bins", [0, 4])
def test_numbers_of_bins_that_cannot_be_are_named(bins):
    with pytest.raises(InputError, match=f"{bins} bins of 3 pairs; expected 1 to 3"):
        binned([0.1, 0.2, 0.3], [0, 0, 0], bins)


def test_losses_are_those_of_each_experts_own_tasks(word_model, word_tasks, random_library):
    library = random_library({"attn.q": (32, 32)}, tasks=[("copy", "sort"), ("copy",), ("reverse",)])
    sample = Sample(3, "validation", length=32, system="")
    found = losses(word_model, library, word_tasks, sample)
    assert {name: list(own) for name, own in found.items()} == {
        "expert0": ["copy", "sort"],
        "expert1": ["copy"],
        "expert2": ["reverse"],
    }
    alone = losses(word_model, library["expert1"], word_tasks, sample)
    assert found["expert1"]["copy"] == pytest.approx(alone["expert1"]["copy"], rel=1e-5)
    assert found["expert0"]["copy"] != pytest.approx(found["expert1"]["copy"], rel=1e-3)


def test_a_loss_is_that_of_all_target_tokens_together(word_model, word_tasks, random_library):
    library = random_library({"attn.q": (32, 32)}, experts=1, tasks=[("sort",)])
    found = losses(word_model, library, word_tasks, Sample(0, "validation", length=32, system=""))
    task = word_tasks["sort"]
    encoded = encode(word_model.tokenizer, task, task.split("validation"), 32, "")
    nats_n, counts_n = target_loss(word_model, encoded, word_model.bind(library, oracle(library)), [0] * 6)
    assert found == {"expert0": {"sort": pytest.approx(nats_n.sum() / counts_n.sum())}}


def test_tasks_are_levelled_by_repeating_the_one_with_less_text():
    short = Task("short", tuple(Example(f"s{i}", "yes", "train") for i in range(3)) + (Example("s", "no", "test"),))
    long = Task("long", tuple(Example("l" * 20, "long", "train") for _ in range(5)))
    found = levelled([short, long])
    assert found[1] == long and found[0].name == "short"
    assert [one.source for one in found[0].split("train")] == [f"s{i % 3}" for i in range(24)]  # 24 of 5 = 5 of 24
    assert found[0].split("test") == short.split("test")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 1}, "epochs: expected 0, because the compute of private and joint experts is matched by steps"),
        ({"patience": 1, "evaluate_every": 1}, "patience: expected 0, because experts that stop early have no matched"),
    ],
)
def test_settings_without_matched_compute_are_refused(
    word_model, word_tasks, random_library, tmp_path, settings, words
):
    with pytest.raises(InputError, match=words):
        transfer(word_model, word_tasks, random_library({"attn.q": (32, 32)}), tmp_path / "new", settings)
    assert not (tmp_path / "new").exists()
