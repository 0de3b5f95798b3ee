"""Every public function with arguments of every wrong type: each works or is refused in one sentence.

Wrong values are refused before anything is compiled, so where the costly parts of training, generation, evaluation and
search begin, the arguments count as accepted. Libraries and their files have a test of their own in tests/experts.
"""

import dataclasses
import functools
import importlib
import inspect
import itertools

import numpy as np
import pytest
import wrong
from tiny import library, model, tasks  # noqa: F401, fixtures

import modjax
from modjax import adapt, cluster, data, merge, report, routing, studies
from modjax import eval as evaluation
from modjax.adapt.lorahub import LoraHubSettings
from modjax.data import sources
from modjax.data.columns import Columns
from modjax.data.sources import dataset
from modjax.data.statistics import statistics
from modjax.errors import InputError
from modjax.eval import execution, intervals
from modjax.eval.benchmarks.result import Result, mean, resample
from modjax.eval.harness import Harness
from modjax.eval.score import Score
from modjax.files import write_json
from modjax.generation import Request
from modjax.parallel.mesh import make_mesh
from modjax.routing.prototypes import prototypes_of
from modjax.studies.transfer import choose_pairs
from modjax.train.full import train_full
from modjax.train.poly import train_poly
from modjax.train.settings import Settings

PROTOTYPES = {
    name: one.default for name, one in inspect.signature(prototypes_of).parameters.items() if name != "library"
}
COSTLY = """
    train.inputs:Inputs.placed train.poly:init_skills train.lora:init_factors adapt.lorahub:search generation:_answered
    eval.evaluation:losses_and_answers eval.analysis:_sums eval.cost:one_each eval.benchmarks.scoring:_scored
    eval.benchmarks.records:_from_hub eval.execution:_run
    studies.leaderboard:evaluate studies.libraries:train_library studies.transfer:_joint
    studies.trial:evaluate studies.plan:outcome studies.search:candidates data.sources.dataset:_loaded
"""


