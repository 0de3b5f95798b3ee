"""`modjax cluster`: its methods, the sweep with its pictures, agreement with another clustering, new experts."""

import json

import pytest

from modjax.cluster import Clusters
from modjax.experts.library import Library


@pytest.fixture
def library(random_library, tmp_path):
    """Five experts, of task a to c and twice more of c, in a folder."""
    tasks = [("a",), ("b",), ("c",), ("c",), ("c",)]
    random_library({"attn.q": (16, 16)}, experts=5, names=list("abcde"), tasks=tasks).save(tmp_path / "library")
    return tmp_path / "library"


@pytest.fixture
def cluster(modjax, config_file, library, tmp_path):
    """A function that runs the verb on that library; gives exit code, output, errors and the job's folder."""

    def run(name, *arguments):
        folder = tmp_path / name
        return *modjax(
            "cluster", f"--config={config_file}", f"--config.library={library}", f"--workdir={folder}", *arguments
        ), folder

    return run


def add_method(config_file, method):
    config_file.write_text(config_file.read_text().replace("'cluster': {", f"'cluster': {{'method': '{method}', "))


def test_a_sweep_writes_its_figures_and_pictures(cluster):
    code, out, err, folder = cluster("swept", "--sweep=2:4")
    assert code == 0, err
    assert [line.split(":")[0] for line in out.splitlines()[-3:]] == ["2 clusters", "3 clusters", "4 clusters"]
    found = json.loads((folder / "sweep.json").read_text())
    clusters = Clusters.load(folder / "clusters.json")
    assert found["experts"] == list("abcde") and [row["clusters"] for row in found["sweep"]] == [2, 3, 4]
    assert found["sweep"][0]["labels"] == clusters.labels.tolist()
    assert all(-1 <= row["silhouette"] <= 1 and -1 <= row["adjusted_rand"] <= 1 for row in found["sweep"])
    assert len(found["dendrogram"]) == 4
    for name in ("sweep", "dendrogram"):
        assert (folder / f"{name}.svg").read_text().startswith("<svg xmlns=")
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("text", ["2", "4:2", "a:b", "-1:2"])
def test_a_sweep_over_no_numbers_is_refused(cluster, text):
    code, _, err, _ = cluster("refused", f"--sweep={text}")
    assert code == 2 and f"--sweep={text}; expected FIRST:LAST" in err


def test_a_sweep_beyond_the_experts_is_refused(cluster):
    code, _, err, _ = cluster("refused", "--sweep=2:6")
    assert code == 2 and "clusters=6: expected 1 to 5, the number of experts" in err


def test_random_clusters_agree_little_with_those_whose_sizes_they_have(cluster, config_file):
    code, _, err, found = cluster("mbc")
    assert code == 0, err
    add_method(config_file, "random")
    code, out, err, folder = cluster("random", f"--against={found / 'clusters.json'}")
    assert code == 0, err
    assert "adjusted Rand index against" in out
    sizes = [sorted(map(len, Clusters.load(at / "clusters.json").names.values())) for at in (found, folder)]
    assert sizes[0] == sizes[1]


def test_a_clustering_agrees_with_itself_and_not_with_one_of_other_experts(cluster, library):
    *_, folder = cluster("first")
    code, out, err, _ = cluster("second", f"--against={folder / 'clusters.json'}")
    assert code == 0, err
    assert out.splitlines()[-1].endswith(": 1.000")
    Library.load(library)[["a", "b", "c"]].save(library.with_name("fewer"))
    code, _, err, _ = cluster(
        "third", f"--config.library={library.with_name('fewer')}", f"--against={folder / 'clusters.json'}"
    )
    assert code == 2 and "only one has d, e" in err


def test_embedding_clusters_are_of_the_tasks_texts(cluster, config_file, tmp_path):
    texts = {"a": "red", "b": "red red", "c": "what is the name of this dog"}
    lines = [{"task": task, "source": text, "target": "yes", "split": "train"} for task, text in texts.items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    add_method(config_file, "embedding")
    code, _, err, folder = cluster("embedding", f"--config.tasks={tmp_path / 'texts.jsonl'}")
    assert code == 0, err
    a, b, *c = Clusters.load(folder / "clusters.json").labels
    assert a == b and len({a, *c}) == 2  # experts of one task have one text


@pytest.mark.parametrize("method", ["mbc", "random", "embedding"])
def test_restarts_are_those_of_the_config(cluster, config_file, method):
    add_method(config_file, method)
    code, _, err, _ = cluster("none", "--config.cluster.restarts=0")
    assert code == 2 and "restarts=0: expected a whole number, at least 1" in err


def test_new_experts_join_the_groups_they_are_nearest_to(cluster, modjax, config_file, library, tmp_path):
    Library.load(library)["e"].save(tmp_path / "new")
    code, out, err, folder = cluster("placed", f"--nearest={tmp_path / 'new'}")
    assert code == 0, err
    clusters, found = (Clusters.load(folder / "clusters.json"), json.loads((folder / "nearest.json").read_text()))
    assert found["labels"] == {"e": int(clusters.labels[4])} and "e: cluster" in out.splitlines()[-1]
    assert sorted({task for tasks in found["groups"].values() for task in tasks}) == ["a", "b", "c"]
    code, _, err = modjax(
        "train",
        f"--config={config_file}",
        f"--config.groups={folder / 'nearest.json'}",
        f"--workdir={tmp_path / 'mbc'}",
    )
    assert code == 0, err


def test_an_unknown_method_is_named(cluster, config_file):
    add_method(config_file, "astrology")
    code, _, err, _ = cluster("none")
    assert code == 2 and "'astrology'; expected one of mbc, random, embedding" in err
