"""The steps of recipes, on tiny models. No timing is asserted."""

import json
import math

import pytest
import recipe_steps

from modjax.models import local


def test_a_job_is_that_of_the_recipe():
    config, settings = recipe_steps.job("phi2_h100_8", steps=3, small=False)
    assert config == local.config("phi-2")
    assert (settings.steps, settings.batch, settings.length, settings.rank) == (3, 16, 2048, 4)
    assert settings.tie == (("attn.q", "attn.k", "attn.v"),) and settings.micro == 0


@pytest.mark.slow
def test_recipes_are_trained_beside_their_plans(monkeypatch, tmp_path):
    names, out = ["phi2_h100_8", "mistral_v5p_128"], tmp_path / "steps.json"
    monkeypatch.setattr("sys.argv", ["recipe_steps.py", *names, "--small", "--repeats=1", f"--out={out}"])
    recipe_steps.main()
    found = json.loads(out.read_text())["recipes"]
    assert list(found) == names
    for one in found.values():
        assert one["finite"] and one["loss_before"] == pytest.approx(math.log(1024), abs=0.1)
        assert one["plan"]["step_seconds"] > 0 and one["rows_at_a_time"] == 2