@pytest.fixture(autouse=True)
def cheap(monkeypatch, tmp_path):
    for place in COSTLY.split():
        module, _, name = place.partition(":")
        *owners, last = name.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(f"modjax.{module}"))
        monkeypatch.setattr(owner, last, wrong.accepted)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def calls(model, library, tasks, tmp_path):  # noqa: F811
    """{name: (function, a function that gives good arguments)}"""
    number = itertools.count()

    def new():
        return tmp_path / f"new {next(number)}"

    one, two, few = library["a"], library[["a", "b"]], tasks.select(["a", "b"])
    sources.write(few, tmp_path / "tasks")
    model.save(tmp_path / "model")
    experts, learning = {"library": library}, {"model": model, "tasks": few}
    learned = {"library": library, "model": model, "tasks": tasks.training, "system": None, "batch": 2}
    validated = data.Tasks(
        dataclasses.replace(
            task, examples=(*task, *(dataclasses.replace(one, split="validation") for one in task.split("test")))
        )
        for task in few.values()
    )
    settings = dataclasses.asdict(Settings(steps=1, length=32, batch=1, sites=library.sites))
    training = {"progress": False, "workdir": None, **settings}
    hub = {"progress": False, "workdir": None, **dataclasses.asdict(LoraHubSettings(budget=1, length=32))}
    clusters, sample = cluster.mbc(library, clusters=2, restarts=1), evaluation.Sample(examples=1, length=32)
    library.save(tmp_path / "library")
    paged = modjax.PagedLibrary.open(tmp_path / "library")
    write_json(tmp_path / "clusters.json", clusters.as_json(library))
    score = Score({name: np.ones(3) for name in ("loss", "exact_match", "rouge_l")}, np.ones(3, int))
    method = evaluation.Method("arrow", library, routing.arrow(library))
    result = Result("piqa", 1, "acc", {"acc": np.ones(3)}, ("",) * 3, [[0.0]] * 3)
    limits = dataclasses.asdict(evaluation.Limits())
    asking = {field.name: field.default for field in dataclasses.fields(evaluation.BenchmarkSettings)} | {"examples": 1}
    (tmp_path / "piqa.jsonl").write_text('{"goal": "red", "sol1": "yes", "sol2": "no", "label": 0}\n')
    request = dataclasses.asdict(Request(max_new_tokens=2))
    prompts = {"prompts": ["what is red"], **experts, "router": routing.uniform(library), **request}
    study, alike = {"sample": sample, "seed": 0}, settings | {"rank": library.rank, "alpha": library.infos[0].alpha}
    (tmp_path / "table.csv").write_text("q,a\nx,y\n")
    table = {"files": str(tmp_path / "table.csv"), "columns": {"source": "q"}, "where": {"q": ["x"]}}
    planned = learning | {"lines": {"base": {"library": ""}}, "settings": {"steps": 1}, "cluster": {}, "sample": sample}
    poly = {"heads": 1, "weights_rate": 1.0}

    def experiment():
        return studies.Experiment(model, tasks, experts, sample, 2, workdir=new())

    def of(seed, folder):
        return {"methods": []}

    return {
        "load": (modjax.load, lambda: {"name": tmp_path / "model"}),
        "Model.logits": (model.logits, lambda: {"tokens_BT": [[1, 2]], **experts, "router": prompts["router"]}),
        "Model.generate": (model.generate, lambda: prompts),
        "Model.stream": (model.stream, lambda: prompts),
        "Model.bind": (model.bind, lambda: experts | {"router": prompts["router"]}),
        "Model.check": (model.check, lambda: experts),
        "Model.fold": (model.fold, lambda: {"library": one}),
        "Model.save": (model.save, lambda: {"path": new()}),
        "train_library": (modjax.train_library, lambda: learning | training),
        "train_full": (train_full, lambda: learning | training),
        "train_poly": (train_poly, lambda: learning | training | {"skills": 2, **poly}),
        "Settings": (Settings, lambda: settings),
        "Request": (Request, lambda: request),
        "evaluate": (
            modjax.evaluate,
            lambda: learning | {"sample": sample, "max_new_tokens": 2, "progress": False},
        ),
        "eval.analyse": (evaluation.analyse, lambda: learning | {"method": method, "sample": sample}),
        "eval.measure": (evaluation.measure, lambda: learning | {"method": method, "sample": sample}),
        "eval.compare": (
            evaluation.compare,
            lambda: {"scores": {"x": {"a": score}, "y": {"a": score}}, "tasks": ["a"], "resamples": 2},
        ),
        "eval.summary": (evaluation.summary, lambda: {"scores": {"a": score}, "tasks": ["a"]}),
        "eval.Method": (evaluation.Method, lambda: {"name": "x", **experts, "router": prompts["router"]}),
        "eval.Sample": (evaluation.Sample, dict),
        "eval.benchmark": (
            evaluation.benchmark,
            lambda: (
                {"model": model, "name": "piqa", "path": tmp_path / "piqa.jsonl", **experts}
                | {"router": prompts["router"], "progress": False, **asking}
            ),
        ),
        "eval.BenchmarkSettings": (evaluation.BenchmarkSettings, lambda: asking),
        "eval.Limits": (evaluation.Limits, lambda: limits),
        "execution.run": (execution.run, lambda: {"programs": ["x = 1"], "workers": 1}),
        "benchmarks.mean": (mean, lambda: {"results": {"piqa": result}}),
        "benchmarks.resample": (resample, lambda: {"results": [{"piqa": result}], "resamples": 2}),
        "Harness": (Harness, lambda: experts | {"model": model, "router": prompts["router"], "progress": False}),
        "intervals.draws": (intervals.draws, lambda: {"task": "a", "n_examples": 3, "resamples": 2}),
        "intervals.resample": (intervals.resample, lambda: {"scores": [{"a": score}], "tasks": ["a"], "resamples": 2}),
        "data.load": (data.load, lambda: {"name_or_path": tmp_path / "tasks"}),
        "data.write": (sources.write, lambda: {"tasks": few, "path": new()}),
        "data.fetch": (sources.fetch, lambda: {"source": "owner/name"}),
        "data.statistics": (
            statistics,
            lambda: {"tokenizer": model.tokenizer, "task": few["a"], "split": "train", "length": 32, "system": None},
        ),
        "dataset.Settings": (dataset.Settings, lambda: table),
        "dataset.Columns": (Columns, lambda: {"source": "q", "target": "a"}),
        "data.Example": (data.Example, lambda: {"source": "x", "target": "y", "split": "test"}),
        "data.Task": (data.Task, lambda: {"name": "x", "examples": few["a"].examples}),
        "data.Tasks": (data.Tasks, lambda: {"tasks": list(few.values())}),
        "Tasks.select": (few.select, lambda: {"names": ["a"]}),
        "routing.arrow": (
            routing.arrow,
            lambda: experts | PROTOTYPES,
        ),
        "routing.spectr": (routing.spectr, lambda: experts),
        "routing.uniform": (routing.uniform, lambda: experts),
        "routing.oracle": (routing.oracle, lambda: experts),
        "routing.centroid": (routing.centroid, lambda: learned | {"examples": 1}),
        "routing.task_predictor": (routing.task_predictor, lambda: learned | {"examples": 1}),
        "routing.task_representations": (
            routing.task_representations,
            lambda: learned | {"examples": 1, "split": "train"},
        ),
        "routing.confident": (routing.confident, lambda: learned | {"tasks": validated, "examples": 1}),
        "routing.phatgoose": (routing.phatgoose, lambda: experts | {"model": model, "tasks": tasks} | training),
        "routing.lag": (routing.lag, lambda: experts),
        "routing.logo": (routing.logo, lambda: experts),
        "routing.pooled": (routing.pooled, lambda: experts),
        "routing.seqr": (routing.seqr, lambda: experts),
        "routing.calibrate": (
            routing.calibrate,
            lambda: {"router": routing.seqr(library), "model": model, "prompts": ["what is red"]},
        ),
        "routing.two_stage": (routing.two_stage, lambda: {"library": paged}),
        "routing.check": (routing.check, lambda: {"router": prompts["router"], **experts}),
        "routing.extended": (routing.extended, lambda: {"router": routing.spectr(one), "other": routing.spectr(two)}),
        "routing.restricted": (routing.restricted, lambda: {"router": routing.spectr(library), "ids": [0]}),
        "cluster.mbc": (cluster.mbc, lambda: experts | {"clusters": 2, "restarts": 1}),
        "cluster.random": (cluster.random, lambda: {"like": clusters}),
        "cluster.embedding": (
            cluster.embedding,
            lambda: experts | {"vectors": {name: np.eye(3)[i] for i, name in enumerate("abc")}, "clusters": 2},
        ),
        "cluster.nearest": (cluster.nearest, lambda: {"clusters": clusters, **experts, "new": one}),
        "cluster.similarity": (cluster.similarity, lambda: experts),
        "cluster.cross_similarity": (cluster.cross_similarity, lambda: experts | {"new": one}),
        "cluster.sweep": (cluster.sweep, lambda: experts | {"clusters": [1, 2], "restarts": 1}),
        "cluster.dendrogram": (cluster.dendrogram, lambda: {"similarity_EE": clusters.similarity}),
        "cluster.silhouette": (cluster.silhouette, lambda: {"clusters": clusters}),
        "cluster.adjusted_rand": (cluster.adjusted_rand, lambda: {"first": clusters, "second": ["x", "y", "x"]}),
        "Clusters.load": (cluster.Clusters.load, lambda: {"path": tmp_path / "clusters.json"}),
        "Clusters.groups": (clusters.groups, lambda: experts),
        "Clusters.as_json": (clusters.as_json, lambda: experts),
        "merge.uniform": (merge.uniform, lambda: experts),
        "merge.weighted": (merge.weighted, lambda: experts | {"weights": [1, 2, 3]}),
        "merge.concatenate": (merge.concatenate, lambda: experts),
        "merge.svd": (merge.svd, lambda: experts),
        "merge.ties": (merge.ties, lambda: experts),
        "merge.dare": (merge.dare, lambda: experts),
        "merge.magnitude_prune": (merge.magnitude_prune, lambda: experts),
        "merge.genknowsub": (merge.genknowsub, lambda: experts | {"general": one}),
        "merge.fold": (merge.fold, lambda: {"decoder": model.params, "library": one}),
        "adapt.few": (adapt.few, lambda: {"tasks": few}),
        "adapt.lora": (adapt.lora, lambda: learning | training | {"init": None}),
        "adapt.mu": (adapt.mu, lambda: learning | training | experts),
        "adapt.poly": (adapt.poly, lambda: learning | training | experts | poly),
        "adapt.cat": (adapt.cat, lambda: learning | training | experts),
        "adapt.lorahub": (adapt.lorahub, lambda: learning | hub | experts),
        "adapt.retrieve": (adapt.retrieve, lambda: experts | {"tasks": few, "n": 1, "own": two}),
        "adapt.nearness": (adapt.nearness, lambda: experts | {"expert": one}),
        "studies.Experiment": (studies.Experiment, lambda: {"model": model, "tasks": tasks}),
        "studies.benchmarks": (
            studies.benchmarks,
            lambda: (
                {"experiment": experiment(), "method": {"library": ""}, "data": tmp_path, "names": ["piqa"]}
                | {"progress": False, **asking}
            ),
        ),
        "studies.leaderboard": (
            studies.leaderboard,
            lambda: {"experiment": experiment(), "lines": {"x": {"router": "uniform"}}},
        ),
        "studies.transfer": (
            studies.transfer,
            lambda: learning | experts | study | {"folder": new(), "settings": alike, "pairs": 3, "bins": 2},
        ),
        "studies.plan": (
            studies.plan,
            lambda: (
                {"model": str(tmp_path / "model"), "experts": 2, "topology": "cpu", "slices": 1, "mesh": {"expert": 8}}
                | {"targets": 4, "quantize": None}
                | settings
            ),
        ),
        "studies.search": (
            studies.search,
            lambda: (
                {"model": str(tmp_path / "model"), "experts": 2, "topology": "h100:8", "slices": 1, "targets": 4}
                | {"quantize": None, "compiled": 2, "workdir": None}
                | settings
            ),
        ),
        "studies.demo": (
            studies.demo,
            lambda: (
                learning
                | {"folder": new(), "settings": settings, "sample": sample, "cluster": {"clusters": 2}, "rows": {}}
            ),
        ),
        "studies.Study": (studies.Study, lambda: planned),
        "studies.study": (studies.study, lambda: {"folder": new(), "plan": studies.Study(**planned)}),
        "studies.seeds": (studies.seeds, lambda: {"study": of, "folder": new()}),
        "transfer.choose_pairs": (
            choose_pairs,
            lambda: {"similarity_EE": clusters.similarity, "count": 3},
        ),
        "report.write": (report.write, lambda: {"results": {"title": "x"}, "path": new()}),
        "report.text_table": (report.text_table, lambda: {"results": {"title": "x"}}),
        "make_mesh": (make_mesh, dict),
    }


