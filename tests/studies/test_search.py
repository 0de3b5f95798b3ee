"""The search for the cheapest plan: what is tried, in which order, and what is kept of it."""

import importlib
import json

import pytest

from modjax.errors import InputError
from modjax.models import local
from modjax.parallel import aot
from modjax.studies.plan import asked
from modjax.studies.search import candidates, search

searches = importlib.import_module("modjax.studies.search")  # in the package, the name is that of the function
SETTINGS = {"batch": 4, "length": 32, "rank": 2, "steps": 9, "sites": ("attn.q", "mlp.down"), "loss_chunk": 8}
GIB = 2**30


@pytest.fixture
def folder(tiny_json, tmp_path):
    """A folder with the config.json of a tiny model, and nothing else."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(tiny_json("llama")))
    return str(tmp_path / "model")


@pytest.fixture
def found(folder, monkeypatch):
    """found(room, ...): the candidates of eight experts on eight GPUs with so many bytes each."""

    def make(room=GIB, experts=8, slices=1, **settings):
        _, job, target = asked(folder, experts, "h100:8", 1, None, None, None, SETTINGS | settings)
        return candidates(job, target._replace(chip=target.chip._replace(memory=room)), slices)

    return make


def test_all_meshes_that_split_the_base_evenly(found, folder):
    config = local.config(folder)
    sizes = [tuple(one.job.mesh.shape.values()) for one in found()]
    assert set(sizes) == {(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2)}
    assert (config.K, config.F % 4) == (2, 0)
    assert sizes[0] == (8, 1, 1)  # without exchange, in no other order
    assert {one.job.mesh.shape["expert"] for one in found(slices=4)} == {4, 8}
    hours = [one.chip_hours for one in found()]
    assert hours == sorted(hours)


def test_as_much_at_a_time_as_fits(found):
    """All rows if they fit; then fewer, of which a power of two; then fewer experts."""
    assert found()[0].job.settings.micro == 4

    def kept(*room):
        """The job of eight parts of experts whose blocks are not recomputed."""
        jobs = (one.job for one in found(*room, experts=800) if not one.job.settings.remat)
        return next(job for job in jobs if job.mesh.shape["expert"] == 8)

    free = kept()
    assert (free.settings.micro, free.slots) == (400, 800)
    held = sum(searches.argument_bytes(free).values()) + searches.estimate.gradients(free)
    row = searches.estimate.row_bytes(free)
    tight = kept(held + 3 * row)
    assert (tight.settings.micro, tight.slots) == (2, 800)
    waves = kept(held)
    assert (waves.slots, waves.waves) == (400, 2) and waves.settings.micro > 0
    assert found(1000) == []


def test_what_is_given_stays(found):
    assert {one.job.settings.micro for one in found(micro=3)} == {3}
    assert {one.job.slots for one in found(slots=2)} == {2}
    assert {one.job.settings.remat for one in found(remat=True)} == {True}
    assert {one.job.settings.remat for one in found()} == {True, False}


@pytest.fixture
def outcomes(monkeypatch):
    """The names of the candidates that are compiled; the third one is the cheapest, and the first does not fit."""
    done = []

    def outcome(job, target):
        number = len(done)
        done.append(dict(job.mesh.shape))
        return {"fits": number > 0, "chip_hours": (1.0, 5.0, 3.0, 4.0)[number], "reason": None, "number": number}

    monkeypatch.setattr(searches, "outcome", outcome)
    return done


def test_the_best_of_those_that_are_compiled(outcomes, folder):
    plan = search(folder, 8, "h100:8", compiled=4, **SETTINGS)
    assert (plan["number"], plan["chip_hours"], plan["topology"]) == (2, 3.0, "h100:8")
    table = plan["candidates"]
    assert [one.get("chip_hours") for one in table[:5]] == [1.0, 5.0, 3.0, 4.0, None]
    assert [one["mesh"] for one in table[:4]] == outcomes and table[0]["fits"] is False
    assert set(table[4]) == {"mesh", "slots", "micro", "remat", "least_chip_hours"}


def test_an_interrupted_search_goes_on(outcomes, folder, tmp_path, monkeypatch):
    own = tmp_path / "search"
    asked = searches.outcome

    def stopped(job, target):
        if len(outcomes) == 2:
            raise KeyboardInterrupt
        return asked(job, target)

    monkeypatch.setattr(searches, "outcome", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(folder, 8, "h100:8", compiled=3, workdir=own, **SETTINGS)
    monkeypatch.setattr(searches, "outcome", asked)
    plan = search(folder, 8, "h100:8", compiled=3, workdir=own, **SETTINGS)
    assert len(outcomes) == 3 and plan["number"] == 2
    assert search(folder, 8, "h100:8", compiled=3, workdir=own, **SETTINGS) == plan and len(outcomes) == 3
    with pytest.raises(InputError, match="steps = 9; found 8"):
        search(folder, 8, "h100:8", compiled=3, workdir=own, **SETTINGS | {"steps": 8})


def test_what_cannot_be_searched(folder, monkeypatch):
    with pytest.raises(InputError, match="topology='cpu': expected devices whose speed is known"):
        search(folder, 8, "cpu", **SETTINGS)
    monkeypatch.setattr(searches, "room", lambda target: 0)
    with pytest.raises(InputError, match="on no mesh of h100:8 a single row at a time fits"):
        search(folder, 8, "h100:8", **SETTINGS)


def test_a_machine_without_a_compiler_here(folder, monkeypatch):
    monkeypatch.setattr(aot, "compiled", lambda *given: pytest.fail("compiled"))
    plan = search(folder, 8, "h100:8", **SETTINGS)
    assert plan["source"] == "formulas" and plan["fits"] and plan["mesh"]["expert"] == 8
