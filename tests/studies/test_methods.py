"""Methods as dictionaries, and experiments from Python: no config, no flags."""

import shutil

import jax
import numpy as np
import pytest

from modjax import merge, routing
from modjax.errors import InputError
from modjax.eval import Sample
from modjax.experts.library import Library
from modjax.studies import Experiment, leaderboard, methods
from modjax.studies.libraries import Libraries
from modjax.studies.stages import Stages

SAMPLE = Sample(2, length=32)


@pytest.fixture
def experiment(model, library, tasks, tmp_path):
    return Experiment(model, tasks, {"library": library, "general": library[["c"]]}, SAMPLE, 3, workdir=tmp_path)


def test_parts_that_are_none_or_empty_are_left_out():
    given = {
        "router": {"name": "arrow", "top_k": None, "temperature": 0.5},
        "calibrate": None,
        "merge": {},
        "subtract": {"library": "", "form": "factors"},
        "note": "",
    }
    assert methods.normalised(given) == {"router": {"name": "arrow", "temperature": 0.5}}
    assert methods.normalised({"router": "seqr", "library": "", "adapt": {}}) == {
        "router": {"name": "seqr"},
        "library": "",
        "adapt": {},
    }


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"routr": "arrow"}, "lines.one: unknown part 'routr'; did you mean 'router'"),
        ({"router": 3}, "lines.one.router = 3; expected a name, or options with a name"),
        ({"calibrate": True}, "lines.one.calibrate = True; expected a text file, or a number"),
        ({"merge": {"density": 0.5}}, "lines.one.merge = .*; expected a name among its options"),
    ],
)
def test_faulty_parts_are_named(method, words):
    with pytest.raises(InputError, match=words):
        methods.normalised(method, "lines.one")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({}, ["library"]),
        ({"library": "mbc", "subtract": {"library": "general"}}, ["mbc", "general"]),
        ({"library": "", "subtract": {"library": "general"}}, []),
        ({"model": "full"}, []),
    ],
)
def test_libraries_of_a_method(method, expected):
    assert methods.libraries_of(method) == expected


def test_a_method_has_the_arrays_that_its_functions_give(experiment, library):
    line = {"subtract": {"library": "general"}, "router": {"name": "arrow", "top_k": 2}, "note": "both"}
    method = methods.make("less", line, experiment)
    expected = merge.genknowsub(library, library[["c"]])
    for one, other in zip(jax.tree.leaves(method.library.loras), jax.tree.leaves(expected.loras), strict=True):
        np.testing.assert_array_equal(one, other)
    router = routing.arrow(expected, top_k=2)
    np.testing.assert_array_equal(method.router.prototypes["attn.q"], router.prototypes["attn.q"])
    assert (method.name, method.note, method.router.top_k) == ("less", "both", 2)


def test_a_merged_method_needs_no_router_and_the_base_model_no_library(experiment, library):
    merged = methods.make("ties", {"merge": {"name": "ties", "density": 0.4}}, experiment)
    np.testing.assert_array_equal(merged.library.loras["attn.q"].b, merge.ties(library, density=0.4).loras["attn.q"].b)
    assert merged.router is None and methods.make("base", {"library": ""}, experiment).library is None


def test_parts_are_loaded_when_they_are_needed(model, library, tasks, tmp_path):
    loaded = []

    def loader(name, value):
        return lambda: loaded.append(name) or value

    library.save(tmp_path / "library")
    experiment = Experiment(loader("model", model), loader("tasks", tasks), {"library": tmp_path / "library"})
    methods.check({"merge": {"name": "uniform"}}, experiment)
    methods.make("one", {"merge": {"name": "uniform"}}, experiment)
    methods.make("two", {"router": {"name": "uniform"}}, experiment)
    assert loaded == []
    methods.make("three", {"router": {"name": "centroid", "examples": 1}}, experiment)
    assert sorted(loaded) == ["model", "tasks"]


def test_adaptation_without_a_folder_is_refused(model, library, tasks):
    options = {"method": "lora", "examples": 2, "validation": 1, "retrieve": "none"}
    experiment = Experiment(model, tasks, {"library": library}, SAMPLE, adapt=options)
    with pytest.raises(InputError, match="adaptation needs a folder"):
        methods.make("new", {"adapt": {}}, experiment)


def test_a_leaderboard_from_python(experiment, tasks):
    lines = {
        "base": {"library": ""},
        "oracle": {"router": "oracle"},
        "arrow": {"router": {"name": "arrow", "top_k": 2}},
    }
    found = leaderboard(experiment, lines, analyse=["arrow"])
    by_name = {one["name"]: one for one in found["methods"]}
    assert set(by_name) == set(lines) and by_name["oracle"]["held_out"] == {}
    assert by_name["arrow"]["in_distribution"]["examples"] == 2 * len(tasks.training)
    assert [one["name"] for one in found["analysis"]] == ["arrow"]
    assert leaderboard(experiment, lines, analyse=["arrow"])["methods"] == found["methods"]  # kept


