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


def test_a_leaderboard_without_a_folder_is_refused(model, tasks):
    with pytest.raises(InputError, match="expected an experiment with a workdir"):
        leaderboard(Experiment(model, tasks), {"base": {"library": ""}})
