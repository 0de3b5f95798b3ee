"""Adding experts to a saved library and dropping them, in place."""

import contextlib
import dataclasses
import os
import shutil

import jax
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts import store
from modjax.experts.library import Library

SITES = {"attn.q": (16, 12), "attn.o": (12, 16)}


@pytest.fixture
def library(random_library):
    return random_library(SITES, names=["z: last?", "a", "b"], scale=[1 / 3, 0.1, 2.0], fingerprint="0" * 16)


@pytest.fixture
def other(random_library):
    """Experts of another rank, on one site only, and with names that would give the same folder."""
    both = random_library({"attn.q": (16, 12)}, experts=2, rank=3, seed=1, names=["A", "z: last!"], scale=4.0)
    return dataclasses.replace(both, infos=tuple(dataclasses.replace(one, base="tiny") for one in both.infos))


@pytest.fixture
def saved(library, tmp_path):
    library.save(tmp_path / "library")
    return tmp_path / "library"


def equal(left, right):
    assert left.names == right.names and left.tasks == right.tasks
    jax.tree.map(np.testing.assert_array_equal, (left.loras, left.scale), (right.loras, right.scale))


def add(path, library):
    store.add(path, list(library.adapters()), library.layers)


def files(folder, kept=lambda name: True):
    """{path: (bytes, time of writing)} of the adapters in a library."""
    found = (path for path in folder.glob("*/*") if kept(path.parent.name))
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_added_experts_stand_behind_the_others(saved, library, other):
    add(saved, other)
    equal(Library.load(saved), library + other)
    assert sorted(path.name for path in saved.iterdir()) == ["A-2", "a", "b", "library.json", "z__last_", "z__last_-2"]


def test_adding_and_dropping_leave_the_others_files_alone(saved, library, other):
    before = files(saved)
    add(saved, other)
    assert before.items() <= files(saved).items()
    before = files(saved, lambda name: name not in ("a", "A-2"))
    store.drop(saved, ["a", "A"])
    assert files(saved) == before
    equal(Library.load(saved), (library + other)[["z: last?", "b", "z: last!"]])


def test_what_is_known_of_the_others_stays(saved, library, other):
    add(saved, other)
    store.drop(saved, "b")
    saved_infos = Library.load(saved).infos
    assert saved_infos[:2] == library.infos[:2]
    assert [(info.rank, info.alpha, info.base) for info in saved_infos[2:]] == [(3, 12.0, "tiny")] * 2


def test_dropped_and_added_again(saved, library):
    store.drop(saved, "a")
    add(saved, library["a"])
    equal(Library.load(saved), library[["z: last?", "b", "a"]])


def test_an_adapter_of_someone_elses_in_the_folder_stays(saved, library, other):
    shutil.copytree(saved / "b", saved / "mine")
    (renamed,) = other["A"].infos
    add(saved, dataclasses.replace(other["A"], infos=(dataclasses.replace(renamed, name="mine"),)))
    assert files(saved, lambda name: name == "mine").keys() == {
        path.with_name(path.name) for path in (saved / "mine").iterdir()
    }
    assert Library.load(saved).names == (*library.names, "mine")
    assert (saved / "mine" / store.WEIGHTS).read_bytes() == (saved / "b" / store.WEIGHTS).read_bytes()


@pytest.mark.parametrize("call", ["add", "drop"])
@pytest.mark.parametrize("at", range(5))
def test_killed_anywhere_it_loses_nothing(saved, library, other, monkeypatch, call, at):
    """After a crash at any point the folder holds the library from before or after, and the same call completes it."""
    after = library + other if call == "add" else library[["z: last?", "b"]]
    run = (lambda: add(saved, other)) if call == "add" else (lambda: store.drop(saved, "a"))
    left = at

    def mortal(change):
        def act(*arguments, **settings):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return change(*arguments, **settings)

        return act

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (shutil, "rmtree")):
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        with contextlib.suppress(KeyboardInterrupt):
            run()
    found = Library.load(saved)
    equal(found, after if len(found) == len(after) else library)
    if len(found) == len(library):
        run()
    equal(Library.load(saved), after)
    assert not (saved / ".writing").exists()


REFUSED = {
    "name": ({"names": ["c", "a"]}, "library.json: already has an expert 'a'; drop it first"),
    "base": (
        {"fingerprint": "1" * 16},
        f"expert 'c' is for the base model with fingerprint {'1' * 16}; expected that of .*, 0000",
    ),
    "input": ({"sites": {"attn.q": (20, 12)}}, r"site attn.q: .* \(input, output\) = \(20, 12\); expected \(16, 12\)"),
    "output": ({"sites": {"attn.q": (16, 16)}}, r"\(16, 16\); expected \(16, 12\)"),
    "layers": ({"layers": 3}, "the experts to add are for 3 layers; expected 2, as in library.json"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_experts_that_do_not_fit_are_named_and_change_nothing(saved, random_library, kind):
    settings, words = REFUSED[kind]
    before = files(saved) | {"index": (saved / "library.json").read_bytes()}
    with pytest.raises(InputError, match=words):
        add(saved, random_library(**({"sites": SITES, "experts": 2, "names": ["c", "d"]} | settings)))
    assert files(saved) | {"index": (saved / "library.json").read_bytes()} == before


@pytest.mark.parametrize(
    ("names", "words"),
    [(["a", "y"], "no expert 'y'; the library has z: last"), (["b", "a", "z: last?"], "no expert would")],
)
def test_what_cannot_be_dropped_is_named_and_changes_nothing(saved, names, words):
    before = files(saved)
    with pytest.raises(InputError, match=words):
        store.drop(saved, names)
    assert files(saved) == before


def test_there_is_no_library(tmp_path, library):
    with pytest.raises(InputError, match="library.json: cannot be read"):
        add(tmp_path, library)
    with pytest.raises(InputError, match="library.json: cannot be read"):
        store.drop(tmp_path, "a")
