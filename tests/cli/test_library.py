"""`modjax library`: a table of the experts, and a library and its router that change where they lie."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from modjax.experts.library import Library
from modjax.routing import arrow, load_router, pooled, uniform
from modjax.routing.centroid import Centroid

SITES = {"attn.q": (16, 16), "mlp.down": (24, 16)}


@pytest.fixture
def library(random_library):
    tasks = [["sums"], ["words", "letters"], [f"task {i}" for i in range(20)]]
    return random_library(SITES, names=["a", "b", "long one"], tasks=tasks, scale=[1.0, 0.25, 2.0])


@pytest.fixture
def other(random_library):
    return random_library(SITES, experts=2, seed=1, names=["c", "d"])


@pytest.fixture
def folder(library, other, tmp_path):
    """A folder of two libraries, `mine` and `other`, and routers for the first."""
    library.save(tmp_path / "mine")
    other.save(tmp_path / "other")
    for name, router in (("arrow", arrow(library, top_k=2)), ("uniform", uniform(library))):
        router.save(tmp_path / name)
    return tmp_path


@pytest.fixture
def run(modjax, folder):
    def call(*arguments):
        code, out, err = modjax("library", *(one.format(folder) for one in ("--path={}/mine", *arguments)))
        assert code == 0, err
        return out

    return call


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), got, expected)


def test_an_expert_whose_training_failed_is_marked(run, folder, library):
    infos = (library.infos[0], dataclasses.replace(library.infos[1], failed=12), library.infos[2])
    dataclasses.replace(library, infos=infos).save(folder / "mine")
    first, *lines = run().splitlines()
    assert first.split()[-2:] == ["size", "training"]
    assert lines[1].endswith("MB  failed at step 12") and lines[0].endswith("MB") and lines[2].endswith("MB")


def test_the_experts_are_listed(run):
    first, *lines = run().splitlines()
    assert first.split() == ["expert", "tasks", "rank", "alpha", "size"]
    assert [line.split()[0] for line in lines] == ["a", "b", "long"]
    assert "words, letters" in lines[1] and lines[1].split()[-4:-2] == ["2", "0.5"]
    assert "task 0, task 1" in lines[2] and "..." in lines[2]
    assert len({len(line) for line in (first, *lines)}) == 1 and all(line.endswith("MB") for line in lines)


@pytest.mark.parametrize(("source", "names"), [("other", ["c", "d"]), ("other/d", ["d"])])
def test_libraries_and_adapters_are_added(run, folder, library, other, source, names):
    out = run(f"--add={{}}/{source}")
    assert [line.split()[0] for line in out.splitlines()[-len(names) :]] == names
    found = Library.load(folder / "mine")
    same(found.loras, (library + other[names]).loras)
    assert found.names == (*library.names, *names)


def test_an_expert_is_replaced(run, folder):
    run("--drop=b", "--drop=a", "--add={}/other/d")
    assert Library.load(folder / "mine").names == ("long one", "d")


@pytest.mark.parametrize(("kind", "build"), [("arrow", lambda library: arrow(library, top_k=2)), ("uniform", uniform)])
def test_a_router_changes_with_its_library(run, folder, kind, build):
    run("--add={}/other", f"--router={{}}/{kind}")
    same(load_router(folder / kind), build(Library.load(folder / "mine")))
    run("--drop=c", "--drop=a", f"--router={{}}/{kind}")
    assert Library.load(folder / "mine").names == ("b", "long one", "d")
    same(load_router(folder / kind), build(Library.load(folder / "mine")))


@pytest.mark.parametrize("change", ["--add={}/other", "--drop=b"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_killed_command_is_run_again(run, modjax, folder, monkeypatch, change, at):
    """Killed before the library's index, or the router, is put in its place."""
    places, replace, left = [folder / "mine" / "library.json", folder / "arrow"], os.replace, at

    def mortal(source, target):
        nonlocal left
        if os.fspath(target) in map(os.fspath, places):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", mortal)
        modjax("library", f"--path={folder}/mine", change.format(folder), f"--router={folder}/arrow")
    run(change, "--router={}/arrow")
    found = Library.load(folder / "mine")
    assert len(found) == (5 if "add" in change else 2)
    same(load_router(folder / "arrow"), arrow(found, top_k=2))


