"""The house rules: imports follow one spine, importing is cheap, configs load, no pickle, no torch in the core."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "modjax"

# From the bottom to the top. A file imports from its own package and from packages below it; packages that share a line
# do not import each other. `modjax` itself, which finds its public names when they are asked for, imports nothing.
SPINE = [
    ("errors",),
    ("arguments", "files"),
    ("metrics",),
    ("report",),
    ("claim", "compile_cache", "lock"),
    ("ops",),
    ("parallel",),
    ("digest", "progress"),
    ("models",),
    ("data",),
    ("experts",),
    ("cluster", "merge", "routing"),
    ("generation",),
    ("model",),
    ("eval", "checkpoint"),
    ("train",),
    ("adapt",),
    ("studies",),
    ("cli",),
    ("__main__",),
]
HEIGHT = {package: height for height, packages in enumerate(SPINE) for package in packages}


def _name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {_name(path): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def _imports(name):
    """The modules of modjax that a file imports: at its top, within functions, for type hints alone."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "modjax":
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {part if part in FILES else node.module for part in parts}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
    return found - {"modjax"}


def _package(name):
    return name.split(".")[1]


def test_imports_follow_the_spine():
    against = [
        f"{name} imports {imported}"
        for name in FILES
        if name != "modjax"
        for imported in _imports(name)
        if _package(imported) != _package(name) and HEIGHT[_package(imported)] >= HEIGHT[_package(name)]
    ]
    assert not against


def test_no_files_import_each_other_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for imported in sorted(_imports(name)):
                visit(imported)
            done.add(path.pop())

    for name in sorted(FILES):
        visit(name)


def test_models_know_neither_experts_nor_routing():
    for name in FILES:
        if name.startswith("modjax.models"):
            assert not {"experts", "routing"} & set(map(_package, _imports(name)))


def test_ops_import_jax_alone():
    for name in FILES:
        if name.startswith("modjax.ops"):
            assert set(map(_package, _imports(name))) <= {"ops"}


def test_nothing_is_pickled():
    for path in PACKAGE.rglob("*.py"):
        names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                 for alias in node.names}  # fmt: skip
        assert not names & {"pickle", "dill", "cloudpickle", "joblib"}


def test_text_is_split_at_line_ends_alone():
    """`modjax.files.split_lines` splits; these methods also split at U+2028, U+0085 and form feeds."""
    for path in PACKAGE.rglob("*.py"):
        called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not called & {"splitlines", "readlines"}, path


def test_importing_modjax_imports_neither_jax_nor_torch():
    code = "import sys, modjax; print([name for name in ('jax', 'torch', 'transformers') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_resolve():
    import modjax

    for name in modjax.__all__:
        assert getattr(modjax, name) is not None


@pytest.mark.parametrize("variant", ["", ":quick", ":phi2,flan,micro=4", ":mistral,quick", ":demo,uniform,mhr"])
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