# Functions and tokenizers of anyone: they are called as they are, and their errors are their own.
LEFT_OUT = {"data.statistics": ["tokenizer"], "studies.seeds": ["study"], "studies.leaderboard": ["load_model"]}

NAMES = """
    load Model.logits Model.generate Model.stream Model.bind Model.check Model.fold Model.save
    train_library train_full train_poly Settings Request
    evaluate eval.analyse eval.measure eval.compare eval.summary eval.Method eval.Sample Harness
    eval.benchmark eval.BenchmarkSettings eval.Limits execution.run benchmarks.mean benchmarks.resample
    intervals.draws intervals.resample
    data.load data.write data.fetch data.statistics dataset.Settings dataset.Columns
    data.Example data.Task data.Tasks Tasks.select
    routing.arrow routing.spectr routing.uniform routing.oracle routing.centroid routing.task_predictor
    routing.task_representations routing.confident routing.phatgoose routing.lag routing.logo routing.pooled
    routing.seqr routing.two_stage routing.calibrate routing.check routing.extended routing.restricted
    cluster.mbc cluster.random cluster.embedding cluster.nearest cluster.similarity cluster.cross_similarity
    cluster.sweep cluster.dendrogram cluster.silhouette cluster.adjusted_rand
    Clusters.load Clusters.groups Clusters.as_json
    merge.uniform merge.weighted merge.concatenate merge.svd merge.ties merge.dare merge.magnitude_prune
    merge.genknowsub merge.fold
    adapt.few adapt.lora adapt.mu adapt.poly adapt.cat adapt.lorahub adapt.retrieve adapt.nearness
    studies.Experiment studies.benchmarks studies.leaderboard studies.plan studies.search studies.transfer studies.demo
    studies.seeds studies.Study studies.study transfer.choose_pairs
    report.write report.text_table make_mesh
"""