def test_a_line_is_measured_again_if_its_library_changes(model, tasks, random_library, tmp_path, capsys):
    """The folder keeps its name; other lines are kept."""
    sites = {"attn.q": (16, 16)}
    random_library(sites, names=["a", "b", "c"]).save(tmp_path / "library")
    lines = {"base": {"library": ""}, "uniform": {"router": "uniform"}}

    def run(**given):
        capsys.readouterr()
        parts = {"libraries": {"library": tmp_path / "library"}, "sample": SAMPLE, "max_new_tokens": 3} | given
        leaderboard(Experiment(model, tasks, workdir=tmp_path / "board", **parts), lines)
        return [line.split()[1] for line in capsys.readouterr().out.splitlines()]

    assert run() == ["base", "uniform"] and run() == []
    shutil.rmtree(tmp_path / "library")
    random_library(sites, seed=5, names=["a", "b", "c"]).save(tmp_path / "library")
    assert run() == ["uniform"]
    assert run(libraries={"library": Library.load(tmp_path / "library")}) == ["uniform"]  # in memory
    assert run(sample=Sample(1, length=32)) == ["base", "uniform"]


def test_a_library_that_was_trained_again_in_place_is_read_again(model, tasks, random_library, tmp_path):
    sites, path = {"attn.q": (16, 16)}, tmp_path / "library"
    first, second = (random_library(sites, seed=seed, names=["a", "b", "c"]) for seed in (0, 1))
    first.save(path)
    experiment = Experiment(model, tasks, {"library": path})
    read, made_of = experiment.library("library"), methods.made_of({}, experiment)
    assert read.fingerprint == first.fingerprint and experiment.library("library") is read
    second.save(path)
    assert experiment.library("library").fingerprint == second.fingerprint
    assert methods.made_of({}, experiment) != made_of


def test_in_another_workdir_no_library_is_read_again(model, library, tasks, tmp_path):
    library.save(tmp_path / "library")
    experiment = Experiment(model, tasks, {"library": tmp_path / "library"}, workdir=tmp_path)
    read, other = experiment.library("library"), experiment.at(tmp_path / "other")
    assert other.workdir == tmp_path / "other" and experiment.workdir == tmp_path
    assert other.library("library") is read and other.made_of() == experiment.made_of()
    with pytest.raises(InputError, match="workdir"):
        experiment.at("")


@pytest.mark.parametrize("change", ["a line", "a router's file", "a router's code", "a text"])
def test_what_a_method_reads_is_part_of_what_it_is_made_of(experiment, library, monkeypatch, tmp_path, change):
    text, code, router = (tmp_path / name for name in ("neutral.txt", "my_router.py", "uniform.safetensors"))
    text.write_text("one")
    code.write_text("def mine(library): ...")
    routing.uniform(library).save(router)
    monkeypatch.syspath_prepend(tmp_path)
    lines = {
        "a line": {"router": {"name": "arrow", "top_k": 1}},
        "a router's file": {"router": {"name": str(router)}},
        "a router's code": {"router": {"name": "my_router:mine"}},
        "a text": {"router": {"name": "arrow"}, "calibrate": str(text)},
    }
    changes = {
        "a line": lambda: lines["a line"]["router"].update(top_k=2),
        "a router's file": lambda: routing.arrow(library).save(router),
        "a router's code": lambda: code.write_text("def mine(library): return None"),
        "a text": lambda: text.write_text("two"),
    }
    first = methods.made_of(lines[change], experiment)
    assert first == methods.made_of(lines[change], experiment)
    changes[change]()
    assert first != methods.made_of(lines[change], experiment)


def test_adaptation_is_tied_to_what_it_starts_from(model, library, tasks, random_library, tmp_path):
    options = {"method": "lora", "retrieve": "none", "examples": 2, "validation": 0}
    run = {"steps": 1, "batch": 1, "length": 32, "rank": 2, "seed": 0}

    def adapt(own=library, change={}, **more):  # noqa: B006
        experiment = Experiment(model, tasks, {"library": own}, SAMPLE, 3, run | more, options, tmp_path)
        return methods.library_of({"adapt": change}, experiment)

    first = adapt()
    assert adapt().fingerprint == first.fingerprint and first.names == ("d",)
    for words, given in {
        "options.examples = 2; found 3": {"change": {"examples": 3}},
        "train.steps = 1; found 2": {"steps": 2},
        "library = '": {"own": random_library({"attn.q": (16, 16)}, names=["a", "b", "c"])},
    }.items():
        with pytest.raises(InputError, match=f"adaptation.json: this folder was made with adaptation.{words}"):
            adapt(**given)


def test_trained_libraries_are_tied_to_what_they_are_made_of(model, tasks, random_library, tmp_path):
    private, settings = tmp_path / "private", {"steps": 1, "batch": 1, "length": 32, "rank": 2}
    random_library({"attn.q": (16, 16)}, names=["a", "b", "c"]).save(private)

    def libraries(**more):
        given = {"settings": settings, "cluster": {"clusters": 2}, "private_folder": private} | more
        return Libraries(model, tasks, Stages(tmp_path / "job"), **given)

    first = libraries().clusters()
    assert libraries().clusters() == first
    for words, given in {
        "train.rank = 2; found 3": {"settings": settings | {"rank": 3}},
        "cluster.clusters = 2; found 3": {"cluster": {"clusters": 3}},
        "rows.mbc = None; found 2": {"rows": {"mbc": 2}},
        "private = '.*'; found None": {"private_folder": None},
    }.items():
        with pytest.raises(InputError, match=f"libraries.json: this folder was made with libraries.{words}"):
            libraries(**given).path("mbc")
    random_library({"attn.q": (16, 16)}, names=["a", "b", "c"], seed=1).save(private)
    with pytest.raises(InputError, match="libraries.private = '.*'; found '.*', expected the same or a new folder"):
        libraries().clusters()


def test_a_leaderboard_without_a_folder_is_refused(model, tasks):
    with pytest.raises(InputError, match="expected an experiment with a workdir"):
        leaderboard(Experiment(model, tasks), {"base": {"library": ""}})
