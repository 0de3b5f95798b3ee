"""`modjax transfer` on a tiny model: what it writes, that it resumes, and what it refuses."""

import json

import pytest

from modjax.experts.library import Library


@pytest.fixture
def study(config_file):
    """The tiny config with a transfer study in it."""
    text = config_file.read_text().replace("'groups':", "'transfer': {'pairs': 3, 'bins': 2, 'seed': 0}, 'groups':")
    config_file.write_text(text)
    return config_file


@pytest.fixture
def arguments(modjax, study, tmp_path):
    """Those of a study of a private library just trained."""
    code, _, err = modjax("train", f"--config={study}", f"--workdir={tmp_path / 'private'}")
    assert code == 0, err
    library = f"--config.library={tmp_path / 'private' / 'library'}"
    return "transfer", f"--config={study}", library, f"--workdir={tmp_path / 'transfer'}"


def test_transfer_writes_its_figures_and_a_picture_and_resumes(modjax, arguments, tmp_path):
    code, out, err = modjax(*arguments)
    assert code == 0, err
    assert "Spearman's rank correlation" in out and out.count("mean gain") == 2
    folder = tmp_path / "transfer"
    found = json.loads((folder / "transfer.json").read_text())
    assert sorted(pair["names"] for pair in found["pairs"]) == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert sum(one["pairs"] for one in found["bins"]) == 3
    for pair in found["pairs"]:
        assert pair["families"] == pair["names"]
        for private, joint, gain in zip(pair["private"], pair["joint"], pair["gains"], strict=True):
            assert gain == pytest.approx(private - joint)
        assert pair["gain"] == pytest.approx(sum(pair["gains"]) / 2)
    assert (folder / "transfer.svg").read_text().startswith("<svg xmlns=") and (folder / "transfer.png").exists()
    joint = Library.load(folder / "joint" / "library")
    assert [set(tasks) for tasks in joint.tasks] == [set(pair["names"]) for pair in found["pairs"]]
    stages = (folder / "stages.json").read_text()
    (folder / "transfer.json").unlink()
    code, again, _ = modjax(*arguments)
    assert code == 0 and again.splitlines()[-3:] == out.splitlines()[-3:]
    assert (folder / "stages.json").read_text() == stages  # nothing was done twice
    joint[::-1].save(folder / "joint" / "library")
    code, _, err = modjax(*arguments)
    assert code == 2 and "trained.json: this folder was made with trained.joint = '" in err


def test_compute_that_does_not_match_is_refused(modjax, arguments):
    code, _, err = modjax(*arguments, "--config.train.steps=5")
    assert code == 2
    assert "steps = 4, the joint experts with 5" in err


def test_more_pairs_than_there_are_are_refused(modjax, arguments):
    code, _, err = modjax(*arguments, "--config.transfer.pairs=4")
    assert code == 2
    assert "4 pairs of 3 experts" in err