REFUSED = [
    (["--router={}/arrow"], "--router={}/arrow is changed with the library; expected --add or --drop too"),
    (["--drop=z"], "no expert 'z'; the library has a, b, long one"),
    (["--drop=a", "--drop=b", "--drop=long one"], "no expert would be left"),
    (["--add={}/mine/a"], "already has an expert 'a'; drop it first"),
    (["--add={}/nowhere"], "nowhere/adapter_config.json: cannot be read"),
    (["--add={}/other", "--router={}/stale"], "stale: the router is for 2 experts; the library has 3"),
    (["--drop=a", "--router={}/stale"], "stale: the Arrow router cannot be rebuilt"),
    (["--add={}/other", "--router={}/calibrated"], "calibrated: the Pooled router cannot be rebuilt"),
    (["--add={}/other", "--router={}/centroid"], "centroid: the Centroid router cannot be rebuilt"),
    (["--add={}/other", "--router={}/mine"], "mine: is not a readable router file"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_bad_input_is_refused(modjax, folder, library, arguments, words):
    arrow(library[["a", "long one"]], top_k=2).save(folder / "stale")
    whole = pooled(library)
    dataclasses.replace(whole, mean=jax.tree.map(lambda mean: mean + 1, whole.mean)).save(folder / "calibrated")
    Centroid({site: lora.a[:, :, 0] for site, lora in library.loras.items()}).save(folder / "centroid")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    code, _, err = modjax("library", f"--path={folder}/mine", *(one.format(folder) for one in arguments))
    assert code == 2, err
    message = err[err.index("modjax: ") :].strip()
    assert "\n" not in message and words.format(folder) in message
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_there_is_no_library(modjax, tmp_path):
    code, _, err = modjax("library")
    assert code == 2 and "--path is missing; example: modjax library --path=" in err
    code, _, err = modjax("library", f"--path={tmp_path}")
    assert code == 2 and "library.json: cannot be read" in err


def test_names_of_any_text(modjax, random_library, tmp_path):
    names = ["a,b", "two\nlines\ttab", "猫 🙂", "..", "-x", "x" * 300, "library.json"]
    random_library({"attn.q": (4, 4)}, experts=len(names), layers=1, names=names).save(tmp_path / "library")
    code, out, err = modjax("library", f"--path={tmp_path / 'library'}", "--drop=a,b", "--drop=..", "--drop=-x")
    assert code == 0, err
    shown = ["two\\nlines\\ttab", "猫 🙂", "x" * 300, "library.json"]
    assert [line[:300].strip() for line in out.splitlines()[1:]] == shown
    assert Library.load(tmp_path / "library").names == ("two\nlines\ttab", "猫 🙂", "x" * 300, "library.json")
    only = [f"--only={name}" for name in ("library.json", "two\nlines\ttab")]
    code, _, err = modjax("convert", f"--from={tmp_path / 'library'}", f"--to={tmp_path / 'out'}", *only)
    assert code == 0, err
    assert Library.load(tmp_path / "out").names == ("library.json", "two\nlines\ttab")


def test_adapters_to_some_layers_are_added(run, folder, random_library):
    random_library({"attn.q": (16, 16)}, experts=1, layers=1, names=["first"]).save(folder / "part")
    run("--add={}/part/first")
    assert Library.load(folder / "mine").names[-1] == "first"
    assert Library.load(folder / "mine").layers == 2


def test_a_library_of_fewer_layers_is_refused(modjax, folder, random_library):
    random_library({"attn.q": (16, 16)}, experts=1, layers=1, names=["first"]).save(folder / "part")
    code, _, err = modjax("library", f"--path={folder / 'mine'}", f"--add={folder / 'part'}")
    words = "are for 1 layers; expected 2, as in library.json; read adapters to some layers with layers=2, or modjax"
    assert code == 2 and words in err
