"""Libraries and their files with arguments of every wrong type: each works or is refused in one sentence."""

import inspect
import itertools
import os
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import wrong

from modjax.errors import InputError
from modjax.experts import mttl, peft, store
from modjax.experts.library import Library, concatenate
from modjax.experts.paged import PagedLibrary
from modjax.routing import load_router, uniform

SITES = {"attn.q": (4, 4)}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Texts are paths too: those of these tests lie in a folder of their own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def library(random_library):
    return random_library(SITES, layers=1, names=["a", "b", "c"])


@pytest.fixture
def folder(library, tmp_path):
    """Of a saved library, a router, and an expert of mttl."""
    library.save(tmp_path / "library")
    uniform(library).save(tmp_path / "router")
    factors = {f"model.layers.0.mlp.fc1.lora_{side}": torch.ones(4, 2).mT if side == "b" else torch.ones(4, 2)
               for side in "ab"}  # fmt: skip
    info = {"expert_name": "old", "expert_config": {"lora_alpha": 1.0}}
    torch.save({"expert_info": info, "expert_weights": factors}, tmp_path / "old.ckpt")
    return tmp_path


def one(library, name="d"):
    return Library.from_arrays({site: (lora.a[:, :1], lora.b[:, :1]) for site, lora in library.loras.items()}, [name])


@pytest.fixture
def calls(library, folder):
    """{name: (function, a function that gives good arguments)}"""
    number = itertools.count()

    def new():
        return folder / f"new {next(number)}"

    def saved():
        library.save(path := new())
        return path

    arrays = {site: (lora.a, lora.b) for site, lora in library.loras.items()}
    given = {"sites": arrays, "names": ["a", "b", "c"], "scale": 1.0, "tasks": [["a"], ["b"], ["c"]]}
    fields = {
        "base": "",
        "family": "llama",
        "fingerprint": "",
        "training": {},
        "scores": {},
        "ranks": {},
        "dtype": "float32",
    }
    return {
        "Library.__getitem__": (library.__getitem__, lambda: {"chosen": 0}),
        "Library.__add__": (library.__add__, lambda: {"other": one(library)}),
        "Library.expert_of": (library.expert_of, lambda: {"task": "a"}),
        "Library.experts_of": (library.experts_of, lambda: {"task": "a"}),
        "Library.save": (library.save, lambda: {"path": new()}),
        "Library.load": (Library.load, lambda: {"path": folder / "library"}),
        "PagedLibrary.open": (PagedLibrary.open, lambda: {"path": folder / "library"}),
        "PagedLibrary.__getitem__": (PagedLibrary.open(folder / "library").__getitem__, lambda: {"chosen": 0}),
        "Library.from_peft": (Library.from_peft, lambda: {"folders": folder / "library" / "a", "layers": 1}),
        "Library.from_mttl": (Library.from_mttl, lambda: {"paths": folder / "old.ckpt", "layers": 1}),
        "Library.of": (Library.of, lambda: {"adapters": list(library.adapters()), "layers": 1}),
        "Library.from_arrays": (Library.from_arrays, lambda: given | fields),
        "concatenate": (concatenate, lambda: {"libraries": [library]}),
        "store.save": (store.save, lambda: {"adapters": library.adapters(), "layers": 1, "path": new()}),
        "store.load": (store.load, lambda: {"path": folder / "library"}),
        "store.add": (store.add, lambda: {"path": saved(), "adapters": list(one(library).adapters()), "layers": 1}),
        "store.drop": (store.drop, lambda: {"path": saved(), "names": "a"}),
        "peft.read": (peft.read, lambda: {"folders": folder / "library" / "a"}),
        "mttl.read": (mttl.read, lambda: {"paths": folder / "old.ckpt"}),
        "Router.save": (uniform(library).save, lambda: {"path": new()}),
        "load_router": (load_router, lambda: {"path": folder / "router"}),
    }


NAMES = """
    Library.__getitem__ Library.__add__ Library.expert_of Library.experts_of Library.save Library.load Library.from_peft
    Library.from_mttl Library.of Library.from_arrays PagedLibrary.open PagedLibrary.__getitem__ concatenate
    store.save store.load store.add store.drop peft.read mttl.read Router.save load_router
"""


