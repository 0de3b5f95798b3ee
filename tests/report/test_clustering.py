"""The pictures outside the page: well-formed files in the page's colours that show the given numbers."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from modjax.cluster import dendrogram
from modjax.report import clustering, picture, transfer
from modjax.report.svg import VARIABLES

ROWS = [
    {"clusters": 1, "inertia": 3.0, "silhouette": None, "adjusted_rand": 0.0},
    {"clusters": 2, "inertia": 2.0, "silhouette": 0.25, "adjusted_rand": 0.5},
    {"clusters": 3, "inertia": 1.5, "silhouette": 0.4, "adjusted_rand": 1.0},
    {"clusters": 4, "inertia": 1.2, "silhouette": 0.1, "adjusted_rand": 0.7},
]


def read(stem):
    """The text of the SVG, after checks that it is well-formed and that the PNG exists."""
    text = stem.with_suffix(".svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert "#0a01" not in text  # a stand-in colour that was not replaced
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return text


@pytest.fixture(scope="module")
def study():
    """The result of a transfer study of five pairs."""
    rho = {"value": 0.6, "low": -0.1, "high": 0.9}
    gain = {"value": 0.1, "low": 0.0, "high": 0.2}
    pairs = [
        {"names": ["a", "b"], "families": ["x", "x" if i % 2 else "y"], "similarity": 0.1 * i, "gain": 0.2 * i - 0.3}
        for i in range(5)
    ]
    bins = [{"low": 0.0, "high": 0.1, "pairs": 2, "gain": gain}, {"low": 0.2, "high": 0.4, "pairs": 3, "gain": gain}]
    return {"spearman": rho, "bins": bins, "pairs": pairs}


def test_a_sweep_names_the_best_number_of_each_measure(tmp_path):
    clustering.write_sweep(ROWS, tmp_path / "sweep")
    text = read(tmp_path / "sweep")
    assert "3 clusters, 0.40" in text and "3 clusters, 1.00" in text
    assert all(title in text for title in ("Silhouette", "Inertia", "Adjusted Rand index with families"))


def test_what_was_not_measured_has_no_panel(tmp_path):
    clustering.write_sweep([row | {"adjusted_rand": None} for row in ROWS], tmp_path / "sweep")
    assert "Adjusted Rand" not in read(tmp_path / "sweep")


@pytest.mark.parametrize("n_experts", [2, 7, 130])
def test_a_tree_names_its_experts_where_there_is_room(tmp_path, n_experts):
    x_ED = np.random.default_rng(0).normal(size=(n_experts, 9))
    tree = dendrogram(np.corrcoef(x_ED))
    names = [f"expert & {i}" for i in range(n_experts)]
    clustering.write_dendrogram(tree, names, [i % 3 for i in range(n_experts)], tmp_path / "tree")
    assert read(tmp_path / "tree").count("expert &amp; ") == (0 if n_experts > 100 else n_experts)


def test_equal_experts_make_a_tree_too(tmp_path):
    clustering.write_dendrogram(dendrogram(np.ones((3, 3))), list("abc"), [0, 0, 0], tmp_path / "tree")
    read(tmp_path / "tree")


def test_a_branch_has_its_clusters_colour_where_all_below_it_are_of_one(tmp_path):
    similarity_EE = np.array([[1, 0.9, 0.2, 0.2], [0.9, 1, 0.2, 0.2], [0.2, 0.2, 1, 0.8], [0.2, 0.2, 0.8, 1]])
    clustering.write_dendrogram(dendrogram(similarity_EE), list("abcd"), [0, 0, 1, 1], tmp_path / "tree")
    strokes = re.findall(r"stroke: var\(--(cluster-\d|muted)\)", read(tmp_path / "tree"))
    assert [strokes.count(one) for one in ("cluster-0", "cluster-1", "muted")] == [4, 4, 1]


def test_a_study_shows_its_correlation_and_both_kinds_of_pairs(tmp_path, study):
    transfer.write(study, tmp_path / "transfer")
    text = read(tmp_path / "transfer")
    assert "rank correlation 0.60, 95 % of draws -0.10 to 0.90" in text
    assert "one family" in text and "two families" in text


def test_pairs_of_unknown_family_are_of_one_kind(tmp_path, study):
    pairs = [pair | {"families": [None, None]} for pair in study["pairs"]]
    transfer.write(study | {"pairs": pairs}, tmp_path / "transfer")
    assert "families" not in read(tmp_path / "transfer")


def test_the_page_has_both_colours_of_every_variable():
    light, dark = picture.palettes()
    for variable in VARIABLES:
        assert light[variable] != dark[variable]


def test_the_same_drawing_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        clustering.write_sweep(ROWS, tmp_path / name / "sweep")
    one, two = ((tmp_path / name / "sweep.svg").read_bytes() for name in ("one", "two"))
    assert one == two
