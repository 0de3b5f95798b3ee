"""The house rules: imports run one way, importing is cheap, configs load, no pickle, no torch in the core."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "modjax"

# A module may import rooms of its own floor and below.
FLOORS = [
    {"ops", "errors", "files"},
    {"models", "parallel"},
    {"experts"},
    {"routing", "data", "model", "generation"},
    {"train", "adapt", "eval", "report", "checkpoint"},
    {"cli"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in FLOOR)


def _room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "modjax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modjax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("modjax."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_house(path):
    above = {room for room in _imported_rooms(path) if FLOOR[room] > FLOOR[_room(path)]}
    assert not above, f"{path.name} imports {above}, which stand above it"


def test_models_know_neither_experts_nor_routing():
    for path in (PACKAGE / "models").glob("*.py"):
        assert not {"experts", "routing"} & set(_imported_rooms(path))


def test_ops_import_jax_alone():
    for path in (PACKAGE / "ops").glob("*.py"):
        assert set(_imported_rooms(path)) <= {"ops"}


def test_nothing_is_pickled():
    for path in PACKAGE.rglob("*.py"):
        names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                 for alias in node.names}  # fmt: skip
        assert not names & {"pickle", "dill", "cloudpickle", "joblib"}


def test_importing_modjax_imports_neither_jax_nor_torch():
    code = "import sys, modjax; print([name for name in ('jax', 'torch', 'transformers') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_resolve():
    import modjax

    for name in modjax.__all__:
        assert getattr(modjax, name) is not None


@pytest.mark.parametrize("variant", ["", ":quick", ":phi2", ":mistral,quick", ":demo,uniform,mhr"])
@pytest.mark.parametrize("job", [path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common"])
def test_configs_load_with_their_variants(job, variant, monkeypatch):
    import importlib

    from modjax.train.settings import Settings

    monkeypatch.syspath_prepend(str(ROOT / "configs"))
    config = importlib.import_module(job).get_config(variant.removeprefix(":") or None)
    Settings(**config.train.to_dict())


def test_unknown_variant_is_named(monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "configs"))
    with pytest.raises(ValueError, match="'fast'"):
        importlib.import_module("private").get_config("fast")
