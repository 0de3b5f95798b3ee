"""The numbers behind the drawings."""

import re

import numpy as np
import pytest

from modjax.report import plots
from modjax.report.colours import cluster_of, expert_clusters, expert_colours


def test_binned_means_leave_out_what_was_not_measured():
    steps, means = plots.binned(range(1, 8), [1.0, 3.0, None, 5.0, float("nan"), None, 7.0], points=4)
    np.testing.assert_allclose(steps, [1.5, 3.5, 5.5, 7.0])
    np.testing.assert_allclose(means, [2.0, 5.0, np.nan, 7.0])


@pytest.mark.parametrize("length", [0, 1, 119, 120, 121, 1000])
def test_binned_curves_have_few_points_and_keep_the_mean(length):
    values = np.linspace(3, 1, length)
    steps, means = plots.binned(range(length), values)
    assert len(steps) == len(means) <= plots.POINTS
    assert min(length, 60) <= len(steps)
    if 0 < length <= plots.POINTS:
        np.testing.assert_allclose(means, values)


def test_clusters_are_put_side_by_side_in_their_own_order():
    assert plots.cluster_order([1, 0, 1, 0]).tolist() == [1, 3, 0, 2]


def test_matrix_names_follow_the_clusters():
    drawing = plots.similarity(["a", "b", "c"], [[1, 0, 0.9], [0, 1, 0], [0.9, 0, 1]], [1, 0, 1])
    names = re.findall(r">([abc])</text>", drawing)
    assert names == ["b", "a", "c"]
    assert "var(--cluster-0)" in drawing and "var(--cluster-1)" in drawing


def test_one_expert_alone_can_be_drawn():
    assert "<svg" in plots.similarity(["only"], [[1.0]], [0])


def test_lines_have_their_expert_as_tooltip():
    curve = {"name": "private", "steps": [1, 2], "loss": {"a & b": [2.0, 1.0]}}
    assert "<title>a &amp; b</title>" in plots.curves([curve], {})[0]


def test_experts_of_a_cluster_share_a_hue_and_differ_in_shade():
    clusters = {"a": 0, "b": 0, "c": 1}
    colours = expert_colours(["a", "b", "c"], clusters)
    assert len(set(colours)) == 3
    assert [re.search(r"cluster-(\d)", colour)[1] for colour in colours] == ["0", "0", "1"]


def test_experts_without_clusters_take_hues_in_turn():
    assert expert_colours(["a", "b"], {}) == ["var(--cluster-0)", "var(--cluster-1)"]


def test_cluster_of_an_expert():
    results = {
        "tasks": [{"name": "a", "cluster": 4}, {"name": "b", "cluster": None}],
        "similarity": {"experts": ["c"], "labels": [2]},
    }
    clusters = expert_clusters(results)
    expected = {"a": 4, "b": None, "c": 2, "Cluster 3": 3, "mbc-7": 7, "task7": None}
    assert {name: cluster_of(name, clusters) for name in expected} == expected
