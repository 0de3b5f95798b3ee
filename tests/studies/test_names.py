"""Names of any text: tasks, clusters, methods and stages are trained, kept, reported and resumed under them."""

import dataclasses
import unicodedata
from xml.dom import minidom

import numpy as np
import pytest
from scipy.cluster import hierarchy

from modjax import cluster, data, report
from modjax.data import sources
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval import Sample
from modjax.experts.library import Library
from modjax.files import write_json
from modjax.report import clustering
from modjax.studies import Experiment, leaderboard
from modjax.studies.stages import Stages
from modjax.studies.transfer import joint_names
from modjax.train.lora import train_library

# Of file systems, of the shell, of Windows, of Unicode, of HTML and of modjax's own files.
NAMES = ["a/b", "a-b", "a b", "A B", "..", ".", "-flag", "--config=x", "CON", "nul.txt", "x" * 300, "🙂", "اسم", "任务"]
NAMES += [
    "é",
    unicodedata.normalize("NFD", "é"),
    "a\nb\tc",
    "\x1b[1m",
    "~",
    "$HOME",
    "%d{}",
    "*?[a]",
    "C:\\x",
    "<b>&amp;",
]
NAMES += [
    "base",
    "library",
    "shared",
    "private",
    "stages",
    "leaderboard",
    "name",
    "loss",
    "__proto__",
    "_a",
    "a + b",
    "0",
]
SETTINGS = {"steps": 2, "batch": 1, "length": 32, "rank": 2, "alpha": 4.0, "sites": ("attn.q",), "save_every": 1}


@pytest.fixture(scope="module")
def named(tasks):
    """A task for each name."""
    some = dataclasses.replace(tasks["a"], examples=(*tasks["a"].split("train")[:4], *tasks["a"].split("test")[:2]))
    return Tasks(dataclasses.replace(some, name=name, definition="") for name in NAMES)


@pytest.fixture(scope="module")
def experts(model, named, tmp_path_factory):
    return train_library(model, named, None, tmp_path_factory.mktemp("run"), progress=False, **SETTINGS)


def test_task_folders(named, tmp_path):
    sources.write(named, tmp_path / "new" / "folder")
    assert dict(data.load(tmp_path / "new" / "folder")) == dict(named)
    files = [file.name for file in (tmp_path / "new" / "folder").iterdir()]
    assert len({unicodedata.normalize("NFD", file).casefold() for file in files}) == len(NAMES) + 1


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_task_is_found_by_its_name(named, tmp_path, name):
    sources.write(named.select([name, "é", "a b"] if name not in ("é", "a b") else [name]), tmp_path)
    assert list(data.load(tmp_path, only=[name])) == [name]


def test_libraries(experts, tmp_path):
    experts.save(tmp_path / "library")
    assert Library.load(tmp_path / "library").names == experts.names


def test_training_resumes(model, named, experts, tmp_path):
    some = named.select(NAMES[:6])
    groups = {f"{name} of {name}": (name,) for name in some}
    for _ in range(2):
        again = train_library(model, some, groups, tmp_path / "run", progress=False, **SETTINGS)
        assert again.names == tuple(groups)


def test_clusters(experts, tmp_path):
    assert experts.names == tuple(NAMES) and experts.tasks == tuple((name,) for name in NAMES)
    found = cluster.mbc(experts, clusters=2, components=4)
    write_json(tmp_path / "clusters.json", found.as_json(experts))
    assert cluster.Clusters.load(tmp_path / "clusters.json").names == found.names


def test_stages_have_a_file_each(tmp_path):
    stages = Stages(tmp_path)
    for number, name in enumerate(NAMES):
        assert stages.json(f"method {name}", lambda number=number: number) == number
    again = Stages(tmp_path)
    assert [again.json(f"method {name}", pytest.fail) for name in NAMES] == list(range(len(NAMES)))
    assert list(again.seconds) == [f"method {name}" for name in NAMES]
    files = {unicodedata.normalize("NFD", file.name).casefold() for file in tmp_path.iterdir()}
    assert len(files) == len(NAMES) + 1 and all(len(file.encode()) < 200 for file in files)


def test_methods_are_kept_and_reported(model, named, experts, tmp_path):
    some = named.select(["a/b", "任务", "<b>&amp;", "__proto__", "name"])
    experiment = Experiment(model, some, {"library": experts[list(some)]}, Sample(1, length=32), 2, workdir=tmp_path)
    lines = {
        name: {"library": ""} for name in ("a/b", "a-b", "a b", "A B", "..", "-flag", "x" * 300, "任务", "<b>&amp;")
    }
    found = leaderboard(experiment, lines, analyse=())
    assert [method["name"] for method in found["methods"]] == list(lines)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert leaderboard(experiment, lines, analyse=())["methods"] == found["methods"]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")} == before  # nothing was measured twice
    page = report.write(found, tmp_path / "report").read_text(encoding="utf-8")
    assert "任务" in page and "<b>&amp;<" not in page and "&lt;b&gt;&amp;amp;" in page
    assert report.text_table(found)


@pytest.mark.parametrize("name", ["", " "])
def test_names_without_text_are_refused(model, tasks, tmp_path, name):
    with pytest.raises(InputError, match="name=.*not blank"):
        Tasks([dataclasses.replace(tasks["a"], name=name)])
    experiment = Experiment(model, tasks, {}, Sample(1, length=32), 2, workdir=tmp_path)
    with pytest.raises(InputError, match="method name"):
        leaderboard(experiment, {name: {"library": ""}})


def test_joint_experts_of_a_transfer_study_have_names_of_their_own(random_library):
    """The pair of "a" and "b + c", and that of "a + b" and "c"."""
    library = random_library({"attn.q": (16, 16)}, experts=4, names=["a", "b + c", "a + b", "c"])
    found = joint_names(library, [(0, 1), (2, 3), (0, 3)])
    assert found == {(0, 1): "a + b + c", (2, 3): "a + b + c (2, 3)", (0, 3): "a + c"}


def test_pictures(tmp_path):
    n_experts = len(NAMES)
    tree = hierarchy.linkage(np.random.default_rng(0).normal(size=(n_experts, 3)), "average")
    clustering.write_dendrogram(tree, NAMES, [0] * n_experts, tmp_path / "tree")
    text = "".join(minidom.parse(str(tmp_path / "tree.svg")).documentElement.toxml())
    assert "任务" in text and "&lt;b&gt;" in text and "\x1b" not in text
