"""The study on a tiny model: equal compute, choices on development tasks alone, what is kept, and its claims."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from modjax import merge, report
from modjax.data.tasks import Example, Task, Tasks
from modjax.errors import InputError
from modjax.eval.hierarchy import Figures
from modjax.eval.intervals import Estimate
from modjax.eval.sample import Sample
from modjax.eval.score import Score
from modjax.report import claims
from modjax.studies.claims import CLAIMS, Results, verdict
from modjax.studies.design import Study
from modjax.studies.libraries import Libraries
from modjax.studies.stages import Stages
from modjax.studies.study import study

MODULE = sys.modules["modjax.studies.trial"]
WORDS = {"a": "yes", "b": "no", "c": "cat", "d": "dog", "new": "bird", "other": "two"}
LINES = {
    "base": {"library": ""},
    "mu (private)": {"library": "private", "router": "uniform"},
    "Arrow (private)": [
        {"library": "private", "router": {"name": "arrow", "top_k": top_k, "temperature": temperature}}
        for top_k, temperature in ((1, 1.0), (-1, 1.0))
    ],
    "oracle (private)": {"library": "private", "router": "oracle"},
    "oracle (MBC)": {"library": "mbc", "router": "oracle"},
    "oracle (random)": {"library": "random", "router": "oracle"},
    "adapt LoRA 10": {"library": "", "adapt": {"method": "lora", "examples": 4}},
    "adapt MBC 10": {"library": "mbc", "adapt": {"method": "mu", "examples": 4}},
}
ADAPT = {"method": "poly", "examples": 4, "validation": 2, "retrieve": "none", "experts": 2}
SETTINGS = {"steps": 5, "batch": 1, "length": 32, "rank": 2, "learning_rate": 0.03, "dropout": 0.0, "system": ""}


@pytest.fixture(scope="module")
def many():
    """Six tasks, two of them held out, with examples in all splits."""
    splits = [("train", i) for i in range(6)] + [("validation", i) for i in range(6, 9)] + [("test", 9), ("test", 10)]
    fill = "red green blue one two three cat dog bird what is".split()  # noqa: SIM905
    return Tasks(
        Task(
            name,
            tuple(Example(f"what is {fill[i]} {fill[n]}", target, split) for split, i in splits),
            held_out=name == "new",
        )
        for n, (name, target) in enumerate(WORDS.items())
    )


@pytest.fixture
def plan(model, many):
    return Study(
        model,
        many,
        LINES,
        SETTINGS,
        {"clusters": 2, "restarts": 2},
        held_out=("other",),
        development=("a", "other"),
        seeds=(0,),
        clustering=0.4,
        sample=Sample(examples=2, length=32, system=""),
        max_new_tokens=2,
        tuning=2,
        adapt=ADAPT,
        adapted={"steps": 2, "evaluate_every": 1},
    )


def test_a_study_reports_on_tasks_that_nothing_was_chosen_by_and_is_not_repeated(plan, tmp_path, monkeypatch):
    made, make = [], MODULE.methods.make
    monkeypatch.setattr(MODULE.methods, "make", lambda name, *rest: made.append(name) or make(name, *rest))
    found = study(tmp_path, plan)
    tried = [f"develop Arrow (private) {number}" for number in range(2)]
    assert made == [*tried, *(f"score {name}" for name in LINES)]  # once for scores and routing
    assert [task["name"] for task in found["tasks"]] == ["b", "c", "d", "new"]
    assert found["development"] == ["a", "other"]
    scored = {one["name"]: one for one in found["methods"]}
    assert list(scored) == list(LINES)
    assert scored["oracle (MBC)"]["held_out"] == {}  # it covers the tasks of its experts alone
    assert scored["adapt MBC 10"]["in_distribution"] == {}
    own = scored["Arrow (private)"]["in_distribution"]
    low, high = own["intervals"]["loss"]
    assert 0 < low <= own["loss"] <= high
    assert 0 <= scored["Arrow (private)"]["routing_accuracy"] <= 1 and "routing_accuracy" not in scored["mu (private)"]
    assert [one["name"] for one in found["analysis"]] == ["Arrow (private)"]
    assert found["tasks"][0]["loss"].keys() == LINES.keys() - {"adapt LoRA 10", "adapt MBC 10"}
    verdicts = {(one["claim"], one["metric"]): one["verdict"] for one in found["claims"]}
    assert verdicts["a", "loss"] == "not measured" == verdicts["c, base", "loss"]
    assert verdicts["b", "loss"] != "not measured" != verdicts["e, 10", "rouge_l"]
    assert "(b) MBC's clusters" in claims.text(found) and "oracle (MBC)" in report.text_table(found)

    monkeypatch.setattr(MODULE, "evaluate", None)  # nothing is scored again
    assert study(tmp_path, plan) == found
    with pytest.raises(InputError, match="train.steps"):
        study(tmp_path, dataclasses.replace(plan, settings=SETTINGS | {"steps": 6}))


def test_settings_are_chosen_by_the_development_tasks(plan, tmp_path, monkeypatch):
    """Each alternative has its own loss there; the least wins, and the reported tasks are not looked at."""
    seen = []

    def scored(model, tasks, library, router, sample, new_tokens):
        seen.append((tuple(tasks), sample.split, new_tokens))
        worse = float(router.top_k != 1)
        values = {"loss": np.ones(2) + worse, "exact_match": np.zeros(2), "rouge_l": np.zeros(2)}
        return {name: Score(values, np.ones(2, int)) for name in tasks}

    monkeypatch.setattr(MODULE, "evaluate", scored)
    only = dataclasses.replace(plan, lines={"Arrow (private)": LINES["Arrow (private)"]}, seeds=(0, 1))
    found = study(tmp_path, only)
    assert found["chosen"]["0"]["Arrow (private)"]["router"]["top_k"] == 1
    assert found["chosen"]["1"] == found["chosen"]["0"]
    once = [(("a", "other"), "validation", 1)] * 2 + [(("b", "c", "d", "new"), "test", 2)]
    assert seen == once * 2


def test_libraries_of_clusters_read_what_their_clustering_leaves(model, many, tmp_path):
    settings = SETTINGS | {"steps": 10, "batch": 2}
    own = Libraries(model, many.training, Stages(tmp_path), settings, {"clusters": 2}, clustering=0.4)
    rows = 10 * 2 * 5
    assert own.equal_rows("shared", 1)["steps"] * 2 == rows
    assert own.equal_rows("mbc", 2)["steps"] * 2 * 2 == rows * 6 // 10
    assert dict(own.library("brief").infos[0].training)["steps"] == 4


def test_private_experts_and_the_shared_one_may_be_one_library(model, many, tmp_path, capsys):
    own = Libraries(model, many.training, Stages(tmp_path), SETTINGS | {"steps": 1}, {"clusters": 2})
    assert own.library("private_shared").names == (*many.training, "shared")
    begun = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train ")]
    assert begun == ["train private ...", "train shared ...", "train private_shared ..."]  # none within another
    assert own.path("brief") == own.path("private")  # the library that is clustered, at no cost


def test_experts_of_mbc_and_their_mean_may_be_one_library(model, many, tmp_path):
    own = Libraries(model, many.training, Stages(tmp_path), SETTINGS | {"steps": 5}, {"clusters": 2}, clustering=0.4)
    clusters = own.library("mbc").names
    assert own.library("private_mean").names == (*many.training, "mean")
    joined = own.library("mbc_brief")
    assert joined.names == (*many.training, *clusters, "mean")
    assert dict(joined.infos[0].training)["steps"] == 2
    assert own.library("mean").names == ("mean",)
    mean = merge.uniform(own.library("mbc"))
    np.testing.assert_array_equal(joined.loras["attn.q"].b[:, -1], mean.loras["attn.q"].b[:, 0])


def test_the_general_expert_is_half_shared_and_half_the_mean(model, many, tmp_path):
    own = Libraries(model, many.training, Stages(tmp_path), SETTINGS | {"steps": 1}, {"clusters": 2})
    assert own.library("private_general").names == (*many.training, "general")
    general, shared, mean = map(own.library, ("general", "shared", "mean"))

    def update(library):
        lora = library.loras["attn.q"]
        return np.einsum("leri,lero,le->lio", lora.a, lora.b, lora.scale)

    np.testing.assert_allclose(update(general), 0.5 * (update(shared) + update(mean)), rtol=1e-5, atol=1e-8)


def test_claims_have_keys_of_their_own():
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)


def test_with_epochs_they_read_their_tasks_less_often(model, many, tmp_path):
    settings = SETTINGS | {"epochs": 5, "batch": 2}
    own = Libraries(model, many.training, Stages(tmp_path), settings, {"clusters": 2}, clustering=0.4)
    assert own.equal_rows("shared", 1)["epochs"] == 5 and own.equal_rows("mbc", 2)["epochs"] == 3
    assert dict(own.library("brief").infos[0].training)["epochs"] == 2


def test_verdicts_go_by_the_whole_interval():
    assert verdict(Estimate(0.2, 0.1, 0.3), 0.0) == "held"
    assert verdict(Estimate(0.2, -0.1, 0.3), 0.0) == "undecided"
    assert verdict(Estimate(-0.2, -0.3, -0.1), 0.0) == "not held"
    assert verdict(Estimate(-0.02, -0.04, 0.0), -0.05) == "held"


def test_a_claim_has_the_direction_of_its_metric():
    """MBC is better by both: its loss is lower and its Rouge-L higher."""

    def score(loss, rouge):
        values = {"loss": np.full(4, loss), "exact_match": np.zeros(4), "rouge_l": np.full(4, rouge)}
        return {"b": Score(values, np.ones(4, int))}

    run = {"oracle (MBC)": score(1.0, 0.5), "oracle (random)": score(1.5, 0.2)}
    figures = Figures([run], list(run), ["b"], draws=50)
    (claim,) = (one for one in CLAIMS if one.key == "b")
    by_loss, by_rouge = (claim.judged(Results(figures, figures), metric) for metric in ("loss", "rouge_l"))
    assert (by_loss["value"], by_rouge["value"]) == pytest.approx((0.5, 0.3))
    assert by_loss["verdict"] == by_rouge["verdict"] == "held"


def test_without_held_out_tasks_their_claims_are_not_measured(plan, many, tmp_path):
    """And benchmarks are a part of their own."""
    tasks = many.select(["a", "b", "c", "d"])
    piqa = [{"goal": "what is red", "sol1": "yes", "sol2": "no", "label": i % 2} for i in range(4)]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(one) + "\n" for one in piqa))
    only = dataclasses.replace(
        plan,
        tasks=tasks,
        lines={"base": LINES["base"]},
        held_out=(),
        development=(),
        benchmarks={"data": tmp_path, "names": ["piqa"], "progress": False},
    )
    found = study(tmp_path / "study", only)
    (base,) = found["methods"]
    assert base["held_out"] == {} and base["in_distribution"]["loss"] > 0
    assert base["zero_shot"]["accuracy"] == base["benchmarks"]["piqa"] == 0.5
    assert {one["verdict"] for one in found["claims"]} == {"not measured"}
    assert "Zero-shot" in report.text_table(found)


def test_a_study_of_the_oracle_alone_has_nothing_held_out(plan, tmp_path):
    (oracle,) = study(tmp_path, dataclasses.replace(plan, lines={"oracle": LINES["oracle (private)"]}))["methods"]
    assert oracle["held_out"] == {} and oracle["in_distribution"]["loss"] > 0


def test_lines_without_a_library_and_no_seeds_are_refused(plan):
    with pytest.raises(InputError, match=r"lines\['base'\]: expected at least one method, each with a library"):
        dataclasses.replace(plan, lines={"base": {"router": "arrow"}})
    with pytest.raises(InputError, match="0 seeds and 8 lines"):
        dataclasses.replace(plan, seeds=())
    with pytest.raises(InputError, match=r"lines\['Arrow \(private\)'\] is a list: expected development tasks"):
        dataclasses.replace(plan, development=())
    with pytest.raises(InputError, match="no task 'z'"):
        dataclasses.replace(plan, development=("z",))
