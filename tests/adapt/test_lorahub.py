"""LoraHub on the tiny word model: its formulas, its search, and what it leaves."""

import json
import sys
import typing

import numpy as np
import pytest
from references import adapting

from modjax.adapt import lorahub
from modjax.adapt.lorahub import LoraHubFields, LoraHubSettings, _objective
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval import Sample, evaluate
from modjax.eval.likelihood import _losses
from modjax.experts.library import Library
from modjax.routing import oracle

RUN = {"budget": 12, "batch": 4, "progress": False}


@pytest.fixture(scope="module")
def composed(word_model, library, new_tasks):
    return lorahub(word_model, library, new_tasks, **RUN)


def weights_of(expert):
    return [float(weight) for weight in dict(expert.infos[0].training)["weights"].split(", ")]


def test_the_factors_are_the_weighted_sums(composed, library, agrees):
    for task in composed.names:
        expert = composed[task]
        weights_E = weights_of(expert)
        for site, lora in library.loras.items():
            given = (*lora.factors, library.scale, weights_E)
            a_LRI, b_LRO = adapting.lorahub_factors(*map(np.float64, given))
            agrees("lorahub factors", expert.loras[site].a[:, 0], a_LRI)
            agrees("lorahub factors", expert.scale[0] * expert.loras[site].b[:, 0], b_LRO)


def test_the_objective_is_the_loss_and_the_penalty(word_model, library, composed, new_tasks, agrees):
    for name, task in new_tasks.items():
        encoded = encode(word_model.tokenizer, task, task.split("train"), 64)
        logits = [np.float64(word_model.logits(one.tokens[None], composed[name])[0]) for one in encoded]
        tokens, n_prompts = [one.tokens for one in encoded], [one.n_prompt for one in encoded]
        weights_E = weights_of(composed[name])
        expected = adapting.lorahub_objective(logits, tokens, n_prompts, weights_E)
        agrees("lorahub objective", dict(composed[name].infos[0].scores)["objective"], expected)
        judge = _objective(word_model, library, encoded, 0.05, 2)  # another batch, the same objective
        agrees("lorahub objective", judge(np.asarray(weights_E)), expected)


def test_it_never_ends_above_its_start(composed):
    for info in composed.infos:
        scores = dict(info.scores)
        assert scores["objective"] <= scores["start_objective"]
    assert any(any(weights_of(composed[name])) for name in composed.names)


def test_the_budget_is_kept_and_one_program_judges_all(word_model, library, new_tasks, tmp_path):
    _losses.clear_cache()
    lorahub(word_model, library, new_tasks, workdir=tmp_path, **(RUN | {"budget": 5, "batch": 3}))
    searches = json.loads((tmp_path / "lorahub.json").read_text())
    assert [len(one["values"]) <= 5 for one in searches.values()] == [True, True]
    assert _losses._cache_size() == 1


def test_the_same_seed_gives_the_same_weights_and_tasks_stand_alone(word_model, library, new_tasks, composed):
    alone = lorahub(word_model, library, new_tasks.select(["sort"]), **RUN)
    assert weights_of(alone) == weights_of(composed["sort"])
    other = lorahub(word_model, library, new_tasks.select(["sort"]), seed=1, **(RUN | {"budget": 30}))
    assert np.abs(weights_of(other)).max() <= 1.5


def test_a_search_that_is_done_is_not_done_again(word_model, library, new_tasks, composed, tmp_path, monkeypatch):
    module, searched = sys.modules["modjax.adapt.lorahub"], []
    real = module.search

    def search_until(last):
        def search(*given):
            if len(searched) == last:
                raise KeyboardInterrupt
            searched.append(1)
            return real(*given)

        monkeypatch.setattr(module, "search", search)

    search_until(1)
    with pytest.raises(KeyboardInterrupt):
        lorahub(word_model, library, new_tasks, workdir=tmp_path, **RUN)
    search_until(None)
    resumed = lorahub(word_model, library, new_tasks, workdir=tmp_path, **RUN)
    assert len(searched) == 2
    for site, lora in composed.loras.items():
        np.testing.assert_array_equal(resumed.loras[site].a, lora.a)
        np.testing.assert_array_equal(resumed.loras[site].b, lora.b)


def test_the_keywords_are_the_fields(word_model, library, new_tasks):
    assert typing.get_type_hints(LoraHubFields) == typing.get_type_hints(LoraHubSettings)
    with pytest.raises(InputError, match="buget: no such setting of LoraHubSettings; did you mean 'budget'"):
        lorahub(word_model, library, new_tasks, buget=3)


def test_retrieved_experts_alone_are_composed(word_model, library, new_tasks, tmp_path):
    retrieved = {"copy": ("c", "a"), "sort": ("b", "c")}
    found = lorahub(word_model, library, new_tasks, retrieved, **RUN)
    assert [dict(info.training)["experts"] for info in found.infos] == ["c, a", "b, c"]
    found.save(tmp_path / "library")
    hub, sample = Library.load(tmp_path / "library"), Sample(split="train", length=32)
    scores = evaluate(word_model, new_tasks, hub, oracle(found), sample, max_new_tokens=2, progress=False)
    assert set(scores) == {"copy", "sort"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": 0}, "budget=0"),
        ({"bound": 0.0}, "bound=0.0"),
        ({"retrieved": {"copy": ("a",)}}, r"task 'sort' has experts \[\]; expected at least one of a, b, c"),
        ({"retrieved": {"copy": ("a",), "sort": ("z",)}}, "'z'"),
        ({"retrieved": {"copy": ("a",), "sort": ("a", "b")}}, "the same number for every task"),
    ],
)
def test_what_cannot_be_is_named(word_model, library, new_tasks, change, words):
    with pytest.raises(InputError, match=words):
        lorahub(**({"model": word_model, "library": library, "tasks": new_tasks} | RUN | change))


def test_without_nevergrad_the_extra_is_named(word_model, library, new_tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(InputError, match=r"pip install modjax\[adapt\]"):
        lorahub(word_model, library, new_tasks, **RUN)
