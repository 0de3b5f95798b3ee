"""The plans of recipes: each is there, the documentation has them, and made anew they are the same."""

import importlib.util
import pathlib

import pytest
import recipe_plans

from modjax.models import local
from modjax.parallel.mesh import shapes_mesh
from modjax.train import estimate
from modjax.train.job import Job
from modjax.train.settings import Settings

NAMES = recipe_plans.names()
HOURS = ("hours", "chip_hours")
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "plan.md"


def test_every_recipe_has_a_plan_and_fits():
    assert {path.stem for path in recipe_plans.PLANS.iterdir()} == set(NAMES)
    assert all(recipe_plans.kept(name)["fits"] for name in NAMES)
    assert not [name for name in NAMES if any("expert" in axes for axes in recipe_plans.kept(name)["wire"])]


def test_the_documentation_has_the_table():
    assert recipe_plans.table({name: recipe_plans.kept(name) for name in NAMES}) in DOCS.read_text()


def test_unknown_recipes_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["recipe_plans.py", "phi3", "smollm2_laptop"])
    with pytest.raises(SystemExit):
        recipe_plans.main()
    assert "no recipe phi3; expected phi2_v5e_256, " in capsys.readouterr().err


def test_a_plan_is_written_as_the_command_makes_it(monkeypatch, tmp_path):
    kept = recipe_plans.kept("smollm2_laptop")
    monkeypatch.setattr("sys.argv", ["recipe_plans.py", "smollm2_laptop"])
    monkeypatch.setattr(recipe_plans, "PLANS", tmp_path / "plans")
    recipe_plans.main()
    _same(recipe_plans.kept("smollm2_laptop"), kept)
    assert [path.name for path in (tmp_path / "plans").iterdir()] == ["smollm2_laptop.json"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_made_anew_is_the_same(name):
    kept = recipe_plans.kept(name)
    if kept["source"] == "compiler" and importlib.util.find_spec("libtpu") is None:
        pytest.fail("libtpu is missing: pip install 'modjax[plan]' on Python 3.11; `make test-all` does it")
    _same(recipe_plans.made(name), kept)


def _same(plan, kept):
    """Sizes, arguments and wire to the byte; memory and time, whose last digits move with any edit, to 0.1 %."""
    (given, found), (expected, measured) = map(_parts, (plan, kept))
    assert given == expected
    assert found == pytest.approx(measured, rel=1e-3)


def _parts(plan):
    """(what sizes alone decide, what the compiler does)."""
    memory, step = plan["memory"], plan["step"]
    compiled = ("memory", "step", "buffers", "experts_that_fit", "tokens_per_second", "share_of_peak", *HOURS)
    given = {key: value for key, value in plan.items() if key not in compiled}
    given["arguments"] = {kind: size for kind, size in memory["arguments"].items() if kind != "padding"}
    given["largest"] = plan.get("buffers", [None])[0]
    return given, step | {key: memory[key] for key in ("temporaries", "total")} | {key: plan[key] for key in HOURS}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if recipe_plans.kept(name)["source"] == "compiler"])
def test_formulas_and_the_compiler_agree(name):
    """Memory besides the arguments within a tenth, and, where something is sent, bytes on the wire too."""
    kept, recipe = recipe_plans.kept(name), recipe_plans.config(name)
    mesh = shapes_mesh(kept["chips"], **kept["mesh"])
    settings = Settings(**recipe.train.to_dict())
    job = Job(local.config(recipe.model), settings, kept["experts"], kept["targets"], mesh)
    assert estimate.temporaries(job) == pytest.approx(kept["memory"]["temporaries"], rel=0.1)
    assert estimate.exchange(job) == pytest.approx(kept["wire"], rel=0.1)
