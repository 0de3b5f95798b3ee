"""What `modjax train` makes beside a private library."""

import json

import pytest

from modjax.experts.library import Library
from modjax.routing import load_router


@pytest.fixture
def train(modjax, config_file, tmp_path):
    def run(*overrides, into="job"):
        return modjax("train", f"--config={config_file}", f"--workdir={tmp_path / into}", *overrides)

    return run


def test_poly_leaves_skills_and_the_router_that_weighs_them(train, modjax, config_file, tmp_path):
    code, _, err = train("--config.recipe=poly", "--config.poly.heads=4")
    assert code == 0, err
    router = load_router(tmp_path / "job" / "router.safetensors")
    assert Library.load(tmp_path / "job" / "library").names == ("skill 0", "skill 1")
    assert router.tasks == ("a", "b", "c") and router.weights.shape == (2, 3, 4, 2)
    code, out, _ = train("--config.recipe=poly", "--config.poly.heads=4")
    assert code == 0 and "complete" in out
    code, out, err = modjax(
        "evaluate", f"--config={config_file}", f"--config.library={tmp_path / 'job' / 'library'}",
        f"--config.method.router.name={tmp_path / 'job' / 'router.safetensors'}", f"--workdir={tmp_path / 'scores'}",
    )  # fmt: skip
    assert code == 0, err
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert set(scores["tasks"]) == {"a", "b", "c", "d"}  # of a task without weights of its own, too


def test_full_leaves_a_model(train, modjax, config_file, tmp_path):
    code, _, err = train("--config.recipe=full")
    assert code == 0, err
    code, out, _ = train("--config.recipe=full")
    assert code == 0 and "complete" in out
    model = f"--config.model={tmp_path / 'job' / 'model'}"
    code, out, err = modjax("evaluate", f"--config={config_file}", model, f"--workdir={tmp_path / 'scores'}")
    assert code == 0 and "in distribution" in out, err


def test_a_shared_a_is_trained_and_read_back(train, tmp_path):
    code, _, err = train("--config.train.shared_a=true")
    assert code == 0, err
    a = Library.load(tmp_path / "job" / "library").loras["attn.q"].a
    assert (a == a[:, :1]).all()


def test_an_unknown_recipe_is_named(train):
    code, _, err = train("--config.recipe=soup")
    assert code == 2 and "config.recipe: unknown recipe 'soup'; expected one of lora, poly, full" in err