@pytest.mark.filterwarnings("ignore:Casting complex values to real:numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("name", NAMES.split())
def test_arguments_of_wrong_types(calls, name):
    assert not wrong.outcomes(*calls[name])


def test_every_public_function_is_tried(calls):
    # Those that take what another function of their module returns are not called from outside.
    inner = {"peft.open_adapter", "peft.adapter_of", "peft.write", "store.listed", "store.read", "store.widths"}
    found = {"PagedLibrary.open", "PagedLibrary.__getitem__"}
    found |= {f"Library.{name}" for name, value in vars(Library).items()
             if not name.startswith("_") and callable(getattr(Library, name)) and _has_arguments(value)}  # fmt: skip
    for module in (store, peft, mttl):
        own = inspect.getmembers(module, lambda value, module=module: inspect.getmodule(value) is module)
        found |= {f"{module.__name__.rpartition('.')[2]}.{name}" for name, value in own
                  if inspect.isfunction(value) and not name.startswith("_")}  # fmt: skip
    assert found - inner <= set(NAMES.split()) == set(calls)


def _has_arguments(value):
    function = value.__func__ if isinstance(value, staticmethod) else value
    return bool(set(inspect.signature(function).parameters) - {"self"})


CHOICES = [
    (np.array([True, False, True]), "ac"),
    ([True, False, True], "ac"),
    ((False, True, False), "b"),
    (jnp.array([False, False, True]), "c"),
    (np.array([2, 0]), "ca"),
    (jnp.array([1]), "b"),
    (np.int64(1), "b"),
    (np.array(2), "c"),
    (-1, "c"),
    (["c", 0], "ca"),
    (np.array(["b", "a"]), "ba"),
    (slice(None, None, -1), "cba"),
    (range(2), "ab"),
]


@pytest.mark.parametrize("chosen, names", CHOICES, ids=str)
def test_choices_of_experts(library, chosen, names):
    assert library[chosen].names == tuple(names)


REFUSED = [
    ([True, False], "a mask of 3, one truth value per expert"),
    (np.ones(4, bool), "a mask of 3"),
    ([False] * 3, "at least one expert"),
    (True, "a whole number, at least -3 and at most 2"),
    (1.0, "names or indices of experts"),
    ([1.0], "a whole number"),
    (np.array([0.0, 1.0, 1.0]), "a whole number"),
    (3, "a whole number, at least -3 and at most 2"),
    (-4, "a whole number, at least -3"),
    ([0, 3], "a whole number"),
    ([0, -3], "each at most once"),
    (["a", "a"], "each at most once"),
    ([], "at least one expert"),
    ("z", "no expert 'z'; the library has a, b, c"),
    (np.array([[0, 1]]), "a whole number"),
    (slice("a", "b"), "a slice of whole numbers"),
    (slice(0, 2, 0), "a slice of whole numbers"),
    ({"a"}, "names or indices of experts"),
    ([True, 1, False], "a whole number"),
]


@pytest.mark.parametrize("chosen, words", REFUSED, ids=str)
def test_choices_that_are_refused(library, chosen, words):
    with pytest.raises(InputError, match=words):
        library[chosen]


FACTOR = np.ones((1, 2, 2, 4))
ARRAYS = {
    "NaN": ({"attn.q": (FACTOR * np.nan, FACTOR)}, "site attn.q, a: holds values that are not finite in float32"),
    "beyond float32": ({"attn.q": (FACTOR, FACTOR * 1e300)}, "site attn.q, b: holds values that are not finite"),
    "three axes": ({"attn.q": (FACTOR[0], FACTOR)}, r"site attn.q: a \(2, 2, 4\)"),
    "no axes": ({"attn.q": (1.0, 2.0)}, r"site attn.q: a \(\)"),
    "no experts": ({"attn.q": (FACTOR[:, :0], FACTOR[:, :0])}, "expected at least one element along each axis"),
    "one factor": ({"attn.q": (FACTOR,)}, "expected a pair of arrays"),
    "ranks apart": ({"attn.q": (FACTOR, FACTOR[:, :, :1])}, r"L, E, R = \(1, 2, 1\)"),
    "text": ({"attn.q": ("ab", FACTOR)}, "site attn.q, a='ab': expected an array of real numbers"),
    "booleans": ({"attn.q": (FACTOR > 0, FACTOR)}, "expected an array of real numbers"),
    "complex numbers": ({"attn.q": (FACTOR, FACTOR * 1j)}, "expected an array of real numbers"),
    "rows of different lengths": ({"attn.q": ([[1], [1, 2]], FACTOR)}, "expected an array of numbers"),
    "no sites": ({}, "at least one site, as {site: a pair of arrays"),
    "a site without name": ({3: (FACTOR, FACTOR)}, "a site=3: expected a string"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_refused(kind):
    sites, words = ARRAYS[kind]
    with pytest.raises(InputError, match=words):
        Library.from_arrays(sites)


SETTINGS = {
    "one name as text": ({"names": "ab"}, "names='ab': expected a list of strings"),
    "three names": ({"names": ["a", "b", "c"]}, "expected 2 different names"),
    "a name twice": ({"names": ["a", "a"]}, "expected 2 different names"),
    "an empty name": ({"names": ["a", ""]}, "name='': expected a string of at least one character"),
    "scales": ({"scale": [1.0, 2.0, 3.0]}, "3 scales and 2 lists of tasks for 2 experts"),
    "an infinite scale": ({"scale": [1.0, np.inf]}, "scale=inf: expected a finite number"),
    "tasks as text": ({"tasks": ["a", "b"]}, "tasks='a': expected a list of strings"),
    "an unknown field": ({"famly": "phi"}, "famly: no such setting of ExpertInfo; did you mean 'family'?"),
    "an unknown family": ({"family": "phy"}, "family='phy': expected one of llama"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_are_refused(kind):
    settings, words = SETTINGS[kind]
    with pytest.raises(InputError, match=re.escape(words)):
        Library.from_arrays({"attn.q": (FACTOR, FACTOR)}, **settings)


def test_scales_of_any_kind():
    for scale in (2, np.float32(2), np.array(2.0), jnp.float32(2), [2, 2.0], np.array([2, 2]), jnp.array([2.0, 2.0])):
        assert Library.from_arrays({"attn.q": (FACTOR, FACTOR)}, scale=scale).scale.tolist() == [2.0, 2.0]


def saves(library, model):
    """{name: a function that saves to a path}"""
    return {"library": library.save, "model": model.save, "router": uniform(library).save}


@pytest.mark.parametrize("what", ["library", "model", "router"])
@pytest.mark.parametrize(
    "path, words",
    [
        (".", "is (the folder of this process|a folder)"),
        ("..", "is (the folder of this process|a folder)"),
        ("/", "is (the folder of this process|a folder)"),
        ("", "path='': expected a path"),
        ("file", "is no folder, but exists"),
        (os.devnull, "is (no folder, but exists|a device)"),
        ("file/below", "file/below: cannot be written"),
        ("full", "(holds no library.json|expected a new or an empty folder|is a folder)"),
        ("/proc/new", "/proc/new.*: cannot be written"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_paths_that_cannot_be_written(library, word_model, what, path, words):
    pathlib.Path("file").write_text("mine")
    pathlib.Path("full").mkdir()
    pathlib.Path("full/file").write_text("mine")
    save = saves(library, word_model)[what]
    if (what, path) == ("router", "file"):
        save(path)  # a router is a file, and replaces one
        return
    with pytest.raises(InputError, match=words):
        save(path)
    assert pathlib.Path("file").read_text() == pathlib.Path("full/file").read_text() == "mine"
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["file", "full"]


@pytest.mark.parametrize("what", ["library", "model", "router"])
def test_paths_of_any_kind(library, word_model, tmp_path, what):
    class Somewhere:
        def __fspath__(self):
            return str(tmp_path / "object")

    save = saves(library, word_model)[what]
    for path in (Somewhere(), "text", tmp_path / "path", "../here/./dots", tmp_path / "a b"):
        save(path)
        assert pathlib.Path(path).exists()


def test_a_library_behind_a_link_is_replaced_where_it_lies(library, tmp_path):
    library.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    library["a"].save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Library.load(tmp_path / "real").names == Library.load(tmp_path / "link").names == ("a",)


def test_paths_that_hold_no_library(folder):
    for path, words in {
        "nowhere": "nowhere/library.json: cannot be read",
        "router": "router/library.json: cannot be read",
        "library/a": "library/a: holds experts of peft, and no library.json; make a library of it: modjax convert",
    }.items():
        with pytest.raises(InputError, match=words):
            Library.load(folder / path)
    for path in ("nowhere", "library", "library/library.json"):
        with pytest.raises(InputError, match=f"{path}: is not a readable router file"):
            load_router(folder / path)
