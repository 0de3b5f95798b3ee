"""The analysis of routers as the page shows it."""

import re

import numpy as np
import pytest

from modjax.report.analysis import shown, text


@pytest.fixture
def method(results):
    return results["analysis"][0]


def test_figures_are_means_over_layers_and_first_over_sites_too(method):
    found = shown(0, method)
    assert [row["site"] for row in found["rows"]] == ["all sites", *method["sites"]]
    entropy_LS = np.asarray(method["entropy"])
    assert found["rows"][0]["entropy"] == f"{entropy_LS.mean():.2f}"
    assert found["rows"][2]["share"] == f"{100 * entropy_LS[:, 1].mean() / np.log(4):.1f}"
    assert (found["accuracy"], found["chance"]) == ("61.0", "25.0")


def test_lines_have_their_site_as_tooltip(method):
    assert re.findall("<title>([^<]*)</title>", shown(3, method)["plot"]) == method["sites"] * 2


def test_without_an_oracle_there_is_no_agreement(method):
    method |= {"tokens_right": None, "examples_right": None, "accuracy": None}
    found = shown(0, method)
    assert found["rows"][0]["tokens_right"] == "–" and found["accuracy"] is None
    assert text(method).endswith("there is no oracle to agree with")
    assert "oracle" not in found["plot"]


def test_each_site_has_a_map_of_its_own(method):
    found = shown(0, method)
    assert all(f">{site}</text>" in found["sites"] for site in method["sites"])
    assert found["sites"].count("<image") == len(method["sites"])
    assert found["largest"] == f"{np.max(method['use']):.2f}"


def test_many_experts_are_drawn_without_names(method):
    rng = np.random.default_rng(0)
    method |= {"experts": [f"expert{i}" for i in range(100)], "use": rng.random((30, 4, 100)).tolist()}
    assert "expert7" not in shown(0, method)["plot"]
