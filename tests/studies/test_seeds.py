"""A study over seeds: its folders, and means and ranges of the methods that all runs have scored."""

import pytest

from modjax.errors import InputError
from modjax.studies import seeds


def study(seed, folder):
    methods = [
        {"name": "arrow", "in_distribution": {"loss": 1.0 + seed, "examples": 8}, "held_out": {"loss": 2.0 - seed}},
        {"name": "oracle", "in_distribution": {"loss": 0.5}, "held_out": {}},
    ]
    failed = {"name": "ties", "error": "no"} if seed else {"name": "ties", "in_distribution": {"loss": 1.0}}
    study.folders[seed] = folder
    return {"methods": [*methods, failed]}


study.folders = {}


def test_means_and_ranges_over_seeds(tmp_path):
    found = seeds(study, tmp_path, (0, 1, 2))
    assert study.folders == {seed: tmp_path / f"seed-{seed}" for seed in (0, 1, 2)}
    assert found == {
        "arrow": {
            "in_distribution": {"loss": {"mean": 2.0, "low": 1.0, "high": 3.0}},
            "held_out": {"loss": {"mean": 1.0, "low": 0.0, "high": 2.0}},
        },
        "oracle": {"in_distribution": {"loss": {"mean": 0.5, "low": 0.5, "high": 0.5}}, "held_out": {}},
    }


def test_no_seeds_are_refused(tmp_path):
    with pytest.raises(InputError, match="no seeds; expected at least one"):
        seeds(study, tmp_path, ())