@pytest.mark.filterwarnings("ignore:Casting complex values to real:numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("name", NAMES.split())
def test_arguments_of_wrong_types(calls, name):
    assert not wrong.outcomes(*calls[name], LEFT_OUT.get(name, ()))


# Not called from outside with values of their own: results of functions, router classes (made by their builders and
# `load_router`, which tests/experts tries), and parts of routers for the code inside jit.
INNER = """
    Analysis BENCHMARKS Comparison Cost Metric Result Score Nearest Sweep Form SPLITS Bound Context PromptRouter
    PromptRows Router Settled hook named per_site static routed settle top_k_softmax load_router Clusters Libraries
"""


def test_every_public_function_is_tried():
    tried = {name.rpartition(".")[2] for name in NAMES.split()}
    for module in (adapt, cluster, data, evaluation, merge, report, routing, studies):
        found = {name for name in module.__all__ if not _is_router(getattr(module, name))}
        assert found - set(INNER.split()) <= tried, module.__name__


def _is_router(value):
    return inspect.isclass(value) and issubclass(value, routing.Router)


UNKNOWN = [
    "train_library",
    "train_full",
    "train_poly",
    "Model.generate",
    "Model.stream",
    "routing.arrow",
    "adapt.lorahub",
    "eval.benchmark",
    "studies.benchmarks",
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_settings_are_named(calls, name):
    function, good = calls[name]
    with pytest.raises(InputError, match="sedd: no such setting of .*; did you mean 'seed'"):
        function(**good(), sedd=1)
